"""The detector as a task for `training.run`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from dfc_jax.errors import ConfigError
from dfc_jax.nets import weights
from dfc_jax.nets.registry import Variables
from dfc_jax.systems.detector.cells import loss, targets
from dfc_jax.systems.detector.networks import (
    SPECS,
    STRIDE,
    DetectorSpec,
    apply,
    apply_train,
)
from dfc_jax.systems.detector.scenes import Scenes
from dfc_jax.training.step import Batch, LossFn
from dfc_jax.training.task import Task
from dfc_jax.types import Array


def find_spec(network: str) -> DetectorSpec:
    """The network of a name.

    Raises:
      ConfigError: there is none of that name.
    """
    if network not in SPECS:
        raise ConfigError(f"there is no detector {network!r}; choose from {sorted(SPECS)}")
    return SPECS[network]


def make_task(
    spec: DetectorSpec,
    *,
    batches: Callable[[int], Iterator[Batch]],
    scenes: Partial,
    held_out: Callable[[], Scenes] | None = None,
    init_from: str | None = None,
) -> Task:
    """The task.

    Args:
      spec: the network.
      batches: see `Task`; what `scenes` takes.
      scenes: ``scenes(batch, key)``, pure: the `Scenes` of a step.
      held_out: scenes for scores.
      init_from: a weight file to start from.

    Raises:
      WeightsError: the file cannot be read, or holds another network.
    """
    return Task(
        init=weights.start_from(init_from, spec),
        batches=batches,
        loss=make_loss(spec, scenes),
        save=weights.saver(spec),
        evaluate=None if held_out is None else partial(evaluate, spec, held_out),
        unit="scenes",
    )


def make_loss(spec: DetectorSpec, scenes: Partial) -> LossFn:
    """`cells.loss` of the scenes of a step, for `Task.loss`."""

    def loss_fn(
        scenes: Partial, variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        some: Scenes = scenes(batch, key)
        outputs, state = apply_train(variables, some.image, spec)
        parts = loss(outputs, _targets(some))
        return parts.pop("loss"), (state, parts)

    return Partial(loss_fn, scenes)


def _targets(some: Scenes) -> Any:
    height, width = (edge // STRIDE for edge in some.image.shape[1:3])
    return jax.vmap(lambda boxes, present: targets(boxes, present, height, width))(
        some.boxes, some.present
    )


@partial(jax.jit, static_argnames="spec")
def _scores(spec: DetectorSpec, variables: Variables, some: Scenes) -> dict[str, Array]:
    outputs = apply(variables, some.image, spec)
    wanted = _targets(some)
    found = (outputs.logit > 0.0) & wanted.known
    hit = jnp.sum(found & wanted.face)
    return {
        **loss(outputs, wanted),
        "precision": hit / jnp.maximum(found.sum(), 1),
        "recall": hit / jnp.maximum(wanted.face.sum(), 1),
    }


def evaluate(
    spec: DetectorSpec, held_out: Callable[[], Scenes], variables: Variables
) -> dict[str, float]:
    """The parts of the loss on held-out scenes, and precision and recall of their cells, by
    "held_out_<score>"."""
    scores = _scores(spec, variables, held_out())
    return {f"held_out_{name}": float(value) for name, value in scores.items()}
