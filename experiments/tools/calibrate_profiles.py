"""Find what annotators of profiles mean by each point: `HABIT_MM` of `dfc_jax.fitting.profiles`.

    python -m experiments.tools.calibrate_profiles --photos cfp/train

Fit half faces to annotated profiles, take the median over all of what is left at each point, in the
plane that a profile shows, add it to the landmarks, and repeat. Prints the table, which is pasted
into that module. Never run it on photographs that are kept for validation. What a head turns by and
where all points lie cannot be told apart for ever: with each round the fits turn a little further,
so leave it at a few. Two minutes on two cores for 100 profiles.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from data_pipelines.photos.squares import STORED_PX, read_square
from dfc_jax.camera import project, to_camera
from dfc_jax.data.cfp import cfp
from dfc_jax.data.faces import collect
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.fitting import fit_profile, profile_landmarks
from dfc_jax.landmarks68 import INNER, LEFT, MIRROR, RIGHT
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel, shape, surface_positions
from dfc_jax.ops.rotations import head_rotation
from dfc_jax.types import Array, Camera, FaceParams

CENTRE = jnp.full(2, (STORED_PX - 1) / 2.0)


def right_halves(points: np.ndarray) -> np.ndarray:
    """Points (N, 68, 2) in pixels of stored squares, those of left halves seen in a mirror."""
    known = np.isfinite(points).all(axis=-1)
    is_left = known[:, LEFT].sum(axis=1) > known[:, RIGHT].sum(axis=1)
    mirrored = points[:, MIRROR] * [-1.0, 1.0] + [STORED_PX - 1.0, 0.0]
    return np.where(is_left[:, None, None], mirrored, points)


@jax.jit
@partial(jax.vmap, in_axes=(None, None, 0))
def _fitted(model: FaceModel, habit_mm: Array, points: Array) -> tuple[FaceParams, Array]:
    """A face fitted to points (68, 2) of its right half, and where it has these points (68, 2)."""
    params = fit_profile(model, points, CENTRE, habit_mm=habit_mm).params
    vertices = shape(model, params.identity, params.expression)
    places = surface_positions(vertices, model.triangles, profile_landmarks(model))
    camera = Camera(params.focal_px, CENTRE)
    return params, project(camera, to_camera(params, places + habit_mm))


def habit_of(model: FaceModel, points: np.ndarray, rounds: int) -> tuple[np.ndarray, list[float]]:
    """The habit (68, 3), in millimetres, of who annotated right halves (N, 68, 2) of profiles, and
    what the fits leave at their inner points before each round and after the last, %."""
    habit, errors = np.zeros((len(MIRROR), 3), np.float32), []
    for _ in range(rounds):
        params, found = _fitted(model, jnp.asarray(habit), jnp.asarray(points))
        residual = points - np.asarray(found)
        errors.append(float(np.mean(nme_percent(np.asarray(found), points, INNER))))
        scale = np.asarray(params.focal_px / params.translation_mm[:, 2])[:, None, None]
        # What a millimetre upwards and one forwards are in each picture.
        plane = np.asarray(jax.vmap(head_rotation)(params.rotation))[:, :2, 1:]
        moved = np.einsum("nij,nkj->nki", np.linalg.inv(plane), residual / scale)
        counted = np.isfinite(moved).any(axis=(0, 2))
        habit[counted, 1:] += np.nanmedian(moved[:, counted], axis=0)
    _, found = _fitted(model, jnp.asarray(habit), jnp.asarray(points))
    errors.append(float(np.mean(nme_percent(np.asarray(found), points, INNER))))
    return habit, errors


def main(_: list[str]) -> None:
    faces = cfp(flags.FLAGS.photos)
    squares, problems = collect(faces[:: flags.FLAGS.every], read_square)
    for problem in problems:
        print(f"left out: {problem}")
    profiles = np.stack([square.points for square in squares])
    habit, errors = habit_of(load_face_model(), right_halves(profiles), flags.FLAGS.rounds)
    print(f"{len(profiles)} profiles; fits leave " + ", ".join(f"{e:.2f}" for e in errors) + " %")
    for number in np.flatnonzero(habit.any(axis=1)):
        print(f"    {number}: ({habit[number, 1]:.1f}, {habit[number, 2]:.1f}),")


if __name__ == "__main__":
    flags.DEFINE_string("photos", None, "folder of profiles as CFP lays them out", required=True)
    flags.DEFINE_integer("every", 20, "take one face in so many")
    flags.DEFINE_integer("rounds", 3, "rounds of fitting and moving")
    app.run(main)
