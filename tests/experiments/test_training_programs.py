"""Both training programs, start to end, on a tiny network: what they write, how they resume, and
what they say when something is wrong."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from paths import ROOT
from quick import quick_compilation  # noqa: F401
from tiny import SIZE, SPECS, STEPS, TINY, config_of, noise_pair, scalars, tiny_config

from data_pipelines.faces.synthetic import SyntheticSettings, load_assets, sample_pair
from data_pipelines.photos.augment import AugmentSettings
from data_pipelines.photos.labels import PhotoSet
from data_pipelines.photos.squares import STORED_PX
from dfc_jax.morphable.file import load_face_model
from dfc_jax.nets import weights
from dfc_jax.systems.dfc import networks as variants
from dfc_jax.training import TrainingDiverged
from experiments import finetune, launch, pretrain, stages
from experiments.workdir import time_of

CONFIGS = (
    "pretrain_lite",
    "pretrain_fast",
    "pretrain_paper",
    "finetune_lite",
    "finetune_fast",
    "finetune_paper",
)


def drawn_photos() -> PhotoSet:
    """Seven random pictures with a disc of labels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:STORED_PX, :STORED_PX]
    disc = (x - 95.5) ** 2 + (y - 95.5) ** 2 < 60.0**2
    angle = np.linspace(0.0, 2 * np.pi, 68, endpoint=False)
    circle = 95.5 + 48.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    template = (np.stack([x, y], axis=-1) - 95.5) * SIZE / 144.0 + (SIZE - 1) / 2.0
    return PhotoSet(
        names=np.array([f"{n}.jpg" for n in range(7)]),
        images=rng.integers(0, 255, (7, STORED_PX, STORED_PX, 3), np.uint8),
        points=np.repeat(circle[None], 7, axis=0).astype(np.float32),
        template_xy=np.repeat(template[None], 7, axis=0).astype(np.float16),
        matchable=np.repeat(disc[None], 7, axis=0),
        error=np.full(7, 1.0),
        contour=np.ones(7, bool),
    )


def give_photos(patch: pytest.MonkeyPatch) -> list[tuple]:
    """Every folder holds `drawn_photos`, and a broken one; returns what was asked for."""
    asked: list[tuple] = []

    def read_sets(folders, layout):
        asked.append((folders, layout))
        return [], list(drawn_photos().names), ["8.jpg: is broken"]

    patch.setattr(finetune, "read_sets", read_sets)
    patch.setattr(finetune, "label_fitted", lambda model, template, squares: drawn_photos())
    return asked


@dataclasses.dataclass
class Run:
    """A finished run: its folder, its state and what `stages.run` was called with."""

    workdir: Path
    state: object
    arguments: tuple


@pytest.fixture(scope="module")
def patched():
    """The tiny networks have names, faces are noise, and a loss that was compiled is not compiled
    again."""
    steps = {}

    def make_train_step(loss_fn, *args, **options):
        if loss_fn not in steps:
            steps[loss_fn] = original(loss_fn, *args, **options)
        return steps[loss_fn]

    original = stages.make_train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "SPECS", {**variants.SPECS, **SPECS})
        patch.setattr(stages, "make_train_step", make_train_step)
        patch.setattr(pretrain, "sample_pair", noise_pair)
        for program in (pretrain, finetune):
            patch.setattr(program, "sample_to_template", noise_pair)
        yield patch


def recorded(workdir: Path, train) -> Run:
    calls = []
    run = stages.run
    with pytest.MonkeyPatch.context() as recorder:
        recorder.setattr(stages, "run", lambda *args: calls.append(args) or run(*args))
        state = train()
    (arguments,) = calls
    return Run(workdir, state, arguments)


@pytest.fixture(scope="module")
def pretrained(patched, tmp_path_factory) -> Run:
    workdir = tmp_path_factory.mktemp("pretrain") / "run"
    config = tiny_config("pretrain_lite", "tiny-tied")
    config.grey_background_steps = 2
    return recorded(workdir, lambda: pretrain.train(config, workdir))


