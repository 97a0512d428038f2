"""Where a run keeps its states: what `train_loop` asks of such a place, and what all of them share.

`checkpoints` keeps them with Orbax, `plain` as files that need nothing but NumPy.
"""

import os
import zlib
from pathlib import Path
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.errors import UserError
from dfc_jax.training.sharding import own_copy
from dfc_jax.training.state import TrainState

Table = dict[str, tuple[tuple[int, ...], str]]


class CheckpointError(UserError):
    """A checkpoint is missing or does not fit; the message names the folder and what is wrong."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint cannot be read, or what it holds is not what was saved."""


class Store(Protocol):
    """States of a run in one folder, by step; a context manager."""

    folder: Path

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def latest_step(self) -> int | None:
        """The last step saved, None in an empty folder."""

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Save a state under its step; a step that is already there is left as it is.

        Raises:
          CheckpointError: the state holds values that are not finite, and is not saved.
        """

    def restore_latest(self, target: TrainState) -> TrainState:
        """The latest state that can be read, on the devices of `target`.

        Args:
          target: a state of the same structure, shapes, types and shardings; its values are not
            read.

        Raises:
          CheckpointError: there is none, all are damaged, or the latest has another structure.
        """

    def wait(self) -> None:
        """Wait until every save is on disk."""


def look_over(state: TrainState) -> tuple[str, str | None]:
    """A checksum of all values, and the name of the first array that is not finite."""
    checksum, broken = 0, None
    for path, leaf in jax.tree_util.tree_leaves_with_path(own_copy(state)):
        values = np.asarray(leaf)
        if broken is None and jnp.issubdtype(leaf.dtype, jnp.floating):
            broken = None if np.isfinite(values).all() else name_of(path)
        checksum = zlib.crc32(values.tobytes(), checksum)
    return f"{checksum:08x}", broken


def refuse_broken(
    folder: str | os.PathLike[str], step: int, broken: str | None, kept: list[int]
) -> None:
    """Raises CheckpointError where an array of a state, `broken`, is not finite."""
    if broken:
        raise CheckpointError(
            f"{folder}: step {step} is not saved, since {broken} is not finite; "
            f"the checkpoints of steps {kept or 'none'} stay"
        )


def compare_tables(folder: str | os.PathLike[str], step: int, saved: Table, wanted: Table) -> None:
    """Raises CheckpointError unless a saved state has the arrays that a run needs.

    Args:
      folder: of the checkpoints, for the message.
      step: of the state.
      saved: shape and type of each array by its name.
      wanted: the same of the run.
    """
    for name, (shape, dtype) in wanted.items():
        if saved.get(name) != (shape, dtype):
            there = "nothing" if name not in saved else "{} {}".format(*saved[name])
            raise CheckpointError(
                f"{folder}: step {step} holds {there} for {name}, this run needs "
                f"{shape} {dtype}; it was written by another network or optimizer"
            )
    extra = sorted(saved.keys() - wanted.keys())
    if extra:
        raise CheckpointError(
            f"{folder}: step {step} also holds {extra[0]}, which this run does not use; "
            "it was written by another network or optimizer"
        )


def name_of(path: Any) -> str:
    """The name of a leaf, such as ``variables/params/encoder/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def table_of(tree: Any) -> Table:
    """Shape and type of each array of a tree, by `name_of`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {name_of(path): (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves}
