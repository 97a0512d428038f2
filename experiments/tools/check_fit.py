"""What the fit makes of hostile correspondences, and of several photographs of one person.

    python -m experiments.tools.check_fit --json FILE [--problems 2000] [--persons 20]

Two parts of the report:

``hostile``: synthetic faces with any identity and expression, at 250 mm to 5 m, yaw to 90 degrees
either way, pitch to 30, any roll in half of them; up to 40 % of the correspondences are outliers,
up to half of what is visible is hidden, the others have 0.5 px of noise in a crop of 128 pixels.
``within`` counts the fits whose mean error is at most 2 px, ``seen`` over the part of the face that
was not hidden, ``visible`` over all of the head, without the neck, that faces the camera; also by
distance, yaw, roll, and where the focal length that the fit starts from is wrong by a factor of 2
or more. ``failures`` lists the other fits, and ``marked`` says how well `is_suspect` tells them
from what a `FitResult` says of itself.

``persons``: see `experiments.tools.check_persons`.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import struct
from tqdm import tqdm

from dfc_jax.camera import crop_camera, project, to_camera
from dfc_jax.errors import OptionError
from dfc_jax.files import print_or_write_json
from dfc_jax.fitting import DEFAULT, FitResult, Status, fit
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import PARTS, FaceModel, shape, surface_positions
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster.flow import fragments_of
from dfc_jax.types import Array, ByValue, Correspondences, FaceParams, SurfacePoints
from experiments import launch
from experiments.tools.check_persons import check_persons

SEED = 0
SIZE, N_POINTS, NOISE_PX = 128, 1024, 0.5
YAW_DEG, PITCH_DEG, TILT_DEG = 90.0, 30.0, 45.0
# One face in so many has any roll, the others up to `TILT_DEG`.
ANY_ROLL = 0.5
DISTANCES_MM = (250.0, 5000.0)
# Longer edge of the box around the head.
EDGES_PX = (75.0, 125.0)
OUTLIERS, HIDDEN = 0.4, 0.5
EXPRESSION_SD = 0.25
WITHIN_PX = 2.0
DISTANCE_BINS = (250, 300, 400, 600, 1000, 2000, 5000)
YAW_BINS = (0, 30, 60, 75, 90)
ROLL_BINS = (0, 45, 90, 135, 180)
FOCAL_TIMES = 2.0
# See `is_suspect`.
MOST_NOISE_PX = 1.2 * NOISE_PX


@struct.dataclass(eq=False)
class Problem(ByValue):
    """Hostile correspondences of one face, and the truth.

    Attributes:
      correspondences: `N_POINTS` of them, pixels of the crop.
      surface: what each pixel of the crop shows, leaves (S, S, ...).
      visible: (S, S) bool, where that is the head without its neck.
      seen: (S, S) bool, the part of it that was not hidden.
      params: of the face.
      angles_deg: (3,) yaw, pitch, roll.
      outliers: () share of the correspondences.
    """

    correspondences: Correspondences
    surface: SurfacePoints
    visible: Array
    seen: Array
    params: FaceParams
    angles_deg: Array
    outliers: Array


def sample_face(key: Array, model: FaceModel) -> tuple[FaceParams, Array]:
    """A random face whose head fills the crop, and its angles (3,) in degrees."""
    keys = jax.random.split(key, 6)
    spread = jnp.array([YAW_DEG, PITCH_DEG, TILT_DEG])
    spread = jnp.where(jax.random.bernoulli(keys[0], ANY_ROLL), spread.at[2].set(180.0), spread)
    angles = spread * jax.random.uniform(keys[1], (3,), minval=-1.0)
    low, high = jnp.log(jnp.array(DISTANCES_MM))
    distance = jnp.exp(jax.random.uniform(keys[2], minval=low, maxval=high))
    expression = EXPRESSION_SD * jax.random.normal(keys[3], (model.n_expression,))
    params = FaceParams(
        focal_px=jnp.float32(1.0),
        rotation=angles_to_rotvec(angles),
        translation_mm=jnp.array([0.0, 0.0, 1.0]) * distance,
        identity=jax.random.normal(keys[4], (model.n_identity,)),
        expression=jnp.clip(expression, 0.0, 1.0),
    )
    low, high = EDGES_PX
    return framed(params, model, jax.random.uniform(keys[5], minval=low, maxval=high)), angles


def framed(params: FaceParams, model: FaceModel, edge_px: Array) -> FaceParams:
    """The face moved before the camera, with the focal length that makes its head so large."""
    points = to_camera(params, shape(model, params.identity, params.expression))
    # Corners of the neck's triangles count for nothing.
    neck = _of_neck(model)[:, None, None]
    corners = points[model.triangles]
    moved = jnp.zeros(3)
    # Moving the face sideways changes its perspective a little; three rounds settle it.
    for _ in range(3):
        xy = (corners + moved)[..., :2] / corners[..., 2:]
        low = jnp.min(jnp.where(neck, jnp.inf, xy), axis=(0, 1))
        high = jnp.max(jnp.where(neck, -jnp.inf, xy), axis=(0, 1))
        moved -= jnp.append((low + high) / 2.0, 0.0) * params.translation_mm[2]
    return dataclasses.replace(
        params, focal_px=edge_px / jnp.max(high - low), translation_mm=params.translation_mm + moved
    )


def _of_neck(model: FaceModel) -> Array:
    return model.triangle_part == PARTS.index("neck")


def sample_problem(key: Array, model: FaceModel) -> Problem:
    """A random face, rendered, and correspondences of the pixels that are not hidden."""
    keys = jax.random.split(key, 5)
    params, angles = sample_face(keys[0], model)
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    found = fragments_of(vertices, model.triangles, crop_camera(params, SIZE), SIZE)
    visible = (found.pix_to_face >= 0) & ~_of_neck(model)[found.pix_to_face]
    surface = SurfacePoints(jnp.maximum(found.pix_to_face, 0), found.bary_coords)
    seen = visible & beyond_line(keys[1], visible)
    order = jax.random.permutation(keys[2], SIZE * SIZE)
    chosen = jnp.nonzero(seen.reshape(-1)[order], size=N_POINTS, fill_value=-1)[0]
    used, chosen = chosen >= 0, order[chosen]
    pixels = pixel_grid(SIZE, SIZE).reshape(-1, 2)[chosen]
    pixels += NOISE_PX * jax.random.normal(keys[3], pixels.shape)
    points, wrong = with_outliers(keys[4], pixels)
    given = jax.tree.map(lambda leaf: leaf.reshape(SIZE * SIZE, *leaf.shape[2:])[chosen], surface)
    correspondences = Correspondences(points, given, used.astype(jnp.float32))
    share = jnp.sum(wrong & used) / jnp.maximum(jnp.sum(used), 1)
    return Problem(correspondences, surface, visible, seen, params, angles, share)


def beyond_line(key: Array, visible: Array) -> Array:
    """Pixels (S, S) on one side of a line, anywhere, that hides up to `HIDDEN` of the visible."""
    keys = jax.random.split(key)
    angle = jax.random.uniform(keys[0], maxval=2.0 * jnp.pi)
    across = pixel_grid(SIZE, SIZE) @ jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    share = HIDDEN * jax.random.uniform(keys[1])
    return across >= jnp.nanquantile(jnp.where(visible, across, jnp.nan), share)


def with_outliers(key: Array, pixels: Array) -> tuple[Array, Array]:
    """Pixels (N, 2) of which up to `OUTLIERS` lie anywhere in the crop, and which these are."""
    keys = jax.random.split(key, 3)
    share = OUTLIERS * jax.random.uniform(keys[0])
    wrong = jax.random.uniform(keys[1], pixels.shape[:1]) < share
    anywhere = jax.random.uniform(keys[2], pixels.shape, maxval=float(SIZE))
    return jnp.where(wrong[:, None], anywhere, pixels), wrong


def errors_px(model: FaceModel, params: FaceParams, problem: Problem) -> tuple[Array, Array]:
    """Mean distance of fitted from true places over what was seen, and over all that is visible."""
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    points = surface_positions(vertices, model.triangles, problem.surface)
    apart = project(crop_camera(params, SIZE), points) - pixel_grid(SIZE, SIZE)
    length = jnp.linalg.norm(apart, axis=-1)

    def mean(mask: Array) -> Array:
        return jnp.sum(jnp.where(mask, length, 0.0)) / jnp.maximum(jnp.sum(mask), 1)

    return mean(problem.seen), mean(problem.visible)


def is_suspect(status: Any, noise_px: Any) -> Any:
    """Whether a fit to correspondences with noise of `NOISE_PX` says itself that it may be wrong:
    its points determine no face, or it finds more noise than there is. NumPy arrays or numbers.

    The share of inliers adds nothing: a fit that went wrong has so much noise that all are. What a
    fit makes of a hidden part of the face it cannot check, and nothing here shows that.
    """
    return (np.asarray(status) >= Status.NON_FINITE) | (np.asarray(noise_px) > MOST_NOISE_PX)


@jax.jit
def solved(key: Array, model: FaceModel) -> dict[str, Array]:
    """One problem, fitted: a row of `hostile_report`."""
    problem = sample_problem(key, model)
    found: FitResult = fit(model, problem.correspondences, jnp.full(2, (SIZE - 1) / 2.0))
    seen, visible = errors_px(model, found.params, problem)
    used = jnp.sum(problem.correspondences.weight > 0)
    return {
        "seen_px": seen,
        "visible_px": visible,
        "distance_mm": problem.params.translation_mm[2],
        "yaw_deg": problem.angles_deg[0],
        "pitch_deg": problem.angles_deg[1],
        "roll_deg": problem.angles_deg[2],
        "hidden": 1.0 - jnp.sum(problem.seen) / jnp.sum(problem.visible),
        "outliers": problem.outliers,
        "status": found.status,
        "rms_px": found.rms_px,
        "noise_px": found.noise_px,
        "inliers": found.n_inliers / jnp.maximum(used, 1),
        "fitted_mm": found.params.translation_mm[2],
    }


def solve_all(model: FaceModel, problems: int, seed: int = SEED) -> dict[str, np.ndarray]:
    """`solved` of so many problems, columns (n,)."""
    keys = jax.random.split(jax.random.key(seed), problems)
    rows = [jax.device_get(solved(key, model)) for key in tqdm(keys, "problems", disable=None)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def within(rows: dict[str, np.ndarray], which: Any = slice(None)) -> dict[str, float | int]:
    """How many there are, and which share of them is right; see the module."""
    parts = {part: rows[f"{part}_px"][which] for part in ("seen", "visible")}
    n = len(parts["seen"])
    shares = {part: round(float(np.mean(px <= WITHIN_PX)), 4) for part, px in parts.items() if n}
    return {"problems": n, **shares}


def binned(
    rows: dict[str, np.ndarray], values: np.ndarray, edges: Sequence[float]
) -> dict[str, dict[str, float | int]]:
    """`within` by the sizes of these values, (n,)."""
    which = np.clip(np.digitize(np.abs(values), edges) - 1, 0, len(edges) - 2)
    return {
        f"{low} to {high}": within(rows, which == i)
        for i, (low, high) in enumerate(pairwise(edges))
    }


def _readable(value: np.ndarray) -> float | None:
    """Of a failure; None where infinite, which JSON does not know."""
    return round(float(value), 3) if np.isfinite(value) else None


def hostile_report(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """The part ``hostile`` of the report, of columns (n,); see the module."""
    suspect = is_suspect(rows["status"], rows["noise_px"])
    focal = rows["distance_mm"] / DEFAULT.distance_mm
    wrong_start = np.abs(np.log(focal)) >= np.log(FOCAL_TIMES)
    report: dict[str, Any] = {
        "within": within(rows),
        "median_px": {
            part: round(float(np.median(rows[f"{part}_px"])), 3) for part in ("seen", "visible")
        },
        "by_distance_mm": binned(rows, rows["distance_mm"], DISTANCE_BINS),
        "by_yaw_deg": binned(rows, rows["yaw_deg"], YAW_BINS),
        "by_roll_deg": binned(rows, rows["roll_deg"], ROLL_BINS),
        "focal_off_2x": within(rows, wrong_start),
        "marked": {},
    }
    for part in ("seen", "visible"):
        bad = rows[f"{part}_px"] > WITHIN_PX
        report["marked"][part] = {
            "failures": int(bad.sum()),
            "of_them_marked": int((bad & suspect).sum()),
            "good": int((~bad).sum()),
            "of_them_marked_wrongly": int((~bad & suspect).sum()),
        }
    report["failures"] = [
        {"problem": int(i), "suspect": bool(suspect[i])}
        | {name: _readable(column[i]) for name, column in rows.items()}
        for i in np.flatnonzero(rows["visible_px"] > WITHIN_PX)
    ]
    return report


def define_flags() -> None:
    """Those of this program."""
    flags.DEFINE_integer("problems", 2000, "hostile problems to fit, 0 for none")
    flags.DEFINE_integer("persons", 20, "persons to fit, 0 for none")
    flags.DEFINE_string("weights", None, "weights that see the persons, instead of the default")
    flags.DEFINE_string("json", "-", "file for the report, - for the standard output")


def check_as_told(values: flags.FlagValues) -> None:
    """Both parts with what the command line says.

    Raises:
      OptionError: a number is negative, or both are 0.
    """
    for name in ("problems", "persons"):
        if getattr(values, name) < 0:
            raise OptionError(f"--{name} needs a number from 0 on; got {getattr(values, name)}")
    if values.problems == values.persons == 0:
        raise OptionError("--problems and --persons are both 0, which leaves nothing to check")
    report: dict[str, Any] = {}
    if values.problems:
        report["hostile"] = hostile_report(solve_all(load_face_model(), values.problems))
    if values.persons:
        report["persons"] = check_persons(values.weights, values.persons)
    print_or_write_json(values.json, report)


if __name__ == "__main__":
    define_flags()
    app.run(
        lambda _: launch.run_program(lambda: check_as_told(flags.FLAGS)),
        flags_parser=partial(launch.parse_flags, example=""),
    )
