"""The training of the segmentation, start to end, with a tiny network and drawn photographs."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from dataset_layouts import write_fasseg
from programs import give_photos
from quick import quick_compilation  # noqa: F401
from runs import assert_cut_off_run_continues, opened

from data_pipelines.masks.squares import FACE, MaskSquares
from dfc_jax.errors import ConfigError, DatasetError
from dfc_jax.morphable.file import load_face_model
from dfc_jax.nets import weights
from dfc_jax.systems.segmentation import networks
from dfc_jax.systems.segmentation.networks import TwoStreamSpec
from dfc_jax.training.run import run
from experiments import segmentation
from experiments.configs.segmentation.lite import get_config

SIZE = 32
TINY = TwoStreamSpec(widths=(4, 6), depths=(1, 1), deconvolved=(4,), context=3, merged=5)


def white(key, count, assets, faces) -> MaskSquares:
    """White squares that are all face."""
    points = np.random.default_rng(0).uniform(50, 140, (count, 68, 2)).astype(np.float32)
    return MaskSquares(
        np.full((count, 192, 192, 3), 255, np.uint8),
        np.full((count, 192, 192), FACE, np.uint8),
        points,
    )


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SPECS, "tiny", TINY)
        # The renderer takes a minute to compile.
        patch.setattr(segmentation, "of_rendered", white)
        patch.setattr(segmentation, "CROPS", 4)
        patch.setattr(segmentation, "CHUNK", 2)
        give_photos(patch)
        yield patch


def small_config(**changes):
    config = get_config().unlock()
    config.network = "tiny"
    config.steps, config.batch, config.warmup_steps = 4, 4, 1
    config.log_every, config.save_every, config.keep_last = 1, 2, 1
    config.held_out, config.rendered, config.crops.augment.size = 2, 3, SIZE
    config.update(changes)
    return config.lock()


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    write_fasseg(folder, {"p01146+0+0": (80, 120), "p02146+0+0": (70, 120)})
    return folder


@pytest.fixture(scope="module")
def trained(patched, masks, tmp_path_factory):
    """The folder of a run, its task, and the settings of its training."""
    folder, calls = tmp_path_factory.mktemp("segmentation") / "run", []
    with pytest.MonkeyPatch.context() as recorder:
        recorder.setattr(segmentation, "run", lambda *args: calls.append(args) or run(*args))
        segmentation.train(small_config(), folder, ["somewhere"], [f"fasseg={masks}"])
    ((task, _, settings, _),) = calls
    return folder, task, settings


def test_weights_are_those_of_a_segmentation_and_say_how_good_it_is(trained) -> None:
    folder, *_ = trained
    _, spec, metadata = weights.load(folder / "weights.safetensors", TwoStreamSpec)
    assert spec == TINY and metadata["network"] == "tiny" and metadata["steps"] == 4
    names = {f"{name}_{score}" for name in ("rendered", "photos") for score in ("iou", "loss")}
    assert metadata["scores"].keys() == names
    assert all(np.isfinite(value) for value in metadata["scores"].values())


def test_all_groups_are_learnt_from(trained) -> None:
    _, task, _ = trained
    bank = task.loss.args[0].args[0]
    # Three renders, five photographs (two are held out), no profile, two masks, no background.
    np.testing.assert_array_equal(bank.counts, [3, 5, 0, 2, 0])
    np.testing.assert_allclose(bank.shares, np.array([0.35, 0.27, 0, 0.16, 0]) / 0.78, atol=1e-6)


def test_crops_differ_and_repeat_themselves_by_their_step(trained) -> None:
    _, task, _ = trained
    examples, batch = task.loss.args[0], next(task.batches(0))
    first, again, later = (examples(batch, jax.random.key(n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(first.image, again.image)
    assert first.face.shape == first.counted.shape == (4, SIZE, SIZE)
    assert (first.image != later.image).any() and (first.image[0] != first.image[1]).any()
    assert all(
        np.array_equal(a["crop"], batch["crop"]) for a in itertools.islice(task.batches(7), 2)
    )


def test_a_run_that_was_cut_off_goes_on(trained, tmp_path) -> None:
    _, task, settings = trained
    # The order of a header of safetensors is random.
    task = dataclasses.replace(task, save=lambda file, _, metadata: file.write_text(str(metadata)))
    whole = tmp_path / "whole", run(task, opened(tmp_path / "whole"), settings)
    assert_cut_off_run_continues(task, settings, tmp_path / "again", whole)


def test_faces_are_rendered_once_for_a_workdir(tmp_path, monkeypatch) -> None:
    model = load_face_model()
    assets = segmentation.load_assets(model)
    faces = segmentation.settings_of(small_config()).faces
    calls = []
    monkeypatch.setattr(
        segmentation, "of_rendered", lambda *args: calls.append(args) or white(*args)
    )
    first, again = (segmentation.rendered_squares(tmp_path, 0, 2, assets, faces) for _ in range(2))
    assert len(calls) == 1 and first.images.shape == (2, 192, 192, 3)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    segmentation.rendered_squares(tmp_path, 1, 2, assets, faces)
    assert len(calls) == 2


def test_without_photographs_held_out_renders_alone_are_scored(patched, tmp_path) -> None:
    config = small_config(held_out=0, steps=2, best_metric="")
    segmentation.train(config, tmp_path / "run", ["somewhere"])
    _, _, metadata = weights.load(tmp_path / "run" / "weights.safetensors", TwoStreamSpec)
    assert metadata["scores"].keys() == {"rendered_iou", "rendered_loss"}


def test_masks_need_a_layout_and_stop_at_none_that_is_broken(masks, model, caplog) -> None:
    with pytest.raises(ConfigError, match=f"--masks={masks}: must be LAYOUT=FOLDER"):
        segmentation.masked_squares([str(masks)], model)
    with pytest.raises(DatasetError, match="nowhere: holds no .png masks"):
        segmentation.masked_squares(["fasseg=nowhere"], model)
    assert len(segmentation.masked_squares([f"fasseg={masks}"] * 2, model).images) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "huge"}, "there is no segmentation 'huge'; choose from"),
        ({"edge": -1.0}, "config.edge is -1"),
        ({"rendered": -1}, "config.rendered is -1"),
        ({"shares": (1.0, 1.0)}, "config.shares needs 5 numbers"),
        ({"shares": (0.0,) * 5}, "config.shares needs 5 numbers"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(patched, changes, words) -> None:
    with pytest.raises(ConfigError, match=words):
        segmentation.settings_of(small_config(**changes))


def test_a_config_of_another_program_is_refused() -> None:
    from experiments.configs.dfc.finetune_lite import get_config as of_finetune

    with pytest.raises(ConfigError, match="it is a config of another program"):
        segmentation.settings_of(of_finetune())
