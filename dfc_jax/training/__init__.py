"""Training: a task, its settings, state, optimizer, step over all devices, loop.

Checkpoints are in `dfc_jax.training.checkpoints`, which imports Orbax, and in
`dfc_jax.training.plain`.

The whole run of a task is `dfc_jax.training.run.run`, in the folder that
`dfc_jax.training.workdir.open_workdir` opens.
"""

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
from dfc_jax.training.step import (
    COMPILER_OPTIONS,
    Batch,
    LossFn,
    StepFn,
    compiled_step,
    make_train_step,
)
from dfc_jax.training.store import CheckpointError, DamagedCheckpointError, Store
from dfc_jax.training.task import Task

__all__ = [
    "COMPILER_OPTIONS",
    "Batch",
    "BatchError",
    "CheckpointError",
    "DamagedCheckpointError",
    "LossFn",
    "OptimConfig",
    "StepFn",
    "Store",
    "Task",
    "TrainSettings",
    "TrainState",
    "TrainingDiverged",
    "Variables",
    "averaged",
    "check_split",
    "compiled_step",
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
