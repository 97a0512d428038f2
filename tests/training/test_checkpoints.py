"""Checkpoints: which stay, what is refused, and what happens to damaged ones."""

import gc
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from dfc_jax import training
from dfc_jax.training.checkpoints import Checkpoints


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """They report here, not from the middle of another test (or of Python's parser, which takes it
    ill)."""
    yield
    gc.collect()


def a_state(step: int = 0) -> training.TrainState:
    """A state whose values tell its step, with an array that Orbax stores in a file of its own."""
    wide = jax.random.normal(jax.random.key(step), (64, 64))
    variables = {"params": {"slope": jnp.full(2, 1.0 + step), "wide": wide}}
    state = training.create_state(variables, optax.adam(0.05), training.make_mesh())
    return state.replace(step=jnp.int32(step))


def assert_equal(state: training.TrainState, other: training.TrainState) -> None:
    jax.tree.map(np.testing.assert_array_equal, state, other)


def with_nan(state: training.TrainState) -> training.TrainState:
    params = state.variables["params"]
    broken = {**params, "wide": params["wide"].at[3, 4].set(jnp.nan)}
    return state.replace(variables={"params": broken})


def test_last_and_best_checkpoints_stay(tmp_path: Path) -> None:
    state = a_state()
    scores = {1: 3.0, 2: 1.0, 3: 2.0}
    with Checkpoints(tmp_path, keep_last=1, best_metric="nme") as checkpoints:
        for step, score in scores.items():
            checkpoints.save(state.replace(step=jnp.int32(step)), {"nme": score})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]
        with pytest.raises(training.CheckpointError, match="no metric 'nme'"):
            checkpoints.save(state.replace(step=jnp.int32(4)), {"loss": 1.0})
        assert checkpoints.steps() == [2, 4], "what could not be scored was not saved"
    with Checkpoints(tmp_path, keep_last=1, best_metric="nme") as checkpoints:
        checkpoints.save(state.replace(step=jnp.int32(5)), {"nme": 4.0})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 5], "the best of an earlier process was lost"
        assert (checkpoints.best_step(), checkpoints.latest_step()) == (2, 5)
        assert int(checkpoints.restore(state, 2).step) == 2


def test_checkpoints_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    state = a_state()
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(training.CheckpointError, match="no checkpoint of step None"):
            checkpoints.restore(state)
        checkpoints.save(state)
        with pytest.raises(training.CheckpointError, match="no checkpoint of step 7; .*0"):
            checkpoints.restore(state, 7)
        half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.variables)
        with pytest.raises(training.CheckpointError, match="float32 for .*bfloat16"):
            checkpoints.restore(state.replace(variables=half))
        wider = {**state.variables, "params": {"slope": jnp.ones(3)}}
        with pytest.raises(training.CheckpointError, match=r"\(2,\).*slope.*\(3,\)"):
            checkpoints.restore(state.replace(variables=wider))
        with pytest.raises(training.CheckpointError, match="holds nothing for ema"):
            checkpoints.restore(state.replace(ema=state.variables))
        with pytest.raises(training.CheckpointError, match="also holds opt_state"):
            checkpoints.restore(state.replace(opt_state=()))


def test_damaged_checkpoints_are_explained(tmp_path: Path) -> None:
    state = a_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state)
        checkpoints.wait()
        for file in tmp_path.rglob("*/d/*"):
            file.write_bytes(b"")
        with pytest.raises(training.CheckpointError, match="step 0 is damaged .*; remove .*/0 to"):
            checkpoints.restore(state)


def test_a_state_that_is_not_finite_is_refused_and_the_good_ones_stay(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        checkpoints.save(a_state(2))
        with pytest.raises(
            training.CheckpointError,
            match=r"step 4 is not saved, .*params/wide is not finite; .* steps \[2\] stay",
        ):
            checkpoints.save(with_nan(a_state(4)))
        assert checkpoints.steps() == [2]
        assert_equal(checkpoints.restore(a_state()), a_state(2))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_neither_counts_nor_evicts(broken, tmp_path, caplog) -> None:
    with Checkpoints(tmp_path, keep_last=1, best_metric="nme") as checkpoints:
        for step, score in enumerate((0.5, 0.04, broken, 0.3, 0.4), start=1):
            checkpoints.save(a_state(step), {"nme": score})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 5] and checkpoints.best_step() == 2
    assert f"step 3 has the nme {broken}, which does not count" in caplog.text


