"""Photographs whose faces are red squares, and a detector of these."""

import cv2
import numpy as np

from dfc_jax.inference.detect import Detection

BOX = np.array([60.0, 40.0, 40.0, 40.0])


def portrait(value: int = 255) -> np.ndarray:
    """A red square on grey where `BOX` is."""
    image = np.full((160, 200, 3), 90, np.uint8)
    image[40:81, 60:101] = [value, 0, 0]
    return image


def red_squares(image: np.ndarray) -> list[Detection]:
    """Finds red squares of 8 pixels and more."""
    red = ((image[..., 0] > 170) & (image[..., 1] < 80)).astype(np.uint8)
    _, _, found, middles = cv2.connectedComponentsWithStats(red)
    return [
        Detection(np.append(middle - np.sqrt(row[4]) / 2, [np.sqrt(row[4])] * 2), 0.9, "given")
        for row, middle in zip(found[1:], middles[1:], strict=True)
        if row[4] >= 64
    ]
