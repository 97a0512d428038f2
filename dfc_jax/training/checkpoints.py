"""Checkpoints of a run: the last state and the best one."""

import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from dfc_jax.training.state import TrainState


class CheckpointError(ValueError):
    """A checkpoint is missing or does not fit; the message names the folder and what is wrong."""


class Checkpoints:
    """The checkpoints in one folder; use as a context manager, or call `close`.

    Keeps the latest `keep_last` states and the one whose `best_metric` was lowest. Saving runs in
    the background.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep_last: int = 1, best_metric: str | None = None
    ) -> None:
        # Orbax writes in the background, where a relative path would depend on the moment.
        self.folder = Path(folder).absolute()
        self._best_metric = best_metric
        policies: list[Any] = [checkpoint_managers.LatestN(keep_last)]
        if best_metric is not None:
            # Orbax keeps the end of the list; in reverse order the lowest score is there.
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics[best_metric],
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                # Without it Orbax does not read back the scores of an earlier process.
                best_fn=None if best_metric is None else lambda metrics: metrics[best_metric],
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
        """The steps that can be restored, in order."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The last step saved, None in an empty folder."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The kept step with the lowest `best_metric`, None if none was scored."""
        if self._best_metric is None:
            return None
        scores = {step: self._manager.metrics(step) for step in self.steps()}
        scored = {step: m[self._best_metric] for step, m in scores.items() if m}
        return min(scored, key=scored.__getitem__, default=None)

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Save a state under its step; a step that is already there is left as it is.

        Raises:
          CheckpointError: `metrics` were given without the `best_metric`; the state is saved.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        unscored = metrics is not None and self._best_metric and self._best_metric not in metrics
        scores = None if unscored else metrics
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=scores)
        if unscored:
            self.wait()
            raise CheckpointError(
                f"{self.folder}: step {step} is saved, but has no metric {self._best_metric!r} to "
                f"choose the best by, only {sorted(metrics or ())}"
            )

    def restore(self, target: TrainState, step: int | None = None) -> TrainState:
        """The state of a step (default: the latest), on the devices of `target`.

        Args:
          target: a state of the same structure, shapes, types and shardings; its values are not
            read.

        Raises:
          CheckpointError: there is no such checkpoint, it is damaged, or it holds another
            structure.
        """
        self.wait()
        step = self.latest_step() if step is None else step
        if step is None or step not in self.steps():
            raise CheckpointError(
                f"{self.folder}: no checkpoint of step {step}; there are {self.steps() or 'none'}"
            )
        try:
            self._check(target, step)
            return self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except (OSError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{self.folder}: step {step} is damaged ({reason}); remove "
                f"{self.folder / str(step)} to go on without it"
            ) from error

    def _check(self, target: TrainState, step: int) -> None:
        """Orbax casts and pads in silence, so shapes and types are compared first."""
        saved = _table(self._manager.item_metadata(step))
        for name, (shape, dtype) in _table(target).items():
            if saved.get(name) != (shape, dtype):
                there = "nothing" if name not in saved else "{} {}".format(*saved[name])
                raise CheckpointError(
                    f"{self.folder}: step {step} holds {there} for {name}, this run needs "
                    f"{shape} {dtype}; it was written by another network or optimizer"
                )
        extra = sorted(saved.keys() - _table(target).keys())
        if extra:
            raise CheckpointError(
                f"{self.folder}: step {step} also holds {extra[0]}, which this run does not use; "
                "it was written by another network or optimizer"
            )


def _table(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in leaves
    }
