"""Mattes follow the edges of a picture; pyramids hide seams."""

import cv2
import numpy as np
import pytest

from dfc_jax.texture.matte import blend_pyramids, edge_coefficients, matte


def test_a_coarse_mask_gets_the_edge_of_the_picture():
    """Skin to the left of a slanted edge; the mask is of pixels 8 times as large, and 3 off."""
    y, x = np.mgrid[:160, :160].astype(np.float32)
    skin = x < 70 + 0.3 * y
    luma = np.where(skin, 0.6, 0.2).astype(np.float32)
    shifted = (x < 73 + 0.3 * y).astype(np.float32)
    small = cv2.resize(shifted, (20, 20), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(small, (160, 160), interpolation=cv2.INTER_LINEAR)
    found = matte(*edge_coefficients(coarse, luma, 8.0), luma)
    inner = np.s_[20:-20, 20:-20]
    before = ((coarse > 0.5) != skin)[inner].mean()
    assert before > 0.015
    assert ((found > 0.5) != skin)[inner].mean() < 0.003
    # And sharper: fewer pixels are between.
    between = [((mask > 0.1) & (mask < 0.9))[inner].mean() for mask in (coarse, found)]
    assert between[1] < 0.7 * between[0]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_without_edges_stays_exactly_what_it_is(value):
    luma = np.random.default_rng(0).uniform(size=(64, 64)).astype(np.float32)
    coarse = np.full((64, 64), value, np.float32)
    assert (matte(*edge_coefficients(coarse, luma, 4.0), luma) == value).all()


def test_pyramids_are_exact_away_from_the_seam():
    rng = np.random.default_rng(0)
    under, over = rng.uniform(size=(2, 150, 203, 3)).astype(np.float32)
    for alpha, expected in ((0.0, under), (1.0, over)):
        mixed = blend_pyramids(under, over, np.full((150, 203), alpha, np.float32))
        np.testing.assert_allclose(mixed, expected, atol=1e-5)


def test_pyramids_mix_coarse_colours_widely_and_fine_detail_sharply():
    alpha = np.zeros((128, 256), np.float32)
    alpha[:, 128:] = 1.0
    stripes = 0.2 * (np.arange(256) % 2)[None, :, None]
    under = np.full((128, 256, 3), 0.2, np.float32)
    over = (under + 0.4 + stripes).astype(np.float32)
    mixed = blend_pyramids(under, over, alpha)[64, :, 0]
    # The step of 0.5 is spread over more than ten pixels ...
    mean = cv2.blur(mixed[None].astype(np.float32), (2, 1))[0]
    assert np.abs(np.diff(mean)).max() < 0.15
    # ... while stripes begin where the picture above does.
    detail = np.abs(np.diff(mixed))
    assert detail[:118].max() < 0.05
    assert detail[138:].min() > 0.15
