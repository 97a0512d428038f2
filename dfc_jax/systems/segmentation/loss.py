"""The loss of the segmentation, and its scores."""

import functools

import jax
import jax.numpy as jnp

from dfc_jax.evaluation.metrics import mask_iou
from dfc_jax.types import Array


def segmentation_loss(logits: Array, face: Array, counted: Array, edge: float = 0.0) -> Array:
    """Cross-entropy () of logits (B, s, s) over the pixels that count.

    Args:
      logits: of the probability of the face.
      face, counted: (B, s, s) in {0, 1}.
      edge: what pixels beside a border of the face count more than others: the few that are hard
        decide how it looks. 0 for all alike.
    """
    weight = counted * (1.0 + edge * _beside_border(face))
    # log(1 + exp(-x)) of the right answer's logit x, which never overflows.
    wrong = jax.nn.softplus(jnp.where(face > 0.5, -logits, logits))
    return jnp.sum(weight * wrong) / jnp.maximum(jnp.sum(weight), 1.0)


def _beside_border(face: Array) -> Array:
    """1 for pixels (B, s, s) with another one within two pixels of them that is not as they are."""
    # Along one axis, then along the other, by shifts: reductions of windows take much longer.
    size, padded = face.shape[1:], jnp.pad(face, ((0, 0), (2, 2), (2, 2)), mode="edge")
    rows = [padded[:, i : i + size[0]] for i in range(5)]
    found = []
    for pick in (jnp.maximum, jnp.minimum):
        tall = functools.reduce(pick, rows)
        found.append(functools.reduce(pick, [tall[:, :, i : i + size[1]] for i in range(5)]))
    return found[0] - found[1]


def intersection_over_union(logits: Array, face: Array, counted: Array) -> Array:
    """IoU (B,) of what is taken for the face with it, over the pixels that count; 1 where both are
    empty."""
    counts = counted > 0.5
    return mask_iou((logits > 0.0) & counts, (face > 0.5) & counts)
