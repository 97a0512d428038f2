"""What faces look like: alike where the same is seen of them."""

import numpy as np
import pytest

from dfc_jax.inference.appearance import PATCHES, appearance

# A face that fills its crop, whose pixels lie where they do on the template.
STILL, ALL = np.zeros((128, 128, 2)), np.ones((128, 128))


def gradient(red=0.0):
    image = np.zeros((128, 128, 3), np.float32)
    image[..., 0], image[..., 1] = red, np.linspace(0.0, 1.0, 128)
    return image


def test_patches_have_the_mean_colours_of_what_lies_there():
    looks = appearance(gradient(red=0.5), STILL, ALL)
    green = gradient()[0, :, 1].reshape(PATCHES, -1).mean(axis=1)
    np.testing.assert_allclose(looks.colour[:, 1].reshape(PATCHES, PATCHES), [green] * PATCHES)
    np.testing.assert_allclose(looks.colour[:, 0], 0.5)
    assert np.all(looks.weight == 1.0)


def test_colours_are_told_apart_and_a_moved_face_is_not():
    looks = appearance(gradient(), STILL, ALL)
    assert looks.apart(appearance(gradient(red=0.3), STILL, ALL)) == pytest.approx(0.1)
    flow = np.full((128, 128, 2), [16.0, 0.0])
    shifted = np.roll(gradient(), -16, axis=1)
    beside = appearance(shifted, flow, ALL)
    # The flow leads past the template's border for the columns that came in from the other side.
    inner = np.tile(np.arange(PATCHES) % PATCHES, PATCHES)
    same = (inner > 0) & (inner < PATCHES - 1)
    np.testing.assert_allclose(beside.colour[same], looks.colour[same], atol=0.01)


def test_what_is_covered_does_not_count():
    mask = np.ones((128, 128))
    mask[:, 64:] = 0.0
    image = gradient()
    image[:, 64:] = 1.0
    looks, whole = appearance(image, STILL, mask), appearance(gradient(), STILL, ALL)
    assert looks.weight.sum() == PATCHES**2 / 2
    assert looks.apart(whole) == 0.0
    nothing = appearance(image, STILL, 0.0 * mask)
    assert nothing.apart(whole) == np.inf


def test_memory_is_the_mean_of_its_frames():
    first, second = appearance(gradient(), STILL, ALL), appearance(gradient(red=0.4), STILL, ALL)
    both = first.with_frame(second)
    np.testing.assert_allclose(both.colour[:, 0], 0.2)
    np.testing.assert_allclose(both.weight, 2.0)
    unseen = appearance(gradient(), STILL, 0.0 * ALL)
    assert both.with_frame(unseen) == both
