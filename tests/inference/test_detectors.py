"""Detectors are made by name, with the options that each has."""

import jax
import numpy as np
import pytest

from dfc_jax.errors import OptionError, UserError, WeightsError
from dfc_jax.inference import DEFAULT_DETECTOR, DETECTORS
from dfc_jax.inference.detect import DetectorError, HaarDetector, WholeImage
from dfc_jax.inference.detectors import make_detector
from dfc_jax.inference.find import FaceDetector
from dfc_jax.nets import weights
from dfc_jax.systems.detector.networks import DetectorSpec, init


@pytest.fixture
def file(tmp_path):
    """Weights of a detector."""
    spec, path = DetectorSpec(stem=4, width=6, deep=8, blocks=1), tmp_path / "weights.safetensors"
    weights.save(path, init(jax.random.key(0), spec), spec, {})
    return path


def test_every_name_makes_its_detector(file):
    made = {name: make_detector(name) for name in DETECTORS if name != "yunet"}
    kinds = {"dfc": FaceDetector, "haar": HaarDetector, "none": WholeImage}
    assert {name: type(detector) for name, detector in made.items()} == kinds
    assert DEFAULT_DETECTOR in DETECTORS
    assert isinstance(make_detector("dfc", file), FaceDetector)


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("hog", {}, DetectorError, "unknown detector 'hog'; choose dfc, haar, yunet or none"),
        ("yunet", {}, DetectorError, "yunet needs a model file, .*; give --detector-model"),
        ("haar", {"model_path": "broken"}, DetectorError, "takes no model file"),
        ("yunet", {"model_path": "missing"}, DetectorError, r"missing: there is no such"),
        ("yunet", {"model_path": "broken"}, DetectorError, r"broken: not a YuNet model"),
        ("dfc", {"model_path": "missing"}, WeightsError, "missing"),
        ("dfc", {"model_path": "broken"}, WeightsError, "broken"),
        ("haar", {"min_face_px": 20}, OptionError, "haar has no min_face_px"),
        ("none", {"max_faces": 2}, OptionError, "none has no min_face_px and no max_faces"),
        ("haar", {"min_score": 0.5}, OptionError, "haar has no min_score"),
        (
            "dfc",
            {"model_path": "good", "min_face_px": 0.0},
            OptionError,
            "min_face_px needs a number from 1 on; got 0",
        ),
        (
            "dfc",
            {"model_path": "good", "min_face_px": np.nan},
            OptionError,
            "min_face_px needs .* got nan",
        ),
        (
            "dfc",
            {"model_path": "good", "max_faces": 0},
            OptionError,
            "max_faces needs a whole number from 1 on; got 0",
        ),
        (
            "dfc",
            {"model_path": "good", "max_faces": 1.5},
            OptionError,
            "max_faces needs .* got 1.5",
        ),
        (
            "dfc",
            {"model_path": "good", "min_score": 1.0},
            OptionError,
            "min_score needs .* between 0 and 1; got 1",
        ),
    ],
)
def test_detectors_that_cannot_be_made_say_so(file, tmp_path, name, options, error, words):
    (tmp_path / "broken").write_bytes(b"not a model")
    if "model_path" in options:
        path = file if options["model_path"] == "good" else tmp_path / options["model_path"]
        options = {**options, "model_path": path}
    with pytest.raises(error, match=words) as caught:
        make_detector(name, **options)
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
