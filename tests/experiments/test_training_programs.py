"""Both training programs, start to end, on a tiny network: what they write and how they resume."""

import dataclasses
import json
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import ROOT
from programs import drawn_photos, give_photos
from quick import quick_compilation  # noqa: F401
from tiny import SIZE, SPECS, STEPS, TINY, config_of, noise_pair, scalars, tiny_config

from data_pipelines.faces.synthetic import SyntheticSettings, load_assets, sample_pair
from dfc_jax.morphable.file import load_face_model
from dfc_jax.nets import weights
from dfc_jax.systems.dfc import networks as variants
from dfc_jax.systems.dfc.task import start_from
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.training import Task, TrainSettings
from dfc_jax.training.run import run
from dfc_jax.training.workdir import Workdir
from experiments import finetune, photographs, pretrain


@dataclasses.dataclass
class Run:
    """A finished run: its folder, its state and what `run` was called with."""

    state: object
    task: Task
    opened: Workdir
    settings: TrainSettings

    @property
    def workdir(self) -> Path:
        return self.opened.path

    def again(self, folder: Path, **changes):
        """The same in another folder, with other functions of the task; the last state."""
        opened = dataclasses.replace(self.opened, path=folder)
        return run(dataclasses.replace(self.task, **changes), opened, self.settings)


def recorded(program, train) -> Run:
    calls = []
    with pytest.MonkeyPatch.context() as recorder:
        recorder.setattr(program, "run", lambda *args: calls.append(args) or run(*args))
        state = train()
    ((*arguments, started),) = calls
    assert started <= time.monotonic()
    return Run(state, *arguments)


@pytest.fixture(scope="module")
def pretrained(patched, tmp_path_factory) -> Run:
    workdir = tmp_path_factory.mktemp("pretrain") / "run"
    config = tiny_config("pretrain_lite", "tiny-tied")
    config.grey_background_steps = 2
    return recorded(pretrain, lambda: pretrain.train(config, workdir))


@pytest.fixture(scope="module")
def finetuned(patched, pretrained, tmp_path_factory) -> Run:
    workdir = tmp_path_factory.mktemp("finetune") / "run"
    asked = give_photos(patched)
    config = tiny_config("finetune_lite", "tiny")
    init_from = str(pretrained.workdir / "weights.safetensors")
    refine = partial(finetune.train, config, workdir, ["somewhere"], None, init_from)
    run = recorded(finetune, refine)
    assert asked == [(["somewhere"], "ibug")]
    return run


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrained", "finetuned"])
def test_a_run_leaves_weights_config_checkpoints_and_curves(stage, request) -> None:
    run = request.getfixturevalue(stage)
    config, metadata = run.opened.config, run.opened.metadata
    assert int(run.state.step) == STEPS
    written = json.loads((run.workdir / "config.json").read_text())
    assert written["config"]["synthetic"]["yaw_deg"] == SyntheticSettings().yaw_deg
    assert written["config"]["steps"] == STEPS and written["git"]
    assert written["network"] == config["network"] and written["face_model"]
    assert (run.workdir / "checkpoints" / str(STEPS)).is_dir()
    variables, found, header = weights.load(run.workdir / "weights.safetensors")
    assert (
        found == SPECS[config["network"]]
        and {**header, **metadata} == header
        and header["steps"] == STEPS
    )
    assert header["scores"] and all(np.isfinite(value) for value in header["scores"].values())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        variables,
        run.state.ema,
    )
    curves = scalars(run.workdir)
    for step in range(1, STEPS + 1):
        assert np.isfinite(curves["loss", step]) and curves["grad_norm", step] > 0
    for step in range(2, STEPS + 1):
        assert curves["seconds_per_step", step] > 0
        speed = config["batch"] / curves["seconds_per_step", step]
        np.testing.assert_allclose(curves["pairs_per_second", step], speed, rtol=1e-5)
    assert ("seconds_per_step", 1) not in curves, "compilation was counted"
    for name, value in header["scores"].items():
        np.testing.assert_allclose(curves[name, STEPS], value, rtol=1e-5)
    picture = cv2.imread(str(run.workdir / "panels.png"))
    rows = {"pretrained": 4, "finetuned": 2}[stage]
    assert picture.shape == (rows * SIZE, 7 * SIZE, 3) and picture.std() > 20.0


@pytest.mark.slow
def test_the_best_checkpoint_stays(pretrained) -> None:
    curves, saves = scalars(pretrained.workdir), (2, STEPS)
    best = min(saves, key=lambda step: curves["synthetic_epe", step])
    kept = {int(folder.name) for folder in (pretrained.workdir / "checkpoints").iterdir()}
    assert kept == {best, STEPS}


@pytest.mark.slow
def test_parameters_move_and_the_average_follows_them(pretrained) -> None:
    start, state = pretrained.task.init(jax.random.key(1)), pretrained.state
    for tree in (state.variables["params"], state.ema["params"]):
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), tree, start["params"])
        assert min(jax.tree.leaves(moved)) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrained", "finetuned"])
