"""Segmentations for tests, which look at no crop."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dfc_jax.inference.segmentation import Segmentation
from dfc_jax.systems.segmentation.networks import TwoStreamSpec, init

TINY = TwoStreamSpec(widths=(4, 6), depths=(1, 1), context=3, merged=5)


def constant(logit: float) -> Segmentation:
    """A network that says the same of every pixel: its last layer is a bias alone."""
    variables = jax.tree.map(jnp.asarray, init(jax.random.key(0), TINY))
    last = variables["params"]["logits"]
    last["kernel"], last["bias"] = jnp.zeros_like(last["kernel"]), jnp.full(4, float(logit))
    return Segmentation(variables, TINY)


@dataclasses.dataclass(frozen=True)
class _Halves:
    """Stands in for a spec and its module."""

    left: float
    right: float

    def module(self) -> "_Halves":
        return self

    def apply(self, variables: Any, crops: jax.Array) -> jax.Array:
        x = jnp.arange(crops.shape[2])
        row = jnp.where(x < crops.shape[2] // 2, self.left, self.right)
        return jnp.broadcast_to(row, crops.shape[:3]).astype(jnp.float32)


def halves(left: float, right: float) -> Segmentation:
    """Logits of the left and of the right half of every crop."""
    return Segmentation({}, _Halves(left, right))  # type: ignore[arg-type]
