"""How an aligner is run on annotated photographs: from which boxes, and what is read of a face."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, Example
from dfc_jax.evaluation.pose import ANGLES
from dfc_jax.landmarks68 import N_LANDMARKS

if TYPE_CHECKING:
    from dfc_jax.crops import Crop
    from dfc_jax.inference.align import Aligner
    from dfc_jax.inference.detect import Detection, Detector
    from dfc_jax.inference.face import Face

# A pixel is taken for the face where the network is surer than this.
MATCHABLE = 0.5
# What `read` gives of a face, and its shape.
READINGS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("points", "flow", "blend"), (N_LANDMARKS, 2)),
    "angles_deg": (len(ANGLES),),
    "blink": (2,),
    "jaw_open": (),
    "mask_iou": (),
    "dense_flow_px": (),
    "dense_mesh_px": (),
}


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


def read(
    aligner: "Aligner", face: "Face | None", annotated: AnnotatedFace
) -> dict[str, np.ndarray]:
    """What is scored of a face, by name in the `READINGS`; NaN without a face.

    Landmarks of the mesh, of the flow and of a blend of both in photo pixels; yaw, pitch and roll
    in degrees; the fitted weights `eyeBlink` (of the subject's right and left eye) and `jawOpen`,
    NaN where the face model has no such shapes; the intersection over union of what the network
    takes for the face with the true mask, and the `DenseErrors`, NaN where the annotated face has
    no mask or no flow.

    Raises:
      DatasetError: the true mask or the true flow cannot be read.
    """
    if face is None:
        return {name: np.full(shape, np.nan) for name, shape in READINGS.items()}
    blinks = [face.expression.get(f"eyeBlink{side}", np.nan) for side in ("Right", "Left")]
    return {
        "points": face.landmarks,
        "flow": aligner.flow_landmarks(face)[0],
        "blend": aligner.blended_landmarks(face),
        "angles_deg": np.array([face.angles_deg[angle] for angle in ANGLES]),
        "blink": np.array(blinks),
        "jaw_open": np.array(face.expression.get("jawOpen", np.nan)),
        "mask_iou": np.array(_mask_iou(face, annotated)),
        **_dense(aligner, face, annotated),
    }


def stacked(readings: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What was `read` of n faces, as arrays (n, ...)."""
    return {
        name: np.stack([each[name] for each in readings]).reshape(len(readings), *shape)
        for name, shape in READINGS.items()
    }


def _dense(aligner: "Aligner", face: "Face", annotated: AnnotatedFace) -> dict[str, np.ndarray]:
    if annotated.dense is None:
        flow_px, mesh_px = np.nan, np.nan
    else:
        from dfc_jax.evaluation.dense import dense_errors

        flow_px, mesh_px = dense_errors(annotated.dense(), face, aligner.template)
    return {"dense_flow_px": np.array(flow_px), "dense_mesh_px": np.array(mesh_px)}


def _mask_iou(face: "Face", annotated: AnnotatedFace) -> float:
    if annotated.mask is None:
        return np.nan
    return photo_iou(face.matchability, face.crop, *annotated.mask())


def photo_iou(
    probability: np.ndarray, crop: "Crop", true: np.ndarray, counted: np.ndarray
) -> float:
    """Intersection over union of what is likely the face in a crop, probability (S, S), with what
    is true in its photograph, (H, W) bool, over the pixels that are counted, (H, W) bool; beyond
    the crop nothing is found."""
    import cv2

    found = cv2.warpAffine(probability, crop.to_photo, true.shape[::-1]) > MATCHABLE
    both = found & counted, true & counted
    union = np.logical_or(*both).sum()
    return float(np.logical_and(*both).sum() / union) if union else 1.0


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
