"""Checkpoints of a run: the last states and the best one."""

import datetime
import gc
import json
import logging
import math
import os
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from dfc_jax.training.state import TrainState
from dfc_jax.training.store import (
    CheckpointError,
    DamagedCheckpointError,
    Table,
    compare_tables,
    look_over,
    refuse_broken,
    table_of,
)

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one folder; use as a context manager, or call `close`.

    Keeps the latest `keep_last` states (two, so that one is left if the last is damaged) and the
    one whose `best_metric` was lowest. Saving runs in the background. Each state is saved with a
    checksum of its values, which `restore` compares.

    Scores and metadata that cannot be read are renamed when the folder is opened, to
    ``<name>.damaged``; a step without scores is not the best, one without metadata is damaged.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep_last: int = 2, best_metric: str | None = None
    ) -> None:
        # Orbax writes in the background, where a relative path would depend on the moment.
        self.folder = Path(folder).absolute()
        self._best_metric = best_metric
        policies: list[Any] = [checkpoint_managers.LatestN(keep_last)]
        if best_metric is not None:
            # Orbax keeps the end of the list; in reverse order the lowest score is there.
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=self._score,
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._one_process(self._move_damaged_files)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                # Without it Orbax neither writes scores nor reads those of an earlier process.
                best_fn=None if best_metric is None else self._score,
                best_mode="min",
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the background and release the folder."""
        self._manager.close()

    def wait(self) -> None:
        """Wait until every save is on disk."""
        self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """The steps that were saved and kept, in order."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The last step saved, None in an empty folder."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The kept step with the lowest `best_metric`, None if none was scored."""
        scores = {step: self._score(self._manager.metrics(step)) for step in self.steps()}
        scored = {step: score for step, score in scores.items() if math.isfinite(score)}
        return min(scored, key=scored.__getitem__, default=None)

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Save a state under its step; a step that is already there is left as it is.

        A `best_metric` that is not finite counts as none.

        Raises:
          CheckpointError: the state holds values that are not finite, and is not saved; or
            `metrics` were given without the `best_metric`, and the state is saved.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        checksum, broken = look_over(state)
        refuse_broken(self.folder, step, broken, self.steps())
        metrics = metrics or None
        scored = metrics is not None and math.isfinite(self._score(metrics))
        if metrics and self._best_metric in metrics and not scored:
            _log.warning(
                "step %d has the %s %s, which does not count for the best checkpoint",
                step,
                self._best_metric,
                metrics[self._best_metric],
            )
        self._manager.save(
            step,
            args=ocp.args.StandardSave(state),
            metrics=metrics if scored else None,
            custom_metadata={"checksum": checksum},
        )
        if metrics and self._best_metric and self._best_metric not in metrics:
            self.wait()
            raise CheckpointError(
                f"{self.folder}: step {step} is saved, but has no metric {self._best_metric!r} to "
                f"choose the best by, only {sorted(metrics)}"
            )

    def restore(self, target: TrainState, step: int | None = None) -> TrainState:
        """The state of a step (default: the latest), on the devices of `target`.

        Args:
          target: a state of the same structure, shapes, types and shardings; its values are not
            read.

        Raises:
          DamagedCheckpointError: it cannot be read, its values are not those that were saved, or
            they are not finite.
          CheckpointError: there is no such checkpoint, or it holds another structure.
        """
        self.wait()
        step = self.latest_step() if step is None else step
        if step is None or step not in self.steps():
            raise CheckpointError(
                f"{self.folder}: no checkpoint of step {step}; there are {self.steps() or 'none'}"
            )
        try:
            return self._read(target, step)
        except (CheckpointError, MemoryError, jax.errors.JaxRuntimeError):
            raise
        # Orbax has no error of its own: what damaged files raise ranges from KeyError to OSError.
        except Exception as error:
            reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")
            raise DamagedCheckpointError(
                f"{self.folder}: step {step} is damaged ({reason}); remove "
                f"{self.folder / str(step)} to go on without it"
            ) from error

    def restore_latest(self, target: TrainState) -> TrainState:
        """The state of the latest step that is not damaged, the same one in every process.

        The damaged steps after it are moved aside, to ``damaged-<step>``, with a warning in the
        log: training passes those steps again and has to save them again.

        Raises:
          CheckpointError: there are no checkpoints, the last whole one holds another structure, or
            all are damaged; then nothing is moved.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                state, problem = self.restore(target, step), None
            except DamagedCheckpointError as error:
                state, problem = target, str(error)
            if problem:
                # Orbax leaves coroutines of a failed read, which complain when they go: better here
                # than in the middle of something else.
                gc.collect()
            if _in_all_processes(problem is None):
                for later, why in damaged.items():
                    self._move_damaged_step(later, why, step)
                return state
            damaged[step] = problem or f"{self.folder}: another process cannot read step {step}"
        if not damaged:
            return self.restore(target)
        raise CheckpointError(
            f"{self.folder}: all checkpoints, of steps {sorted(damaged)}, are damaged; remove the "
            f"folder to start again ({next(iter(damaged.values()))})"
        )

    def _read(self, target: TrainState, step: int) -> TrainState:
        metadata = self._manager.metadata(step)
        if metadata.commit_timestamp_nsecs is None:
            raise ValueError("its _CHECKPOINT_METADATA cannot be read")
        self._check(target, step, table_of(metadata.item_metadata))
        state = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        checksum, broken = look_over(state)
        # Checkpoints from before the checksum have none.
        if metadata.custom_metadata.get("checksum", checksum) != checksum:
            raise ValueError("its values do not have their checksum")
        if broken:
            raise ValueError(f"{broken} is not finite")
        return state

    def _check(self, target: TrainState, step: int, saved: Table) -> None:
        """Orbax casts and pads in silence, so shapes and types are compared first."""
        if not saved:
            raise ValueError("it does not say what it holds")
        compare_tables(self.folder, step, saved, table_of(target))

    def _score(self, metrics: dict[str, Any] | None) -> float:
        """The `best_metric`; infinite where there is none that counts."""
        value = (metrics or {}).get(self._best_metric or "")
        return value if isinstance(value, (int, float)) and math.isfinite(value) else math.inf

    def _move_damaged_files(self) -> None:
        """Orbax reads these of all steps when it opens a folder, and fails at the first broken."""
        readers = {"_CHECKPOINT_METADATA": _time_of, "metrics/metrics": _scores_of}
        for step in ocp.path.step.standard_name_format().find_all(self.folder):
            for name, read in readers.items():
                file = Path(step.path / name)
                if file.is_file() and not _works(read, step):
                    _move(file, Path(f"{file}.damaged"))
                    _log.warning("%s is damaged; it is now %s.damaged", file, file)

    def _move_damaged_step(self, step: int, why: str, instead: int) -> None:
        source, aside = self.folder / str(step), self.folder / f"damaged-{step}"
        self._one_process(lambda: _move(source, aside))
        self._manager.reload()
        _log.warning("%s; going back to step %d, and step %d is now %s", why, instead, step, aside)

    def _one_process(self, action: Callable[[], None]) -> None:
        """Change the folder in process 0, while the others wait."""
        if jax.process_index() == 0:
            action()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(str(self.folder))


def _time_of(step: Any) -> datetime.datetime:
    return step.commit_timestamp


def _scores_of(step: Any) -> dict[str, Any]:
    return dict(json.loads((step.path / "metrics" / "metrics").read_text()))


def _works(read: Callable[[Any], Any], step: Any) -> bool:
    # As in `restore`.
    try:
        read(step)
    except Exception:
        return False
    return True


def _move(source: Path, aside: Path) -> None:
    if aside.is_dir():
        shutil.rmtree(aside)
    source.rename(aside)


def _in_all_processes(answer: bool) -> bool:
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.process_allgather(np.array(answer)).all())
