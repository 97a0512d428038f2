"""A face as it is found: what was solved in a crop, in the frames of the photograph."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from dfc_jax.crops import Crop, apply_affine
from dfc_jax.fitting import Uncertainty
from dfc_jax.inference.detect import Detection
from dfc_jax.inference.judge import Evidence, doubts, on_photo
from dfc_jax.inference.segmentation import covered_landmarks, occlusion_of, visible
from dfc_jax.ops.rotations import matrix_to_angles
from dfc_jax.types import ByValue


@dataclass(frozen=True, eq=False)
class Face(ByValue):
    """One aligned face, in NumPy. Photo pixels are (x, y), integers at pixel centres.

    Its arrays are its own: they can be written to, and share no memory with anything else.

    A camera-space point (X, Y, Z) mm is seen at ``focal_px * (X, Y) / Z + principal_point``.

    Attributes:
      status: "ok", or "uncertain" when there are reasons to doubt that the fit shows a face.
      reasons: these reasons, as in `dfc_jax.inference.judge.doubts`; empty when "ok".
      box: (4,) x, y, width, height: the landmark box, given or detected.
      detector: which detector found it ("given" for a box of the caller).
      score: the detector's confidence.
      landmarks: (68, 2) photo pixels, iBUG order.
      landmarks3d_mm: (68, 3) the same points in camera space.
      angles_deg: yaw, pitch, roll as in `dfc_jax.types`.
      rotation: (3, 3) model to camera.
      translation_mm: (3,) model origin in camera space.
      focal_px: focal length in photo pixels.
      principal_point: (2,) photo pixels; the centre of the crop, in a video that of the frame.
      identity: (K,) standard deviations.
      expression: weight of each named expression shape, in [0, 1].
      residual_px: root mean square distance of the correspondences from the mesh, photo pixels.
      residual_crop_px: the same in crop pixels.
      matchable_share: share of crop pixels that are matchable.
      uncertainty: how sure pose, coefficients and landmarks are, in the frames of the photograph.
      evidence: what the reasons rest on.
      flow: (S, S, 2) crop pixels, from the crop to the template.
      matchability: (S, S) probability of being matchable.
      refined_flow, refined_mask: (S, S, 2) and bool (S, S), flow and matchability completed from
        the fitted mesh, by the rule of `dfc_jax.systems.dfc.lift.recover`.
      crop: where the crop lies in the photograph: around the box, or upright around the face
        that was found there first.
      vertices_mm: (V, 3) the fitted mesh in camera space.
      segmentation: (S, S) probability that a pixel shows this face: its skin, brows, eyes, lips and
        ears, without hair, neck and what covers it. None, as the two that follow, without a
        segmentation network.
      occlusion: (S, S) probability that what a pixel shows stands in front of the fitted face: one
        less `segmentation` where the face is fitted on the photograph, else 0.
      covered: (68,) bool, landmarks that something else covers, by the rule of
        `dfc_jax.inference.segmentation.covered_landmarks`. Those that the head itself hides are not
        meant; what covers the place where they would be seen counts for them, too.
    """

    status: str
    reasons: tuple[str, ...]
    box: np.ndarray
    detector: str
    score: float
    landmarks: np.ndarray
    landmarks3d_mm: np.ndarray
    angles_deg: dict[str, float]
    rotation: np.ndarray
    translation_mm: np.ndarray
    focal_px: float
    principal_point: np.ndarray
    identity: np.ndarray
    expression: dict[str, float]
    residual_px: float
    residual_crop_px: float
    matchable_share: float
    uncertainty: Uncertainty = field(repr=False)
    evidence: Evidence = field(repr=False)
    flow: np.ndarray = field(repr=False)
    matchability: np.ndarray = field(repr=False)
    refined_flow: np.ndarray = field(repr=False)
    refined_mask: np.ndarray = field(repr=False)
    crop: Crop = field(repr=False)
    vertices_mm: np.ndarray = field(repr=False)
    segmentation: np.ndarray | None = field(default=None, repr=False)
    occlusion: np.ndarray | None = field(default=None, repr=False)
    covered: np.ndarray | None = field(default=None, repr=False)

    @property
    def mask(self) -> np.ndarray:
        """`matchability` by its earlier name."""
        return self.matchability

    @property
    def visible(self) -> np.ndarray:
        """(S, S) what a pixel counted in the fit: `matchability`, times `segmentation` where there
        is one."""
        return visible(self.matchability, self.segmentation)

    @property
    def weights(self) -> np.ndarray:
        """`expression` as an array (E,), in the order of the model's shapes."""
        return np.array(list(self.expression.values()))

    @property
    def confidence(self) -> float:
        """How far the fit is to be trusted; see `dfc_jax.inference.judge.Evidence`."""
        return self.evidence.confidence