@pytest.fixture(scope="module")
def finetuned(patched, pretrained, tmp_path_factory) -> Run:
    workdir = tmp_path_factory.mktemp("finetune") / "run"
    asked = give_photos(patched)
    config = tiny_config("finetune_lite", "tiny")
    init_from = str(pretrained.workdir / "weights.safetensors")
    run = recorded(workdir, lambda: finetune.train(config, workdir, ["somewhere"], None, init_from))
    assert asked == [(["somewhere"], "ibug")]
    return run


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrained", "finetuned"])
def test_a_run_leaves_weights_config_checkpoints_and_curves(stage, request) -> None:
    run = request.getfixturevalue(stage)
    config, spec, metadata = run.arguments[0], run.arguments[2], run.arguments[-1]
    assert int(run.state.step) == STEPS
    written = json.loads((run.workdir / "config.json").read_text())
    assert written["config"]["synthetic"]["yaw_deg"] == SyntheticSettings().yaw_deg
    assert written["config"]["steps"] == STEPS and written["git"]
    assert written["network"] == config.network and written["face_model"]
    assert (run.workdir / "checkpoints" / str(STEPS)).is_dir()
    variables, found, header = weights.load(run.workdir / "weights.safetensors")
    assert found == spec and {**header, **metadata} == header and header["steps"] == STEPS
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
        speed = config.batch / curves["seconds_per_step", step]
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
    start, state = pretrained.arguments[3], pretrained.state
    for tree in (state.variables["params"], state.ema["params"]):
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), tree, start["params"])
        assert min(jax.tree.leaves(moved)) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrained", "finetuned"])
def test_a_run_that_was_stopped_continues_bit_for_bit(stage, request, tmp_path: Path) -> None:
    whole = request.getfixturevalue(stage)
    config, _, spec, variables, batches, *rest = whole.arguments

    def stopped(step: int):
        for number, batch in enumerate(batches(step), start=step):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        stages.run(config, tmp_path, spec, variables, stopped, *rest)
    assert (tmp_path / "checkpoints" / "2").is_dir()
    assert not (tmp_path / "weights.safetensors").exists()
    first, starts = scalars(tmp_path), []

    def resumed(step: int):
        starts.append(step)
        return batches(step)

    state = stages.run(config, tmp_path, spec, variables, resumed, *rest)
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
    config, *rest = pretrained.arguments[0].copy_and_resolve_references(), *pretrained.arguments[2:]
    config.keep_last = 2
    stages.run(config, tmp_path, *rest)
    for file in (tmp_path / "checkpoints" / str(STEPS)).glob("default/d/*"):
        file.write_bytes(b"")
    caplog.clear()
    state = stages.run(config, tmp_path, *rest)
    assert f"step {STEPS} is damaged" in caplog.text and "going back to step 2" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, state.ema, pretrained.state.ema)
    caplog.clear()
    stages.run(config, tmp_path, *rest)
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
    photos = finetune.load_photos(finetuned.workdir, ["somewhere"], None, None)
    np.testing.assert_array_equal(photos.images, drawn_photos().images)
    assert not asked
    finetune.load_photos(finetuned.workdir, ["somewhere", "else"], None, None)
    finetune.load_photos(finetuned.workdir, ["somewhere"], None, None, "300w-lp")
    assert asked == [(["somewhere", "else"], "ibug"), (["somewhere"], "300w-lp")]


def test_with_basel_the_labels_are_those_given(monkeypatch, tmp_path: Path) -> None:
    give_photos(monkeypatch)
    calls = []
    monkeypatch.setattr(
        finetune, "label_given", lambda *given: calls.append(given) or drawn_photos()
    )
    finetune.load_photos(tmp_path, ["somewhere"], "model", "template", "300w-lp", "lp")
    assert calls == [("lp", "template", list(drawn_photos().names))]
    config = tiny_config("finetune_lite", "tiny")
    with pytest.raises(stages.ConfigError, match="with --basel set config.synthetic_batch"):
        finetune.train(config, tmp_path / "run", ["x"], layout="300w-lp", basel="somewhere")


def test_turned_copies_stand_behind_the_photographs(monkeypatch, tmp_path) -> None:
    photos, asked = drawn_photos(), []

    def turned_photos(model, template, some, yaw_deg):
        asked.append(yaw_deg)
        return dataclasses.replace(some, error=some.error + 100.0 * len(asked))

    monkeypatch.setattr(finetune, "turned_photos", turned_photos)
    config = tiny_config("finetune_lite", "tiny")
    config.turned, config.turned_deg = 2, 60.0
    both = finetune.with_turned(tmp_path, photos, config, None, None)
    np.testing.assert_allclose(
        both.error, np.concatenate([photos.error + offset for offset in (0.0, 100.0, 200.0)])
    )
    yaws = np.array(asked)
    assert yaws.shape == (2, len(photos)) and not np.array_equal(*yaws)
    assert 20.0 < np.abs(yaws).max() <= 60.0
    again = finetune.with_turned(tmp_path, photos, config, None, None)
    assert len(asked) == 2, "the copies are kept in the workdir"
    np.testing.assert_array_equal(again.error, both.error)
    finetune.with_turned(tmp_path, photos.select(np.arange(3)), config, None, None)
    assert len(asked) == 4, "other photographs have other copies"
    config.turned = 0
    assert len(finetune.with_turned(tmp_path, photos, config, None, None)) == len(photos)


