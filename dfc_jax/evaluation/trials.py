"""What is measured under each protocol: which points of which faces, and against which length.

`all68` and `inner` are of table 1 of the paper, `visible-inner` of table 2, `visible21` of table 3
and `points21` of table 4. A set has the protocols that its truth allows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.evaluation.metrics import NORMALISERS, mean_distance_px
from dfc_jax.landmarks21 import N_LANDMARKS21, landmarks21
from dfc_jax.landmarks68 import INNER, N_LANDMARKS
from dfc_jax.types import ByValue

PROTOCOLS = ("all68", "inner", "visible-inner", "points21", "visible21")
# Where visible points are known because a set annotates no others.
ANNOTATED = "annotated"
# The outer corners of the eyes among AFLW's 21 points.
EYE_CORNERS21 = (6, 11)


@dataclasses.dataclass(frozen=True, eq=False)
class Visibility(ByValue):
    """Which of the 68 points of n faces are visible, `mask` (n, 68) bool, and how that is known:
    `origin` is ``"ground-truth mesh"``, ``"fitted mesh"`` or ``"annotated"``."""

    mask: np.ndarray
    origin: str


@dataclasses.dataclass(frozen=True, eq=False)
class Trial(ByValue):
    """The points of n faces that count under a protocol.

    Attributes:
      points: (n, N, 2) what was found, NaN where nothing.
      truth: (n, N, 2) photo pixels, NaN where hidden or not annotated.
      counted: (n, N) bool: points that count and have a truth.
      label: which points, as text, ``"51 inner of 68"``; where not all of them count in each face,
        with the mean number of those that do, ``"51 inner of 68, 22.0 in a face on average"``.
      visible: how it is known which points are visible; None where hidden ones may count.
    """

    points: np.ndarray
    truth: np.ndarray
    counted: np.ndarray
    label: str
    visible: str | None = None

    def errors(self, scale_px: np.ndarray) -> np.ndarray:
        """NME (n,) in percent of the lengths (n,); infinite where a point that counts was not
        found, NaN where none counts or there is no length."""
        distances = mean_distance_px(self.points, self.truth, self.counted)
        errors = np.where(np.isnan(distances), np.inf, 100.0 * distances / scale_px)
        return np.where(self.counted.any(axis=1) & np.isfinite(scale_px), errors, np.nan)


def trials(
    faces: Sequence[AnnotatedFace],
    points: np.ndarray,
    points21: np.ndarray | None = None,
    visibility: Visibility | None = None,
) -> dict[str, Trial]:
    """The trials of n faces by the names of `PROTOCOLS`, those alone that their truth allows.

    A point that is given for no face at all, as some systems have no jaw, does not count; the
    label says how many do.

    Args:
      faces: n.
      points: (n, 68, 2) what was found, NaN where nothing.
      points21: (n, 21, 2) in AFLW's order; by default means of the 68 points.
      visibility: of the 68 points; by default only sets that annotate no hidden points have one.
    """
    truth, found = true_points(faces), {}
    # What a set annotates is all that can count: not a hidden point, where it leaves these out.
    annotated = ANNOTATED if annotates_visible_points_alone(truth) else None
    everywhere = np.ones(N_LANDMARKS, bool)
    inner = np.isin(np.arange(N_LANDMARKS), np.arange(N_LANDMARKS)[INNER])
    found["all68"] = _trial(points, truth, everywhere, "{} of 68{}", None, annotated)
    found["inner"] = _trial(points, truth, inner, "{} inner of 68{}", None, annotated)
    if visibility is None and annotated is not None:
        visibility = Visibility(np.ones(truth.shape[:2], bool), annotated)
    if visibility is not None:
        seen, how = visibility.mask, visibility.origin
        found["visible-inner"] = _trial(points, truth, inner, "{} inner of 68{}", seen, how)
    truth21 = true_points21(faces)
    if np.isfinite(truth21).any():
        points21 = landmarks21(points) if points21 is None else points21
        all21 = np.ones(N_LANDMARKS21, bool)
        found["points21"] = _trial(points21, truth21, all21, "{} of 21")
        if annotates_visible_points_alone(truth21):
            found["visible21"] = dataclasses.replace(found["points21"], visible=ANNOTATED)
    return {name: trial for name, trial in found.items() if trial.counted.any()}


def _trial(
    points: np.ndarray,
    truth: np.ndarray,
    chosen: np.ndarray,
    label: str,
    seen: np.ndarray | None = None,
    visible: str | None = None,
) -> Trial:
    given = np.isfinite(points).all(axis=-1).any(axis=0)
    chosen = chosen & given if given.any() else chosen
    counted = chosen & np.isfinite(truth).all(axis=-1)
    if seen is not None:
        counted &= seen
    numbers = counted.sum(axis=1)[counted.any(axis=1)]
    partly = (numbers < chosen.sum()).any()
    each = f", {numbers.mean():.1f} in a face on average" if partly else ""
    return Trial(points, truth, counted, label.format(int(chosen.sum()), each), visible)


def annotates_visible_points_alone(truth: np.ndarray) -> bool:
    """Whether points (n, N, 2) that some faces have are missing (NaN) in others."""
    known = np.isfinite(truth).all(axis=-1)
    return bool((~known[known.any(axis=1)][:, known.any(axis=0)]).any())


def true_points(faces: Sequence[AnnotatedFace]) -> np.ndarray:
    """The annotated points (n, 68, 2)."""
    return np.stack([face.points for face in faces])


def true_points21(faces: Sequence[AnnotatedFace]) -> np.ndarray:
    """The annotated points (n, 21, 2) in AFLW's order; NaN without."""
    nothing = np.full((N_LANDMARKS21, 2), np.nan)
    return np.stack([nothing if face.points21 is None else face.points21 for face in faces])


def face_scales(faces: Sequence[AnnotatedFace]) -> dict[str, np.ndarray]:
    """The lengths (n,) in pixels of each of `NORMALISERS`, NaN where a face has none.

    They are those of the 68 points; of a face without these, of its box and of its 21 points.
    """
    truth, corners = true_points(faces), true_points21(faces)[:, EYE_CORNERS21]
    without = ~np.isfinite(truth).all(axis=-1).any(axis=1)
    box = np.stack([face.landmark_box for face in faces])
    truth[without, :2] = np.stack([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)[without]
    scales = {name: length(truth) for name, length in NORMALISERS.items()}
    apart = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1)
    scales["inter-ocular"] = np.where(without, apart, scales["inter-ocular"])
    return {name: np.where(scale > 0.0, scale, np.nan) for name, scale in scales.items()}