def face_of(
    solution: Any,
    evidence: Evidence,
    detection: Detection,
    crop: Crop,
    names: Sequence[str],
    photo_shape: Sequence[int],
) -> Face:
    """What was solved in a crop, with its evidence, in the frames of the photograph.

    Args:
      solution: a `dfc_jax.inference.solve.Solution` in NumPy.
      evidence: of `judge.weigh`.
      detection: where the face was looked for.
      crop: what was solved.
      names: of the expression shapes.
      photo_shape: of the photograph, (height, width, ...).
    """
    residual = float(solution.residual_px)
    reasons = doubts(evidence)
    weights = solution.expression.astype(float).tolist()
    # From the axes of the crop's camera to those of the photograph's.
    turn = np.eye(3)
    turn[:2, :2] = crop.rotation
    turn = turn.astype(solution.rotation.dtype)
    rotation = turn @ solution.rotation
    # On a CPU, what comes from the device are read-only views of its buffers.
    identity, flow, matchability, refined_flow, refined_mask = (
        np.array(getattr(solution, name))
        for name in ("identity", "flow", "matchability", "refined_flow", "refined_mask")
    )
    return Face(
        status="uncertain" if reasons else "ok",
        reasons=reasons,
        box=detection.landmark_box,
        detector=detection.kind,
        score=detection.score,
        landmarks=apply_affine(crop.to_photo, solution.landmarks_px.astype(np.float64)),
        landmarks3d_mm=solution.landmarks3d_mm @ turn.T,
        angles_deg=angles_of(rotation),
        rotation=rotation,
        translation_mm=turn @ solution.translation_mm,
        focal_px=float(solution.focal_px) / crop.scale,
        principal_point=apply_affine(crop.to_photo, solution.principal_point.astype(np.float64)),
        identity=identity,
        expression=dict(zip(names, weights, strict=True)),
        residual_px=residual / crop.scale,
        residual_crop_px=residual,
        matchable_share=evidence.matchable_share,
        uncertainty=solution.uncertainty.seen_from(turn, crop.to_photo[:, :2]),
        evidence=evidence,
        flow=flow,
        matchability=matchability,
        refined_flow=refined_flow,
        refined_mask=refined_mask,
        crop=crop,
        vertices_mm=solution.vertices_mm @ turn.T,
        **_occlusion(solution, crop, photo_shape),
    )


def _occlusion(solution: Any, crop: Crop, photo_shape: Sequence[int]) -> dict[str, np.ndarray]:
    """The fields of a `Face` that a segmentation gives, none without."""
    if solution.segmentation is None:
        return {}
    segmentation = np.array(solution.segmentation)
    fitted = np.asarray(solution.fitted_mask) & on_photo(crop, photo_shape)
    occlusion = occlusion_of(segmentation, fitted)
    covered = covered_landmarks(occlusion, fitted, solution.landmarks_px)
    return {"segmentation": segmentation, "occlusion": occlusion, "covered": covered}


def angles_of(rotation: np.ndarray) -> dict[str, float]:
    """Yaw, pitch and roll in degrees of a rotation (3, 3), model to camera."""
    angles = np.asarray(_matrix_to_angles(rotation)).tolist()
    return dict(zip(("yaw", "pitch", "roll"), angles, strict=True))


_matrix_to_angles = jax.jit(matrix_to_angles)
