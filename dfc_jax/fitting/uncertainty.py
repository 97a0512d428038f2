"""How sure a fit is: the covariance of what it found, and of the landmarks that it shows.

The unknowns have the inverse covariance ``J^T W J / (c noise^2) + P``, with the Jacobian J of the
projected points and their weights W. With independent errors c would be 1; those of a flow are
alike from pixel to pixel, so c of them say as much as one. The prior P is that of the face model,
an identity of unit variance, and the fit's other priors in proportion to it. What no correspondence
shows, that annotators and the model mean other places by a landmark, is added to the covariance of
every landmark, as a part of the face's size.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.linalg import cho_factor, solve_triangular

from dfc_jax.fitting.fit import lacking, problem_of, unprimed, with_priors
from dfc_jax.fitting.residuals import N_POSE, FitProblem, flatten, jacobian, reprojection, unflatten
from dfc_jax.fitting.rounds import reweight
from dfc_jax.fitting.settings import DEFAULT, FitSettings
from dfc_jax.fitting.silhouette import visible_landmarks
from dfc_jax.fitting.status import Status
from dfc_jax.landmarks68 import N_LANDMARKS
from dfc_jax.morphable.linear import FaceModel, surface_basis
from dfc_jax.ops.rotations import head_rotation
from dfc_jax.types import Array, ByValue, Correspondences, FaceParams

# Landmarks that are equally hard: the upper ends of the jaw, the rest of it, the chin, and so on.
GROUPS = {
    "ears": [0, 1, 15, 16],
    "jaw": [2, 3, 4, 5, 11, 12, 13, 14],
    "chin": [6, 7, 8, 9, 10],
    "brows": [*range(17, 27)],
    "nose": [*range(27, 36)],
    "eyes": [*range(36, 48)],
    "mouth": [*range(48, 68)],
}
# Found by `experiments.tools.calibrate_uncertainty`: how many correspondences of a flow say as much
# as one independent one; and the standard deviations of the groups' landmarks that no
# correspondence explains, in parts of sqrt(width * height) of the landmarks.
CORRELATED = 100.0
UNEXPLAINED_OF = {
    "ears": 0.0275,
    "jaw": 0.0305,
    "chin": 0.0270,
    "brows": 0.0186,
    "nose": 0.0118,
    "eyes": 0.0092,
    "mouth": 0.0080,
}
# The same of each landmark, (68,).
UNEXPLAINED = np.zeros(N_LANDMARKS, np.float32)
for _name, _members in GROUPS.items():
    UNEXPLAINED[_members] = UNEXPLAINED_OF[_name]


@struct.dataclass(eq=False)
class Uncertainty(ByValue):
    """Covariances and standard deviations of a fit; infinite where it found no face.

    Attributes:
      log_focal: () standard deviation of the logarithm of the focal length.
      rotation: (3, 3) covariance of a small turn about the camera's axes, rad^2.
      translation_mm: (3, 3) covariance of the model's origin in camera space, mm^2.
      identity: (K,) standard deviations of the coefficients.
      expression: (E,) standard deviations of the weights, as if they had no bounds.
      landmarks_px: (68, 2, 2) covariances of the projected landmarks, pixels^2.
    """

    log_focal: Array
    rotation: Array
    translation_mm: Array
    identity: Array
    expression: Array
    landmarks_px: Array

    def seen_from(self, turn: Any, pixels: Any) -> "Uncertainty":
        """The same for a camera whose axes are those of this one times `turn` (3, 3), and whose
        pixels are those of this one times `pixels` (2, 2)."""
        return dataclasses.replace(
            self,
            rotation=turn @ self.rotation @ turn.T,
            translation_mm=turn @ self.translation_mm @ turn.T,
            landmarks_px=pixels @ self.landmarks_px @ pixels.T,
        )


@partial(jax.jit, static_argnames="settings")
def uncertainty(
    model: FaceModel,
    correspondences: Correspondences,
    principal_point: Array,
    params: FaceParams,
    settings: FitSettings = DEFAULT,
    correlated: Array | float = CORRELATED,
    unexplained: Array | np.ndarray = UNEXPLAINED,
) -> Uncertainty:
    """How sure `fit` is of its result.

    Args:
      model, correspondences, principal_point, settings: as given to `fit`.
      params: what it returned.
      correlated: () how many correspondences say as much as one; 1 for independent errors.
      unexplained: (68,) standard deviation of each landmark that no correspondence explains, in
        parts of sqrt(width * height) of the landmarks.
    """
    x = flatten(params)
    n_identity = params.identity.size
    problem = problem_of(model, correspondences, principal_point, n_identity)
    problem = with_priors(problem, x, settings, n_identity, model.expression_names)
    factor = _factored(x, problem, settings, correlated)

    shown, size = _landmark_slopes(model, params, principal_point)
    turned = jax.jacfwd(lambda x: head_rotation(x[1:4]))(x)
    # A small turn w about the camera's axes changes R by [w]_x R.
    skew = jnp.einsum("ijn,kj->ikn", turned, head_rotation(params.rotation))
    about_axes = jnp.stack([skew[2, 1], skew[0, 2], skew[1, 0]])
    moved = jax.jacfwd(lambda x: unflatten(x, n_identity).translation_mm)(x)
    # Of quantities with derivatives D by the unknowns, H^T H is the covariance where L H = D^T.
    slopes = jnp.concatenate([jnp.eye(x.size), about_axes, moved, shown.reshape(-1, x.size)])
    halves = solve_triangular(factor, slopes.T, lower=True)
    unknowns, axes, place, landmarks = jnp.split(halves, x.size + np.array([0, 3, 6]), axis=1)
    deviations = jnp.linalg.norm(unknowns, axis=0)
    landmarks = landmarks.reshape(x.size, N_LANDMARKS, 2)
    of_landmarks = jnp.einsum("nki,nkj->kij", landmarks, landmarks)
    rest = jnp.broadcast_to(size * unexplained, (N_LANDMARKS,)) ** 2
    of_landmarks += rest[:, None, None] * jnp.eye(2)
    found = Uncertainty(
        log_focal=deviations[0],
        rotation=axes.T @ axes,
        translation_mm=place.T @ place,
        identity=deviations[N_POSE : N_POSE + n_identity],
        expression=deviations[N_POSE + n_identity :],
        landmarks_px=of_landmarks,
    )
    known = lacking(problem) == Status.MAX_STEPS
    return jax.tree.map(lambda leaf: jnp.where(known & jnp.isfinite(leaf), leaf, jnp.inf), found)


def _factored(
    x: Array, problem: FitProblem, settings: FitSettings, correlated: Array | float
) -> Array:
    """The Cholesky factor of the inverse covariance of the unknowns."""
    weight, noise = reweight(reprojection(x, problem), problem.weight, settings)
    weight = weight / (correlated * noise**2)
    of_model = problem.prior_weight / settings.identity_weight
    beside = problem.prior_rows / np.sqrt(settings.identity_weight)
    primed = {"prior_weight": of_model, "prior_rows": beside}
    rows = jacobian(x, dataclasses.replace(problem, weight=weight, **primed))
    return cho_factor(rows.T @ rows, lower=True)[0]


def _landmark_slopes(
    model: FaceModel, params: FaceParams, principal_point: Array
) -> tuple[Array, Array]:
    """Derivatives (68, 2, n) of the landmarks' pixels by the unknowns, and sqrt(width * height) of
    the landmarks, pixels."""
    mean, basis = surface_basis(model, visible_landmarks(model, params), params.identity.size)
    nowhere, every = jnp.zeros((N_LANDMARKS, 2)), jnp.ones(N_LANDMARKS)
    problem = unprimed(mean, basis, nowhere, every, principal_point)
    x = flatten(params)
    slopes = -jacobian(x, problem)[: 2 * N_LANDMARKS].reshape(N_LANDMARKS, 2, -1)
    return slopes, jnp.sqrt(jnp.prod(jnp.ptp(reprojection(x, problem), axis=0)))
