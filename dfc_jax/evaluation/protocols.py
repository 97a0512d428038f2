"""Scoring an aligner on annotated photographs: boxes, predictions, failures."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dfc_jax.crops import box_of_points
from dfc_jax.data.faces import Example
from dfc_jax.evaluation.metrics import ALL, nme_percent
from dfc_jax.landmarks68 import INNER, N_LANDMARKS

if TYPE_CHECKING:
    from dfc_jax.inference.detect import Detection, Detector

# A face whose NME is above this is a failure.
FAILURE_PERCENT = 8.0


class LandmarkAligner(Protocol):
    """What an evaluation needs of an aligner: the faces' landmarks for landmark boxes."""

    def __call__(self, image: np.ndarray, boxes: list[np.ndarray]) -> Sequence[Any]: ...


def predict(
    aligner: LandmarkAligner,
    example: Example,
    detector: "Detector | None" = None,
    readings: Sequence[Callable[[Any], np.ndarray]] = (lambda face: face.landmarks,),
) -> np.ndarray:
    """Landmarks (k, 68, 2) in photo pixels, NaN where the face was not found.

    Args:
      aligner: called as ``aligner(image, boxes=[landmark box])``.
      example: what to predict.
      detector: finds the box; without one it is the tight box of the true points. Where it finds
        several faces, the one that overlaps the annotated face most is scored.
      readings: k functions from a face to its landmarks (68, 2).

    Raises:
      PhotoError: the photograph cannot be read, or shows nothing of the annotated face.
    """
    missing = np.full((len(readings), N_LANDMARKS, 2), np.nan)
    image = example.image()
    box = box_of_points(example.points)
    if detector is not None:
        found = best_match(detector(image), box)
        if found is None:
            return missing
        box = found.landmark_box
    faces = aligner(image, boxes=[box])
    return np.stack([read(faces[0]) for read in readings]) if faces else missing


def best_match(detections: Sequence["Detection"], box: np.ndarray) -> "Detection | None":
    """The detection whose landmark box overlaps `box` most (intersection over union), if any."""
    scored = [(intersection_over_union(d.landmark_box, box), d) for d in detections]
    score, best = max(scored, key=lambda pair: pair[0], default=(0.0, None))
    return best if score > 0.0 else None


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,): x, y, width, height."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = np.prod(np.maximum(high - low, 0.0))
    return float(shared / (np.prod(a[2:]) + np.prod(b[2:]) - shared))


def summarise(predicted: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Scores of predictions (n, 68, 2), NaN where missing.

    Returns:
      ``n``, ``no_output`` (faces without a prediction), and for ``inner`` (the 51 points
      without the jaw) and ``all68``: ``mean`` and ``median`` in percent over the faces that
      were found (None if none was), and ``over_8``, the share of all faces whose error is over
      8 %, the missing ones counted in.
    """
    missing = np.isnan(predicted).any(axis=(1, 2))
    scores: dict[str, Any] = {"n": len(true), "no_output": int(missing.sum())}
    for name, counted in (("inner", INNER), ("all68", ALL)):
        errors = nme_percent(predicted[~missing], true[~missing], counted)
        failures = missing.sum() + (errors > FAILURE_PERCENT).sum()
        scores[name] = {
            "mean": float(errors.mean()) if errors.size else None,
            "median": float(np.median(errors)) if errors.size else None,
            "over_8": float(failures / len(true)),
        }
    return scores
