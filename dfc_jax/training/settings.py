"""What every training can be told, whatever it trains."""

import dataclasses

from dfc_jax.errors import ConfigError
from dfc_jax.training.optim import OptimConfig
from dfc_jax.training.sharding import check_split


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Settings of `run`; looked over when they are made.

    Attributes:
      optimizer: with the number of steps of the whole run.
      batch: examples of a step, those of all devices together.
      seed: of the initial variables and of everything that the steps draw.
      ema_decay: of the running average of the variables, which is evaluated and written as the
        weights; 0 for none.
      steps_per_call: steps that the devices make without the host (see `make_train_step`).
      log_every: steps between two logs.
      save_every: steps between two checkpoints, each with an evaluation before it.
      keep_last: how many of the latest checkpoints stay.
      best_metric: the checkpoint with the lowest of this score stays too; "" for none.
      minutes: the run ends after so long, if that is before its last step; 0 for no such limit.
      decay_minutes: of these the last, in which the learning rate falls linearly to zero.
      save_minutes: save also when the last save is so long ago, without an evaluation; 0 for never.
      plain: need no compiled library but JAX: checkpoints are `PlainCheckpoints`, of which the best
        does not stay longer than the others, and no pictures are drawn. For one process.

    Raises:
      ConfigError: a number makes no sense, or does not fit to another or to the devices; the
        message names it as ``config.<name>``.
    """

    optimizer: OptimConfig
    batch: int
    seed: int = 0
    ema_decay: float = 0.0
    steps_per_call: int = 1
    log_every: int = 100
    save_every: int = 1000
    keep_last: int = 2
    best_metric: str = ""
    minutes: float = 0.0
    decay_minutes: float = 0.0
    save_minutes: float = 0.0
    plain: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError, see the class."""
        for name in ("steps", "log_every", "save_every", "steps_per_call", "batch", "keep_last"):
            if getattr(self, name) < 1:
                raise ConfigError(f"config.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("steps", "log_every", "save_every"):
            if getattr(self, name) % self.steps_per_call:
                raise ConfigError(
                    f"config.{name} is {getattr(self, name)}, which is not a multiple of "
                    f"config.steps_per_call ({self.steps_per_call})"
                )
        if not 0.0 <= self.decay_minutes <= self.minutes:
            raise ConfigError(
                f"config.decay_minutes is {self.decay_minutes:g}; it must be from 0 to "
                f"config.minutes ({self.minutes:g})"
            )
        if not self.save_minutes >= 0.0:
            raise ConfigError(
                f"config.save_minutes is {self.save_minutes:g}; it must be at least 0"
            )
        check_split("batch", self.batch)

    @property
    def steps(self) -> int:
        return self.optimizer.steps
