"""Least-squares solvers, ours and those of others, called alike; see `experiments.bench.fit`.

The others come with the extra `peers`. Each solver has the loosest tolerance, of 1, 0.3, 0.1, 0.03
and so on, with which it reaches the optimum of all faces, ours of 256, the others of the first 48:
ours as a part of the cost, optimistix's absolute and relative in unknowns and cost, SciPy's in all
its tests.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from scipy.optimize import least_squares

from dfc_jax.fitting import DEFAULT, levenberg_marquardt
from dfc_jax.fitting.residuals import FitProblem, jacobian, residuals
from dfc_jax.fitting.starts import thinned
from dfc_jax.types import Array

# From a problem and a start (n,) to the solution (n,) and the steps it took.
Solve = Callable[[FitProblem, Any], tuple[Any, Any]]

FTOL, COARSE_FTOL, PLAIN_FTOL = 3e-5, 1e-2, 3e-4
OPTIMISTIX_TOLERANCE = 3e-2
SCIPY_TOLERANCE = 1e-3
MOST_STEPS = 100


def ours(problem: FitProblem, start: Array, ftol: float = FTOL) -> tuple[Array, Array]:
    """As `fit` does it: for a quarter of the points first, then for all with one ``J^T J`` as long
    as its steps gain what they promise; the steps with all points."""
    found, _ = _steps(thinned(problem, DEFAULT), start, COARSE_FTOL)
    return _steps(problem, found, ftol, refresh=MOST_STEPS)


def ours_plain(problem: FitProblem, start: Array) -> tuple[Array, Array]:
    """All points from the start, and a new ``J^T J`` for each step."""
    return _steps(problem, start, PLAIN_FTOL)


def _steps(problem: FitProblem, start: Array, ftol: float, refresh: int = 1) -> tuple[Array, Array]:
    """`levenberg_marquardt` with the exact Jacobian."""
    found = levenberg_marquardt(
        residuals,
        start,
        problem,
        jacobian_fn=jacobian,
        max_steps=MOST_STEPS,
        ftol=ftol,
        xtol=0.0,
        gtol=0.0,
        refresh=refresh,
    )
    return found.x, found.n_steps


def of_optimistix() -> dict[str, Solve]:
    """Its Levenberg-Marquardt with normal equations and with its default, QR; none where it is not
    installed. It differentiates the residual itself: it takes no Jacobian."""
    if find_spec("optimistix") is None:
        return {}
    import lineax
    import optimistix

    def with_solver(linear: Any) -> Solve:
        solver: Any = optimistix.LevenbergMarquardt(
            rtol=OPTIMISTIX_TOLERANCE, atol=OPTIMISTIX_TOLERANCE, linear_solver=linear
        )

        def solve(problem: FitProblem, start: Array) -> tuple[Array, Array]:
            found: Any = optimistix.least_squares(
                residuals, solver, start, args=problem, max_steps=MOST_STEPS, throw=False
            )
            return found.value, found.stats["num_steps"]

        return solve

    return {
        "optimistix_cholesky": with_solver(lineax.Normal(lineax.Cholesky())),
        "optimistix_qr": with_solver(lineax.AutoLinearSolver(well_posed=None)),
    }


def of_scipy(problem: FitProblem, start: Array) -> Solve:
    """MINPACK's Levenberg-Marquardt, which is faster here than "trf", with compiled residuals and
    Jacobians of problems with these shapes. It calculates in float64, with copies of them."""
    error, slope = (
        jax.jit(function).lower(start, problem).compile() for function in (residuals, jacobian)
    )

    def solve(problem: FitProblem, start: Any) -> tuple[Any, Any]:
        def of(function: Any) -> Callable[[np.ndarray], np.ndarray]:
            return lambda x: np.asarray(function(x.astype(np.float32), problem), np.float64)

        found = least_squares(
            of(error),
            np.asarray(start, np.float64),
            of(slope),
            method="lm",
            ftol=SCIPY_TOLERANCE,
            xtol=SCIPY_TOLERANCE,
            gtol=SCIPY_TOLERANCE,
            max_nfev=MOST_STEPS,
        )
        return found.x.astype(np.float32), found.nfev

    return solve
