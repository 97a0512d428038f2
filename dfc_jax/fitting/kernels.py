"""Robust kernels: residuals beyond a scale cost less than their square.

A kernel maps the squared length s of a residual, in units of its scale, to its cost rho(s) and the
weight rho'(s), which is 1 for small s. Minimising the weighted squares, with the weights of the
point where one is, lowers the sum of the costs (iteratively reweighted least squares; Black &
Rangarajan, IJCV 19, 1996).
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct

from dfc_jax.types import Array, ByValue

Kernel = Callable[[Array], tuple[Array, Array]]


def huber(squared: Array) -> tuple[Array, Array]:
    """Squares within the scale, straight lines beyond."""
    length = jnp.sqrt(jnp.maximum(squared, 1.0))
    beyond = squared > 1.0
    return jnp.where(beyond, 2.0 * length - 1.0, squared), jnp.where(beyond, 1.0 / length, 1.0)


def cauchy(squared: Array) -> tuple[Array, Array]:
    """``log(1 + s)``."""
    return jnp.log1p(squared), 1.0 / (1.0 + squared)


def geman_mcclure(squared: Array) -> tuple[Array, Array]:
    """``s / (1 + s)``: far outliers cost all the same, 1."""
    # Written so that an infinite s has a cost and a weight.
    share = 1.0 / (1.0 + squared)
    return 1.0 - share, share**2


@struct.dataclass(eq=False)
class Robust(ByValue):
    """A kernel for the residuals of a solver.

    Attributes:
      kernel: see the module.
      scale: () or (K,) residual at which the kernel departs from squares, of all blocks or each.
      block: so many residuals after each other are one vector, whose length counts.
      count: only the first so many residuals; the others, priors for instance, stay squares. None
        for all.
    """

    kernel: Kernel = struct.field(pytree_node=False)
    scale: Array | float = 1.0
    block: int = struct.field(pytree_node=False, default=1)
    count: int | None = struct.field(pytree_node=False, default=None)

    def __call__(self, residual: Array) -> tuple[Array, Array]:
        """Half the cost of all residuals (m,), (), and the weight of each (m,)."""
        flat = residual.reshape(-1)
        count = flat.size if self.count is None else self.count
        scaled = jnp.sum(flat[:count].reshape(-1, self.block) ** 2, axis=1) / self.scale**2
        cost, weight = self.kernel(scaled)
        total = 0.5 * jnp.sum(self.scale**2 * cost) + 0.5 * jnp.sum(flat[count:] ** 2)
        weights = jnp.concatenate([jnp.repeat(weight, self.block), jnp.ones_like(flat[count:])])
        return total, weights.reshape(residual.shape)
