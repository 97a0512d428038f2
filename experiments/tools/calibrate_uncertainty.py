"""Calibrates the errors that `dfc_jax.fitting.uncertainty` gives for landmarks.

    python -m experiments.tools.calibrate_uncertainty --photos helen/trainset --photos afw \\
        --photos cfp=cfp/train --out out/uncertainty        # about four minutes on two cores

Faces are fitted in their true boxes: photographs with annotated landmarks, and rendered faces of
all yaws, whose landmarks are known. Prints `CORRELATED` and `UNEXPLAINED_OF` of
`dfc_jax/fitting/uncertainty.py`, found with every other face: those with which the errors, as
normal ones, are likeliest, all scaled so that `ONE_SIGMA` of them lie within one standard
deviation. Then how the other faces, and those of `--check` (sets that are kept for validation
too), fare with the constants in force: the share of errors within so many standard deviations. And
`FLOW_VARIANCE` of `dfc_jax/inference/align.py`, with which the blend of the mesh's landmarks and
the flow's errs least on photographs.
Writes `reliability.png` and `reliability.json`.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from scipy.optimize import minimize
from scipy.stats import norm
from tqdm import tqdm

import dfc_jax
from data_pipelines.sources.layouts import open_faces, with_layout
from dfc_jax.crops import apply_affine, crop_of_box, crop_photo
from dfc_jax.files import write_json
from dfc_jax.fitting import DEFAULT, fit, project_landmarks
from dfc_jax.fitting.uncertainty import CORRELATED, GROUPS, UNEXPLAINED, uncertainty
from dfc_jax.inference.align import FLOW_VARIANCE, MIN_SUPPORT
from dfc_jax.inference.programs import correspond, lift_each
from dfc_jax.landmarks68 import N_JAW, N_LANDMARKS, OUTWARDS
from dfc_jax.systems.dfc.lift import flow_landmarks
from dfc_jax.systems.dfc.template import template_landmarks
from dfc_jax.types import Array, ByValue, Correspondences
from experiments import launch
from experiments.robustness import View, rendered, view_of

ONE_SIGMA = norm.cdf(1.0) - norm.cdf(-1.0)
FLOW_VARIANCES = 2.0 ** np.arange(0, 12)
# `CORRELATED` is looked for between these.
CORRELATIONS = 2.0 ** np.arange(1, 10)
SEED = 11
TIMES = np.linspace(0.1, 3.0, 30)


@dataclasses.dataclass(frozen=True, eq=False)
class Errors(ByValue):
    """Errors of the landmarks of n faces, in crop pixels.

    Attributes:
      error: (n, 68, 2) found minus true landmarks, NaN where these are unknown.
      variance: (n, C, 68, 2) of x and y for each of the C `CORRELATIONS`, nothing unexplained.
      size: (n,) sqrt(width * height) of the found landmarks.
      flow: (n, 68, 2) as `error`, of landmarks read from the flow, NaN where it shows none.
      support: (n, 68) of these, pixels.
    """

    error: np.ndarray
    variance: np.ndarray
    size: np.ndarray
    flow: np.ndarray
    support: np.ndarray

    def __getitem__(self, index: Any) -> "Errors":
        return Errors(*(column[index] for column in self.columns()))

    def columns(self) -> tuple[np.ndarray, ...]:
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))


def measured(solver: Any, views: Sequence[View], desc: str) -> Errors:
    """The errors of the landmarks that count, of faces in their boxes; `solver` is a `Solver`."""
    model, centre = solver.model, solver.template.camera.principal_point

    @jax.jit
    def solve(found: Correspondences) -> tuple[Any, Any]:
        params = fit(model, found, centre).params

        def spread(correlated: Array) -> Array:
            sure = uncertainty(model, found, centre, params, DEFAULT, correlated, 0.0)
            return jnp.diagonal(sure.landmarks_px, axis1=1, axis2=2)

        return project_landmarks(model, params, centre), jax.lax.map(
            spread, jnp.asarray(CORRELATIONS)
        )

    wanted = template_landmarks(solver.template)
    read_flow = jax.jit(lambda flow, mask: flow_landmarks(flow, mask, wanted, outwards=OUTWARDS))
    rows = []
    for view in tqdm(views, desc=desc, unit="face", disable=None):
        crop = crop_of_box(view.box)
        picture = crop_photo(view.image, crop)[None]
        flow, probability = correspond(picture, solver.variables, solver.code, solver.spec)
        one = jax.tree.map(lambda a: a[0], lift_each(solver.template, flow, probability))
        points, variance = jax.device_get(solve(one))
        read, support = map(np.asarray, read_flow(flow[0], probability[0]))
        truth = apply_affine(crop.to_crop, view.points)
        counts = view.counts[:, None]
        shown = (
            counts & (support >= MIN_SUPPORT)[:, None] & (np.arange(N_LANDMARKS) >= N_JAW)[:, None]
        )
        rows.append(
            (
                np.where(counts, points - truth, np.nan),
                variance,
                np.sqrt(np.prod(np.ptp(points, axis=0))),
                np.where(shown, read - truth, np.nan),
                support,
            )
        )
    return Errors(*(np.stack(column) for column in zip(*rows, strict=True)))


def deviations(errors: Errors, correlated: float, unexplained: np.ndarray) -> np.ndarray:
    """Standard deviations (n, 68, 2) of the landmarks' x and y."""
    place = np.interp(math.log(correlated), np.log(CORRELATIONS), np.arange(len(CORRELATIONS)))
    low = min(int(place), len(CORRELATIONS) - 2)
    explained = errors.variance[:, low] + (place - low) * (
        errors.variance[:, low + 1] - errors.variance[:, low]
    )
    return np.sqrt(explained + np.square(errors.size[:, None] * unexplained)[..., None])


