"""The loss of the segmentation by hand, and a network that learns."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from runs import assert_cut_off_run_continues, opened

from dfc_jax.errors import ConfigError, WeightsError
from dfc_jax.nets import weights
from dfc_jax.systems.segmentation.examples import Examples
from dfc_jax.systems.segmentation.loss import intersection_over_union, segmentation_loss
from dfc_jax.systems.segmentation.networks import TwoStreamSpec, init
from dfc_jax.systems.segmentation.task import HeldOut, find_spec, make_task
from dfc_jax.training import OptimConfig, TrainSettings
from dfc_jax.training.run import run

TINY = TwoStreamSpec(widths=(4, 6), depths=(1, 1), deconvolved=(4,), context=3, merged=5)
SIZE = 32
LOG3 = float(np.log(3.0))


def test_the_loss_is_the_cross_entropy_of_what_counts() -> None:
    """Of probabilities 3/4 and 1/4: -log(3/4) where they are right, -log(1/4) where wrong."""
    logits = LOG3 * np.array([[[1.0, -1.0], [1.0, 50.0]]])
    face = np.array([[[1.0, 0.0], [0.0, 0.0]]])
    counted = np.array([[[1.0, 1.0], [1.0, 0.0]]])
    expected = -(2.0 * np.log(0.75) + np.log(0.25)) / 3.0
    assert segmentation_loss(logits, face, counted) == pytest.approx(expected, rel=1e-6)
    assert segmentation_loss(logits, face, 0.0 * counted) == 0.0
    far = segmentation_loss(np.full((1, 1, 1), -1e4), np.ones((1, 1, 1)), np.ones((1, 1, 1)))
    assert far == pytest.approx(1e4)


def test_pixels_beside_a_border_count_more() -> None:
    """Of a row of ten whose left half is the face, the four in the middle are beside its border."""
    face = np.zeros((1, 1, 10))
    face[..., :5] = 1.0
    wrong = np.zeros(10)
    wrong[4] = 1.0
    logits = np.where(wrong, -LOG3, np.where(face > 0.5, LOG3, -LOG3))
    right, missed = -np.log(0.75), -np.log(0.25)
    found = segmentation_loss(logits, face, np.ones_like(face), edge=2.0)
    assert found == pytest.approx((6 * right + 3 * (3 * right + missed)) / 18, rel=1e-5)


def test_the_intersection_is_over_the_pixels_that_count() -> None:
    face = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 0]]], float)
    logits = np.array([[[1.0, -1.0, 1.0, 1.0]], [[-1.0, -1.0, -1.0, 1.0]]])
    counted = np.array([[[1, 1, 1, 0]], [[1, 1, 1, 0]]], float)
    np.testing.assert_allclose(intersection_over_union(logits, face, counted), [1 / 3, 1.0])


def discs(batch, key) -> Examples:
    """Bright discs on a dark ground, which are what is looked for."""
    keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(batch["n"])
    middle = jax.vmap(lambda key: jax.random.uniform(key, (2,), minval=8.0, maxval=24.0))(keys)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(SIZE), jnp.arange(SIZE)), axis=-1)
    away = jnp.linalg.norm(grid - middle[:, None, None], axis=-1)
    face = (away < 7.0).astype(jnp.float32)
    image = 0.2 + 0.6 * jnp.repeat(face[..., None], 3, axis=-1)
    return Examples(image, face, jnp.ones_like(face))


def disc_task(**options):
    def batches(step):
        for _ in itertools.count(step):
            yield {"n": np.arange(8, dtype=np.uint32)}

    held_out = jax.device_get(discs({"n": np.arange(4)}, jax.random.key(9)))
    options = {"held_out": [HeldOut("discs", lambda: iter([held_out]))], **options}
    return make_task(TINY, batches=batches, examples=Partial(discs), **options)


SETTINGS = TrainSettings(
    OptimConfig(learning_rate=0.03, steps=200), batch=8, log_every=50, save_every=100
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation") / "run"
    return folder, run(disc_task(), opened(folder), SETTINGS)


def test_it_learns_and_its_weights_say_how_well(trained) -> None:
    folder, _ = trained
    _, spec, metadata = weights.load(folder / "weights.safetensors", TwoStreamSpec)
    assert spec == TINY
    assert metadata["scores"]["discs_iou"] > 0.8 and metadata["scores"]["discs_loss"] < 0.2


def test_a_run_that_was_cut_off_goes_on(trained, tmp_path) -> None:
    # The order of a header of safetensors is random.
    task = dataclasses.replace(
        disc_task(), save=lambda file, _, metadata: file.write_text(str(metadata))
    )
    few = OptimConfig(learning_rate=0.03, steps=6)
    settings = dataclasses.replace(SETTINGS, optimizer=few, log_every=1, save_every=2)
    whole = tmp_path / "whole", run(task, opened(tmp_path / "whole"), settings)
    assert_cut_off_run_continues(task, settings, tmp_path / "again", whole)


def test_pictures_show_crop_truth_and_probability() -> None:
    task = disc_task(shown=2)
    assert task.draw is not None
    drawn = task.draw(init(jax.random.key(0), TINY))
    assert drawn.shape == (2 * SIZE, 3 * SIZE, 3) and drawn.dtype == np.uint8
    held_out = discs({"n": np.arange(4)}, jax.random.key(9))
    np.testing.assert_array_equal(drawn[:SIZE, SIZE : 2 * SIZE, 0], 255.0 * held_out.face[0])
    np.testing.assert_allclose(drawn[:SIZE, :SIZE], 255.0 * held_out.image[0], atol=0.51)
    without = disc_task(held_out=())
    assert without.draw is without.evaluate is None


def test_a_start_is_of_the_same_network(tmp_path) -> None:
    file = tmp_path / "start.safetensors"
    weights.save(file, init(jax.random.key(3), TINY), TINY, {})
    start = disc_task(init_from=str(file)).init(jax.random.key(4))
    # Files hold half the digits.
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(close, start, init(jax.random.key(3), TINY))
    other = dataclasses.replace(TINY, merged=6)
    weights.save(file, init(jax.random.key(3), other), other, {})
    with pytest.raises(WeightsError, match="another network than --config"):
        disc_task(init_from=str(file))
    with pytest.raises(ConfigError, match="no segmentation 'huge'; choose from"):
        find_spec("huge")
