"""Where people see the 68 landmarks of a face: the jaw, on the silhouette, slides over it."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from dfc_jax.fitting.residuals import N_POSE, FitProblem, unflatten
from dfc_jax.landmarks68 import N_JAW
from dfc_jax.morphable.linear import FaceModel, landmarks3d, surface_basis, surface_positions
from dfc_jax.ops.rotations import head_rotation
from dfc_jax.types import Array, FaceParams, SurfacePoints

_SLIDE_COST_MM = 0.15


def visible_landmarks(model: FaceModel, params: FaceParams) -> SurfacePoints:
    """Where people see the 68 landmarks of a posed face: surface points (68,).

    The inner ones are `FaceModel.landmarks`; of each jaw line the candidate that `_choose` takes.
    """
    mean, basis = surface_basis(model, model.contours, params.identity.shape[-1])
    candidates = mean + basis @ jnp.concatenate([params.identity, params.expression])
    index = _choose(candidates, jaw_lines(model), params)
    rows, inner = jnp.arange(N_JAW), model.landmarks
    return SurfacePoints(
        triangle=inner.triangle.at[:N_JAW].set(model.contours.triangle[rows, index]),
        barycentric=inner.barycentric.at[:N_JAW].set(model.contours.barycentric[rows, index]),
    )


class JawLines(NamedTuple):
    """What the choice of the visible jaw points needs to know of a model.

    normals: (17, 2) outward direction in the model's frontal plane.
    home: (17,) index of the embedded landmark on its line.
    """

    normals: Array
    home: Array


def jaw_lines(model: FaceModel) -> JawLines:
    """Those of the model's mean shape."""
    jaw = landmarks3d(model, model.mean_mm)[:N_JAW]
    padded = jnp.concatenate([jaw[:1], jaw, jaw[-1:]])
    # The jaw runs from the subject's right ear over the chin to the left ear.
    along = padded[2:] - padded[:-2]
    normals = jnp.stack([along[:, 1], -along[:, 0]], axis=-1)
    lines = surface_positions(model.mean_mm, model.triangles, model.contours)
    home = jnp.argmin(jnp.linalg.norm(lines - jaw[:, None], axis=-1), axis=1)
    return JawLines(normals / jnp.linalg.norm(normals, axis=-1, keepdims=True), home)


def _choose(candidates_mm: Array, lines: JawLines, params: FaceParams) -> Array:
    """(17,) index of the candidate (17, L, 3) of each jaw line that lies farthest outwards.

    Outwards is the jaw's normal in the model's frontal plane, turned with the head. Where the
    line is seen end on, no place is farther out than another; moving away from the line's
    embedded place has to gain `_SLIDE_COST_MM` a step, so there the embedded place wins.
    """
    rotation = head_rotation(params.rotation)
    outwards = lines.normals @ rotation[:2, :2].T
    reach = jnp.einsum("kli,ki->kl", candidates_mm @ rotation[:2].T, outwards)
    steps = jnp.abs(jnp.arange(candidates_mm.shape[1]) - lines.home[:, None])
    return jnp.argmax(reach - _SLIDE_COST_MM * steps, axis=-1)


def on_silhouette(
    x: Array, problem: FitProblem, contours: tuple[Array, Array], lines: JawLines
) -> FitProblem:
    """The problem of 68 landmarks with the jaw where the face with the unknowns x shows it, of
    contours' `surface_basis` (17, L)."""
    mean, basis = contours
    params = unflatten(x, 0)
    index = _choose(mean + basis @ x[N_POSE:], lines, params)
    rows = jnp.arange(N_JAW)
    return dataclasses.replace(
        problem,
        mean_mm=problem.mean_mm.at[:N_JAW].set(mean[rows, index]),
        basis_mm=problem.basis_mm.at[:N_JAW].set(basis[rows, index]),
    )