def test_features_count_more_where_the_landmarks_are() -> None:
    landmarks = np.full((68, 2), 20.0)
    landmarks[:17] = 70.0  # the jaw counts like everything else
    landmarks[40] = [60.0, 30.0]
    counts = np.asarray(finetune.feature_importance(jnp.asarray(landmarks), 100, 3.0))
    assert counts[20, 20] == counts[30, 60] == 3.0
    np.testing.assert_allclose(counts[30, 64], 1.0 + 2.0 * np.exp(-0.5), rtol=1e-5)
    np.testing.assert_allclose(counts[70, 70], 1.0, atol=1e-5)
    assert (finetune.feature_importance(jnp.asarray(landmarks), 100, 1.0) == 1.0).all()


def test_every_photograph_is_seen_once_an_epoch_and_orders_repeat() -> None:
    photos, config = drawn_photos(), tiny_config("finetune_lite", "tiny")
    images = photos.images.reshape(7, -1)

    def seen(start: int, count: int) -> list[int]:
        steps = finetune.batches(photos, config)(start)
        pictures = [next(steps)["photo"].image.reshape(2, -1) for _ in range(count)]
        return [int(np.all(images == p, axis=1).argmax()) for pair in pictures for p in pair]

    epochs = seen(0, 6)
    assert len(set(epochs[:6])) == len(set(epochs[6:])) == 6 and epochs[:6] != epochs[6:]
    assert seen(4, 2) == epochs[8:]


def test_few_photographs_fill_a_batch_by_repeating() -> None:
    config = tiny_config("finetune_lite", "tiny")
    config.batch = 16
    photos = drawn_photos().select(np.arange(5))
    batch = next(finetune.batches(photos, config)(0))["photo"]
    images = photos.images.reshape(5, -1)
    seen = [int(np.all(images == p, axis=1).argmax()) for p in batch.image.reshape(16, -1)]
    assert sorted(np.bincount(seen)) == [3, 3, 3, 3, 4]


@pytest.mark.parametrize(
    ("count", "held_out", "expected"),
    [(2, 0.1, 1), (6, 0.1, 1), (40, 0.1, 4), (1207, 0.1, 40), (6, 0.0, 0), (6, 5, 5), (40, 1, 1)],
)
def test_held_out_is_a_share_or_a_number(count, held_out, expected) -> None:
    assert finetune.held_out_count(count, held_out) == expected


@pytest.mark.parametrize(("count", "held_out"), [(0, 0.0), (0, 0.1), (1, 0.1), (40, 40), (6, 0.99)])
def test_too_few_photographs_are_one_sentence(count, held_out) -> None:
    with pytest.raises(launch.ConfigError, match=f"there are {count} usable .* none to train on"):
        finetune.held_out_count(count, held_out)


@pytest.mark.parametrize("held_out", [-1, -0.1, 2.5])
def test_held_out_that_is_neither_share_nor_number_is_refused(held_out) -> None:
    with pytest.raises(launch.ConfigError, match="config.held_out is .* whole number"):
        finetune.held_out_count(40, held_out)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 6])
