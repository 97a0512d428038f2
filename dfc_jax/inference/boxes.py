"""Landmark boxes that a user gives: which of them a photograph can have."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dfc_jax.camera import CROP_SCALE, Crop
from dfc_jax.inference.photo import PhotoError

# The edges of a box: in photo pixels (faces of 8 are still found well), and relative to the longer
# edge of the photograph (which would show a small part of a larger face, and make a huge crop).
MIN_BOX_PX, MAX_BOX_SHARE = 4.0, 4.0


def checked_boxes(boxes: Any, image: np.ndarray) -> list[np.ndarray]:
    """Landmark boxes (x, y, width, height) of a photograph (H, W, 3), each (4,) float64.

    They may leave the photograph. Their edges measure from `MIN_BOX_PX` to `MAX_BOX_SHARE` times
    its longer edge.

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
    x, y, w, h = array = array.astype(np.float64)
    height, width = image.shape[:2]
    text, photograph = _numbers(array), f"the photograph of {width} x {height} pixels"
    if not np.isfinite(array).all() or min(w, h) <= 0:
        raise PhotoError(f"the box {text} needs x, y and positive width, height")
    if min(w, h) < MIN_BOX_PX:
        raise PhotoError(f"the box {text} is too small; its edges need {MIN_BOX_PX:g} pixels")
    if max(w, h) > _longest_edge(image):
        raise PhotoError(
            f"the box {text} is too large; its edges may measure {MAX_BOX_SHARE:g} times the "
            f"longer edge of {photograph}"
        )
    shown = min(x + w, width) - max(x, 0.0), min(y + h, height) - max(y, 0.0)
    if min(shown) < min(MIN_BOX_PX, width, height):
        raise PhotoError(f"the box {text} lies outside {photograph}, or all but outside")
    return array


def _longest_edge(image: np.ndarray) -> float:
    return MAX_BOX_SHARE * max(image.shape[:2])


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return ",".join(f"{value:g}" for value in values)


def _shown(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())