def test_scores_of_another_metric_in_the_folder_do_not_count(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, best_metric="epe") as checkpoints:
        checkpoints.save(a_state(1), {"epe": 1.0})
    with Checkpoints(tmp_path, keep_last=1, best_metric="nme") as checkpoints:
        assert checkpoints.best_step() is None
        for step in (2, 3):
            checkpoints.save(a_state(step), {"nme": float(step)})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, best_metric="nme") as checkpoints:
        for step in (2, 4):
            checkpoints.save(a_state(step), {"nme": float(step)})
    return folder


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "zeroed": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "flipped": flip_a_bit,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_file_is_damaged_what_is_restored_is_what_was_saved(
    damage, saved, tmp_path, caplog
) -> None:
    """Or the step before is, the log says so, and training can save the damaged step again."""
    files = [file.relative_to(saved) for file in saved.glob("4/**/*") if file.is_file()]
    assert len(files) > 10
    went_back = 0
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        DAMAGES[damage](folder / file)
        caplog.clear()
        with Checkpoints(folder, best_metric="nme") as checkpoints:
            state = checkpoints.restore_latest(a_state())
            assert_equal(state, a_state(int(state.step)))
            assert checkpoints.best_step() in (2, 4)
            if int(state.step) == 4:
                continue
            went_back += 1
            assert "step 4 is damaged" in caplog.text and "going back to step 2" in caplog.text
            assert (folder / "damaged-4").is_dir() and checkpoints.steps() == [2]
            checkpoints.save(a_state(4), {"nme": 1.0})
        with Checkpoints(folder, best_metric="nme") as checkpoints:
            assert_equal(checkpoints.restore(a_state()), a_state(4))
            assert checkpoints.best_step() == 4
    assert went_back >= 4


def test_scores_that_cannot_be_read_cost_the_score_and_nothing_else(
    saved, tmp_path, caplog
) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    file = folder / "2" / "metrics" / "metrics"
    for broken in ("", "[1]", '{"nme": 2.0', "\0\0"):
        file.write_text(broken)
        with Checkpoints(folder, best_metric="nme") as checkpoints:
            assert checkpoints.steps() == [2, 4] and checkpoints.best_step() == 4
            assert_equal(checkpoints.restore(a_state(), 2), a_state(2))
        assert f"{file} is damaged; it is now {file}.damaged" in caplog.text


def test_values_that_changed_on_the_disk_are_found_by_their_checksum(saved, tmp_path) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    for file in folder.glob("4/default/ocdbt.process_0/d/*"):
        if file.stat().st_size > 10_000:
            flip_a_bit(file)
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(training.DamagedCheckpointError, match="step 4 is damaged .*checksum"),
    ):
        checkpoints.restore(a_state())


@pytest.mark.slow
def test_where_all_are_damaged_nothing_is_moved_and_one_sentence_says_so(saved, tmp_path) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    for file in folder.glob("*/default/d/*"):
        file.write_bytes(b"")
    for _ in range(2):
        with (
            Checkpoints(folder) as checkpoints,
            pytest.raises(training.CheckpointError, match=r"all checkpoints, of steps \[2, 4\]"),
        ):
            checkpoints.restore_latest(a_state())
    assert (folder / "2").is_dir() and (folder / "4").is_dir()


def test_a_checkpoint_of_another_network_is_not_taken_for_a_damaged_one(saved, tmp_path) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    state = a_state()
    other = state.replace(variables={"params": {"slope": jnp.ones(3), "wide": jnp.ones(1)}})
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(training.CheckpointError, match="step 4 holds .*another network"),
    ):
        checkpoints.restore_latest(other)
    assert (folder / "4").is_dir()


def test_checkpoints_from_before_the_checksum_are_restored_unless_not_finite(
    tmp_path: Path, caplog
) -> None:
    with ocp.CheckpointManager(tmp_path, item_handlers=ocp.StandardCheckpointHandler()) as manager:
        manager.save(2, args=ocp.args.StandardSave(a_state(2)))
        manager.save(4, args=ocp.args.StandardSave(with_nan(a_state(4))))
    with (
        caplog.at_level(logging.WARNING),
        Checkpoints(tmp_path) as checkpoints,
    ):
        assert_equal(checkpoints.restore_latest(a_state()), a_state(2))
    assert "step 4 is damaged (variables/params/wide is not finite)" in caplog.text