def test_the_default_config_refines_on_few_photographs(
    count, patched, monkeypatch, tmp_path: Path
) -> None:
    give_photos(monkeypatch)
    few = drawn_photos().select(np.arange(count))
    monkeypatch.setattr(finetune, "label_fitted", lambda *_: few)
    config = tiny_config("finetune_lite", "tiny")
    config.held_out, config.batch = config_of("finetune_lite").held_out, 8
    state = finetune.train(config, tmp_path, ["x"])
    assert int(state.step) == STEPS
    scores = weights.load(tmp_path / "weights.safetensors")[2]["scores"]
    assert np.isfinite(scores["held_out_nme"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_tiny_config_serves_both_stages(stage, patched, monkeypatch, tmp_path: Path) -> None:
    """All of it as it is, but the network and the number of steps."""
    give_photos(monkeypatch)
    config = config_of("tiny")
    stages.spec_of(config)
    config.network, config.steps, config.warmup_steps, config.log_every = "tiny-tied", 2, 1, 1
    config.augment.size = config.synthetic.size = SIZE
    if stage == "pretrain":
        pretrain.train(config, tmp_path)
    else:
        finetune.train(config, tmp_path, ["x"])
    assert (tmp_path / "weights.safetensors").is_file()


@pytest.mark.slow
def test_progress_says_what_it_compiles_the_rate_and_the_time_left(
    pretrained, tmp_path: Path, caplog
) -> None:
    caplog.set_level("INFO", logger="absl")
    config, *rest = pretrained.arguments[0], *pretrained.arguments[2:]
    stages.run(config, tmp_path, *rest)
    said = [record.getMessage() for record in caplog.records if "orbax" not in record.pathname]
    compiling = next(i for i, line in enumerate(said) if "compiling the training step" in line)
    steps = [line for line in said if line.startswith("step ")]
    assert said.index(steps[0]) > compiling and "the first log (step 1)" in said[compiling]
    assert any(re.match(rf"step 3 of {STEPS} .*pairs_per_second .*  \d+ s left", s) for s in steps)


def test_times_are_said_as_people_say_them() -> None:
    times = [time_of(seconds) for seconds in (0.4, 59, 90, 3600, 7500)]
    assert times == ["0 s", "59 s", "2 min", "1 h 00 min", "2 h 05 min"]


def test_pairs_do_not_depend_on_the_batch_size() -> None:
    key = jax.random.key(0)
    few, many = (pretrain.pair_keys(key, jnp.arange(n)) for n in (2, 5))
    np.testing.assert_array_equal(jax.random.key_data(many)[:2], jax.random.key_data(few))
    assert len(np.unique(jax.random.key_data(many), axis=0)) == 5


def test_grey_backgrounds_come_first() -> None:
    config = tiny_config("pretrain_lite", "tiny-tied")
    config.grey_background_steps = 3
    steps = pretrain.batches(config)(1)
    assert [bool(next(steps)["grey"].all()) for _ in range(4)] == [True, True, False, False]


@pytest.mark.slow
def test_tied_weights_start_the_untied_network_with_the_same_outputs(pretrained) -> None:
    file = str(pretrained.workdir / "weights.safetensors")
    config = tiny_config("finetune_lite", "tiny")
    untied = stages.initial_variables(config, TINY, file)
    tied, spec, _ = weights.load(file)
    assert spec.tied and variants.param_count(untied) > variants.param_count(tied)
    crops = jax.random.uniform(jax.random.key(0), (3, SIZE, SIZE, 3))
    one = variants.apply(tied, crops[:2], crops[2:], spec)
    other = variants.apply(untied, crops[:2], crops[2:], TINY)
    np.testing.assert_allclose(one.flow, other.flow, atol=1e-4)
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def test_weights_from_before_the_refinement_start_a_network_that_has_one(tmp_path: Path) -> None:
    plain = dataclasses.replace(SPECS["tiny-tied"], details=0, refinements=0)
    file = tmp_path / "plain.safetensors"
    weights.save(file, variants.init(jax.random.key(0), plain), plain, {})
    started = stages.initial_variables(tiny_config("finetune_lite", "tiny"), TINY, str(file))
    crops = jax.random.uniform(jax.random.key(1), (3, SIZE, SIZE, 3))
    before = variants.apply(weights.load(file)[0], crops[:2], crops[2:], plain)
    after = variants.apply(started, crops[:2], crops[2:], TINY)
    np.testing.assert_allclose(before.flow, after.flow, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_make_sense_and_their_settings_can_be_changed(name: str) -> None:
    config = config_of(name)
    assert stages.spec_of(config).tied == name.startswith("pretrain")
    optim = stages.optim_config(config)
    assert all(0 < step < optim.steps for step, _ in optim.boundaries)
    assert stages.settings_from(SyntheticSettings, config.synthetic) == SyntheticSettings()
    config.synthetic.yaw_deg = 10.0
    assert stages.settings_from(SyntheticSettings, config.synthetic).yaw_deg == 10.0
    if name.startswith("finetune"):
        assert stages.settings_from(AugmentSettings, config.augment) == AugmentSettings()
    for parent in (config, config.synthetic):
        with pytest.raises(AttributeError):
            parent.not_a_setting = 1


def failure(capsys, train) -> str:
    """What a program that fails says on stderr: one line."""
    with pytest.raises(SystemExit) as stop:
        launch.run_program(train)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def no_run(*_):
    raise AssertionError("the run was started")


@pytest.mark.parametrize("part", ["synthetic", "augment"])
def test_an_unknown_setting_is_named(part, patched, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(stages, "run", no_run)
    config = tiny_config("finetune_lite", "tiny").unlock()
    config[part] = ConfigDict({"yaw": 10.0})
    line = failure(capsys, lambda: finetune.train(config, tmp_path / "run", ["x"]))
    kind = {"synthetic": "SyntheticSettings", "augment": "AugmentSettings"}[part]
    assert f"{kind} has no yaw; it has " in line
    assert not (tmp_path / "run").exists(), "a run was begun with a broken config"


@pytest.mark.slow
def test_wrong_networks_and_weight_files_are_named(
    patched, pretrained, monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.setattr(stages, "run", no_run)
    weight_file = str(pretrained.workdir / "weights.safetensors")

    def start(network: str, init_from: str | None):
        config = tiny_config("pretrain_lite", network)
        return failure(capsys, lambda: pretrain.train(config, tmp_path / "run", None, init_from))

    assert "there is no network 'huge'; choose from ['lite'" in start("huge", None)
    line = start("lite-tied", weight_file)
    assert f"{weight_file}: holds another network than --config asks for (lite-tied)" in line
    # Tied weights can be untied, but not the other way round.
    paper = tmp_path / "paper.safetensors"
    small = variants.NetSpec("lite", widths=(4,) * 4, depths=(0,) * 4, decoder_depths=(0,) * 4)
    weights.save(paper, variants.init(jax.random.key(0), small), small, {})
    assert "holds another network" in start("tiny-tied", str(paper))
    assert "absent.safetensors: no such weight file" in start("tiny", "x/absent.safetensors")
    paper.write_bytes(b"nonsense")
    assert "cannot be read as safetensors" in start("tiny", str(paper))
    assert not (tmp_path / "run").exists()


def test_a_run_can_do_without_evaluation(patched, monkeypatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr(stages, "run", lambda *arguments: calls.append(arguments))
    give_photos(monkeypatch)
    config = tiny_config("finetune_lite", "tiny")
    config.held_out = 0
    finetune.train(config, tmp_path / "refine", ["x"])
    config = tiny_config("pretrain_lite", "tiny-tied")
    config.validation_pairs = 0
    pretrain.train(config, tmp_path / "pretrain")
    assert [arguments[6:8] for arguments in calls] == [(None, None), (None, None)]


def test_other_mistakes_are_one_sentence(patched, monkeypatch, capsys, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    config = tiny_config("pretrain_lite", "tiny-tied")
    line = failure(capsys, lambda: pretrain.train(config, file / "run"))
    assert f"{file / 'run'}: cannot be written (Not a directory)" in line
    sources = {"backgrounds": str(tmp_path)}
    line = failure(capsys, lambda: pretrain.train(config, tmp_path / "a", sources))
    assert f"{tmp_path}: holds no readable .jpg or .png picture" in line
    config.warmup_steps = STEPS
    line = failure(capsys, lambda: pretrain.train(config, tmp_path / "b"))
    assert "warm-up must be shorter than the run" in line

    config = tiny_config("finetune_lite", "tiny")
    config.synthetic.size = 64
    line = failure(capsys, lambda: finetune.train(config, tmp_path / "c", ["x"]))
    assert "config.augment.size is 32 and config.synthetic.size 64" in line
    config.synthetic.size = SIZE
    config.held_out = 7
    give_photos(monkeypatch)
    line = failure(capsys, lambda: finetune.train(config, tmp_path / "d", ["x"]))
    assert "there are 7 usable photographs and 7 are held out, which leaves none to train" in line
    config = tiny_config("pretrain_lite", "tiny")
    line = failure(capsys, lambda: finetune.train(config, tmp_path / "e", ["x"]))
    assert "--config has no augment; it is a config of the other stage" in line

    def diverge():
        raise TrainingDiverged("the loss of step 3 is nan")

    assert "the loss of step 3 is nan" in failure(capsys, diverge)
    with pytest.raises(ZeroDivisionError):
        launch.run_program(lambda: 1 / 0)


def test_programs_exit_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.finetune", f"--workdir={tmp_path / 'run'}"]
    command += ["--config=experiments/configs/dfc/finetune_lite.py", "--photos=x", "--init=no/such"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "finetune: no/such: no such weight file" in done.stderr.splitlines()[-1]
