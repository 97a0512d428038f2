"""The bounds that are printed are those of the examples."""

import types
from collections import Counter, defaultdict

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
    samples.nowhere, samples.wrong = Counter(), 2
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


def test_the_bound_of_the_visible_share_is_made_where_it_is_known() -> None:
    known = [each._replace(visible_share=0.5 + 0.05 * n) for n, each in enumerate(RIGHT)]
    found = tool.bounds(known)
    # 0.4 % of the way through nine steps of 0.05.
    assert found["visible_share"] == pytest.approx(0.5 + 0.004 * 9 * 0.05)
    assert found["certainty"] == pytest.approx(0.95 + 0.004 * 9 * 0.001)
    assert found["residual_crop_px"] == 0.5
    assert tool.bounds(RIGHT) == {k: v for k, v in found.items() if k != "visible_share"}
    assert "visible_share" not in tool.bounds([*known, RIGHT[0]])


def test_boxes_in_which_nothing_is_found_are_counted_apart(samples, capsys) -> None:
    samples.right["plain"] = RIGHT
    samples.none["photographs"] = WRONG
    samples.aligner = lambda image, boxes: []
    for _ in range(3):
        samples.add_none("photographs", np.zeros((9, 9, 3), np.uint8), np.ones(4))
    samples.add_none("photographs", np.zeros((9, 9, 3), np.uint8), None)
    tool.report(samples)
    assert samples.none["photographs"] == WRONG
    assert "no faces, photographs: 3 more without a fit" in capsys.readouterr().out
