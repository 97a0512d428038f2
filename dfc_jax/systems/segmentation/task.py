"""The segmentation as a task for `training.run`."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dfc_jax.errors import ConfigError
from dfc_jax.nets import weights
from dfc_jax.nets.registry import Variables
from dfc_jax.systems.segmentation.examples import Examples
from dfc_jax.systems.segmentation.loss import intersection_over_union, segmentation_loss
from dfc_jax.systems.segmentation.networks import SPECS, TwoStreamSpec, apply, apply_train
from dfc_jax.training.step import Batch, LossFn
from dfc_jax.training.task import Task
from dfc_jax.types import Array


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Examples for scores that are never trained on.

    Attributes:
      name: the scores are called "<name>_iou" and so on.
      parts: ``parts()`` yields them some at a time, in NumPy.
    """

    name: str
    parts: Callable[[], Iterator[Examples]]


def find_spec(network: str) -> TwoStreamSpec:
    """The network of a name.

    Raises:
      ConfigError: there is none of that name.
    """
    if network not in SPECS:
        raise ConfigError(f"there is no segmentation {network!r}; choose from {sorted(SPECS)}")
    return SPECS[network]


def make_task(
    spec: TwoStreamSpec,
    *,
    batches: Callable[[int], Iterator[Batch]],
    examples: Partial,
    edge: float = 0.0,
    held_out: Sequence[HeldOut] = (),
    init_from: str | None = None,
    shown: int = 8,
) -> Task:
    """The task.

    Args:
      spec: the network.
      batches: see `Task`; what `examples` takes.
      examples: ``examples(batch, key)``, pure: the `Examples` of a step.
      edge: see `segmentation_loss`.
      held_out: sets for scores and pictures; without any there are neither.
      init_from: a weight file to start from.
      shown: examples of each set in a picture.

    Raises:
      WeightsError: the file cannot be read, or holds another network.
    """
    return Task(
        init=weights.start_from(init_from, spec),
        batches=batches,
        loss=make_loss(spec, examples, edge),
        save=weights.saver(spec),
        evaluate=partial(evaluate, spec, held_out) if held_out else None,
        draw=partial(draw, spec, held_out, shown) if held_out else None,
        unit="crops",
    )


def make_loss(spec: TwoStreamSpec, examples: Partial, edge: float) -> LossFn:
    """`segmentation_loss` of the examples of a step, for `Task.loss`."""

    def loss_fn(
        examples: Partial, variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        some: Examples = examples(batch, key)
        logits, state = apply_train(variables, some.image, spec)
        iou = intersection_over_union(logits, some.face, some.counted).mean()
        return segmentation_loss(logits, some.face, some.counted, edge), (state, {"iou": iou})

    return Partial(loss_fn, examples)


@partial(jax.jit, static_argnames="spec")
def _scores(spec: TwoStreamSpec, variables: Variables, some: Examples) -> dict[str, Array]:
    """Of each example (B,)."""
    logits = apply(variables, some.image, spec)

    def loss(logits: Array, face: Array, counted: Array) -> Array:
        return segmentation_loss(logits[None], face[None], counted[None])

    return {
        "iou": intersection_over_union(logits, some.face, some.counted),
        "loss": jax.vmap(loss)(logits, some.face, some.counted),
    }


def evaluate(
    spec: TwoStreamSpec, held_out: Sequence[HeldOut], variables: Variables
) -> dict[str, float]:
    """Mean IoU and loss of each set by "<name>_iou" and "<name>_loss"."""
    found: dict[str, float] = {}
    for each in held_out:
        parts = [_scores(spec, variables, some) for some in each.parts()]
        means = jax.tree.map(lambda *a: float(jnp.mean(jnp.concatenate(a))), *parts)
        found |= {f"{each.name}_{score}": value for score, value in means.items()}
    return found


def draw(
    spec: TwoStreamSpec, held_out: Sequence[HeldOut], shown: int, variables: Variables
) -> np.ndarray:
    """The first examples of each set, a row each: the crop, what is known (face white, what does
    not count grey), and the probability of the face."""
    rows = []
    for each in held_out:
        first = next(each.parts())
        some: Examples = jax.tree.map(lambda leaf: leaf[:shown], first)
        probability = np.asarray(jax.nn.sigmoid(apply(variables, some.image, spec)))
        known = np.where(np.asarray(some.counted) > 0.5, np.asarray(some.face), 0.5)
        grey = (np.repeat(one[..., None], 3, axis=-1) for one in (known, probability))
        rows += list(np.concatenate([np.asarray(some.image), *grey], axis=2))
    return np.round(255.0 * np.clip(np.concatenate(rows), 0.0, 1.0)).astype(np.uint8)