def test_a_run_that_was_stopped_continues_bit_for_bit(stage, request, tmp_path: Path) -> None:
    whole = request.getfixturevalue(stage)
    batches = whole.task.batches

    def stopped(step: int):
        for number, batch in enumerate(batches(step), start=step):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        whole.again(tmp_path, batches=stopped)
    assert (tmp_path / "checkpoints" / "2").is_dir()
    assert not (tmp_path / "weights.safetensors").exists()
    first, starts = scalars(tmp_path), []

    def resumed(step: int):
        starts.append(step)
        return batches(step)

    state = whole.again(tmp_path, batches=resumed)
    assert starts == [2]
    again, curves = scalars(tmp_path), scalars(whole.workdir)
    assert ("loss", 4) not in first and len({curves["loss", n] for n in (1, 2, 3, 4)}) == 4
    for step in range(1, STEPS + 1):
        assert again["loss", step] == curves["loss", step]
    jax.tree.map(np.testing.assert_array_equal, state.variables, whole.state.variables)
    jax.tree.map(np.testing.assert_array_equal, state.ema, whole.state.ema)


@pytest.mark.slow
def test_a_run_goes_back_from_a_damaged_checkpoint_and_ends_the_same(
    pretrained, tmp_path: Path, caplog
) -> None:
    """The damaged step is saved again, and the next run finds it whole."""
    settings = dataclasses.replace(pretrained.settings, keep_last=2)
    kept = dataclasses.replace(pretrained, settings=settings)
    kept.again(tmp_path)
    for file in (tmp_path / "checkpoints" / str(STEPS)).glob("default/d/*"):
        file.write_bytes(b"")
    caplog.clear()
    state = kept.again(tmp_path)
    assert f"step {STEPS} is damaged" in caplog.text and "going back to step 2" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, state.ema, pretrained.state.ema)
    caplog.clear()
    kept.again(tmp_path)
    assert "damaged" not in caplog.text


def test_noise_has_the_shapes_of_faces() -> None:
    model, settings = load_face_model(), SyntheticSettings(size=SIZE)
    arguments = (jax.random.key(0), load_assets(model, None), settings)
    shapes = [
        jax.eval_shape(lambda make=make: make(*arguments)) for make in (sample_pair, noise_pair)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_photographs_are_labelled_once_per_run(finetuned, monkeypatch) -> None:
    asked = give_photos(monkeypatch)
    model = load_face_model()
    made_from = model, make_template(model, SIZE)
    photos = photographs.load_photos(finetuned.workdir, ["somewhere"], *made_from)
    np.testing.assert_array_equal(photos.load(np.arange(7)).images, drawn_photos().images)
    assert not asked
    photographs.load_photos(finetuned.workdir, ["somewhere", "else"], *made_from)
    photographs.load_photos(finetuned.workdir, ["somewhere"], *made_from, "300w-lp")
    assert asked == [(["somewhere", "else"], "ibug"), (["somewhere"], "300w-lp")]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 6])
def test_the_default_config_refines_on_few_photographs(
    count, patched, monkeypatch, tmp_path: Path
) -> None:
    give_photos(monkeypatch, count)
    config = tiny_config("finetune_lite", "tiny")
    config.held_out, config.batch = config_of("finetune_lite").held_out, 8
    state = finetune.train(config, tmp_path, ["x"])
    assert int(state.step) == STEPS
    scores = weights.load(tmp_path / "weights.safetensors")[2]["scores"]
    assert np.isfinite(scores["held_out_nme"])


@pytest.mark.slow
def test_progress_says_what_it_compiles_the_rate_and_the_time_left(
    pretrained, tmp_path: Path, caplog
) -> None:
    caplog.set_level("INFO")
    pretrained.again(tmp_path)
    said = [record.getMessage() for record in caplog.records if "orbax" not in record.pathname]
    compiling = next(i for i, line in enumerate(said) if "compiling the training step" in line)
    steps = [line for line in said if line.startswith("step ")]
    assert said.index(steps[0]) > compiling and "the first log (step 1)" in said[compiling]
    assert any(re.match(rf"step 3 of {STEPS} .*pairs_per_second .*  \d+ s left", s) for s in steps)


@pytest.mark.slow
def test_tied_weights_start_the_untied_network_with_the_same_outputs(pretrained) -> None:
    file = str(pretrained.workdir / "weights.safetensors")
    untied = start_from(file, TINY, "tiny")(jax.random.key(0))
    tied, spec, _ = weights.load(file)
    assert spec.tied and variants.param_count(untied) > variants.param_count(tied)
    crops = jax.random.uniform(jax.random.key(0), (3, SIZE, SIZE, 3))
    one = variants.apply(tied, crops[:2], crops[2:], spec)
    other = variants.apply(untied, crops[:2], crops[2:], TINY)
    np.testing.assert_allclose(one.flow, other.flow, atol=1e-4)
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def test_a_run_can_do_without_evaluation(patched, monkeypatch, tmp_path: Path) -> None:
    calls = []
    for program in (pretrain, finetune):
        monkeypatch.setattr(program, "run", lambda *arguments: calls.append(arguments))
    give_photos(monkeypatch)
    config = tiny_config("finetune_lite", "tiny")
    config.held_out = 0
    finetune.train(config, tmp_path / "refine", ["x"])
    config = tiny_config("pretrain_lite", "tiny-tied")
    config.validation_pairs = 0
    pretrain.train(config, tmp_path / "pretrain")
    assert [(task.evaluate, task.draw) for task, *_ in calls] == [(None, None), (None, None)]


@pytest.mark.slow
def test_programs_exit_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.finetune", f"--workdir={tmp_path / 'run'}"]
    command += ["--config=experiments/configs/dfc/finetune_lite.py", "--photos=x", "--init=no/such"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "finetune: no/such: no such weight file" in done.stderr.splitlines()[-1]
