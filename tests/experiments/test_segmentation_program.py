"""The training of the segmentation, start to end, with a tiny network and faces that are discs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces.synthetic import Picture
from dfc_jax.errors import ConfigError
from dfc_jax.morphable.linear import PARTS
from dfc_jax.nets import weights
from dfc_jax.systems.segmentation import networks
from dfc_jax.systems.segmentation.networks import TwoStreamSpec
from dfc_jax.training.run import run
from dfc_jax.types import Fragments
from experiments import segmentation
from experiments.configs.segmentation.lite import get_config

SIZE = 32
TINY = TwoStreamSpec(widths=(4, 6), depths=(1, 1), deconvolved=(4,), context=3, merged=5)


def disc(key, assets, settings) -> Picture:
    """A disc of face on a bar of neck; the right half of the picture is covered."""
    size, part = settings.size, assets.model.triangle_part
    face, neck = (jnp.argmax(part == PARTS.index(name)) for name in ("skin", "neck"))
    x, y = jnp.meshgrid(jnp.arange(size), jnp.arange(size))
    middle = jax.random.uniform(key, (2,), minval=8.0, maxval=size - 8.0)
    away = jnp.hypot(x - middle[0], y - middle[1])
    seen = jnp.where(away < 7.0, face, jnp.where(y >= size - 4, neck, -1))
    nothing = jnp.zeros((size, size, 3))
    image = nothing + jnp.where(seen == face, 0.8, 0.2)[..., None]
    covered = (x >= size // 2).astype(jnp.float32)
    return Picture(None, Fragments(seen, nothing[..., 0], nothing), image, covered)


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SPECS, "tiny", TINY)
        # The renderer takes a minute to compile.
        patch.setattr(segmentation, "sample_picture", disc)
        yield patch


def small_config(**changes):
    config = get_config().unlock()
    config.network = "tiny"
    config.steps, config.batch, config.warmup_steps = 4, 4, 1
    config.log_every, config.save_every, config.keep_last = 1, 2, 1
    config.validation_faces, config.synthetic.size = 3, SIZE
    config.update(changes)
    return config.lock()


@pytest.fixture(scope="module")
def trained(patched, tmp_path_factory):
    """The folder of a run, and its task."""
    folder, calls = tmp_path_factory.mktemp("segmentation") / "run", []
    with pytest.MonkeyPatch.context() as recorder:
        recorder.setattr(segmentation, "run", lambda *args: calls.append(args) or run(*args))
        segmentation.train(small_config(), folder)
    ((task, *_),) = calls
    return folder, task


def test_weights_are_those_of_a_segmentation_and_say_how_good_it_is(trained) -> None:
    folder, _ = trained
    _, spec, metadata = weights.load(folder / "weights.safetensors", TwoStreamSpec)
    assert spec == TINY and metadata["network"] == "tiny" and metadata["steps"] == 4
    assert metadata["scores"].keys() == {"synthetic_iou", "synthetic_loss"}
    assert all(np.isfinite(value) for value in metadata["scores"].values())


def test_what_is_learnt_is_the_face_that_nothing_covers(trained) -> None:
    _, task = trained
    some = task.loss.args[0](next(task.batches(0)), jax.random.key(0))
    assert some.face.shape == some.counted.shape == (4, SIZE, SIZE) and some.counted.all()
    bright = np.asarray(some.image[..., 0]) > 0.5
    bright[:, :, SIZE // 2 :] = False
    np.testing.assert_array_equal(np.asarray(some.face) > 0.5, bright)


def test_faces_differ_and_repeat_themselves_by_their_step(trained) -> None:
    _, task = trained
    examples, batch = task.loss.args[0], next(task.batches(0))
    first, again, later = (examples(batch, jax.random.key(n)).image for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != later).any() and (first[0] != first[1]).any()
    assert all(
        np.array_equal(a["face"], batch["face"]) for a in itertools.islice(task.batches(7), 2)
    )


def test_without_held_out_faces_there_are_no_scores(patched, tmp_path) -> None:
    segmentation.train(small_config(validation_faces=0, steps=2, best_metric=""), tmp_path / "run")
    _, _, metadata = weights.load(tmp_path / "run" / "weights.safetensors", TwoStreamSpec)
    assert metadata["scores"] == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "huge"}, "there is no segmentation 'huge'; choose from"),
        ({"edge": -1.0}, "config.edge is -1"),
        ({"validation_faces": -1}, "config.validation_faces is -1"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(patched, changes, words) -> None:
    with pytest.raises(ConfigError, match=words):
        segmentation.settings_of(small_config(**changes))


def test_a_config_of_another_program_is_refused() -> None:
    from experiments.configs.dfc.finetune_lite import get_config as of_finetune

    with pytest.raises(ConfigError, match="it is a config of another program"):
        segmentation.settings_of(of_finetune())
