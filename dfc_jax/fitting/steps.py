"""One step of a linear model: damped, within bounds, or all the way."""

import jax
import jax.numpy as jnp

from dfc_jax.fitting.linearized import Linearized
from dfc_jax.types import Array

# How often one step solves again after stopping variables at their bounds.
_ACTIVE_SET_PASSES = 3
# Pivots up to so many times the rounding are nothing but that.
_HIDDEN = 4.0


def bounds_of(x0: Array, lower: Array | None, upper: Array | None) -> tuple[Array, Array] | None:
    """Both bounds in the shape of x0 (n,); None without any."""
    if lower is None and upper is None:
        return None
    shape = x0.shape[-1:]
    low = jnp.broadcast_to(-jnp.inf if lower is None else lower, shape).astype(x0.dtype)
    high = jnp.broadcast_to(jnp.inf if upper is None else upper, shape).astype(x0.dtype)
    return low, high


def held_at_bounds(x: Array, gradient: Array, bounds: tuple[Array, Array] | None) -> Array:
    """Variables at a bound that the descent direction would cross."""
    if bounds is None:
        return jnp.zeros(x.shape, bool)
    low, high = bounds
    return ((x <= low) & (gradient >= 0)) | ((x >= high) & (gradient <= 0)) | (low >= high)


def damped_step(linear: Linearized, damping: Array, x: Array, held: Array, bounds) -> Array:
    """The damped step; not finite where the matrix is not positive definite."""
    nothing = jnp.zeros_like(x)
    if bounds is None:
        return linear.solve(damping, held, nothing)[0]

    def one_pass(state: tuple) -> tuple:
        count, _, held, stopped, _ = state
        free = x + linear.solve(damping, held, stopped)[0]
        inside = jnp.clip(free, *bounds)
        crossed = (free != inside) & ~held
        held = held | crossed
        return count + 1, jnp.any(crossed), held, jnp.where(held, inside - x, 0.0), inside - x

    def unfinished(state: tuple) -> Array:
        return (state[0] < _ACTIVE_SET_PASSES) & state[1]

    start = jnp.int32(0), jnp.array(True), held, nothing, nothing
    return jax.lax.while_loop(unfinished, one_pass, start)[-1]


def gauss_newton(
    linear: Linearized, columns: Array, held: Array, after: Array
) -> tuple[Array, Array]:
    """The step in units of the columns, damped no more than the rounding asks for; and whether
    rounding hides a direction from it, as columns are parallel but for that."""
    rounding = held.size * jnp.finfo(columns.dtype).eps
    # Waits for `after`: on the CPU, two factorizations of batches at a time can hang for ever.
    ridge = jnp.where(jnp.isfinite(after), rounding, 2.0 * rounding)
    step, pivot = linear.solve(ridge * columns**2, held, jnp.zeros_like(columns))
    return columns * step, pivot <= _HIDDEN * rounding
