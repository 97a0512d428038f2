"""Fit the face model to the points of a profile, which shows one half of the face.

Half a face leaves the turn of the head nearly free: what a turn moves sideways, the depth of the
nose and of the cheeks can move as well. What is known besides settles it: the jaw points lie on the
bone from the ear to the chin, so they are fixed places of the surface and say how deep the head is;
nothing of the far half of the face shows beyond the outline of nose, lips and chin; and the head is
turned by 60 to 90 degrees.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project, to_camera
from dfc_jax.fitting.fit import FitResult, fit_result, joint_bounds, unprimed, with_priors
from dfc_jax.fitting.residuals import N_POSE, FitProblem, flatten, unflatten
from dfc_jax.fitting.rounds import refine
from dfc_jax.fitting.settings import LANDMARKS, FitSettings
from dfc_jax.landmarks68 import LEFT, MIRROR, N_JAW, N_LANDMARKS, RIGHT
from dfc_jax.morphable.linear import PARTS, FaceModel, surface_basis
from dfc_jax.ops.rotations import FRONTAL, angles_to_matrix, head_rotation, matrix_to_rotvec
from dfc_jax.types import Array, Camera, FaceParams, SurfacePoints

# The jaw bone of the subject's right side from the ear to the chin, points 0 to 8, on the mean
# shape of the embedded model (mm), as the annotators of CFP place them: the medians over its
# training profiles of where the annotated points lie on the fitted faces, in turns with the fits.
JAW_BONE_MM = (
    (-75.0, 26.5, 24.0),
    (-73.4, 8.8, 28.0),
    (-70.5, -11.4, 29.0),
    (-65.5, -31.5, 34.0),
    (-59.0, -47.0, 43.5),
    (-48.8, -60.0, 57.0),
    (-36.9, -68.7, 72.2),
    (-21.0, -74.3, 92.5),
    (0.0, -73.2, 106.4),
)
# How far above and in front of the model's landmarks (y, z in mm) the same annotators put them,
# found by `experiments.tools.calibrate_profiles`: the residuals of a profile would otherwise be
# taken for depth and turn.
HABIT_MM = {
    0: (-1.5, -1.0),
    1: (0.0, -0.7),
    2: (-0.2, 0.1),
    3: (2.5, -1.2),
    4: (-1.3, 0.6),
    5: (-0.2, 1.6),
    6: (1.2, 0.3),
    7: (3.3, -2.5),
    8: (-1.2, 1.5),
    17: (-0.2, 2.6),
    19: (-2.3, -3.6),
    21: (-1.4, -1.3),
    27: (-0.9, 2.6),
    28: (-0.5, 1.6),
    29: (0.9, -0.3),
    30: (-0.4, -0.2),
    31: (2.3, -3.2),
    32: (0.5, -1.4),
    33: (1.5, 2.7),
    36: (0.7, -1.2),
    37: (0.8, -1.2),
    38: (2.1, 2.5),
    40: (-0.4, 2.1),
    41: (0.3, -1.6),
    48: (-1.0, -0.4),
    51: (-0.5, -0.5),
    57: (0.1, 0.9),
    62: (-1.3, 3.4),
    66: (-0.9, 1.4),
}
# The inner corner of the eye is hidden in profile; the place given for it is the front of the eye.
_HIDDEN = (39, 42)
# The outline of a profile between bridge and chin.
_OUTLINE = (27, 28, 29, 30, 33, 51, 57, 8)
# Far points that may not show: how many, how far from the middle, and in front of which depth.
_N_FAR, _OFF_MIDDLE_MM, _FRONT_MM = 150, 8.0, 60.0


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
    """Settings of `fit_profile` (hashable: static under jit).

    Attributes:
      fit: weights and effort; `min_noise_px` in pixels of the image, no coarse rounds are made.
      jaw_weight: weight of each jaw point, relative to the inner ones.
      turn_deg, turn_sd_deg: mean and standard deviation of the angle by which the head is turned
        away from the camera, to the side that hides the other half; see `turn_of`.
      outline_sd: standard deviation of how far a far point shows beyond the outline, in parts of
        the distance from the bridge of the nose to the chin.
    """

    fit: FitSettings = dataclasses.replace(
        LANDMARKS,
        focal_weight=4.0,
        distance_mm=1800.0,
        min_noise_px=0.5,
        outlier_scale=8.0,
        rounds=8,
    )
    jaw_weight: float = 0.3
    turn_deg: float = 75.0
    turn_sd_deg: float = 20.0
    outline_sd: float = 0.15


def profile_landmarks(model: FaceModel) -> SurfacePoints:
    """The surface points (68,) that `fit_profile` takes the landmarks for: those of the model, with
    the jaw on the bone, at the nearest vertices to `JAW_BONE_MM`."""
    half = jnp.asarray(JAW_BONE_MM)
    bone = jnp.concatenate([half, (half * jnp.array([-1.0, 1.0, 1.0]))[-2::-1]])
    apart = jnp.linalg.norm(model.mean_mm[model.triangles] - bone[:, None, None], axis=-1)
    flat = jnp.argmin(apart.reshape(N_JAW, -1), axis=1)
    inner = model.landmarks
    return SurfacePoints(
        triangle=inner.triangle.at[:N_JAW].set(flat // 3),
        barycentric=inner.barycentric.at[:N_JAW].set(jax.nn.one_hot(flat % 3, 3)),
    )


def habit_of_both() -> Array:
    """`HABIT_MM` of both halves: (68, 3) millimetres."""
    habit = np.zeros((N_LANDMARKS, 3), np.float32)
    for number, offset in HABIT_MM.items():
        habit[[number, MIRROR[number]], 1:] = offset
    return jnp.asarray(habit)


def turn_of(rotation: Array, outwards: Array) -> Array:
    """Angle () in degrees from the camera to where a face with a rotation vector (3,) looks,
    positive towards the direction `outwards` (2,) of the picture. That of a level head is |yaw|;
    unlike yaw it stays the same when the picture is turned."""
    forward = head_rotation(rotation)[:, 2]
    return jnp.rad2deg(jnp.arctan2(forward[:2] @ outwards, -forward[2]))


@partial(jax.jit, static_argnames=("settings", "n_identity"))
def fit_profile(
    model: FaceModel,
    landmarks_px: Array,
    principal_point: Array,
    settings: ProfileSettings = ProfileSettings(),
    n_identity: int = 50,
    habit_mm: Array | None = None,
) -> FitResult:
    """Pose, shape and expression of a head seen from the side; batches through `jax.vmap`.

    Args:
      model: the face model.
      landmarks_px: (68, 2) pixels, iBUG order; points of the other half are not finite. The half
        of which more points are given is the near one.
      principal_point: (2,) pixel of the optical axis.
      settings: weights and effort.
      n_identity: identity directions to use, as far as the model has them, the rest stays 0;
        all expressions are used.
      habit_mm: (68, 3) what to add to the landmarks; None for `habit_of_both`.
    """
    n_identity = min(n_identity, model.n_identity)
    is_jaw = jnp.arange(N_LANDMARKS) < N_JAW
    weight = jnp.where(is_jaw, settings.jaw_weight, 1.0)
    weight = weight.at[jnp.array(_HIDDEN)].set(0.0)
    mean, basis = surface_basis(model, profile_landmarks(model), n_identity)
    mean = mean + (habit_of_both() if habit_mm is None else habit_mm)
    problem = unprimed(mean, basis, landmarks_px, weight, principal_point)
    near_left = _is_near_left(problem.weight > 0)
    x = _start(problem, settings, near_left)
    problem = with_priors(problem, x, settings.fit, n_identity, model.expression_names)
    extra = _known_besides(model, problem, settings, near_left, n_identity)
    rigid = dataclasses.replace(
        problem,
        basis_mm=problem.basis_mm[..., :0],
        prior_mean=problem.prior_mean[:N_POSE],
        prior_weight=problem.prior_weight[:N_POSE],
        prior_rows=problem.prior_rows[:, :N_POSE],
    )
    rounds = settings.fit.pose_rounds
    pose, _ = refine(
        x[:N_POSE],
        rigid,
        settings.fit,
        rounds=rounds,
        fixed=1,
        extra=lambda pose: extra(x.at[:N_POSE].set(pose)),
    )
    x = x.at[:N_POSE].set(pose)
    lower, upper = joint_bounds(x, n_identity, focal_known=False)
    effort = settings.fit.rounds, settings.fit.steps
    x, results = refine(x, problem, settings.fit, lower, upper, *effort, extra=extra)
    return fit_result(x, problem, settings.fit, n_identity, results)


def _is_near_left(used: Array) -> Array:
    """Whether more points (68,) of the subject's left half are used than of the right."""
    return jnp.sum(used & jnp.asarray(LEFT)) > jnp.sum(used & jnp.asarray(RIGHT))


