"""A new system trains by its task alone: here one that finds a disc in a noisy picture."""

import dataclasses
import itertools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import assert_continues, assert_cut_off_run_continues, opened
from tiny import scalars

from dfc_jax import cache
from dfc_jax.errors import ConfigError
from dfc_jax.files import write_npz
from dfc_jax.training import OptimConfig, Task, TrainSettings, own_part
from dfc_jax.training import run as run_module
from dfc_jax.training.run import compile_ahead, run

SIZE, BATCH, STEPS = 16, 8, 60
SETTINGS = TrainSettings(
    OptimConfig(learning_rate=0.03, steps=STEPS),
    batch=BATCH,
    seed=5,
    ema_decay=0.9,
    log_every=10,
    save_every=20,
    keep_last=1,
    best_metric="disc_error",
)


def discs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Pictures (B, S, S) of one bright disc each, and where it is."""
    y, x = np.mgrid[:SIZE, :SIZE]
    centre, radius = rng.uniform(4, 12, (2, BATCH, 1, 1)), rng.uniform(3, 5, (BATCH, 1, 1))
    disc = (np.hypot(x - centre[0], y - centre[1]) < radius).astype(np.float32)
    noise = rng.normal(0.0, 0.4, disc.shape).astype(np.float32)
    return {"image": disc + noise, "disc": disc}


def init(key):
    kernel = 0.1 * jax.random.normal(key, (5, 5, 1, 1))
    return {
        "params": {"kernel": kernel, "bias": jnp.zeros(())},
        "seen": {"pictures": jnp.zeros(())},
    }


def logits(variables, image):
    layer = variables["params"]
    found = jax.lax.conv_general_dilated(
        image[..., None],
        layer["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return found[..., 0] + layer["bias"]


def batches(step: int):
    for number in itertools.count(step):
        yield {name: own_part(part) for name, part in discs(np.random.default_rng(number)).items()}


def loss(variables, batch, key):
    image = batch["image"] + 0.1 * jax.random.normal(key, batch["image"].shape)
    found = logits(variables, image)
    entropy = jnp.mean(jnp.logaddexp(0.0, found) - batch["disc"] * found)
    seen = variables["seen"]["pictures"] + len(image)
    return entropy, ({"seen": {"pictures": seen}}, {"entropy": entropy})


HELD_OUT = discs(np.random.default_rng(1_000_003))


def evaluate(variables) -> dict[str, float]:
    found = logits(variables, HELD_OUT["image"]) > 0
    return {"disc_error": float(np.mean(found != (HELD_OUT["disc"] > 0)))}


def draw(variables) -> np.ndarray:
    found = np.asarray(logits(variables, HELD_OUT["image"]) > 0)
    pictures = np.concatenate([HELD_OUT["disc"][0], found[0]], axis=1)
    return np.uint8(255 * pictures)[..., None].repeat(3, axis=-1)


def save(file: Path, variables, metadata) -> None:
    values = {**variables["params"], **variables["seen"], "metadata": json.dumps(metadata)}
    write_npz(file.with_suffix(".npz"), **values)


TASK = Task(init, batches, loss, save, evaluate, draw)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, object]:
    folder = tmp_path_factory.mktemp("disc") / "run"
    return folder, run(TASK, opened(folder), SETTINGS)


def test_a_new_system_learns_and_leaves_everything(whole) -> None:
    folder, state = whole
    curves = scalars(folder)
    assert curves["loss", 60] < 0.7 * curves["loss", 10] and curves["entropy", 60] > 0.0
    assert curves["disc_error", 60] < min(0.1, curves["disc_error", 20])
    assert curves["examples_per_second", 60] > 0.0
    written = json.loads((folder / "config.json").read_text())
    assert written["config"] == {"name": "test"} and written["network"] == "test"
    panels = cv2.imread(str(folder / "panels.png"))
    assert panels.shape == (SIZE, 2 * SIZE, 3) and panels.std() > 20.0
    with np.load(folder / "weights.npz") as found:
        np.testing.assert_array_equal(found["kernel"], state.ema["params"]["kernel"])
        header = json.loads(str(found["metadata"]))
    assert (header["network"], header["steps"], header["batch"]) == ("test", STEPS, BATCH)
    np.testing.assert_allclose(header["scores"]["disc_error"], curves["disc_error", 60], rtol=1e-6)
    assert float(state.variables["seen"]["pictures"]) == STEPS * BATCH
    kept = {int(each.name) for each in (folder / "checkpoints").iterdir()}
    lowest = min(curves["disc_error", step] for step in (20, 40, 60))
    assert STEPS in kept and lowest in {curves["disc_error", step] for step in kept}


def test_a_run_that_was_cut_off_continues_bit_for_bit(whole, tmp_path: Path) -> None:
    assert_cut_off_run_continues(TASK, SETTINGS, tmp_path, whole)


def test_a_plain_run_is_the_same_without_orbax_and_pictures(
    whole, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "dfc_jax.training.checkpoints", None)  # fails to import
    plain = dataclasses.replace(SETTINGS, plain=True)
    assert_cut_off_run_continues(TASK, plain, tmp_path, whole)
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["00000060.npz"]
    assert not (tmp_path / "panels.png").exists()


def test_a_run_saves_by_the_clock(tmp_path: Path) -> None:
    plain = dataclasses.replace(SETTINGS, plain=True, save_minutes=1e-9, save_every=60, keep_last=9)
    run(TASK, opened(tmp_path), plain)
    kept = [int(file.stem) for file in sorted((tmp_path / "checkpoints").iterdir())]
    assert kept == list(range(52, 61))


def test_scores_compile_beside_the_steps(tmp_path: Path) -> None:
    """On variables that stay, though the steps give the memory of theirs away."""
    later, seen = threading.Event(), []

    def counted(step: int):
        for number, batch in enumerate(batches(step), start=step):
            if number == 5:
                later.set()
            yield batch

    def slow(variables) -> dict[str, float]:
        assert later.wait(60.0), "the steps waited for the first scores"
        seen.append(float(variables["seen"]["pictures"]))
        return evaluate(variables)

    run(dataclasses.replace(TASK, batches=counted, evaluate=slow), opened(tmp_path), SETTINGS)
    assert seen[0] == 0.0 and len(seen) == 4


def test_a_step_that_was_compiled_ahead_is_not_compiled_again(tmp_path: Path) -> None:
    kept = {
        cache.FOLDER_SETTING: str(tmp_path / "programs"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in kept}
    cache._configure(kept)
    try:
        compile_ahead(TASK, SETTINGS)
        (ahead,) = (tmp_path / "programs").glob("jit_call-*-cache")
        run(TASK, opened(tmp_path / "run"), SETTINGS)
        assert [ahead] == list((tmp_path / "programs").glob("jit_call-*-cache"))
    finally:
        cache._configure(before)


def test_a_summary_tells_what_a_start_did(whole, tmp_path: Path) -> None:
    summary = json.loads((whole[0] / "summary.json").read_text())
    assert (summary["unit"], summary["batch"], summary["steps"]) == ("examples", BATCH, STEPS)
    assert 0.0 < summary["seconds_of_steps"] < summary["seconds"]
    speed = BATCH * STEPS / summary["seconds_of_steps"]
    np.testing.assert_allclose(summary["examples_per_second"], speed)
    curves = scalars(whole[0])
    spent = sum(10 * curves["seconds_per_step", step] for step in range(10, STEPS + 1, 10))
    np.testing.assert_allclose(summary["seconds_of_steps"], spent, rtol=1e-5)
    assert summary["scores"]["disc_error"] == pytest.approx(curves["disc_error", STEPS])


def test_a_signal_ends_a_run_with_a_checkpoint_from_which_it_continues(
    whole, tmp_path: Path, caplog
) -> None:
    caplog.set_level("INFO")

    def stopped(step: int):
        for number, batch in enumerate(batches(step), start=step):
            if number == 27:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    state = run(dataclasses.replace(TASK, batches=stopped), opened(tmp_path), SETTINGS)
    step = int(state.step)
    assert 20 < step < 30 and not (tmp_path / "weights.npz").exists()
    assert f"stopped by a signal after step {step} of {STEPS}" in caplog.text
    assert_continues(TASK, SETTINGS, tmp_path, whole, from_step=step)
    assert f"resumed from step {step}" in caplog.text


def test_minutes_end_a_run_with_weights_after_the_rate_has_fallen(
    tmp_path: Path, monkeypatch
) -> None:
    now, rates = [1000.0], []

    def make_train_step(*given, **options):
        step_fn = make(*given, **options)

        def slow(state, batches, key, rate_factor):
            now[0] += 6.0
            rates.append(rate_factor)
            return step_fn(state, batches, key, rate_factor)

        return slow

    make = run_module.make_train_step
    monkeypatch.setattr(run_module, "make_train_step", make_train_step)
    monkeypatch.setattr(run_module.time, "monotonic", lambda: now[0])
    settings = dataclasses.replace(SETTINGS, minutes=3.0, decay_minutes=1.0)
    state = run(TASK, opened(tmp_path), settings, started=940.0)
    # Two of the three minutes are left; the last one is ten steps.
    assert int(state.step) == len(rates) == 20
    np.testing.assert_allclose(rates, [1.0] * 11 + [(10 - n) / 10 for n in range(1, 10)])
    with np.load(tmp_path / "weights.npz") as found:
        header = json.loads(str(found["metadata"]))
    assert header["steps"] == 20 and header["scores"]["disc_error"] < 0.5


def test_minutes_that_end_before_the_first_step_leave_no_weights(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, minutes=1.0)
    with pytest.raises(ConfigError, match=r"config\.minutes \(1\) were over before the first"):
        run(TASK, opened(tmp_path), settings, started=time.monotonic() - 61.0)
    assert not list(tmp_path.glob("weights*"))


def test_a_finished_run_is_scored_and_written_again(whole, tmp_path: Path) -> None:
    """Without training: a killed process may have saved its last state but no weights."""
    (whole[0] / "weights.npz").rename(tmp_path / "before.npz")
    run(dataclasses.replace(TASK, loss=lambda *_: 1 / 0), opened(whole[0]), SETTINGS)
    with np.load(whole[0] / "weights.npz") as ours, np.load(tmp_path / "before.npz") as theirs:
        assert str(ours["metadata"]) == str(theirs["metadata"])


def test_a_task_can_do_without_scores_and_pictures(tmp_path: Path) -> None:
    task = dataclasses.replace(TASK, evaluate=None, draw=None)
    optimizer = dataclasses.replace(SETTINGS.optimizer, steps=2)
    run(task, opened(tmp_path), dataclasses.replace(SETTINGS, optimizer=optimizer, log_every=1))
    assert not (tmp_path / "panels.png").exists()
    with np.load(tmp_path / "weights.npz") as found:
        assert json.loads(str(found["metadata"]))["scores"] == {}


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 0},
        {"log_every": 0},
        {"steps_per_call": 7},
        {"keep_last": 0},
        {"decay_minutes": 2.0, "minutes": 1.0},
        {"save_minutes": -1.0},
    ],
)
def test_settings_that_make_no_sense_name_their_field(change) -> None:
    name = "steps" if "steps_per_call" in change else next(iter(change))
    with pytest.raises(ConfigError, match=rf"^config\.{name} is "):
        dataclasses.replace(SETTINGS, **change)
