"""Whole trainings, for the tests of every system."""

import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import scalars

from dfc_jax.training import Task, TrainSettings, TrainState
from dfc_jax.training.run import run
from dfc_jax.training.workdir import Workdir, open_workdir


def opened(folder: Path) -> Workdir:
    """The folder of a run whose config is of no interest."""
    return open_workdir(folder, {"name": "test"}, {"network": "test"})


def assert_cut_off_run_continues(
    task: Task, settings: TrainSettings, folder: Path, whole: tuple[Path, TrainState]
) -> None:
    """A run in `folder` whose data end between two checkpoints goes on from the last of them.

    `whole` is the folder of a run that was not cut off, and its state.
    """
    after = settings.save_every + settings.save_every // 2

    def cut(step: int):
        return itertools.islice(task.batches(step), after)

    assert after < settings.steps, "there is nothing to cut off"
    with pytest.raises(ValueError, match="the data ended"):
        run(dataclasses.replace(task, batches=cut), opened(folder), settings)
    assert not list(folder.glob("weights.*"))
    assert_continues(task, settings, folder, whole, from_step=settings.save_every)


def assert_continues(
    task: Task,
    settings: TrainSettings,
    folder: Path,
    whole: tuple[Path, TrainState],
    from_step: int,
) -> None:
    """The run in `folder` goes on from `from_step` and ends like the `whole` one, bit for bit."""
    starts = []

    def noted(step: int):
        starts.append(step)
        return task.batches(step)

    state = run(dataclasses.replace(task, batches=noted), opened(folder), settings)
    assert starts == [from_step]
    jax.tree.map(np.testing.assert_array_equal, state, whole[1])
    curves, expected, every = scalars(folder), scalars(whole[0]), settings.log_every
    # Each is the mean of the steps since the log before it.
    for step in range((-(-from_step // every) + 1) * every, settings.steps + 1, every):
        assert curves["loss", step] == expected["loss", step]
    (ours,), (theirs,) = (path.glob("weights.*") for path in (folder, whole[0]))
    assert ours.read_bytes() == theirs.read_bytes()
