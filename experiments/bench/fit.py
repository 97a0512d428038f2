"""How long the fit takes, beside solvers of others that go to the same optimum.

Each problem is one face: 1,024 correspondences with 10 % of outliers and 0.3 pixels of noise, the
robust weights and priors of the fit's last round, held, and no bounds, since optimistix has none.
The start is that of the fit: the pose of the mean shape, all coefficients 0. The unknowns are 7 of
the pose, 50 or 100 identity and all expression coefficients: 110 or 160 in all. The solvers:

    ours                   `levenberg_marquardt` with the exact Jacobian as `fit` uses it: for a
                           quarter of the points first, then several steps with one ``J^T J``
    ours_plain             all points from the start, and a new ``J^T J`` for each step
    optimistix_cholesky    `optimistix.LevenbergMarquardt` on the normal equations
    optimistix_qr          the same with its default linear solver
    scipy                  `scipy.optimize.least_squares`, method "lm", with the exact Jacobian
    fit                    the whole fit, from correspondences to `FitResult`: start, weights and
                           bounds too, so that only its times can be compared

Of each solver and number of unknowns:

    <solver>_<unknowns>_ms             one face a call, the median over a few faces in turn
    <solver>_<unknowns>_compile_s      its program, without a cache of programs
    <solver>_<unknowns>_steps          steps, mean
    <solver>_<unknowns>_reached        share of the faces whose cost is within 1e-4 of the best that
                                       any solver found, or ours with 1e-8 as its tolerance
    <solver>_<unknowns>_excess         the largest cost above the best, as a part of it
    <solver>_<unknowns>_times_ours     its time in units of ours
    <solver>_<unknowns>_times_network  its time in units of `network_paper_ms`, the paper's network

and the same for a batch of B faces, of which `<solver>_<unknowns>_batch<B>_ms_per_face`; also
`..._mbyte_per_face`: arguments, results and what a batch needs while it runs. For ours a batch
is, on a CPU, one `jax.lax.map` in each of as many threads as there are cores; on other devices, and
everywhere for optimistix, it is `jax.vmap`. SciPy takes one face after the other, and its time for
one face stands for a batch. `peers_missing` names what the extra `peers` would install.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from dfc_jax.fitting import DEFAULT, fit
from dfc_jax.fitting.fit import unprimed, with_priors
from dfc_jax.fitting.residuals import FitProblem, residuals
from dfc_jax.fitting.starts import start
from dfc_jax.morphable.linear import FaceModel, surface_basis
from dfc_jax.types import Array, Correspondences
from experiments.bench.peers import Solve, of_optimistix, of_scipy, ours, ours_plain
from experiments.bench.stopwatch import Stopwatch
from experiments.bench.synthetic import Figures, short
from experiments.bench.train import compiled_anew, program

IDENTITIES = (50, 100)
# Faces of a batch, of one of optimistix's, which is that much slower, and of those taken alone.
FACES, PEER_FACES, ALONE = 256, 16, 5
NOISE_PX, OUTLIER_PX, OUTLIERS = 0.3, 15.0, 0.1
SAME_OPTIMUM = 1e-4


def fit_figures(
    watch: Stopwatch,
    model: FaceModel,
    exact: Correspondences,
    principal_point: Array,
    network_ms: float,
) -> Figures:
    """The figures of the suite; see the module.

    Args:
      watch: takes the times.
      model: the face model.
      exact: correspondences of B different faces (B, N), without noise.
      principal_point: (2,) of all of them, pixels.
      network_ms: what the paper's network takes for one face.
    """
    seen = observed(jax.random.key(1), exact)
    peers = of_optimistix()
    figures: Figures = {
        "batch": len(seen.weight),
        "correspondences": seen.weight.shape[1],
        "peers_missing": [] if peers else ["optimistix"],
    }
    for n_identity in IDENTITIES:
        n_identity = min(n_identity, model.n_identity)
        faces = Faces.of(model, seen, principal_point, n_identity)
        runs = [*solver_runs(watch, faces, peers), *fit_runs(watch, model, faces)]
        for name, value in compared(runs, faces.best, network_ms).items():
            solver, _, figure = name.partition("/")
            figures[f"{solver}_{faces.starts.shape[1]}_{figure}"] = value
    return figures


@jax.jit
def observed(key: Array, exact: Correspondences) -> Correspondences:
    """The correspondences with noise and outliers."""
    noise, where, far = (jax.random.fold_in(key, i) for i in range(3))
    points = exact.points_px
    error = NOISE_PX * jax.random.normal(noise, points.shape)
    outlier = jax.random.bernoulli(where, OUTLIERS, (*points.shape[:-1], 1))
    error += jnp.where(outlier, OUTLIER_PX * jax.random.normal(far, points.shape), 0.0)
    return dataclasses.replace(exact, points_px=points + error)


@dataclasses.dataclass(frozen=True, eq=False)
class Faces:
    """B problems with n unknowns each.

    Attributes:
      seen: their correspondences, (B, N).
      principal_point: (2,) pixels.
      n_identity: identity coefficients among the unknowns.
      problems: (B, ...).
      starts: (B, n).
      best: (B,) cost of what ours finds with a tolerance of 1e-8.
    """

    seen: Correspondences
    principal_point: Array
    n_identity: int
    problems: FitProblem
    starts: Array
    best: np.ndarray

    @classmethod
    def of(
        cls, model: FaceModel, seen: Correspondences, principal_point: Array, n_identity: int
    ) -> "Faces":
        @jax.jit
        def build(model: FaceModel, seen: Correspondences) -> Any:
            return jax.lax.map(
                lambda points: problem_of(model, points, principal_point, n_identity), seen
            )

        problems, starts = build(model, seen)
        found, _ = batched(partial(ours, ftol=1e-8), (problems, starts), True).solution()
        return cls(seen, principal_point, n_identity, problems, starts, costs(problems, found))

    def first(self, count: int) -> tuple[FitProblem, Array]:
        return jax.tree.map(lambda leaf: leaf[:count], (self.problems, self.starts))

    def alone(self) -> list[tuple[FitProblem, Array]]:
        """A few, each of its own."""
        count = min(ALONE, len(self.starts))
        return [
            jax.tree.map(lambda leaf, i=i: leaf[i], (self.problems, self.starts))
            for i in range(count)
        ]


def problem_of(
    model: FaceModel, points: Correspondences, principal_point: Array, n_identity: int
) -> tuple[FitProblem, Array]:
    """What the last round of the fit minimises, but for its bounds, and where the fit starts."""
    fitted = fit(model, points, principal_point, n_identity=n_identity)
    mean, basis = surface_basis(model, points.surface, n_identity)
    problem = unprimed(mean, basis, points.points_px, points.weight, principal_point)
    x = start(problem, DEFAULT, None)
    problem = with_priors(problem, x, DEFAULT, n_identity, model.expression_names)
    prior = problem.prior_weight * fitted.noise_px**2
    return dataclasses.replace(problem, weight=fitted.weight, prior_weight=prior), x


@jax.jit
def _costs(problems: FitProblem, found: Array) -> Array:
    return jax.vmap(lambda x, problem: 0.5 * jnp.sum(residuals(x, problem) ** 2))(found, problems)


def costs(problems: FitProblem, found: Array) -> np.ndarray:
    """Of as many solutions (B, n) as there are: (B,)."""
    problems = jax.tree.map(lambda leaf: leaf[: len(found)], problems)
    return np.asarray(_costs(problems, jnp.asarray(found)), np.float64)


@dataclasses.dataclass(frozen=True)
class Run:
    """What was measured of a solver, alone or with a batch.

    Attributes:
      name: of the solver.
      per: "" for faces alone, "batch256" for a batch.
      ms: of a face.
      costs: what it reached, in the first faces; None of the whole fit.
      figures: the others.
    """

    name: str
    per: str
    ms: float
    costs: np.ndarray | None
    figures: Figures


def solver_runs(watch: Stopwatch, faces: Faces, peers: dict[str, Solve]) -> list[Run]:
    """Everything that solves the same problems."""
    alone = faces.alone()
    scipy, scipy_s = compiled_anew(lambda: of_scipy(*alone[0]))
    runs = [alone_run(watch, "scipy", faces, scipy, scipy_s)]
    for name, solve in {"ours": ours, "ours_plain": ours_plain, **peers}.items():
        compiled = program(jax.jit(solve), *alone[0])
        runs.append(alone_run(watch, name, faces, compiled.compiled, compiled.compile_s))
    runs.append(batch_run(watch, "ours", faces, ours, len(faces.starts), on_cpu()))
    for name in {"optimistix_cholesky"} & set(peers):
        count = min(PEER_FACES, len(faces.starts))
        runs.append(batch_run(watch, name, faces, peers[name], count, False))
    return runs


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def alone_run(watch: Stopwatch, name: str, faces: Faces, solve: Solve, compile_s: float) -> Run:
    alone = faces.alone()
    found, steps = zip(*(jax.block_until_ready(solve(*face)) for face in alone), strict=True)
    following = itertools.cycle(alone)
    ms = watch.median_ms(lambda: solve(*next(following)))
    figures = {"compile_s": short(compile_s), "steps": mean(steps)}
    return Run(name, "", ms, costs(faces.problems, jnp.stack(found)), figures)


def batch_run(
    watch: Stopwatch, name: str, faces: Faces, solve: Solve, count: int, threads: bool
) -> Run:
    batch = batched(solve, faces.first(count), threads)
    ms = watch.median_ms(batch.call) / count
    found, steps = batch.solution()
    reached, figures = costs(faces.problems, found), {**batch.figures, "steps": mean(steps)}
    return Run(name, f"batch{count}", ms, reached, figures)


def fit_runs(watch: Stopwatch, model: FaceModel, faces: Faces) -> list[Run]:
    """The whole fit of faces alone and of a batch."""
    # A leaf, since constants of this size are compiled for long.
    whole = Partial(partial(_fit, faces.n_identity), model, faces.principal_point)
    count = min(ALONE, len(faces.starts))
    alone = [jax.tree.map(lambda leaf, i=i: leaf[i], faces.seen) for i in range(count)]
    compiled = program(jax.jit(lambda whole, points: whole(points)), whole, alone[0])
    following = itertools.cycle(alone)
    ms = watch.median_ms(lambda: compiled.compiled(whole, next(following)))
    batch = batched(whole, (faces.seen,), on_cpu())
    total, count = watch.median_ms(batch.call), len(faces.starts)
    return [
        Run("fit", "", ms, None, {"compile_s": short(compiled.compile_s)}),
        Run("fit", f"batch{count}", total / count, None, batch.figures),
    ]


def _fit(n_identity: int, model: FaceModel, principal_point: Array, points: Any) -> Any:
    return fit(model, points, principal_point, n_identity=n_identity)


@dataclasses.dataclass(frozen=True)
class Batch:
    """A compiled program for a batch, or a part of one in each thread; `call` runs it."""

    call: Callable[[], list[Any]]
    figures: Figures

    def solution(self) -> Any:
        """What the function returns, stacked over the faces."""
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *self.call())


def batched(function: Callable[..., Any], args: tuple, threads: bool) -> Batch:
    """`function` over the leading axis of `args`: one after the other in a thread for each core, as
    far as these divide the batch; or, without `threads`, `jax.vmap`."""
    count = len(jax.tree.leaves(args)[0])
    parts = math.gcd(count, os.cpu_count() or 1) if threads else 1
    shares = [
        jax.tree.map(lambda leaf, i=i: leaf.reshape(parts, -1, *leaf.shape[1:])[i], args)
        for i in range(parts)
    ]

    def share(function: Partial, args: tuple) -> Any:
        if threads:
            return jax.lax.map(lambda each: function(*each), args)
        return jax.vmap(function)(*args)

    leaf = Partial(function)
    compiled = program(jax.jit(share), leaf, shares[0])
    pool = ThreadPoolExecutor(parts)

    def call() -> list[Any]:
        return list(
            pool.map(lambda part: jax.block_until_ready(compiled.compiled(leaf, part)), shares)
        )

    figures = {
        "compile_s": short(compiled.compile_s),
        "mbyte_per_face": short(parts * needed_bytes(compiled.compiled) / count / 1e6),
    }
    return Batch(call, figures)


def needed_bytes(compiled: Any) -> int:
    """Arguments, results and temporary arrays of a program."""
    needs = compiled.memory_analysis()
    sizes = (needs.argument_size_in_bytes, needs.output_size_in_bytes, needs.temp_size_in_bytes)
    return sum(sizes)


def mean(steps: Any) -> float:
    return short(float(np.mean(np.asarray(steps, np.float64))))


def compared(runs: list[Run], best: np.ndarray, network_ms: float) -> Figures:
    """All figures of one size; names are "solver/figure". `best` are the costs (B,) to reach, as
    far as no run found a lower one."""
    best = best.copy()
    for run in runs:
        if run.costs is not None:
            best[: len(run.costs)] = np.fmin(best[: len(run.costs)], run.costs)
    own = {bool(run.per): run.ms for run in runs if run.name == "ours"}
    figures: Figures = {}
    for run in runs:
        of_run: Figures = {"ms_per_face" if run.per else "ms": short(run.ms), **run.figures}
        of_run["times_network"] = short(run.ms / network_ms)
        if run.name != "ours":
            of_run["times_ours"] = short(run.ms / own[bool(run.per)])
        if run.costs is not None:
            of_run |= how_near(run.costs, best[: len(run.costs)])
        per = f"{run.per}_" if run.per else ""
        figures |= {f"{run.name}/{per}{name}": value for name, value in of_run.items()}
        if run.name == "scipy":
            figures["scipy/batch_times_ours"] = short(run.ms / own[True])
    return figures


def how_near(costs: np.ndarray, best: np.ndarray) -> Figures:
    excess = costs / best - 1.0
    largest = float(np.max(excess))
    return {
        "reached": short(float(np.mean(excess <= SAME_OPTIMUM))),
        # JSON has no number for a solver that diverged.
        "excess": short(largest) if math.isfinite(largest) else None,
    }