def calibrated(errors: Errors) -> tuple[float, np.ndarray]:
    """`CORRELATED` and `UNEXPLAINED` of these faces."""
    group = np.zeros(N_LANDMARKS, int)
    for number, members in enumerate(GROUPS.values()):
        group[members] = number

    def constants(logs: np.ndarray) -> tuple[float, np.ndarray]:
        return math.exp(logs[0]), np.exp(logs[1:])[group]

    def surprise(logs: np.ndarray) -> float:
        spread = deviations(errors, *constants(logs))
        # Beyond three deviations an error is a failure, and says nothing about the others.
        squared = np.minimum(np.square(errors.error / spread), 9.0)
        return float(
            np.nanmean(0.5 * squared + np.where(np.isnan(squared), np.nan, np.log(spread)))
        )

    start = np.log([10.0, *[0.01] * len(GROUPS)])
    found = minimize(surprise, start, method="Nelder-Mead", options={"maxiter": 4000}).x
    correlated, unexplained = constants(found)
    for _ in range(5):
        times = np.abs(errors.error / deviations(errors, correlated, unexplained))
        scale = float(np.nanquantile(times, ONE_SIGMA))
        correlated, unexplained = correlated * scale**2, unexplained * scale
    return correlated, unexplained


def blended(errors: Errors, flow_variance: float) -> float:
    """The mean error, percent of the size, of a blend with the flow's landmarks, where it shows
    any; infinite takes the mesh's alone."""
    mesh = np.mean(np.square(deviations(errors, CORRELATED, UNEXPLAINED)), axis=-1)
    share = (mesh / (mesh + flow_variance / np.maximum(errors.support, 1e-6)))[..., None]
    error = share * errors.flow + (1.0 - share) * errors.error
    return float(100.0 * np.nanmean(np.linalg.norm(error, axis=-1) / errors.size[:, None]))


