"""Pictures in rows and columns, with names beside them, on white."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dfc_jax.files import escaped

GAP, TEXT_PX, LINE_PX, SIDE_PX = 6, 15, 22, 130
INK, SOFT = (29, 33, 38), (91, 99, 109)


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    heads: Sequence[str] = (),
    sides: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
) -> np.ndarray:
    """One picture (H, W, 3) uint8 of many.

    Args:
      rows: of pictures (S, S, 3) uint8, all of one size; rows may be of different length.
      heads: above the columns, if there are any.
      sides: left of the rows, if there are any.
      captions: below each picture, if there are any.
    """
    edge = rows[0][0].shape[0]
    left, top = (SIDE_PX if sides else 0) + GAP, (LINE_PX if heads else 0) + GAP
    down = edge + GAP + (LINE_PX if captions else 0)
    width = left + max(map(len, rows)) * (edge + GAP)
    canvas = np.full((top + len(rows) * down, width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for k, picture in enumerate(row):
            y, x = top + i * down, left + k * (edge + GAP)
            canvas[y : y + edge, x : x + edge] = picture
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    for k, text in enumerate(heads):
        _write(pen, (left + k * (edge + GAP) + edge / 2, top - LINE_PX / 2 - 2), text, edge)
    for i, text in enumerate(sides):
        middle = left / 2, top + i * down + edge / 2
        _write(pen, middle, text, SIDE_PX - GAP)
    for i, texts in enumerate(captions):
        for k, text in enumerate(texts):
            x, y = left + k * (edge + GAP) + edge / 2, top + i * down + edge + LINE_PX / 2
            _write(pen, (x, y), text, edge, SOFT)
    return np.asarray(image)


def dots(
    picture: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], radius: float = 2.2
) -> None:
    """Draw the finite ones of points (n, 2), in pixels of the picture (H, W, 3) uint8, into it."""
    fixed = np.round(16.0 * points[np.isfinite(points).all(axis=-1)])
    # What lies far outside is not there to be seen, and too large for OpenCV.
    near = fixed[(np.abs(fixed) < 2**20).all(axis=-1)].astype(int)
    for grow, paint in ((1.0, (20, 22, 26)), (0.0, colour)):
        for x, y in near.tolist():
            cv2.circle(picture, (x, y), round(16 * (radius + grow)), paint, -1, cv2.LINE_AA, 4)


def _write(
    pen: ImageDraw.ImageDraw,
    middle: tuple[float, float],
    text: str,
    room: float,
    colour: tuple[int, int, int] = INK,
) -> None:
    """Centre a line, cut off where it has no room."""
    line, whole = escaped(text), escaped(text)
    while line and pen.textlength(line, font=_font()) > room:
        whole = whole[:-1]
        line = f"{whole}..." if whole else ""
    pen.text(middle, line, fill=colour, font=_font(), anchor="mm")


@lru_cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT_PX)
