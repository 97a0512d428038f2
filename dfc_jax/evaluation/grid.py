"""Pictures in rows and columns, with names beside them, on white."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dfc_jax.files import escaped

GAP, TEXT_PX, LINE_PX, SIDE_PX = 6, 15, 22, 130
# So many lines the name beside a row may have.
SIDE_LINES = 3
# How often a picture is enlarged while points are drawn into it.
ENLARGED = 8
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
        lines = _lines(pen, text, SIDE_PX - GAP)
        first = top + i * down + (edge - (len(lines) - 1) * LINE_PX) / 2
        for k, line in enumerate(lines):
            _write(pen, (left / 2, first + k * LINE_PX), line, SIDE_PX - GAP)
    for i, texts in enumerate(captions):
        for k, text in enumerate(texts):
            x, y = left + k * (edge + GAP) + edge / 2, top + i * down + edge + LINE_PX / 2
            _write(pen, (x, y), text, edge, SOFT)
    return np.asarray(image)


def dots(
    picture: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], radius: float = 2.2
) -> None:
    """Draw the finite ones of points (n, 2), in pixels of the picture (H, W, 3) uint8, into it."""
    # Enlarged, as OpenCV draws a disc of a few pixels as a diamond.
    large = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_NEAREST)
    finite = points[np.isfinite(points).all(axis=-1)]
    fixed = np.round(16.0 * (ENLARGED * (finite + 0.5) - 0.5))
    # What lies far outside is not there to be seen, and too large for OpenCV.
    near = fixed[(np.abs(fixed) < 2**20).all(axis=-1)].astype(int)
    for grow, paint in ((1.0, (20, 22, 26)), (0.0, colour)):
        size = round(16 * ENLARGED * (radius + grow))
        for x, y in near.tolist():
            cv2.circle(large, (x, y), size, paint, -1, cv2.LINE_AA, 4)
    picture[:] = cv2.resize(large, picture.shape[1::-1], interpolation=cv2.INTER_AREA)


def _lines(pen: ImageDraw.ImageDraw, text: str, room: float) -> list[str]:
    """A text broken between words into lines that have room, at most `SIDE_LINES`."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        fits = pen.textlength(escaped(longer), font=_font()) <= room
        if fits or not lines[-1] or len(lines) == SIDE_LINES:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


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
