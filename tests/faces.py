"""Results to write and draw in tests: the mean face, looking into the camera."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.crops import apply_affine, box_of_points, crop_of_box
from dfc_jax.fitting import Uncertainty
from dfc_jax.inference.align import Aligner
from dfc_jax.inference.detect import WholeImage
from dfc_jax.inference.face import Face
from dfc_jax.inference.solve import CPU_BUCKETS, Estimate, Solution
from dfc_jax.landmarks68 import N_LANDMARKS
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel, landmarks3d
from dfc_jax.ops.rotations import FRONTAL, angles_to_matrix

DISTANCE_MM = 1000.0
FOCAL_PX = 300.0
SIZE = 128


def mean_solution(model: FaceModel) -> Solution:
    """The mean face, wholly inside the crop, with a flow that turns around the centre."""
    vertices = model.mean_mm @ jnp.asarray(FRONTAL) + jnp.array([0.0, 0.0, DISTANCE_MM])
    landmarks = landmarks3d(model, vertices)
    middle = (SIZE - 1) / 2.0
    y, x = np.mgrid[:SIZE, :SIZE] - middle
    flow = jnp.asarray(np.stack([-y, x], axis=-1) / 4.0)
    return Solution(
        flow=flow,
        matchability=jnp.asarray((x**2 + y**2 < 40**2).astype(np.float32)),
        refined_flow=flow,
        refined_mask=jnp.asarray(x**2 + y**2 < 42**2),
        fitted_mask=jnp.asarray(x**2 + y**2 < 42**2),
        landmarks_px=FOCAL_PX * landmarks[:, :2] / landmarks[:, 2:] + middle,
        landmarks3d_mm=landmarks,
        vertices_mm=vertices,
        rotation=jnp.asarray(FRONTAL),
        translation_mm=jnp.array([0.0, 0.0, DISTANCE_MM]),
        focal_px=jnp.asarray(FOCAL_PX),
        principal_point=jnp.full(2, middle),
        identity=jnp.zeros(3),
        expression=jnp.zeros(model.n_expression),
        residual_px=jnp.asarray(0.5),
        uncertainty=Uncertainty(
            log_focal=jnp.asarray(0.2),
            rotation=jnp.diag(jnp.deg2rad(jnp.array([1.0, 2.0, 3.0])) ** 2),
            translation_mm=jnp.diag(jnp.array([1.0, 4.0, 900.0])),
            identity=jnp.full(3, 0.5),
            expression=jnp.full(model.n_expression, 0.1),
            landmarks_px=jnp.tile(jnp.diag(jnp.array([1.0, 4.0])), (N_LANDMARKS, 1, 1)),
        ),
    )


def half_covered(model: FaceModel) -> Solution:
    """The same, with something before the right half of the crop."""
    left = np.tile(np.arange(SIZE) < SIZE // 2, (SIZE, 1)).astype(np.float32)
    return dataclasses.replace(mean_solution(model), segmentation=jnp.asarray(left))


def in_place(model: FaceModel) -> Solution:
    """The same, in its crop where the next crop would show it."""
    solution = mean_solution(model)
    points = np.asarray(solution.landmarks_px, np.float64)
    crop = crop_of_box(box_of_points(points))
    return dataclasses.replace(solution, landmarks_px=apply_affine(crop.to_crop, points))


def estimate_of(solution: Solution) -> Estimate | None:
    """What belongs to a solution, which it keeps as `dense`; None if that is not finite."""
    solution = jax.tree.map(np.asarray, solution)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(solution)):
        return None
    matchable = solution.matchability > 0.5
    certainty = solution.matchability[matchable].mean() if matchable.any() else 0.0
    return Estimate(
        landmarks_px=solution.landmarks_px,
        rotation=solution.rotation,
        residual_px=float(solution.residual_px),
        matchable_share=float(matchable.mean()),
        certainty=float(certainty),
        dense=solution,
    )


class FakeSolver:
    """Finds in a crop what a function says; its estimates are the solutions themselves.

    Args:
      solve: from a crop (S, S, 3), or None, to a `Solution`.
    """

    buckets = CPU_BUCKETS

    def __init__(self, solve: Callable[[Any], Solution]) -> None:
        self.solve = solve

    def wait(self) -> None:
        """It is ready."""

    def locate(
        self, crops: Sequence[np.ndarray], largest: int | None = None, known=None
    ) -> list[Estimate | None]:
        return [estimate_of(self.solve(crop)) for crop in crops]

    def finish(self, estimates: Sequence[Estimate], largest: int | None = None) -> list[Solution]:
        return [estimate.dense for estimate in estimates]


def mean_aligner(detector=None, solver=None, **keywords) -> Aligner:
    """An aligner without a network: finds the mean face in every crop."""
    model = load_face_model()
    solution = mean_solution(model)
    versions = {"dfc_jax": "0", "weights": "fake", "face_model": model.version}
    return Aligner(
        FakeSolver(solver or (lambda crop: solution)),
        model,
        detector or WholeImage(),
        versions,
        **keywords,
    )


def posed(
    face: Face,
    model: FaceModel,
    angles_deg: Sequence[float],
    translation_mm: Sequence[float],
    focal_px: float,
    principal_point: Sequence[float],
) -> Face:
    """The same face in another pose (yaw, pitch, roll) before another camera."""
    rotation = np.asarray(angles_to_matrix(jnp.asarray(angles_deg, jnp.float32)))
    translation = np.asarray(translation_mm, np.float32)

    def moved(points_mm: np.ndarray) -> np.ndarray:
        own = (points_mm - face.translation_mm) @ face.rotation
        return (own @ rotation.T + translation).astype(np.float32)

    landmarks = moved(face.landmarks3d_mm)
    return dataclasses.replace(
        face,
        rotation=rotation,
        translation_mm=translation,
        angles_deg=dict(zip(("yaw", "pitch", "roll"), map(float, angles_deg), strict=True)),
        vertices_mm=moved(face.vertices_mm),
        landmarks3d_mm=landmarks,
        landmarks=focal_px * landmarks[:, :2] / landmarks[:, 2:] + principal_point,
        focal_px=focal_px,
        principal_point=np.asarray(principal_point, np.float64),
    )