def coverage(errors: Errors, correlated: float, unexplained: np.ndarray) -> dict[str, Any]:
    """Shares of errors within `TIMES` standard deviations, and within one by group."""
    times = np.abs(errors.error / deviations(errors, correlated, unexplained))
    known = times[np.isfinite(times)]

    def within(part: np.ndarray) -> float | None:
        part = part[np.isfinite(part)]
        return round(float(np.mean(part <= 1.0)), 3) if part.size else None

    return {
        "n": len(times),
        "within_one": within(times),
        **{f"within_one_{name}": within(times[:, part]) for name, part in GROUPS.items()},
        "shares": [round(float(np.mean(known <= limit)), 4) for limit in TIMES],
    }


def photographs(given: Sequence[str], every: int) -> list[View]:
    """Annotated photographs. The jaw counts where it is annotated as it is seen, by iBUG."""
    views = []
    for folder in given:
        layout, path = with_layout(folder, "ibug")
        for face in open_faces(layout, path)[::every]:
            view = view_of(face.image(), face.points)
            if layout == "ibug":
                view = dataclasses.replace(view, counts=np.isfinite(face.points).all(axis=-1))
            views.append(view)
    return views


def draw(shares: dict[str, dict[str, Any]]) -> Figure:
    """The share of errors within so many standard deviations, beside that of normal ones."""
    figure = Figure(figsize=(5.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(TIMES, 2.0 * norm.cdf(TIMES) - 1.0, "k--", label="normal errors")
    for name, found in shares.items():
        axes.plot(TIMES, found["shares"], label=f"{name}, {found['n']} faces")
    axes.set(xlabel="standard deviations", ylabel="share of errors within", ylim=(0.0, 1.0))
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def main() -> None:
    values = flags.FLAGS
    out = Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    aligner = dfc_jax.load(values.weights, detector="none")
    solver = aligner.solver
    views = {
        "photographs": photographs(values.photos, values.every),
        "rendered faces": [*chain(*rendered(aligner, values.rendered, SEED).values())],
    }
    found = {name: measured(solver, own, name) for name, own in views.items()}
    fitted = [errors[::2] for errors in found.values()]
    parts = zip(*(errors.columns() for errors in fitted), strict=True)
    both = Errors(*map(np.concatenate, parts))
    correlated, unexplained = calibrated(both)
    print(f"CORRELATED = {correlated:.1f}")
    for name, members in GROUPS.items():
        print(f"UNEXPLAINED_OF {name} = {unexplained[members[0]]:.4f}")
    best = min(FLOW_VARIANCES, key=lambda variance: blended(fitted[0], variance))
    print(f"FLOW_VARIANCE = {best}")
    for name, errors in found.items():
        rest = errors[1::2]
        print(
            f"{name}: mesh {blended(rest, math.inf):.3f} %, blend {blended(rest, best):.3f} %, in"
            f" force {blended(rest, FLOW_VARIANCE):.3f} %"
        )
    shares = {
        name: coverage(errors[1::2], CORRELATED, UNEXPLAINED) for name, errors in found.items()
    }
    for folder in values.check or ():
        errors = measured(solver, photographs([folder], 1), folder)
        shares["/".join(Path(folder).parts[-2:])] = coverage(errors, CORRELATED, UNEXPLAINED)
    for name, share in shares.items():
        print(name, {key: value for key, value in share.items() if key != "shares"})
    write_json(out / "reliability.json", shares)
    draw(shares).savefig(out / "reliability.png", dpi=110)


if __name__ == "__main__":
    flags.DEFINE_multi_string(
        "photos", None, "annotated training photographs, or LAYOUT=FOLDER", required=True
    )
    flags.DEFINE_multi_string("check", None, "sets to check the constants in force with")
    flags.DEFINE_integer("every", 5, "one photograph in so many is used", lower_bound=1)
    flags.DEFINE_integer("rendered", 500, "rendered faces, about half of which are used")
    flags.DEFINE_string("weights", None, "weights instead of the default ones")
    flags.DEFINE_string("out", "out/uncertainty", "folder for the results")
    app.run(
        lambda _: launch.run_program(main), flags_parser=partial(launch.parse_flags, example="")
    )
