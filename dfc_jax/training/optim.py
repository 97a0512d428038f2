"""Optimizers and learning-rate schedules."""

import dataclasses
from typing import Any, Literal, get_args

import jax
import optax

from dfc_jax.errors import ConfigError

Schedule = Literal["cosine", "piecewise", "constant"]


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Settings of `make_optimizer`.

    Attributes:
      learning_rate: the highest one.
      steps: of the whole run; the cosine ends here.
      name: "adam", or "adamw" with `weight_decay` on kernels only.
      schedule: "cosine" to zero, "piecewise" constant, or "constant".
      boundaries: for "piecewise": (step, learning rate from this step on), in order.
      warmup_steps: rise linearly from zero for this long, whatever the schedule.
      decay_steps: fall linearly to zero for this long at the end, whatever the schedule. After a
        constant rate this trains as well as a cosine, and a run can be made longer afterwards from
        a checkpoint before the fall (Haegele et al., "Scaling Laws and Compute-Optimal Training
        Beyond Fixed Training Durations", 2024).
      clip_norm: global norm of the gradient at most; 0 switches clipping off.
    """

    learning_rate: float
    steps: int
    name: Literal["adam", "adamw"] = "adam"
    schedule: Schedule = "cosine"
    boundaries: tuple[tuple[int, float], ...] = ()
    warmup_steps: int = 0
    decay_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError if the settings do not fit together."""
        if self.name not in ("adam", "adamw"):
            raise ConfigError(f"the optimizer must be 'adam' or 'adamw'; got {self.name!r}")
        check_choice("schedule", self.schedule, Schedule)
        if not 0 <= self.warmup_steps < self.steps:
            raise ConfigError(
                f"config.warmup_steps is {self.warmup_steps} and config.steps {self.steps}; the "
                "warm-up must be shorter than the run"
            )
        if not 0 <= self.decay_steps <= self.steps - self.warmup_steps:
            raise ConfigError(
                f"config.decay_steps is {self.decay_steps}; with config.warmup_steps "
                f"({self.warmup_steps}) it must fit into config.steps ({self.steps})"
            )
        if self.weight_decay and self.name == "adam":
            raise ConfigError("config.weight_decay needs the optimizer 'adamw'")


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises ConfigError unless the field `name` is one of a ``Literal``."""
    known = get_args(choices)
    if value not in known:
        raise ConfigError(f"config.{name} is {value!r}; choose {' or '.join(map(repr, known))}")


def learning_rate(config: OptimConfig) -> optax.Schedule:
    """The schedule: step to learning rate."""
    after_warmup = config.steps - config.warmup_steps
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(config.learning_rate, after_warmup)
    elif config.schedule == "piecewise":
        steps = [step - config.warmup_steps for step, _ in config.boundaries]
        rates = [config.learning_rate, *(rate for _, rate in config.boundaries)]
        main = optax.join_schedules([optax.constant_schedule(rate) for rate in rates], steps)
    else:
        main = optax.constant_schedule(config.learning_rate)
    if config.decay_steps:
        main = _falling(main, after_warmup, config.decay_steps)
    if config.warmup_steps == 0:
        return main
    rise = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([rise, main], [config.warmup_steps])


def _falling(rate: optax.Schedule, steps: int, decay_steps: int) -> optax.Schedule:
    """A schedule of `steps` times a factor that falls from 1 to 0 in the last `decay_steps`."""
    share = optax.linear_schedule(1.0, 0.0, decay_steps, steps - decay_steps)
    return lambda step: rate(step) * share(step)


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Adam or AdamW with the configured schedule, after clipping by global norm."""
    rate = learning_rate(config)
    if config.name == "adamw":
        update = optax.adamw(rate, weight_decay=config.weight_decay, mask=_kernels)
    else:
        update = optax.adam(rate)
    if config.clip_norm > 0:
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    return update


def _kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
