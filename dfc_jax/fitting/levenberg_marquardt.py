"""Levenberg-Marquardt for any residual, with optional box bounds; runs under jit and vmap.

Each step minimises the damped model ``||r + J h||^2 + mu h.D h``. The damping mu follows the gain
ratio (Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, 1999); D is the running
maximum of the diagonal of ``J^T J`` (More, "The Levenberg-Marquardt algorithm", 1978), which makes
the steps independent of the parameters' units.

Bounds are kept by projection with an active set (Bertsekas, "Projected Newton methods for
optimization problems with simple constraints", SIAM J. Control 20, 1982): a variable at a bound
whose gradient points outwards is held; a variable that the step takes across a bound is stopped
there and the others are solved for again, with it in place.

Damping and bounds make steps short far from any minimum, so convergence is judged by the
Gauss-Newton step, which has neither: by what it promises (the relative offset of Bates & Watts,
"A relative offset orthogonality convergence criterion for nonlinear least squares",
Technometrics 23, 1981) and by its length.

With a robust kernel each step reweights the residuals where it starts; the gain is that of the
robust cost. The matrix ``J^T J`` may serve several steps while it predicts them well, with an exact
gradient in each (Shamanskii, "A modification of Newton's method", Ukr. Math. J. 19, 1967).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from dfc_jax.fitting.kernels import Robust
from dfc_jax.fitting.linearized import Linearized, NormalEquations
from dfc_jax.fitting.slots import in_slots
from dfc_jax.fitting.status import Status
from dfc_jax.fitting.steps import bounds_of, damped_step, gauss_newton, held_at_bounds
from dfc_jax.types import Array, ByValue

_MAX_DAMPING = 1e12
# The gain ratio below which a step shows that the matrix of an earlier point serves no longer.
_GOOD_GAIN = 0.5


@struct.dataclass(eq=False)
class LMHistory(ByValue):
    """One entry for the start and one after each of S = `max_steps`; padded with the last.

    Attributes:
      cost: (S + 1,) cost of the best point so far; never increases.
      damping: (S + 1,) mu for the next step.
      gain_ratio: (S + 1,) actual over predicted reduction of the step; 0 for the start and for
        trials that are not finite. The step was accepted where it is positive.
    """

    cost: Array
    damping: Array
    gain_ratio: Array


@struct.dataclass(eq=False)
class LMResult(ByValue):
    """Result of `levenberg_marquardt`.

    Attributes:
      x: (n,) the best point found.
      cost: () ``0.5 ||r(x)||^2``, or half the robust cost; infinite where that is not finite.
      status: () int32, a `Status`.
      n_steps: () int32, trial steps taken, accepted or not.
      gradient_norm: () Euclidean norm of the gradient of the cost at x, over the variables that
        are free to move.
      history: cost, damping and gain ratio of every step.
    """

    x: Array
    cost: Array
    status: Array
    n_steps: Array
    gradient_norm: Array
    history: LMHistory


@struct.dataclass(eq=False)
class _State(ByValue):
    """Where the loop is.

    `linear` is about x, but for its matrix, which is `age` accepted steps old; it has to be made
    anew where `outdated` says so.
    """

    x: Array
    residual: Array
    cost: Array
    damping: Array
    growth: Array
    scale: Array
    status: Array
    n_steps: Array
    linear: Linearized
    outdated: Array
    age: Array
    history: LMHistory


def levenberg_marquardt(
    residual_fn: Callable[..., Array],
    x0: Array,
    *args,
    max_steps: int = 50,
    jacobian_fn: Callable[..., Any] | None = None,
    form: type[Linearized] = NormalEquations,
    robust: Robust | None = None,
    lower: Array | None = None,
    upper: Array | None = None,
    ftol: float = 1e-6,
    xtol: float = 1e-6,
    gtol: float = 1e-6,
    initial_damping: float = 1e-3,
    refresh: int = 1,
    slots: int | None = None,
) -> LMResult:
    """Minimise ``0.5 ||residual_fn(x, *args)||^2`` from x0 (n,), within optional bounds.

    Args:
      residual_fn: x (n,) and `args` to residuals (m,).
      x0: start; projected into the bounds.
      *args: passed on to `residual_fn` and `jacobian_fn`.
      max_steps: trial steps at most (static).
      jacobian_fn: x and `args` to the Jacobian (m, n); `jax.jacfwd` of the residual by default.
      form: how the linear model of a step is held and solved (static). `StackedQR` for badly
        scaled problems; with `ArrowEquations` the residual is (F, m) and the Jacobian an
        `ArrowJacobian`.
      robust: what large residuals cost; their squares by default.
      lower, upper: bounds, broadcast to (n,); equal bounds fix a variable.
      ftol: stop when a step lowers the cost, and the Gauss-Newton step promises to, by no more
        than this part.
      xtol: stop when a step is accepted where the Gauss-Newton step is no longer than this part
        of x, both in units of the columns of the Jacobian: ``||J_i|| x_i``.
      gtol: stop when the cosine between the residual and every column of the Jacobian that is
        free to move is at most this, and the Gauss-Newton step promises to lower the cost by no
        more than this part: where columns are nearly parallel, small cosines prove nothing.
      initial_damping: mu of the first step, relative to the diagonal of ``J^T J``.
      refresh: accepted steps that may share a Jacobian's ``J^T J`` (static), as long as they gain
        half of what they promise; more than 1 needs a residual with reverse derivatives, and a
        `form` other than `StackedQR`.
      slots: with a number (static), x0 (B, n) and `args` (B, ...) are B problems, and the result
        has their axis, too. So many are worked on at a time; one that has stopped makes room for
        the next. Under `jax.vmap` instead, every problem waits for the slowest.

    Raises nothing while it runs: `Status` tells what happened, and x is the best finite point seen.
    Derivatives do not pass through the steps; see `implicit_minimum`.

    Raises:
      ValueError: `refresh` is more than 1 with `StackedQR`.
    """
    if jacobian_fn is None:
        jacobian_fn = jax.jacfwd(residual_fn)
    solver = _Solver(
        # Traced once for all their uses; inlined, they are compiled as if they stood there.
        residual_fn=jax.jit(residual_fn, inline=True),
        jacobian_fn=jax.jit(jacobian_fn, inline=True),
        form=form,
        robust=robust,
        bounds=bounds_of(x0, lower, upper),
        max_steps=max_steps,
        initial_damping=initial_damping,
        ftol=ftol,
        xtol=xtol,
        gtol=gtol,
        refresh=refresh,
    )
    if slots is None:
        final = jax.lax.while_loop(
            solver.running, lambda state: solver.step(state, args), solver.start(x0, args)
        )
        return solver.result(final, args)
    finals = in_slots(
        lambda problem: solver.start(*problem),
        solver.running,
        lambda state, problem: solver.step(state, problem[1]),
        (x0, args),
        min(slots, len(x0)),
    )
    return jax.vmap(solver.result)(finals, args)


@dataclasses.dataclass(frozen=True, eq=False)
class _Solver(ByValue):
    """The loop of `levenberg_marquardt` in its parts; see there for the fields."""

    residual_fn: Callable[..., Array]
    jacobian_fn: Callable[..., Any]
    form: type[Linearized]
    robust: Robust | None
    bounds: tuple[Array, Array] | None
    max_steps: int
    initial_damping: float
    ftol: float
    xtol: float
    gtol: float
    refresh: int

    def start(self, x0: Array, args: tuple) -> _State:
        x = x0 if self.bounds is None else jnp.clip(x0, *self.bounds)
        residual = self.residual_fn(x, *args)
        linear = jax.eval_shape(self._linearized, x, residual, args)
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), linear)
        cost = self._weighed(residual)[0]
        return _initial_state(x, residual, cost, empty, self.initial_damping, self.max_steps)

    def running(self, state: _State) -> Array:
        return (state.status == Status.MAX_STEPS) & (state.n_steps < self.max_steps)

    def step(self, state: _State, args: tuple) -> _State:
        """The state after one more trial."""
        linear = self._about(state, args)
        scale = jnp.maximum(state.scale, linear.diagonal)
        held = held_at_bounds(state.x, linear.gradient, self.bounds)
        step = damped_step(linear, state.damping * scale, state.x, held, self.bounds)
        trial = state.x + step
        trial = trial if self.bounds is None else jnp.clip(trial, *self.bounds)
        residual = self.residual_fn(trial, *args)
        predicted = -(linear.gradient @ step + 0.5 * linear.curvature(step))
        state = dataclasses.replace(state, scale=scale, linear=linear)
        new = _update(state, trial, residual, self._weighed(residual)[0], predicted, self.refresh)
        status = _stalled(state, new, predicted)
        if max(self.ftol, self.xtol, self.gtol) > 0.0:
            status = self._judged(status, linear, held, state, new, step, predicted)
        broken = ~jnp.isfinite(jnp.sum(linear.diagonal) + jnp.sum(linear.gradient))
        status = jnp.where(broken, Status.NON_FINITE, status)
        # A point that was stationary before the step is returned unchanged.
        stays = broken | (status == Status.CONVERGED_GTOL)
        kept = jax.tree.map(lambda a, b: jnp.where(stays, a, b), state, new)
        return dataclasses.replace(kept, status=status.astype(jnp.int32))

    def _judged(
        self,
        status: Array,
        linear: Linearized,
        held: Array,
        state: _State,
        new: _State,
        step: Array,
        predicted: Array,
    ) -> Array:
        """The status after a step from `state` to `new`; as it is where no tolerance is met."""
        # Lengths of the columns of the Jacobian, 1 for a column of zeros.
        columns = jnp.where(linear.diagonal > 0, jnp.sqrt(linear.diagonal), 1.0)
        slope = jnp.where(held, 0.0, linear.gradient / columns)
        length = self.xtol * jnp.linalg.norm(columns * state.x)
        gained = state.cost - new.cost
        flat = jnp.max(jnp.abs(slope)) <= self.gtol * jnp.linalg.norm(
            self._weighed(state.residual)[1]
        )
        short = (gained > 0) & (jnp.linalg.norm(columns * step) <= length)
        little = jnp.maximum(gained, predicted) <= self.ftol * state.cost

        def by_newton() -> Array:
            newton, hidden = gauss_newton(linear, columns, held, predicted)
            promise = -0.5 * (slope @ newton)
            reached = jnp.where(
                short & (jnp.linalg.norm(newton) <= length), Status.CONVERGED_XTOL, status
            )
            within = little & (promise <= self.ftol * state.cost)
            reached = jnp.where(within, Status.CONVERGED_FTOL, reached)
            within = flat & (promise <= self.gtol * state.cost)
            reached = jnp.where(within, Status.CONVERGED_GTOL, reached)
            return jnp.where(hidden & (reached != Status.MAX_STEPS), Status.STALLED, reached)

        # The undamped step is longer, and promises more: it is worth a factorization only where
        # the step that was made meets a tolerance.
        worth = flat | short | little | ~jnp.isfinite(predicted)
        return jax.lax.cond(worth, by_newton, lambda: status)

    def result(self, state: _State, args: tuple) -> LMResult:
        # Under jit this is not computed where nobody asks for the norm.
        gradient = self._linearized(state.x, state.residual, args).gradient
        free = jnp.where(held_at_bounds(state.x, gradient, self.bounds), 0.0, gradient)
        norm = jnp.linalg.norm(free)
        index = jnp.minimum(jnp.arange(self.max_steps + 1), state.n_steps)
        return LMResult(
            x=state.x,
            cost=state.cost,
            status=state.status,
            n_steps=state.n_steps,
            gradient_norm=jnp.where(jnp.isnan(norm), jnp.inf, norm),
            history=jax.tree.map(lambda values: values[index], state.history),
        )

    def _about(self, state: _State, args: tuple) -> Linearized:
        """The linear model about x, as far as it has to be new."""
        fresh = partial(self._linearized, state.x, state.residual, args)
        if self.refresh == 1:
            return jax.lax.cond(state.outdated, fresh, lambda: state.linear)

        def moved() -> Linearized:
            _, pulled = jax.vjp(lambda x: self.residual_fn(x, *args), state.x)
            _, weighted, root = self._weighed(state.residual)
            (gradient,) = pulled(root * weighted)
            return state.linear.with_gradient(gradient)

        return jax.lax.cond(state.outdated, fresh, moved)

    def _linearized(self, x: Array, residual: Array, args: tuple) -> Linearized:
        """The linear model with the robust weights."""
        jacobian = self.jacobian_fn(x, *args)
        _, weighted, root = self._weighed(residual)
        if self.robust is not None:
            jacobian = jax.tree.map(lambda leaf: root[..., None] * leaf, jacobian)
        return self.form.of(jacobian, weighted)

    def _weighed(self, residual: Array) -> tuple[Array, Array, Array]:
        """The cost, the weighted residual, and the roots of the weights."""
        if self.robust is None:
            return 0.5 * jnp.sum(residual**2), residual, jnp.ones_like(residual)
        cost, weight = self.robust(residual)
        root = jnp.sqrt(weight)
        return cost, root * residual, root


def _initial_state(
    x0: Array, residual: Array, cost: Array, linear: Linearized, damping: float, max_steps: int
) -> _State:
    cost = jnp.where(jnp.isfinite(cost), cost, jnp.inf)
    empty = jnp.zeros(max_steps + 1, cost.dtype)
    mu = jnp.asarray(damping, cost.dtype)
    return _State(
        x=x0,
        residual=residual,
        cost=cost,
        damping=mu,
        growth=jnp.asarray(2.0, cost.dtype),
        scale=jnp.zeros_like(x0),
        status=jnp.where(jnp.isfinite(cost), Status.MAX_STEPS, Status.NON_FINITE).astype(jnp.int32),
        n_steps=jnp.int32(0),
        linear=linear,
        outdated=jnp.array(True),
        age=jnp.int32(0),
        history=LMHistory(
            cost=empty.at[0].set(cost), damping=empty.at[0].set(mu), gain_ratio=empty
        ),
    )


def _update(
    state: _State, trial: Array, residual: Array, cost: Array, predicted: Array, refresh: int
) -> _State:
    """Accept or reject the trial and set the damping, after Nielsen."""
    usable = jnp.isfinite(cost) & (predicted > 0)
    gain = jnp.where(usable, state.cost - cost, 0.0) / jnp.where(usable, predicted, 1.0)
    accept = gain > 0
    shrink = jnp.maximum(1.0 / 3.0, 1.0 - (2.0 * gain - 1.0) ** 3)
    damping = state.damping * jnp.where(accept, shrink, state.growth)
    n_steps = state.n_steps + 1
    best = jnp.where(accept, cost, state.cost)
    # A step of the matrix of this very point that is rejected asks for damping alone.
    serves = (gain >= _GOOD_GAIN) & (state.age + 1 < refresh)
    outdated = jnp.where(accept, ~serves, state.age > 0)
    age = jnp.where(outdated, 0, state.age + accept)
    return dataclasses.replace(
        state,
        x=jnp.where(accept, trial, state.x),
        residual=jnp.where(accept, residual, state.residual),
        cost=best,
        damping=damping,
        growth=jnp.where(accept, 2.0, 2.0 * state.growth),
        n_steps=n_steps,
        outdated=outdated,
        age=age,
        history=LMHistory(
            cost=state.history.cost.at[n_steps].set(best),
            damping=state.history.damping.at[n_steps].set(damping),
            gain_ratio=state.history.gain_ratio.at[n_steps].set(gain),
        ),
    )


def _stalled(old: _State, new: _State, predicted: Array) -> Array:
    """STALLED where no damping would help, else MAX_STEPS."""
    # Rounding hides the decrease that is predicted, and more damping would predict less.
    hidden = jnp.abs(predicted) <= jnp.finfo(old.cost.dtype).eps * old.cost
    stalled = ((new.cost >= old.cost) & hidden) | (new.damping > _MAX_DAMPING)
    return jnp.where(stalled, Status.STALLED, Status.MAX_STEPS)
