"""Every pixel of a picture lies on a canvas, at every scale, and its place there is known."""

import itertools

import numpy as np
import pytest

from dfc_jax.inference.pyramid import (
    CANVAS_PX,
    GAP_PX,
    GRID_PX,
    LAST_EDGE_PX,
    OVERLAP_PX,
    canvases,
    paint,
    plan,
    to_picture,
    within,
)

SIZES = [(640, 480), (480, 640), (640, 640), (33, 7), (1, 1), (2190, 1460), (5000, 30), (593, 592)]


def levels(tiles):
    by_scale = {}
    for tile in tiles:
        by_scale.setdefault(tile.scale, []).append(tile)
    return [by_scale[scale] for scale in sorted(by_scale, reverse=True)]


@pytest.mark.parametrize("size", SIZES)
def test_tiles_cover_every_level_and_never_each_other(size) -> None:
    tiles = plan(*size, 1.0)
    used = np.zeros((canvases(tiles), CANVAS_PX + GAP_PX, CANVAS_PX + GAP_PX), int)
    for tile in tiles:
        assert tile.left % GRID_PX == tile.top % GRID_PX == 0
        bottom, right = tile.top + tile.height, tile.left + tile.width
        assert max(bottom, right) <= CANVAS_PX
        used[tile.canvas, tile.top : bottom + GAP_PX, tile.left : right + GAP_PX] += 1
    assert used.max() == 1
    widths = []
    for level in levels(tiles):
        width = max(tile.x + tile.width for tile in level)
        height = max(tile.y + tile.height for tile in level)
        widths.append(max(width, height))
        seen = np.zeros((height, width), bool)
        for tile in level:
            seen[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = True
        assert seen.all()
    assert widths[0] == max(size) and widths[-1] <= LAST_EDGE_PX
    assert all(abs(a / 2 - b) <= 1 for a, b in itertools.pairwise(widths))


def test_a_picture_of_512_x_384_fits_one_canvas() -> None:
    assert canvases(plan(512, 384, 1.0)) == canvases(plan(384, 512, 1.0)) == 1
    assert canvases(plan(512, 512, 1.0)) == 2


def test_tiles_of_one_level_share_enough_for_a_face() -> None:
    for tiles in levels(plan(2190, 1460, 1.0)):
        columns = sorted({(tile.x, tile.width) for tile in tiles})
        for (x, width), (next_x, _) in itertools.pairwise(columns):
            assert x + width - next_x >= OVERLAP_PX


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_painted_pixels_lie_where_the_plan_says(scale) -> None:
    """A picture whose colours are its coordinates."""
    width, height = 900, 700
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, 0 * x], axis=-1).astype(np.uint8)
    tiles = plan(width, height, scale)
    painted = paint(image, tiles, 128)
    covered = np.zeros(painted.shape[:3], bool)
    for tile in tiles:
        place = np.s_[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        covered[tile.canvas][place] = True
        v, u = np.mgrid[place]
        points = np.stack([u.ravel(), v.ravel()], axis=-1)
        found = to_picture(tile, points)
        shown = painted[tile.canvas][place].reshape(-1, 3)[:, :2] / 255.0 * [width, height]
        assert np.abs(shown - found).max() < 5.0 + 0.5 / tile.scale[0]
        assert within(tile, points, 0.0).all()
    assert (painted[~covered] == 128).all()


def test_a_point_beside_a_tile_is_on_it_within_the_margin() -> None:
    (tile, *_) = plan(100, 60, 1.0)
    points = np.array([[-3.0, 10.0], [-9.0, 10.0], [50.0, 62.0], [50.0, 70.0]])
    assert within(tile, points, 8.0).tolist() == [True, False, True, False]