def _start(problem: FitProblem, settings: ProfileSettings, near_left: Array) -> Array:
    """The mean shape at the expected turn, moved, turned and scaled in the picture: x (7 + C,)."""
    yaw = jnp.where(near_left, 1.0, -1.0) * settings.turn_deg
    level = angles_to_matrix(jnp.stack([yaw, jnp.zeros(()), jnp.zeros(())]))
    used = problem.weight / jnp.maximum(jnp.sum(problem.weight), 1e-12)
    seen = problem.mean_mm @ level[:2].T
    target = problem.points_px - problem.principal_point
    middle, goal = used @ seen, used @ target
    a, b = seen - middle, target - goal
    # The similarity of least squares, as a complex number.
    real = used @ jnp.sum(a * b, axis=-1)
    imaginary = used @ (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    size = jnp.hypot(real, imaginary)
    scale = jnp.maximum(size / jnp.maximum(used @ jnp.sum(a**2, axis=-1), 1e-12), 1e-6)
    c, s = jnp.where(size > 0, jnp.stack([real, imaginary]) / jnp.maximum(size, 1e-12), 1.0)
    in_plane = jnp.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    offset = goal - scale * in_plane[:2, :2] @ middle
    focal = settings.fit.distance_mm * scale
    return flatten(
        FaceParams(
            focal_px=focal,
            rotation=matrix_to_rotvec(in_plane @ level @ jnp.asarray(FRONTAL)),
            translation_mm=jnp.concatenate([offset, focal[None]]) / scale,
            identity=jnp.zeros(0),
            expression=jnp.zeros(problem.basis_mm.shape[-1]),
        )
    )


def beyond_outline(places: Array, outline: Array, outwards: Array) -> Array:
    """How far (F,) places (F, 2) lie outside an outline (P, 2) in the direction `outwards` (2,), in
    parts of the distance from its first to its last point; 0 inside and above or below both."""
    length = jnp.maximum(jnp.linalg.norm(outline[-1] - outline[0]), 1e-6)
    frame = jnp.stack([(outline[-1] - outline[0]) / length, outwards], axis=-1) / length
    heights, reach = jnp.moveaxis((outline - outline[0]) @ frame, -1, 0)
    height, out = jnp.moveaxis((places - outline[0]) @ frame, -1, 0)
    # Where the outline runs upwards, as below a nose tip that hangs, its lowest point so far.
    out -= jnp.interp(height, jax.lax.cummax(heights), reach)
    return jnp.where((height > 0.0) & (height < 1.0), jax.nn.relu(out), 0.0)


def _known_besides(
    model: FaceModel,
    problem: FitProblem,
    settings: ProfileSettings,
    near_left: Array,
    n_identity: int,
) -> Callable[[Array], Array]:
    """Residuals of the unknowns: the turn, and how far F far points show beyond the outline."""
    outline = problem.points_px[jnp.array(_OUTLINE)]
    known = jnp.all(problem.weight[jnp.array(_OUTLINE)] > 0)
    down = outline[-1] - outline[0]
    # Clockwise in the picture from down is left, where a face shows its left half.
    outwards = jnp.where(near_left, 1.0, -1.0) * jnp.stack([-down[1], down[0]])
    outwards /= jnp.maximum(jnp.linalg.norm(down), 1e-6)
    right, left = _sides(model)
    far = jnp.where(near_left, right, left)
    basis = [model.identity_mm[far][..., :n_identity], model.expression_mm[far]]
    mean, lines = model.mean_mm[far], jnp.concatenate(basis, axis=-1)

    def extra(x: Array) -> Array:
        params = unflatten(x, n_identity)
        turn = (turn_of(params.rotation, outwards) - settings.turn_deg) / settings.turn_sd_deg
        camera = Camera(params.focal_px, problem.principal_point)
        places = project(camera, to_camera(params, mean + lines @ x[N_POSE:]))
        shows = beyond_outline(places, outline, outwards) / settings.outline_sd
        return jnp.where(known, jnp.concatenate([turn[None], shows]), 0.0)

    return extra


def _sides(model: FaceModel) -> tuple[Array, Array]:
    """(F,) vertices of the front of the face, off the middle: of the right and the left half."""
    face = jnp.zeros(len(model.mean_mm), bool)
    of_face = (model.triangle_part != PARTS.index("neck")) & (
        model.triangle_part != PARTS.index("ears")
    )
    face = face.at[model.triangles].max(of_face[:, None])
    front = face & (model.mean_mm[:, 2] > _FRONT_MM)
    halves = []
    for side in (-1.0, 1.0):
        counts = front & (side * model.mean_mm[:, 0] > _OFF_MIDDLE_MM)
        order = jnp.argsort(~counts, stable=True)
        spaced = jnp.linspace(0.0, jnp.maximum(jnp.sum(counts) - 1, 0), _N_FAR)
        halves.append(order[spaced.astype(int)])
    return halves[0], halves[1]
