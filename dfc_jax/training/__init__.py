"""Training: a task, its settings, state, optimizer, step over all devices, checkpoints, loop.

The whole run of a task is `dfc_jax.training.run.run`, in the folder that
`dfc_jax.training.workdir.open_workdir` opens.
"""

from dfc_jax.training.checkpoints import CheckpointError, Checkpoints, DamagedCheckpointError
from dfc_jax.training.loop import TrainingDiverged, train_loop
from dfc_jax.training.optim import OptimConfig, learning_rate, make_optimizer
from dfc_jax.training.settings import TrainSettings
from dfc_jax.training.sharding import (
    BatchError,
    check_split,
    make_mesh,
    own_copy,
    own_part,
    put_batches,
    replicated,
    split_batches,
)
from dfc_jax.training.state import TrainState, Variables, averaged, create_state
from dfc_jax.training.step import Batch, LossFn, StepFn, make_train_step
from dfc_jax.training.task import Task

__all__ = [
    "Batch",
    "BatchError",
    "CheckpointError",
    "Checkpoints",
    "DamagedCheckpointError",
    "LossFn",
    "OptimConfig",
    "StepFn",
    "Task",
    "TrainSettings",
    "TrainState",
    "TrainingDiverged",
    "Variables",
    "averaged",
    "check_split",
    "create_state",
    "learning_rate",
    "make_mesh",
    "make_optimizer",
    "make_train_step",
    "own_copy",
    "own_part",
    "put_batches",
    "replicated",
    "split_batches",
    "train_loop",
]
