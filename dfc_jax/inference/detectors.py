"""The detectors by name."""

from pathlib import Path

from dfc_jax.errors import OptionError
from dfc_jax.inference import DETECTORS, YUNET_NEEDED
from dfc_jax.inference.detect import (
    Detector,
    DetectorError,
    HaarDetector,
    WholeImage,
    YuNetDetector,
)
from dfc_jax.inference.find import FaceDetector


def make_detector(
    name: str,
    model_path: str | Path | None = None,
    min_face_px: float | None = None,
    max_faces: int | None = None,
    min_score: float | None = None,
) -> Detector:
    """The detector of a name.

    Args:
      name: ``dfc`` (`FaceDetector`), ``haar``, ``yunet`` or ``none``.
      model_path: weights for ``dfc`` instead of the package's, or the ONNX file of ``yunet``.
      min_face_px, max_faces: see `FaceDetector`; of ``dfc`` alone.
      min_score: probability, or YuNet's score, below which a face is none; None for the usual.

    Raises:
      DetectorError: unknown name, or the model file is missing, broken or not wanted.
      OptionError: a number is out of range, or this detector has no such option.
      WeightsError: the weight file of ``dfc`` cannot be used.
    """
    if name not in DETECTORS:
        *others, last = DETECTORS
        raise DetectorError(f"unknown detector {name!r}; choose {', '.join(others)} or {last}")
    if name != "dfc" and (min_face_px is not None or max_faces is not None):
        raise OptionError(f"the detector {name} has no min_face_px and no max_faces; use dfc")
    if name == "dfc":
        return FaceDetector(model_path, min_face_px, max_faces, min_score)
    if name == "yunet":
        if model_path is None:
            raise DetectorError(YUNET_NEEDED)
        return YuNetDetector(model_path, *(() if min_score is None else (min_score,)))
    if min_score is not None:
        raise OptionError(f"the detector {name} has no min_score; use dfc or yunet")
    if model_path is not None:
        raise DetectorError(f"the detector {name} takes no model file; use dfc or yunet with it")
    return HaarDetector() if name == "haar" else WholeImage()
