"""Training: state, optimizer, step over all devices, checkpoints, loop."""

from dfc_jax.training.checkpoints import CheckpointError, Checkpoints, DamagedCheckpointError
from dfc_jax.training.loop import TrainingDiverged, fit
from dfc_jax.training.optim import OptimConfig, learning_rate, make_optimizer
from dfc_jax.training.sharding import (
    BatchError,
    make_mesh,
    own_copy,
    own_part,
    put_batches,
    replicated,
    split_batches,
)
from dfc_jax.training.state import TrainState, create_state
from dfc_jax.training.step import LossFn, StepFn, make_train_step

__all__ = [
    "BatchError",
    "CheckpointError",
    "Checkpoints",
    "DamagedCheckpointError",
    "LossFn",
    "OptimConfig",
    "StepFn",
    "TrainState",
    "TrainingDiverged",
    "create_state",
    "fit",
    "learning_rate",
    "make_mesh",
    "make_optimizer",
    "make_train_step",
    "own_copy",
    "own_part",
    "put_batches",
    "replicated",
    "split_batches",
]
