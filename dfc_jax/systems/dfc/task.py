"""Dense correspondence as a task: what pretraining on pairs and refinement on photographs share.

Both learn from `Examples`; they differ in how the examples of a step are made, which comes in as
functions: ``batches(step)`` (NumPy, on the host) and ``examples(batch, key)`` (on the devices).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dfc_jax.errors import ConfigError, WeightsError
from dfc_jax.evaluation.metrics import flow_metrics, mask_iou, nme_percent
from dfc_jax.landmarks68 import INNER, OUTWARDS
from dfc_jax.nets import weights
from dfc_jax.systems.dfc.lift import flow_landmarks
from dfc_jax.systems.dfc.loss import Frame, Norm, Reduction, correspondence_loss
from dfc_jax.systems.dfc.networks import (
    SPECS,
    NetSpec,
    Variables,
    apply,
    apply_train,
    extend,
    init,
    matchability,
    untie,
)
from dfc_jax.systems.dfc.pairs import Examples
from dfc_jax.training.optim import check_choice
from dfc_jax.training.step import Batch, LossFn
from dfc_jax.training.task import Task
from dfc_jax.types import Array

Compute = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Settings of the loss in training.

    Attributes:
      norm, reduction, matchability_weight, frame: see `correspondence_loss`.
      compute: type in which the network computes; its parameters are float32 either way.

    Raises:
      ConfigError: there is no such choice, or a weight below 0.
    """

    norm: Norm = "l2"
    reduction: Reduction = "mean"
    matchability_weight: float = 1.0
    frame: Frame = "target"
    compute: Compute = "float32"

    def __post_init__(self) -> None:
        """Raises ConfigError, see the class."""
        if not self.matchability_weight >= 0.0:
            raise ConfigError(
                f"config.matchability_weight is {self.matchability_weight:g}; it must be at least 0"
            )
        check_choice("compute", self.compute, Compute)
        check_choice("frame", self.frame, Frame)
        check_choice("norm", self.norm, Norm)
        check_choice("reduction", self.reduction, Reduction)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Examples for scores and pictures that are never trained on.

    Attributes:
      name: the scores are called "<name>_epe" and so on.
      parts: ``parts()`` yields them some at a time, as trees of NumPy arrays.
      examples: ``examples(part)``, compiled: the `Examples` of a part.
    """

    name: str
    parts: Callable[[], Iterator[Any]]
    examples: Partial


def find_spec(network: str) -> NetSpec:
    """The network of a name.

    Raises:
      ConfigError: there is none of that name.
    """
    if network not in SPECS:
        raise ConfigError(f"there is no network {network!r}; choose from {sorted(SPECS)}")
    return SPECS[network]


def make_task(
    spec: NetSpec,
    settings: LossSettings,
    *,
    init: Callable[[Array], Variables],
    batches: Callable[[int], Iterator[Batch]],
    examples: Partial,
    held_out: Sequence[HeldOut] = (),
    landmarks: Array | None = None,
    shown: int = 8,
) -> Task:
    """The task for `training.run`.

    Args:
      spec: the network.
      settings: of the loss.
      init: initial variables, for example of `start_from`.
      batches: see `Task`; what `examples` takes.
      examples: ``examples(batch, key)``, pure: the `Examples` of a step. What it binds is handed to
        the compiled step rather than compiled into it.
      held_out: sets for scores; without any there are neither scores nor pictures.
      landmarks: (68, 2) px, those of the target, for scores of examples with `points`.
      shown: examples of each set in a picture.
    """
    return Task(
        init=init,
        batches=batches,
        loss=make_loss(spec, settings, examples),
        save=partial(_save, spec),
        evaluate=partial(evaluate, spec, held_out, landmarks=landmarks) if held_out else None,
        draw=make_draw(spec, held_out, shown) if held_out else None,
        unit="pairs",
    )


def start_from(file: str | None, spec: NetSpec, network: str) -> Callable[[Array], Variables]:
    """Initial variables as a function of a key: fresh ones, or those of a weight file.

    Tied encoders of a file are untied where `spec` has two, and steps of the decoder that only
    `spec` has are added. The file is read at once, so that a wrong one is found before anything is
    made.

    Args:
      file: None for fresh variables.
      spec: the network.
      network: its name, for messages.

    Raises:
      WeightsError: the file cannot be read, or holds another network.
    """
    if file is None:
        return partial(init, spec=spec)
    variables, found, _ = weights.load(file, NetSpec)
    check_start(found, spec, file, network)
    if found.tied and not spec.tied:
        variables, found = untie(variables, found)
    variables = extend(variables, found, spec)
    return lambda key: variables


def check_start(found: NetSpec, spec: NetSpec, source: str, network: str) -> None:
    """Raises WeightsError unless a training of `spec` can start from the network `found`, see
    `start_from`; `source` is where that is from, `network` the name of `spec`."""
    if found.tied and not spec.tied:
        found = dataclasses.replace(found, tied=False)
    if found != spec and found not in spec.extends():
        raise WeightsError(
            f"{source}: holds another network than --config asks for ({network}); "
            "train that one first, or leave it out"
        )


def _save(spec: NetSpec, file: Path, variables: Variables, metadata: dict[str, Any]) -> None:
    weights.save(file, variables, spec, metadata)


def make_loss(spec: NetSpec, settings: LossSettings, examples: Partial) -> LossFn:
    """The mean of `correspondence_loss` over the examples of a step, for `Task.loss`; a network
    without normalisation stays stateless."""

    def loss_fn(
        examples: Partial, variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Variables, dict[str, Array]]]:
        some: Examples = examples(batch, key)
        source, target = (a.astype(settings.compute) for a in (some.source, some.target))
        outputs, changed = apply_train(variables, source, target, spec)
        parts = correspondence_loss(
            outputs.flow,
            outputs.logits,
            some.flow,
            some.matchable,
            some.importance,
            matchability_weight=settings.matchability_weight,
            norm=settings.norm,
            reduction=settings.reduction,
            frame=settings.frame,
        )
        means = {name: part.mean() for name, part in parts.items()}
        state = {name: leaf for name, leaf in variables.items() if name != "params"}
        return means.pop("loss"), ({**state, **changed}, means)

    return Partial(loss_fn, examples)


@partial(jax.jit, static_argnames="spec")
def _scores(
    spec: NetSpec, examples: Partial, landmarks: Array | None, variables: Variables, part: Any
) -> dict[str, Array]:
    """Scores (B,) of each example of a part."""
    some: Examples = examples(part)
    outputs = apply(variables, some.source, some.target, spec)
    probability = matchability(outputs.logits)
    scores = {
        **flow_metrics(outputs.flow, some.flow, some.matchable),
        "iou": mask_iou(probability > 0.5, some.matchable > 0.5),
    }
    if some.points is None or landmarks is None:
        return scores
    read = partial(flow_landmarks, template_xy=landmarks, outwards=OUTWARDS)
    found, _ = jax.vmap(read)(outputs.flow, probability)
    return {**scores, "nme": nme_percent(found, some.points, INNER)}


def evaluate(
    spec: NetSpec,
    held_out: Sequence[HeldOut],
    variables: Variables,
    landmarks: Array | None = None,
) -> dict[str, float]:
    """Mean scores of each set by "<name>_<score>": end-point error ("epe"), shares of pixels below
    errors ("under_2px"), mask IoU ("iou"), and, with `points` and `landmarks`, the error of the 51
    inner landmarks straight from the flow ("nme", % of the landmark box)."""
    found: dict[str, float] = {}
    for each in held_out:
        parts = [_scores(spec, each.examples, landmarks, variables, part) for part in each.parts()]
        means = jax.tree.map(lambda *a: float(jnp.mean(jnp.concatenate(a))), *parts)
        found |= {f"{each.name}_{score}": value for score, value in means.items()}
    return found


def make_draw(
    spec: NetSpec, held_out: Sequence[HeldOut], shown: int
) -> Callable[[Variables], np.ndarray]:
    """`panels` of the first examples of each set, at most `shown` of its first part."""

    @cache
    def first() -> list[Examples]:
        return [_first(each, shown) for each in held_out]

    def draw(variables: Variables) -> np.ndarray:
        # Here, since a machine for plain runs, which draw nothing, may have no OpenCV.
        from dfc_jax.systems.dfc.panels import panels

        found = (apply(variables, some.source, some.target, spec) for some in first())
        return np.concatenate([panels(*each) for each in zip(first(), found, strict=True)])

    return draw


def _first(held_out: HeldOut, count: int) -> Examples:
    some: Examples = jax.jit(held_out.examples)(next(held_out.parts()))
    target = jnp.broadcast_to(some.target, some.source.shape)
    return jax.tree.map(lambda leaf: leaf[:count], dataclasses.replace(some, target=target))
