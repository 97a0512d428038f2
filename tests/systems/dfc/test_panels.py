"""A panel shows truth and prediction side by side, to one scale."""

import jax.numpy as jnp
import numpy as np

from dfc_jax.systems.dfc.networks import Outputs
from dfc_jax.systems.dfc.pairs import Pair
from dfc_jax.systems.dfc.panels import panels

SIZE = 16


def example(found_shift: float, matchable: np.ndarray) -> np.ndarray:
    """The panel of a target that is the source moved by 4 pixels to the right."""
    rng = np.random.default_rng(0)
    source = rng.uniform(size=(1, SIZE, SIZE, 3)).astype(np.float32)
    flow = np.zeros((1, SIZE, SIZE, 2), np.float32)
    flow[..., 0] = 4.0
    mask = matchable[None].astype(np.float32)
    pair = Pair(source, np.roll(source, 4, axis=2), flow, mask, np.zeros_like(mask))
    logits = np.stack([np.zeros_like(matchable), np.where(matchable, 9.0, -9.0)], axis=-1)
    found = Outputs(jnp.asarray(flow + found_shift), jnp.asarray(logits[None], jnp.float32))
    picture = panels(pair, found)
    assert picture.shape == (SIZE, 7 * SIZE, 3) and picture.dtype == np.uint8
    return picture.reshape(SIZE, 7, SIZE, 3).swapaxes(0, 1)


def test_a_right_prediction_looks_like_the_truth() -> None:
    left = np.zeros((SIZE, SIZE), bool)
    left[:, : SIZE - 4] = True
    source, target, carried, flow, found_flow, mask, found_mask = example(0.0, left)
    np.testing.assert_allclose(carried[left], source[left], atol=1)
    assert not carried[~left].any() and not np.array_equal(source, target)
    np.testing.assert_allclose(flow.astype(int), found_flow, atol=1)
    np.testing.assert_allclose(mask.astype(int), found_mask, atol=1)


def test_a_wrong_prediction_is_seen_against_the_scale_of_the_truth() -> None:
    everywhere = np.ones((SIZE, SIZE), bool)
    _, _, _, flow, found_flow, *_ = example(-3.0, everywhere)
    # Half as long and turned: paler, and of another hue.
    assert (flow.max(axis=-1).astype(int) - flow.min(axis=-1)).min() == 255
    assert np.abs(flow.astype(int) - found_flow).max() > 100
