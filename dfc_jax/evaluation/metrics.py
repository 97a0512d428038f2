"""Scores of correspondences and landmarks; per example, leading axes are kept."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.types import Array

AnyArray = Any  # of NumPy or of JAX
ALL = slice(None)
# The outer corners of the eyes among the 68 points.
EYE_CORNERS = (36, 45)
# `flow_metrics` gives the share of pixels whose end-point error is below each of these.
SHARES_PX = (1, 2, 5)


def end_point_errors(flow: Array, true_flow: Array) -> Array:
    """Euclidean error (..., H, W) in pixels of flow (..., H, W, 2)."""
    return jnp.linalg.norm(flow - true_flow, axis=-1)


def flow_metrics(flow: Array, true_flow: Array, matchable: Array) -> dict[str, Array]:
    """End-point error over the matchable pixels of each example.

    Args:
      flow, true_flow: (..., H, W, 2) pixels; the truth is read only where matchable.
      matchable: (..., H, W) bool, or 0 and 1.

    Returns:
      "epe" the mean error in pixels, and "under_1px", "under_2px", "under_5px" the shares of
      pixels below these errors, each (...). Without matchable pixels all are 0.
    """
    matchable = matchable > 0
    errors = end_point_errors(flow, jnp.where(matchable[..., None], true_flow, flow))
    count = jnp.maximum(jnp.sum(matchable, axis=(-2, -1)), 1)

    def share(hits: Array) -> Array:
        return jnp.sum(hits & matchable, axis=(-2, -1)) / count

    under = {f"under_{limit}px": share(errors < limit) for limit in SHARES_PX}
    return {"epe": jnp.sum(errors, axis=(-2, -1)) / count, **under}


def mask_iou(predicted: Array, truth: Array) -> Array:
    """Intersection over union (...) of masks (..., H, W) bool; 1 where both are empty."""
    predicted, truth = predicted > 0, truth > 0
    union = jnp.sum(predicted | truth, axis=(-2, -1))
    intersection = jnp.sum(predicted & truth, axis=(-2, -1))
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1), 1.0)


def box_px(truth: AnyArray) -> AnyArray:
    """sqrt(width * height) (...) of the tight box of points (..., N, 2); NaN ones do not count."""
    xp = _namespace(truth)
    return xp.sqrt(xp.prod(_extent(truth), axis=-1))


def box_diagonal_px(truth: AnyArray) -> AnyArray:
    """Diagonal (...) of the tight box of points (..., N, 2); NaN ones do not count."""
    return _namespace(truth).linalg.norm(_extent(truth), axis=-1)


def inter_ocular_px(truth: AnyArray) -> AnyArray:
    """Distance (...) of the outer eye corners of points (..., 68, 2); NaN where one is."""
    right, left = EYE_CORNERS
    return _namespace(truth).linalg.norm(truth[..., right, :] - truth[..., left, :], axis=-1)


# What a mean error may be divided by, by name: from true points (..., 68, 2) to pixels (...).
NORMALISERS: Mapping[str, Callable[[AnyArray], AnyArray]] = {
    "box": box_px,
    "box-diagonal": box_diagonal_px,
    "inter-ocular": inter_ocular_px,
}


def mean_distance_px(
    points: AnyArray, truth: AnyArray, counted: slice | AnyArray = ALL
) -> AnyArray:
    """Mean distance (...) in pixels between points and the truth, over the points that count and
    have a truth; 0 where none does.

    Args:
      points, truth, counted: see `nme_percent`.
    """
    xp = jnp if isinstance(points, jax.Array) or isinstance(truth, jax.Array) else np
    distances = xp.linalg.norm(points - truth, axis=-1)
    if isinstance(counted, slice):
        mask = np.zeros(distances.shape[-1], bool)
        mask[counted] = True
        counted = mask
    known = xp.isfinite(truth).all(axis=-1)
    counted = xp.broadcast_to(counted, distances.shape) & known
    total = xp.sum(xp.where(counted, distances, 0.0), axis=-1)
    return total / xp.maximum(xp.sum(counted, axis=-1), 1)


def nme_percent(
    points: AnyArray,
    truth: AnyArray,
    counted: slice | AnyArray = ALL,
    normalised_by: str = "box",
) -> AnyArray:
    """Normalised mean error (...) in percent: the mean distance between points and the truth,
    divided by a length of all true points. A point without a truth (NaN) neither counts nor widens
    the box.

    Works on NumPy arrays, and on JAX arrays under jit and vmap; NaN where a point that counts is
    not predicted.

    Args:
      points, truth: (..., N, 2) pixels.
      counted: the points that count, as a slice (`dfc_jax.landmarks68.INNER`) or as a mask (N,) or
        (..., N) bool; by default all. 0 % where none does.
      normalised_by: one of `NORMALISERS`: by default sqrt(width * height) of the tight box.
    """
    scale = NORMALISERS[normalised_by](truth)
    return 100.0 * mean_distance_px(points, truth, counted) / scale


def _namespace(points: AnyArray) -> Any:
    return jnp if isinstance(points, jax.Array) else np


def _extent(truth: AnyArray) -> AnyArray:
    """Width and height (..., 2) of the tight box of points (..., N, 2); -inf without any."""
    xp = _namespace(truth)
    known = xp.isfinite(truth).all(axis=-1, keepdims=True)
    high = xp.where(known, truth, -xp.inf).max(axis=-2)
    low = xp.where(known, truth, xp.inf).min(axis=-2)
    return high - low
