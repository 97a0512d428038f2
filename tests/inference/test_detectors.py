"""Detectors are made by name, with the options that each has."""

import numpy as np
import pytest

from dfc_jax.errors import OptionError, UserError, WeightsError
from dfc_jax.inference import DEFAULT_DETECTOR, DETECTORS
from dfc_jax.inference.detect import DetectorError, HaarDetector, WholeImage
from dfc_jax.inference.detectors import make_detector
from dfc_jax.inference.find import FaceDetector


def test_every_name_makes_its_detector():
    made = {name: make_detector(name) for name in DETECTORS if name != "yunet"}
    kinds = {"dfc": FaceDetector, "haar": HaarDetector, "none": WholeImage}
    assert {name: type(detector) for name, detector in made.items()} == kinds
    assert DEFAULT_DETECTOR in DETECTORS


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("hog", {}, DetectorError, "unknown detector 'hog'; choose dfc, haar, yunet or none"),
        ("yunet", {}, DetectorError, "needs a model file"),
        ("haar", {"model_path": "broken"}, DetectorError, "takes no model file"),
        ("yunet", {"model_path": "missing"}, DetectorError, r"missing: there is no such"),
        ("yunet", {"model_path": "broken"}, DetectorError, r"broken: not a YuNet model"),
        ("dfc", {"model_path": "missing"}, WeightsError, "missing"),
        ("dfc", {"model_path": "broken"}, WeightsError, "broken"),
        ("haar", {"min_face_px": 20}, OptionError, "haar has no min_face_px"),
        ("none", {"max_faces": 2}, OptionError, "none has no min_face_px and no max_faces"),
        ("haar", {"min_score": 0.5}, OptionError, "haar has no min_score"),
        ("dfc", {"min_face_px": 0.0}, OptionError, "min_face_px needs a number from 1 on; got 0"),
        ("dfc", {"min_face_px": np.nan}, OptionError, "min_face_px needs .* got nan"),
        ("dfc", {"max_faces": 0}, OptionError, "max_faces needs a whole number from 1 on; got 0"),
        ("dfc", {"max_faces": 1.5}, OptionError, "max_faces needs .* got 1.5"),
        ("dfc", {"min_score": 1.0}, OptionError, "min_score needs .* between 0 and 1; got 1"),
    ],
)
def test_detectors_that_cannot_be_made_say_so(tmp_path, name, options, error, words):
    (tmp_path / "broken").write_bytes(b"not a model")
    if "model_path" in options:
        options = {"model_path": tmp_path / options["model_path"]}
    with pytest.raises(error, match=words) as caught:
        make_detector(name, **options)
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
