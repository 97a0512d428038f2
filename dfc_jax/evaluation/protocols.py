"""Scoring an aligner on annotated photographs: boxes, predictions, failures."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dfc_jax.data.faces import Example
from dfc_jax.evaluation.metrics import ALL, nme_percent
from dfc_jax.landmarks68 import INNER, N_LANDMARKS

if TYPE_CHECKING:
    from dfc_jax.inference.align import Aligner
    from dfc_jax.inference.detect import Detection, Detector
    from dfc_jax.inference.face import Face

# A face whose NME is above this is a failure.
FAILURE_PERCENT = 8.0


Readings = Sequence[Callable[["Face"], np.ndarray]]


def align_examples(
    aligner: "Aligner", examples: Sequence[Example], detector: "Detector | None" = None
) -> "Iterator[Face | Exception | None]":
    """The annotated face of each example as it is found.

    Args:
      aligner: of which `many` is called.
      examples: what to align.
      detector: finds the box; without one it is that of the annotation. Where it finds several
        faces, the one that overlaps the annotated face most is taken.

    Yields:
      the face, None where it was not found, or the error where the photograph cannot be read or
      shows nothing of the annotated face.
    """
    boxes = [partial(landmark_boxes, example=example, detector=detector) for example in examples]
    for found in aligner.many(examples, boxes, read=lambda example: example.image()):
        yield found.error or next(iter(found.faces), None)


def predict(
    aligner: "Aligner",
    examples: Sequence[Example],
    detector: "Detector | None" = None,
    readings: Readings = (lambda face: face.landmarks,),
) -> Iterator[np.ndarray | Exception]:
    """Landmarks (k, 68, 2) in photo pixels for each example, NaN where the face was not found.

    Args:
      aligner, examples, detector: see `align_examples`.
      readings: k functions from a face to its landmarks (68, 2).

    Yields:
      the landmarks, or the error of `align_examples`.
    """
    for found in align_examples(aligner, examples, detector):
        if isinstance(found, Exception):
            yield found
        elif found is None:
            yield np.full((len(readings), N_LANDMARKS, 2), np.nan)
        else:
            yield np.stack([read(found) for read in readings])


def landmark_boxes(
    image: np.ndarray, example: Example, detector: "Detector | None" = None
) -> list[np.ndarray]:
    """The landmark box in which a face is to be found, none if the detector misses it."""
    box = example.landmark_box
    if detector is None:
        return [box]
    found = best_match(detector(image), box)
    return [] if found is None else [found.landmark_box]


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
    """Scores of predictions (n, 68, 2), NaN where missing, against points (n, 68, 2), NaN where
    hidden or not annotated, which do not count.

    Returns:
      ``n``, ``no_output`` (faces without a prediction), and for ``inner`` (the 51 points
      without the jaw) and ``all68``: ``mean`` and ``median`` in percent over the faces with such
      points that were found (None if none was), and ``over_8``, the share of all faces with such
      points whose error is over 8 %, the missing ones counted in (None if there is no such face).
    """
    missing = np.isnan(predicted).any(axis=(1, 2))
    scores: dict[str, Any] = {"n": len(true), "no_output": int(missing.sum())}
    for name, counted in (("inner", INNER), ("all68", ALL)):
        annotated = np.isfinite(true[:, counted]).all(axis=-1).any(axis=-1)
        used = annotated & ~missing
        errors = nme_percent(predicted[used], true[used], counted)
        failures = (missing & annotated).sum() + (errors > FAILURE_PERCENT).sum()
        scores[name] = {
            "mean": float(errors.mean()) if errors.size else None,
            "median": float(np.median(errors)) if errors.size else None,
            "over_8": float(failures / annotated.sum()) if annotated.any() else None,
        }
    return scores
