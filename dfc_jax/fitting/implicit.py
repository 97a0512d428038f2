"""Derivatives of a minimum by whatever its problem depends on (the implicit function theorem)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dfc_jax.fitting.kernels import Robust
from dfc_jax.types import Array


def implicit_minimum(
    residual_fn: Callable[..., Array],
    x: Array,
    *args,
    robust: Robust | None = None,
    lower: Array | None = None,
    upper: Array | None = None,
) -> Array:
    """x (n,) unchanged, with the derivatives that a minimum of ``0.5 ||residual_fn(x, *args)||^2``
    has.

    At a minimum the gradient g of the cost is zero, so ``dx = -(dg/dx)^-1 dg``: exact at an exact
    minimum, with second derivatives of the residual, and as wrong as x is elsewhere. A variable at
    its bound moves with the bound. Forward and reverse mode, by `args`, the bounds, the scale of
    `robust`, and what `residual_fn` closes over; not by x. One derivative costs n products with the
    second derivatives of the cost and a factorization.

    Args:
      residual_fn: x and `args` to residuals (m,), twice differentiable.
      x: from `levenberg_marquardt` with the same arguments.
      *args, robust, lower, upper: as given there.
    """

    def cost(x: Array) -> Array:
        residual = residual_fn(x, *args)
        return 0.5 * jnp.sum(residual**2) if robust is None else robust(residual)[0]

    def bound(value: Array | None, otherwise: float) -> Array:
        return jnp.broadcast_to(otherwise if value is None else value, x.shape).astype(x.dtype)

    low, high = bound(lower, -jnp.inf), bound(upper, jnp.inf)
    at_low, at_high = x <= low, x >= high
    held = jax.lax.stop_gradient(at_low | at_high)
    stop = jnp.where(at_low, low, jnp.where(at_high, high, 0.0))

    def stationary(x: Array) -> Array:
        return jnp.where(held, x - stop, jax.grad(cost)(x))

    def solve(linear: Callable[[Array], Array], right: Array) -> Array:
        return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(right)), right)

    return jax.lax.custom_root(stationary, jax.lax.stop_gradient(x), lambda _, x: x, solve)
