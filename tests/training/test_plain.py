"""Plain checkpoints: what comes back, which stay, and what is refused."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dfc_jax import training
from dfc_jax.training.plain import PlainCheckpoints


def a_state(step: int = 0, **more) -> training.TrainState:
    """A state whose values tell its step."""
    variables = {"params": {"slope": jnp.full(2, 1.0 + step), **more}, "stats": {"n": jnp.ones(())}}
    optimizer = optax.adam(0.1)
    state = training.create_state(variables, optimizer, training.make_mesh(), ema=True)
    return state.replace(step=jnp.asarray(step, jnp.int32))


def test_the_latest_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    with PlainCheckpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (5, 12):
            checkpoints.save(a_state(step), {"nme": 1.0})
    with PlainCheckpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.latest_step() == 12
        found = checkpoints.restore_latest(a_state())
    jax.tree.map(np.testing.assert_array_equal, found, a_state(12))
    assert found.step.sharding == a_state().step.sharding


def test_only_the_latest_stay(tmp_path: Path) -> None:
    checkpoints = PlainCheckpoints(tmp_path, keep_last=2)
    for step in (1, 2, 3, 20):
        checkpoints.save(a_state(step))
    assert checkpoints.steps() == [3, 20]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    PlainCheckpoints(tmp_path).save(a_state(1))
    (tmp_path / ".00000002.1a2b3c4d.npz").write_bytes(b"half")
    assert PlainCheckpoints(tmp_path).steps() == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["00000001.npz"]


def test_a_step_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    checkpoints = PlainCheckpoints(tmp_path)
    checkpoints.save(a_state(4))
    before = (tmp_path / "00000004.npz").read_bytes()
    checkpoints.save(a_state(5).replace(step=jnp.asarray(4, jnp.int32)))
    assert (tmp_path / "00000004.npz").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_checkpoint_is_passed_over(damage, tmp_path: Path, caplog) -> None:
    checkpoints = PlainCheckpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(a_state(step))
    file = tmp_path / "00000002.npz"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[:-30]
    else:
        at = content.index(np.full(2, 3.0, np.float32).tobytes())
        content[at] ^= 0xFF
    file.write_bytes(content)
    caplog.set_level(logging.WARNING)
    assert int(checkpoints.restore_latest(a_state()).step) == 1
    assert "00000002.npz is damaged" in caplog.text
    assert (tmp_path / "00000002.npz.damaged").is_file() and checkpoints.steps() == [1]


def test_where_all_are_damaged_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "00000002.npz").write_text("nothing")
    with pytest.raises(training.CheckpointError, match="no checkpoint there can be read; remove"):
        PlainCheckpoints(tmp_path).restore_latest(a_state())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (a_state(1, wide=jnp.ones(3)), r"also holds .*wide"),
        (a_state(1).replace(ema=None), "holds nothing for ema"),
    ],
)
def test_a_state_of_another_network_is_refused(other, message, tmp_path: Path) -> None:
    checkpoints = PlainCheckpoints(tmp_path)
    checkpoints.save(other)
    with pytest.raises(training.CheckpointError, match=message):
        checkpoints.restore_latest(a_state())
    assert checkpoints.steps() == [1], "a whole checkpoint was moved away"


def test_a_state_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    checkpoints = PlainCheckpoints(tmp_path)
    checkpoints.save(a_state(1))
    with pytest.raises(training.CheckpointError, match=r"step 2 .*slope is not finite.*\[1\] stay"):
        checkpoints.save(a_state(2, wide=jnp.ones(1)).replace(ema={"slope": jnp.full(2, jnp.nan)}))
    assert checkpoints.steps() == [1]
