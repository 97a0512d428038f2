"""The bounds that are printed are those of the examples."""

import types
from collections import defaultdict

import numpy as np
import pytest

from dfc_jax.inference.detect import Detection
from dfc_jax.inference.judge import NO_FACE_CONFIDENCE, Evidence
from experiments.tools import calibrate_judgement as tool

RIGHT = [Evidence(0.5, 0.95 + 0.001 * n, 0.9, 0.5) for n in range(10)]
WRONG = [Evidence(0.5, certainty, 0.9, 0.5) for certainty in (0.4, 0.5, 0.95)]


@pytest.fixture
def samples() -> tool.Samples:
    """Without an aligner: the boxes themselves are the fits."""
    samples = tool.Samples.__new__(tool.Samples)
    samples.right, samples.none = defaultdict(list), defaultdict(list)
    samples.wrong = 2
    samples.detector = lambda image: [
        Detection(np.array([n, 0.0, 9.0, 9.0]), 0.4, "dfc") for n in range(len(WRONG))
    ]
    samples.aligner = lambda image, boxes: [
        types.SimpleNamespace(evidence=WRONG[int(boxes[0][0])], landmarks=np.zeros((68, 2)))
    ]
    return samples


def test_what_the_detector_finds_where_nobody_is_counts_as_no_face(samples) -> None:
    samples.add_false_alarms(np.zeros((9, 9, 3), np.uint8))
    assert samples.none == {tool.FALSE_ALARMS: WRONG}


def test_the_report_says_what_the_bound_of_false_alarms_keeps_and_loses(samples, capsys) -> None:
    samples.right["plain"] = RIGHT
    samples.none[tool.FALSE_ALARMS] = WRONG
    tool.report(samples)
    printed = capsys.readouterr().out
    assert "right fits 5, wrong fits to faces, left out 2" in printed
    assert (
        f"the least of all right fits 0.900; of 3 false alarms 2 have less than"
        f" {NO_FACE_CONFIDENCE}" in printed
    )
