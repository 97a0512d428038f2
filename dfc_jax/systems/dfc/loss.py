"""The loss of dense correspondence: flow where the truth is matchable, cross-entropy everywhere.

For one example (Yu et al. 2017, the equation of the training loss):

    sum_p m(p) ||F(p) - F_hat(p)|| + lambda sum_p H(m(p), m_hat(p))

All functions reduce the pixels and keep leading axes, so they take one example or a batch.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from dfc_jax.types import Array

Norm = Literal["l2", "l1", "charbonnier"]
Reduction = Literal["sum", "mean"]

CHARBONNIER_PX = 0.1


def norm_of(residual: Array, norm: Norm = "l2") -> Array:
    """Length (...) of residuals (..., 2); the gradient at zero is finite for every norm.

    "l2" is the Euclidean length (not squared), "l1" the sum of absolute values, "charbonnier"
    sqrt(|r|^2 + eps^2) - eps with eps = `CHARBONNIER_PX`.

    Raises:
      ValueError: an unknown norm.
    """
    if norm == "l1":
        # Unlike that of jnp.abs, this gradient is 0 at 0.
        return jnp.sum(residual * jnp.sign(residual), axis=-1)
    squared = jnp.sum(residual**2, axis=-1)
    if norm == "charbonnier":
        return jnp.sqrt(squared + CHARBONNIER_PX**2) - CHARBONNIER_PX
    if norm != "l2":
        raise ValueError(f"norm must be 'l2', 'l1' or 'charbonnier'; got {norm!r}")
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def cross_entropy(logits: Array, matchable: Array) -> Array:
    """Cross-entropy (..., H, W) of logits (..., H, W, 2) and truth (..., H, W) in [0, 1]."""
    log_probability = jax.nn.log_softmax(logits, axis=-1)
    return -(matchable * log_probability[..., 1] + (1.0 - matchable) * log_probability[..., 0])


def correspondence_loss(
    flow: Array,
    logits: Array,
    true_flow: Array,
    matchable: Array,
    importance: Array | None = None,
    *,
    matchability_weight: float = 1.0,
    norm: Norm = "l2",
    reduction: Reduction = "mean",
) -> dict[str, Array]:
    """The loss and its parts, per example.

    Args:
      flow: (..., H, W, 2) predicted, pixels.
      logits: (..., H, W, 2) of (not matchable, matchable).
      true_flow: (..., H, W, 2) pixels; read only where `matchable` is not 0.
      matchable: (..., H, W) the true matchability, bool or weights in [0, 1].
      importance: (..., H, W) weight of each pixel's flow error; None for 1 everywhere.
      matchability_weight: the lambda of the paper.
      norm: see `norm_of`.
      reduction: "sum" over pixels as in the paper, or "mean": the flow's error in pixels averaged
        over the matchable ones by their importance, the cross-entropy over all. The mean does not
        depend on how large the face is in the crop; a picture without matchable pixels has flow
        error 0.

    Returns:
      "loss", "flow" and "matchability" of shape (...): loss = flow + lambda matchability.

    Raises:
      ValueError: an unknown norm or reduction.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean'; got {reduction!r}")
    matchable = matchable.astype(flow.dtype)
    residual = jnp.where(matchable[..., None] > 0, flow - true_flow, 0.0)
    counts = matchable if importance is None else matchable * importance
    flow_part = jnp.sum(counts * norm_of(residual, norm), axis=(-2, -1))
    entropy = cross_entropy(logits, matchable)
    if reduction == "mean":
        flow_part = flow_part / jnp.maximum(jnp.sum(counts, axis=(-2, -1)), 1.0)
        mask_part = jnp.mean(entropy, axis=(-2, -1))
    else:
        mask_part = jnp.sum(entropy, axis=(-2, -1))
    return {
        "loss": flow_part + matchability_weight * mask_part,
        "flow": flow_part,
        "matchability": mask_part,
    }
