"""Landmark boxes that a user gives: which of them a photograph can have."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dfc_jax.crops import CROP_SCALE, Crop
from dfc_jax.errors import PhotoError

# The longer edge of a box, of which the crop is made: in photo pixels (faces of 8 are still found
# well), and relative to that of the photograph (which would show a small part of a larger face).
MIN_BOX_PX, MAX_BOX_SHARE = 4.0, 4.0


def checked_boxes(boxes: Any, image: np.ndarray) -> list[np.ndarray]:
    """Landmark boxes (x, y, width, height) of a photograph (H, W, 3), each (4,) float64.

    They may leave the photograph. Their longer edge measures from `MIN_BOX_PX` to `MAX_BOX_SHARE`
    times that of the photograph.

    Raises:
      PhotoError: no list of boxes, or one that is too small, too large or outside.
    """
    wanted = "boxes needs a list of boxes (x, y, width, height)"
    if isinstance(boxes, str | bytes | dict) or not hasattr(boxes, "__iter__"):
        raise PhotoError(f"{wanted}; got {_shown(boxes)}")
    listed = list(boxes)
    if listed and all(isinstance(item, int | float | np.number) for item in listed):
        raise PhotoError(f"{wanted}; for one box write boxes=[({_numbers(listed)})]")
    return [_checked(box, image) for box in listed]


def has_possible_size(crop: Crop, image: np.ndarray) -> bool:
    """Whether the crop could be that of a box which `checked_boxes` lets pass.

    A bad fit, or a detector of the caller, may ask for any.
    """
    largest = CROP_SCALE * _longest_edge(image)
    return bool(CROP_SCALE * MIN_BOX_PX <= crop.side_px <= largest)


def _checked(box: Any, image: np.ndarray) -> np.ndarray:
    try:
        array = np.asarray(box)
    except ValueError:  # ragged
        array = np.zeros(0)
    if array.shape != (4,) or array.dtype.kind not in "iuf":
        raise PhotoError(f"the box {_shown(box)} needs four numbers x, y, width, height")
    array = array.astype(np.float64)
    edges = array[2:]
    height, width = image.shape[:2]
    text, photograph = _numbers(array), f"the photograph of {width} x {height} pixels"
    if not np.isfinite(array).all() or edges.min() <= 0:
        raise PhotoError(f"the box {text} needs x, y and positive width, height")
    if edges.max() < MIN_BOX_PX:
        raise PhotoError(f"the box {text} is too small; one edge needs {MIN_BOX_PX:g} pixels")
    if edges.max() > _longest_edge(image):
        raise PhotoError(
            f"the box {text} is too large; its edges may measure {MAX_BOX_SHARE:g} times the "
            f"longer edge of {photograph}"
        )
    shown = np.minimum(array[:2] + edges, (width, height)) - np.maximum(array[:2], 0.0)
    if shown.min() < min(MIN_BOX_PX, *edges / 2.0, width, height):
        raise PhotoError(f"the box {text} lies outside {photograph}, or all but outside")
    return array


def _longest_edge(image: np.ndarray) -> float:
    return MAX_BOX_SHARE * max(image.shape[:2])


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return ",".join(f"{value:g}" for value in values)


def _shown(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())
