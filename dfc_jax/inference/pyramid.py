"""A picture at all sizes, packed into canvases of one shape, for a fully convolutional network.

Each level of the pyramid is half as large as the one before. Levels larger than a canvas are cut
into tiles that overlap. All of them lie beside each other on as few canvases as hold them, so that
one compiled program serves pictures of every size.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

# Pixels along an edge of a canvas: a picture of 512 x 384 and its smaller levels just fit.
CANVAS_PX = 592
# Pixels between pictures on a canvas, and those that tiles of one level share.
GAP_PX, OVERLAP_PX = 16, 64
# Places on a canvas are multiples of this many pixels.
GRID_PX = 8
# The last level is the first whose longer edge is at most this.
LAST_EDGE_PX = 40


class Tile(NamedTuple):
    """A part of a level of the pyramid on a canvas.

    Attributes:
      scale: (x, y) pixels of the level per pixel of the picture.
      x, y, width, height: the part, pixels of the level.
      canvas: number of the canvas.
      left, top: where on it the part begins.
    """

    scale: tuple[float, float]
    x: int
    y: int
    width: int
    height: int
    canvas: int
    left: int
    top: int


def plan(width: int, height: int, scale: float) -> list[Tile]:
    """Where the tiles of a picture go whose first level is `scale` times as large."""
    parts: list[Tile] = []
    while True:
        level = [max(1, round(edge * scale)) for edge in (width, height)]
        columns, rows = map(_cuts, level)
        own = level[0] / width, level[1] / height
        parts += [Tile(own, x, y, w, h, 0, 0, 0) for y, h in rows for x, w in columns]
        if max(level) <= LAST_EDGE_PX:
            return _packed(parts)
        scale /= 2.0


def canvases(tiles: list[Tile]) -> int:
    """How many canvases a plan takes."""
    return 1 + max(tile.canvas for tile in tiles)


def _cuts(edge: int) -> list[tuple[int, int]]:
    """Starts and lengths of the tiles along an edge."""
    if edge <= CANVAS_PX:
        return [(0, edge)]
    count = math.ceil((edge - OVERLAP_PX) / (CANVAS_PX - OVERLAP_PX))
    length = math.ceil((edge + (count - 1) * OVERLAP_PX) / count)
    return [(round(i * (edge - length) / (count - 1)), length) for i in range(count)]


class _Room(NamedTuple):
    """A free rectangle of a canvas."""

    canvas: int
    left: int
    top: int
    width: int
    height: int


def _packed(parts: list[Tile]) -> list[Tile]:
    """The tiles at places of their own, the largest first: each in the corner of the smallest room
    that holds it; what is left of that becomes two rooms, one of them as large as can be."""
    rooms: list[_Room] = []
    count, placed = 0, []
    for part in sorted(parts, key=lambda part: -part.width * part.height):
        fitting = [r for r in rooms if part.width <= r.width and part.height <= r.height]
        room = min(fitting, key=lambda r: r.width * r.height, default=None)
        if room is None:
            room = _Room(count, 0, 0, CANVAS_PX, CANVAS_PX)
            count += 1
        else:
            rooms.remove(room)
        canvas, left, top = room[:3]
        placed.append(part._replace(canvas=canvas, left=left, top=top))
        right, below = _next(left + part.width), _next(top + part.height)
        beside, under = left + room.width - right, top + room.height - below
        # The longer of the two cuts goes along the smaller rest.
        tall = beside > under
        rooms.append(_Room(canvas, right, top, beside, room.height if tall else part.height))
        rooms.append(_Room(canvas, left, below, part.width if tall else room.width, under))
    return placed


def _next(edge: int) -> int:
    """The first place behind an edge."""
    return -(-(edge + GAP_PX) // GRID_PX) * GRID_PX


def paint(image: np.ndarray, tiles: list[Tile], fill: int) -> np.ndarray:
    """The canvases (N, S, S, 3) of a plan for a picture (H, W, 3) uint8; `fill` is around tiles."""
    painted = np.full((canvases(tiles), CANVAS_PX, CANVAS_PX, 3), fill, np.uint8)
    height, width = image.shape[:2]
    level = image
    for tile in sorted(tiles, key=lambda tile: tile.scale, reverse=True):
        size = round(width * tile.scale[0]), round(height * tile.scale[1])
        if size != level.shape[1::-1]:
            level = cv2.resize(level, size, interpolation=cv2.INTER_AREA)
        part = level[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        place = np.s_[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        painted[tile.canvas][place] = part
    return painted


def to_picture(tile: Tile, points: np.ndarray) -> np.ndarray:
    """Points (N, 2) of the tile's canvas in pixels of the picture."""
    corner = np.array([tile.x - tile.left, tile.y - tile.top])
    return (points + corner + 0.5) / tile.scale - 0.5


def within(tile: Tile, points: np.ndarray, margin: float) -> np.ndarray:
    """Which of points (N, 2) of the tile's canvas lie on the tile, or so little beside it."""
    away = points - np.array([tile.left, tile.top])
    size = np.array([tile.width, tile.height])
    return np.asarray(((away >= -margin) & (away <= size - 1 + margin)).all(axis=-1))
