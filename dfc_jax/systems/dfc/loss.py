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
Frame = Literal["target", "source"]

CHARBONNIER_PX = 0.1
# The d of `in_source`.
DAMPING = 0.15


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


def in_source(residual: Array, true_flow: Array, matchable: Array) -> Array:
    """Errors (..., H, W, 2) of a flow as distances in the source instead of in the target, pixels.

    A flow says where in the target a pixel p of the source is seen: ``q(p) = p + F(p)``. An error e
    of q is one of ``J^-1 e`` in the source, with ``J = dq/dp``: several pixels where the target
    shows little of what the source shows much of, as of the lid of a shut eye or of the side of a
    turned head. The inverse is damped, ``(J^T J + d^2)^-1 J^T``; it makes no error longer than
    ``1 / (2 d)`` times.

    Args:
      residual: (..., H, W, 2) errors of the flow, target pixels.
      true_flow: (..., H, W, 2), J is made of its differences.
      matchable: (..., H, W), where it is known.
    """
    by_x = _difference(true_flow, matchable > 0, -2, jnp.array([1.0, 0.0]))
    by_y = _difference(true_flow, matchable > 0, -3, jnp.array([0.0, 1.0]))
    xx, xy, yy = (jnp.sum(a * b, -1) for a, b in ((by_x, by_x), (by_x, by_y), (by_y, by_y)))
    xx, yy = xx + DAMPING**2, yy + DAMPING**2
    x, y = jnp.sum(by_x * residual, -1), jnp.sum(by_y * residual, -1)
    return jnp.stack([yy * x - xy * y, xx * y - xy * x], -1) / (xx * yy - xy**2)[..., None]


def _difference(flow: Array, seen: Array, axis: int, unit: Array) -> Array:
    """How ``p + flow`` (..., H, W, 2) changes over one pixel along an axis, on which p itself
    changes by `unit`.

    Of the differences to the two neighbours the shorter one is taken, which crosses no edge; only
    neighbours that are `seen` count, and without any it is `unit`.
    """
    last = flow.shape[axis] - 1
    inside = jnp.arange(last + 1) < last
    inside = inside[:, None] if axis == -3 else inside
    after = jnp.roll(flow, -1, axis) - flow + unit
    known = seen & jnp.roll(seen, -1, axis + 1) & inside
    length = jnp.where(known, jnp.sum(after**2, -1), jnp.inf)
    before, length_before = jnp.roll(after, 1, axis), jnp.roll(length, 1, axis + 1)
    nearer = jnp.where((length_before < length)[..., None], before, after)
    return jnp.where(jnp.isfinite(jnp.minimum(length, length_before))[..., None], nearer, unit)


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
    frame: Frame = "target",
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
      frame: where the flow's error is measured: in the "target", as in the paper, or in the
        "source", see `in_source`.
      reduction: "sum" over pixels as in the paper, or "mean": the flow's error in pixels averaged
        over the matchable ones by their importance, the cross-entropy over all. The mean does not
        depend on how large the face is in the crop; a picture without matchable pixels has flow
        error 0.

    Returns:
      "loss", "flow" and "matchability" of shape (...): loss = flow + lambda matchability.

    Raises:
      ValueError: an unknown norm, reduction or frame.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean'; got {reduction!r}")
    if frame not in ("target", "source"):
        raise ValueError(f"frame must be 'target' or 'source'; got {frame!r}")
    matchable = matchable.astype(flow.dtype)
    residual = jnp.where(matchable[..., None] > 0, flow - true_flow, 0.0)
    if frame == "source":
        residual = in_source(residual, true_flow, matchable)
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
