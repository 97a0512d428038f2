"""Checkpoints as plain ``.npz`` files, for machines that have JAX and nothing else; one process."""

import logging
import os
from pathlib import Path

import jax
import numpy as np

from dfc_jax.errors import ConfigError
from dfc_jax.files import write_npz
from dfc_jax.training.sharding import own_copy
from dfc_jax.training.state import TrainState
from dfc_jax.training.store import (
    CheckpointError,
    compare_tables,
    look_over,
    name_of,
    refuse_broken,
    table_of,
)

_log = logging.getLogger(__name__)


class PlainCheckpoints:
    """The states in one folder, ``<step>.npz`` each: a `Store`.

    Keeps the latest `keep_last` (two, so that one is left if the last is damaged). A file appears
    whole or not at all; its values have the checksums of a zip archive, which reading compares.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep_last: int = 2) -> None:
        if jax.process_count() > 1:
            raise ConfigError("config.plain is for one process; several need Orbax's checkpoints")
        self.folder = Path(folder)
        self._keep_last = keep_last
        for rest in self.folder.glob(".*.npz"):  # of a process that was killed while it saved
            rest.unlink()

    def __enter__(self) -> "PlainCheckpoints":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def wait(self) -> None:
        """See `Store`; a save is on disk when it returns."""

    def steps(self) -> list[int]:
        """The steps that were saved and kept, in order."""
        found = (path.stem for path in self.folder.glob("*.npz"))
        return sorted(int(stem) for stem in found if stem.isdecimal())

    def latest_step(self) -> int | None:
        """See `Store`."""
        return max(self.steps(), default=None)

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """See `Store`; the scores are not kept.

        Raises:
          CheckpointError: the state holds values that are not finite, and is not saved.
          ExportError: the file cannot be written.
        """
        step, kept = int(state.step), self.steps()
        if step in kept:
            return
        refuse_broken(self.folder, step, look_over(state)[1], kept)
        leaves = jax.tree_util.tree_leaves_with_path(own_copy(state))
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {name_of(path): np.asarray(leaf) for path, leaf in leaves}
        write_npz(self._file(step), False, **arrays)
        for old in kept[: max(0, len(kept) + 1 - self._keep_last)]:
            self._file(old).unlink()

    def restore_latest(self, target: TrainState) -> TrainState:
        """See `Store`; files that are damaged are renamed to ``<step>.npz.damaged``.

        Raises:
          CheckpointError: there is none, all are damaged, or the latest has another structure.
        """
        for step in reversed(self.steps()):
            file = self._file(step)
            try:
                with open(file, "rb") as stream, np.load(stream) as archive:
                    arrays = dict(archive)
            except MemoryError:
                raise
            except Exception as error:  # NumPy and zipfile raise many kinds for a broken file
                file.rename(f"{file}.damaged")
                _log.warning("%s is damaged (%s); it is now %s.damaged", file, error, file)
                continue
            compare_tables(self.folder, step, table_of(arrays), table_of(target))
            return jax.tree_util.tree_map_with_path(
                lambda path, leaf: jax.device_put(arrays[name_of(path)], leaf.sharding),  # noqa: B023
                target,
            )
        raise CheckpointError(
            f"{self.folder}: no checkpoint there can be read; remove the folder to start again"
        )

    def _file(self, step: int) -> Path:
        return self.folder / f"{step:08d}.npz"
