"""Scores of correspondences and landmarks; per example, leading axes are kept."""

import jax.numpy as jnp

from dfc_jax.types import Array

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


def nme_percent(points: Array, truth: Array, box: Array, visible: Array | None = None) -> Array:
    """Normalised mean error (...) in percent: mean distance over the box's sqrt(w h).

    Args:
      points, truth: (..., N, 2) pixels.
      box: (..., 4) x, y, width, height of the ground truth.
      visible: (..., N) bool, the points that count (default all); 0 % where none does.
    """
    distances = jnp.linalg.norm(points - truth, axis=-1)
    counted = jnp.ones_like(distances) if visible is None else visible.astype(distances.dtype)
    total = jnp.sum(jnp.where(counted > 0, distances, 0.0), axis=-1)
    mean = total / jnp.maximum(jnp.sum(counted, axis=-1), 1.0)
    return 100.0 * mean / jnp.sqrt(box[..., 2] * box[..., 3])
