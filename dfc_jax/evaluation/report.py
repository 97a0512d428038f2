"""What `dfc evaluate` reports of a set: landmarks, head poses, eyes and mouths (NumPy)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.evaluation.openings import opening_scores
from dfc_jax.evaluation.pose import (
    ANGLES,
    PROFILE_DEG,
    nearest_angles,
    over_abs_yaw,
    pose_scores,
    profile_scores,
    yaw_curve,
)
from dfc_jax.evaluation.protocols import summarise
from dfc_jax.landmarks68 import INNER, N_LANDMARKS

if TYPE_CHECKING:
    from dfc_jax.inference.align import Aligner
    from dfc_jax.inference.face import Face

# The ways to read landmarks off a face; the first one is what the face itself gives.
LANDMARKS = ("mesh", "flow", "blend")
# What `read` gives of a face, and its shape.
SHAPES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(LANDMARKS, (N_LANDMARKS, 2)),
    "angles_deg": (len(ANGLES),),
    "blink": (2,),
    "jaw_open": (),
}


def read(aligner: "Aligner", face: "Face | None") -> dict[str, np.ndarray]:
    """What is scored of a face, by name in the `SHAPES`; NaN without a face.

    Landmarks in photo pixels, yaw, pitch and roll in degrees, and the fitted weights `eyeBlink` (of
    the subject's right and left eye) and `jawOpen`, NaN where the face model has no such shapes.
    """
    if face is None:
        return {name: np.full(shape, np.nan) for name, shape in SHAPES.items()}
    blinks = [face.expression.get(f"eyeBlink{side}", np.nan) for side in ("Right", "Left")]
    return {
        "mesh": face.landmarks,
        "flow": aligner.flow_landmarks(face)[0],
        "blend": aligner.blended_landmarks(face),
        "angles_deg": np.array([face.angles_deg[angle] for angle in ANGLES]),
        "blink": np.array(blinks),
        "jaw_open": np.array(face.expression.get("jawOpen", np.nan)),
    }


def report(
    faces: Sequence[AnnotatedFace], readings: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    """Scores of what was `read` of n annotated faces.

    Returns:
      those of `summarise` for the mesh, what differs of them for ``flow`` and ``blend`` below
      these names; and of the mesh
      ``pose``: `pose_scores` against the true poses, None where the set has none, and with them
      ``yaw``: `yaw_curve`, and ``abs_yaw``: the inner NME by `over_abs_yaw`, also None then;
      ``profiles``: `profile_scores` of the heads that the set calls so or that are turned by
      `PROFILE_DEG`, None without any;
      ``openings``: `opening_scores`.
    """
    found = {name: np.stack([each[name] for each in readings]) for name in SHAPES}
    true = np.stack([face.points for face in faces])
    landmarks = {name: summarise(found[name], true) for name in LANDMARKS}
    scores = landmarks.pop("mesh")
    for name, other in landmarks.items():
        scores[name] = {part: other[part] for part in ("inner", "all68")}
    scores |= _poses(faces, found["angles_deg"], inner_errors(found["mesh"], true))
    given = found["mesh"], true, found["blink"], found["jaw_open"]
    return {**scores, "openings": opening_scores(*given)}


def inner_errors(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """NME (n,) in percent over the annotated inner points; NaN without these or a prediction."""
    annotated = np.isfinite(true[:, INNER]).all(axis=-1).any(axis=-1)
    return np.where(annotated, nme_percent(predicted, true, INNER), np.nan)


def true_poses(faces: Sequence[AnnotatedFace]) -> np.ndarray:
    """True yaw, pitch and roll (n, 3), NaN where unknown."""
    unknown = np.full(len(ANGLES), np.nan)
    return np.stack([unknown if face.pose_deg is None else face.pose_deg for face in faces])


def _poses(
    faces: Sequence[AnnotatedFace], found_deg: np.ndarray, errors: np.ndarray
) -> dict[str, Any]:
    true_deg = true_poses(faces)
    known = bool(np.isfinite(true_deg).any())
    profile = np.array([face.profile for face in faces]) | (np.abs(true_deg[:, 0]) >= PROFILE_DEG)
    yaw_deg = nearest_angles(found_deg, true_deg)[:, 0]
    return {
        "pose": pose_scores(found_deg, true_deg) if known else None,
        "yaw": yaw_curve(found_deg, true_deg) if known else None,
        "abs_yaw": over_abs_yaw(errors, true_deg[:, 0]) if known else None,
        "profiles": profile_scores(yaw_deg, profile) if profile.any() else None,
    }
