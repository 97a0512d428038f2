"""Every config runs, and those named after the paper hold what the paper says."""

import dataclasses
import sys
from pathlib import Path

import basel_layouts
import jax
import numpy as np
import pytest
from absl import flags
from dataset_layouts import sample, write_300w_lp
from programs import CONFIGS, PROGRAMS, give_photos
from quick import quick_compilation  # noqa: F401
from tiny import SIZE, config_of, noise_pair

from data_pipelines.faces.degradation import DegradationSettings, degrade
from data_pipelines.faces.occluders import OccluderSettings, occlude
from data_pipelines.faces.synthetic import load_assets, sample_pair
from data_pipelines.photos import turned
from dfc_jax.errors import ConfigError
from dfc_jax.morphable.file import load_face_model
from dfc_jax.nets import weights
from dfc_jax.systems.dfc.paper import PaperSpec
from experiments import finetune, launch, photographs, pretrain

SMALLER = {
    "steps": 1,
    "batch": 2,
    "log_every": 1,
    "save_every": 1,
    "steps_per_call": 1,
    "warmup_steps": 0,
    "decay_steps": 0,
    "held_out": 2,
    "validation_pairs": 2,
    "synthetic.size": SIZE,
    "augment.size": SIZE,
}


@pytest.fixture
def command(monkeypatch):
    """Call a program with a config and a command line, in this process."""

    def call(program, name: str, *words: str):
        config, before = config_of(name), set(flags.FLAGS)
        small = {field: value for field, value in SMALLER.items() if field.split(".")[0] in config}
        for field in ("template_targets", "synthetic_batch"):
            if config.get(field):
                small[field] = 1
        small["network"] = "tiny-tied" if program is pretrain else "tiny"
        overrides = [f"--config.{field}={value}" for field, value in small.items()]
        program.define_flags()
        # The overrides of a config are read from here.
        argv = ["program", f"--config={CONFIGS / name}.py", *overrides, *words]
        monkeypatch.setattr(sys, "argv", argv)
        try:
            launch.parse_flags(argv)
            return program.train_as_told(flags.FLAGS)
        finally:
            flags.FLAGS.unparse_flags()
            for added in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, added)

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "program"), [(name, each) for name, all_ in PROGRAMS.items() for each in all_]
)
def test_every_config_makes_its_first_step(
    name, program, patched, command, monkeypatch, tmp_path: Path
) -> None:
    """With a tiny network, and noise for rendered faces."""
    give_photos(monkeypatch)
    monkeypatch.setattr(turned, "turned_photos", lambda model, template, photos, *_: photos)
    photos = ["--photos=somewhere"] if program is finetune else []
    state = command(program, name, f"--workdir={tmp_path / 'run'}", *photos)
    assert int(state.step) == 1
    scores = weights.load(tmp_path / "run" / "weights.safetensors")[2]["scores"]
    assert all(np.isfinite(value) for value in scores.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_faces_of_every_config_can_be_rendered(name) -> None:
    faces = PROGRAMS[name][0].settings_of(config_of(name)).faces
    arguments = (jax.random.key(0), load_assets(load_face_model(), None), faces)
    rendered, noise = (jax.eval_shape(lambda f=f: f(*arguments)) for f in (sample_pair, noise_pair))
    assert rendered == noise


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> tuple[Path, Path]:
    """Six faces of 300W-LP and the Basel model that their parameters belong to, both generated."""
    root = tmp_path_factory.mktemp("given")
    photos, basel = root / "300W_LP", root / "basel"
    basel.mkdir()
    face = basel_layouts.known_face(n_identity=199, n_expression=29)
    basel_layouts.write_3ddfa(basel, face)
    sigma, sigma_expression = (
        basel_layouts.components(directions)[1]
        for directions in (face.identity_mm, face.expression_mm)
    )
    rng = np.random.default_rng(0)
    faces = {
        f"AFW/AFW_{n}_0": sample(
            n,
            pose=np.array([0.0, 0.1 * n, 0.0, 225.0, 225.0, -90.0, 1.5e-3]),
            shape=0.1 * rng.normal(size=199) * sigma,
            expression=0.1 * rng.normal(size=29) * sigma_expression / 1e5,
        )
        for n in range(6)
    }
    write_300w_lp(photos, faces)
    return photos, basel


@pytest.mark.slow
def test_finetune_paper_learns_from_300w_lps_own_parameters(
    given, patched, command, monkeypatch, tmp_path: Path
) -> None:
    def fitted(*_):
        raise AssertionError("a model was fitted to the points")

    monkeypatch.setattr(photographs, "label_fitted", fitted)
    photos, basel = given
    flags = [f"--photos={photos}", "--layout=300w-lp", f"--basel={basel}"]
    state = command(finetune, "finetune_paper", f"--workdir={tmp_path / 'run'}", *flags)
    assert int(state.step) == 1
    header = weights.load(tmp_path / "run" / "weights.safetensors")[2]
    assert header["face_model"] != load_face_model().version
    assert np.isfinite(header["scores"]["held_out_nme"])


def test_configs_with_rendered_or_turned_faces_refuse_basel(
    given, patched, command, tmp_path: Path
) -> None:
    photos, basel = given
    flags = [f"--photos={photos}", "--layout=300w-lp", f"--basel={basel}"]
    with pytest.raises(ConfigError, match="set config.synthetic_batch and config.turned to 0"):
        command(finetune, "finetune_lite", f"--workdir={tmp_path / 'run'}", *flags)
    assert not (tmp_path / "run").exists()


PAPER = (pretrain.settings_of, "pretrain_paper"), (finetune.settings_of, "finetune_paper")


@pytest.mark.parametrize(("settings_of", "name"), PAPER)
def test_the_papers_batch_optimizer_and_loss(settings_of, name) -> None:
    settings = settings_of(config_of(name))
    training, optimizer = settings.training, settings.training.optimizer
    assert (training.batch, training.ema_decay) == (12, 0.0)
    assert (optimizer.name, optimizer.learning_rate) == ("adam", 1e-4)
    assert (optimizer.warmup_steps, optimizer.clip_norm) == (0, 0.0)
    loss = settings.loss
    assert (loss.norm, loss.reduction, loss.matchability_weight) == ("l2", "sum", 1.0)
    assert isinstance(settings.spec, PaperSpec) and settings.spec.tail == (2, 2, 2)


def test_the_papers_pretraining_is_two_epochs_of_pairs_the_first_half_on_grey() -> None:
    settings = pretrain.settings_of(config_of("pretrain_paper"))
    assert settings.spec.tied and settings.template_targets == 0
    assert settings.training.optimizer.schedule == "constant"
    assert abs(settings.training.steps * 12 - 2 * 200_000) < 12
    assert settings.grey_background_steps == settings.training.steps // 2
    assert (settings.faces.background.grey, settings.faces.background.pictures) == (0.0, 1.0)
    assert (settings.faces.light.shadow, settings.faces.light.highlights) == (0.0, 0.0)


def test_the_papers_refinement_is_photographs_alone_for_three_epochs() -> None:
    settings = finetune.settings_of(config_of("finetune_paper"))
    assert not settings.spec.tied
    assert (settings.synthetic_batch, settings.turned, settings.feature_gain) == (0, 0, 1.0)
    optimizer, epoch = settings.training.optimizer, 122_450 // 12
    assert optimizer.steps == 3 * epoch
    assert (optimizer.schedule, optimizer.boundaries) == ("piecewise", ((2 * epoch, 1e-5),))
    changes = settings.augmentation
    assert changes.scale > 1.0 and changes.translation > 0.0 and changes.rotation_deg > 0.0


def covered(occluders: OccluderSettings, camera: DegradationSettings) -> np.ndarray:
    """How much eight pictures of a face change, (8, 64, 64)."""
    keys = jax.random.split(jax.random.key(0), 8)
    rng = np.random.default_rng(0)
    image = rng.uniform(0.2, 0.8, (64, 64, 3)).astype(np.float32)
    points = 32.0 + rng.uniform(-16.0, 16.0, (68, 2)).astype(np.float32)

    def change(key):
        found, _ = occlude(key, image, points, occluders)
        return abs(degrade(key, found, camera) - image).max(axis=-1)

    return np.asarray(jax.vmap(change)(keys))


@pytest.mark.slow
@pytest.mark.parametrize(("settings_of", "name"), PAPER)
def test_nothing_but_rectangles_changes_the_papers_pictures(settings_of, name) -> None:
    settings = settings_of(config_of(name))
    seen = settings.faces if name.startswith("pretrain") else settings.augmentation
    assert seen.occluders.boxes > 0 and seen.occluders.box > 0.0
    without = dataclasses.replace(seen.occluders, boxes=0)
    assert covered(without, seen.degradation).max() < 1e-4
    share = (covered(seen.occluders, seen.degradation) > 1e-4).mean(axis=(1, 2))
    assert share.max() > 0.01 and share.min() == 0.0
