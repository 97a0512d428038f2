"""What faces look like: alike where the same is seen of them."""

import dataclasses

import numpy as np
import pytest
from faces import mean_aligner

from dfc_jax.inference.appearance import PATCHES, appearance


@pytest.fixture(scope="module")
def face():
    """A face that fills its crop, whose pixels lie where they do on the template."""
    (found,) = mean_aligner()(np.zeros((128, 128, 3), np.uint8))
    flow, mask = np.zeros((128, 128, 2)), np.ones((128, 128))
    return dataclasses.replace(found, flow=flow, matchability=mask)


def gradient(red=0.0):
    image = np.zeros((128, 128, 3), np.float32)
    image[..., 0], image[..., 1] = red, np.linspace(0.0, 1.0, 128)
    return image


def test_patches_have_the_mean_colours_of_what_lies_there(face):
    looks = appearance(gradient(red=0.5), face)
    green = gradient()[0, :, 1].reshape(PATCHES, -1).mean(axis=1)
    np.testing.assert_allclose(looks.colour[:, 1].reshape(PATCHES, PATCHES), [green] * PATCHES)
    np.testing.assert_allclose(looks.colour[:, 0], 0.5)
    assert np.all(looks.weight == 1.0)


def test_colours_are_told_apart_and_a_moved_face_is_not(face):
    looks = appearance(gradient(), face)
    assert looks.apart(appearance(gradient(red=0.3), face)) == pytest.approx(0.1)
    flow = np.full((128, 128, 2), [16.0, 0.0])
    shifted = np.roll(gradient(), -16, axis=1)
    beside = appearance(shifted, dataclasses.replace(face, flow=flow))
    # The flow leads past the template's border for the columns that came in from the other side.
    inner = np.tile(np.arange(PATCHES) % PATCHES, PATCHES)
    same = (inner > 0) & (inner < PATCHES - 1)
    np.testing.assert_allclose(beside.colour[same], looks.colour[same], atol=0.01)


def test_what_is_covered_does_not_count(face):
    mask = np.ones((128, 128))
    mask[:, 64:] = 0.0
    half = dataclasses.replace(face, matchability=mask)
    image = gradient()
    image[:, 64:] = 1.0
    looks, whole = appearance(image, half), appearance(gradient(), face)
    assert looks.weight.sum() == PATCHES**2 / 2
    assert looks.apart(whole) == 0.0
    nothing = appearance(image, dataclasses.replace(face, matchability=0.0 * mask))
    assert nothing.apart(whole) == np.inf


def test_memory_is_the_mean_of_its_frames(face):
    first, second = appearance(gradient(), face), appearance(gradient(red=0.4), face)
    both = first.with_frame(second)
    np.testing.assert_allclose(both.colour[:, 0], 0.2)
    np.testing.assert_allclose(both.weight, 2.0)
    mask = np.zeros((128, 128))
    unseen = appearance(gradient(), dataclasses.replace(face, matchability=mask))
    assert both.with_frame(unseen) == both
