"""A box fits the photograph, or is refused in a sentence that says what was given."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from faces import mean_aligner

from dfc_jax.errors import PhotoError
from dfc_jax.inference.boxes import MAX_BOX_SHARE, MIN_BOX_PX, checked_boxes
from dfc_jax.inference.detect import Detection

PHOTO = np.zeros((300, 400, 3), np.uint8)


@pytest.mark.parametrize(
    "box",
    [
        (100, 50, 80.5, 90),
        [100, 50, 8, 8],
        np.array([100, 50, 80, 90]),
        jnp.array([100.0, 50.0, 80.0, 90.0]),
        (-300, -200, 1000, 900),  # a face larger than the picture
        (0, 0, 1600, 1600),
        (-70, 250, 80, 90),  # a face at the picture's edge
        (100, 50, 3, MIN_BOX_PX),
        (182.1, 85.3, 0.001, 80),
    ],
)
def test_boxes_that_a_face_may_have_pass(box):
    (checked,) = checked_boxes([box], PHOTO)
    np.testing.assert_array_equal(checked, np.asarray(box, np.float64))
    assert mean_aligner()(PHOTO, boxes=[box])


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((182, 85, 0.001, 0.001), "the box 182,85,0.001,0.001 is too small; .* 4 pixels"),
        ((182, 85, 3.9, 3.9), "too small"),
        ((0, 0, 1e7, 1e7), r"the box 0,0,1e\+07,1e\+07 is too large; .* 400 x 300 pixels"),
        ((0, 0, 100, 1e8), "too large"),
        ((-1e300, 0, 1e300, 100), "too large"),
        ((0, 0, 1601, 100), "too large; its edges may measure 4 times the longer edge"),
        ((400, 0, 50, 50), "lies outside"),
        ((1e300, 0, 50, 50), "lies outside"),
        ((-79, 0, 80, 80), "or all but outside"),
        ((0, 0, 0, 50), "positive width, height"),
        ((0, np.inf, 50, 50), "positive width, height"),
        (None, "the box None needs four numbers"),
        ((1, 2, 3), r"the box \(1, 2, 3\) needs four numbers"),
        ((1, None, 3, 4), r"the box \(1, None, 3, 4\) needs four numbers"),
        ("10,20,50,50", "the box '10,20,50,50' needs four numbers"),
        (["10", "20", "50", "50"], "needs four numbers"),
        ([[10, 20], [50, 50]], "needs four numbers"),
        ([[10, 20], [50]], "needs four numbers"),
        ((10, 20, 50 + 1j, 50), "needs four numbers"),
        (np.zeros((100, 4)), "needs four numbers"),
    ],
)
def test_boxes_that_no_face_has_are_refused(box, words):
    with pytest.raises(PhotoError, match=words) as caught:
        mean_aligner()(PHOTO, boxes=[box])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ((10, 20, 50, 60), r"for one box write boxes=\[\(10,20,50,60\)\]"),
        (np.array([10, 20, 50, 60]), r"write boxes=\[\(10,20,50,60\)\]"),
        ("10,20,50,60", "got '10,20,50,60'"),
        (7, "got 7"),
        ({"box": (10, 20, 50, 60)}, "got {'box'"),
    ],
)
def test_what_is_no_list_of_boxes_is_refused(boxes, words):
    with pytest.raises(PhotoError, match=words):
        mean_aligner()(PHOTO, boxes=boxes)


def test_boxes_may_come_as_an_array_or_as_none_at_all():
    boxes = np.array([[10, 20, 50, 60], [100, 50, 80, 90]])
    assert [face.box.tolist() for face in mean_aligner()(PHOTO, boxes=boxes)] == boxes.tolist()
    assert mean_aligner()(PHOTO, boxes=[]) == []


def test_a_bad_fit_or_detector_does_not_ask_for_a_crop_of_any_size():
    """The face that is found is a million times as large as it should be."""
    original = mean_aligner().solver.solve(None)
    huge = dataclasses.replace(original, landmarks_px=1e6 * original.landmarks_px)
    asked = []

    def solver(crop: np.ndarray):
        asked.append(crop)
        return huge

    (face,) = mean_aligner(solver=solver)(PHOTO)
    assert len(asked) == 1
    assert face.crop.side_px <= 1.5 * MAX_BOX_SHARE * 400
    far = Detection(np.array([0.0, 0.0, 1e9, 1e9]), 1.0, "given")
    assert mean_aligner(lambda image: [far])(PHOTO) == []
