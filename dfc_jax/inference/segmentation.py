"""Which pixels of a crop show its face, and what stands in front of a fitted one."""

import os
from functools import partial
from typing import TypeVar, cast

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.files import require_segmentation
from dfc_jax.nets.registry import Variables
from dfc_jax.nets.weights import load as load_weights
from dfc_jax.systems.segmentation.networks import TwoStreamSpec, apply
from dfc_jax.types import AnyArray, Array, ByValue

A = TypeVar("A", bound=AnyArray)
# A pixel with less probability of the face shows something else.
SHOWN = 0.5
# Crop pixels around a landmark that say whether it is covered. On the outline, the pixel of the
# landmark itself may lie beside the face.
AROUND_PX = 2


@struct.dataclass(eq=False)
class Segmentation(ByValue):
    """A segmentation network: its variables, and what it is (static under jit)."""

    variables: Variables
    spec: TwoStreamSpec = struct.field(pytree_node=False)


def load_segmentation(path_or_name: str | os.PathLike[str]) -> Segmentation:
    """The network of a weight file, or of the one of this name that comes with the package.

    Raises:
      WeightsError: there is no such file, it is damaged, or it holds another network.
    """
    path = require_segmentation(path_or_name)
    # Not by its bare name, for which there may be weights of the package.
    variables, spec, _ = load_weights(path.absolute(), TwoStreamSpec)
    return Segmentation(variables, spec)


@partial(jax.jit, static_argnames="flip_test")
def segment(crops: Array, segmentation: Segmentation, flip_test: bool = False) -> Array:
    """Probability (N, S, S) that pixels of crops (N, S, S, 3) show the face.

    With `flip_test`, the mean of what the network says about each crop and about its mirror image.
    """
    views = jnp.concatenate([crops, crops[:, :, ::-1]]) if flip_test else crops
    found = jax.nn.sigmoid(apply(segmentation.variables, views, segmentation.spec))
    n = len(crops)
    return (found[:n] + found[n:, :, ::-1]) / 2.0 if flip_test else found


def visible(matchability: A, segmentation: A | None) -> A:
    """Probability that a pixel is matchable and shows the face; without a segmentation, that it is
    matchable."""
    return matchability if segmentation is None else cast("A", matchability * segmentation)


def occlusion_of(segmentation: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Probability (S, S) that what a pixel shows is in front of the fitted face, 0 beside it.

    Args:
      segmentation: (S, S) probability of the face.
      fitted: (S, S) bool, where the camera would see the fitted face.
    """
    return np.where(fitted, 1.0 - segmentation, 0.0).astype(np.float32)


def covered_landmarks(
    occlusion: np.ndarray, fitted: np.ndarray, landmarks_px: np.ndarray
) -> np.ndarray:
    """Which landmarks (N, 2) in crop pixels something else covers: bool (N,).

    Those around which, within `AROUND_PX`, what is seen of the fitted face is more likely than not
    something else, on average. What the head itself hides is not covered by that, and what lies
    beside the crop, or where none of the fitted face is seen, is not either.

    Args:
      occlusion, fitted: (S, S), see `occlusion_of`.
      landmarks_px: (N, 2).
    """
    window = 2 * AROUND_PX + 1

    def around(values: np.ndarray) -> np.ndarray:
        square = values.astype(np.float64)
        return np.asarray(cv2.blur(square, (window, window), borderType=cv2.BORDER_CONSTANT))

    mostly = around(occlusion) > (1.0 - SHOWN) * around(fitted) + 1e-6
    size = len(fitted)
    nearest = np.round(landmarks_px)
    inside = np.all((nearest >= 0) & (nearest < size), axis=-1)
    column, row = np.where(inside[:, None], nearest, 0).astype(int).T
    return inside & mostly[row, column]
