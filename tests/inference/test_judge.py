"""A fit to something that is no face says so, with reasons; of several fits the surest is kept."""

import dataclasses

import numpy as np
import pytest
from faces import estimate_of, mean_aligner
from paths import ASTRONAUT

from dfc_jax.crops import Crop, crop_photo
from dfc_jax.export.records import face_record
from dfc_jax.inference import judge
from dfc_jax.inference.align import Aligner
from dfc_jax.inference.detect import Detection, WholeImage
from dfc_jax.photo import read_photo

GOOD = judge.Evidence(matchable_share=0.4, certainty=0.96, agreement=0.95, residual_crop_px=0.5)


@pytest.fixture(scope="module")
def aligner(trained):
    return Aligner(trained.solver, trained.model, WholeImage(), trained.versions)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("matchable_share", 0.05, "little_matched"),
        ("certainty", 0.85, "unsure_mask"),
        ("agreement", 0.7, "mask_disagrees"),
        ("residual_crop_px", 1.5, "large_residual"),
    ],
)
def test_each_doubt_has_its_reason(field, value, reason):
    assert judge.doubts(GOOD) == ()
    doubtful = GOOD._replace(**{field: value})
    assert judge.doubts(doubtful) == (reason,)
    assert not judge.is_clear(doubtful)


def test_the_evidence_is_that_of_mask_mesh_and_fit():
    solution = mean_aligner().solver.solve(None)
    crop = Crop(np.array([63.5, 63.5]), 128.0)
    evidence = judge.weigh(estimate_of(solution), solution, crop, (128, 128, 3))
    mask, fitted = np.asarray(solution.matchability) > 0.5, np.asarray(solution.refined_mask)
    assert evidence.matchable_share == pytest.approx(mask.mean())
    assert evidence.certainty == pytest.approx(1.0)
    assert evidence.agreement == pytest.approx((mask & fitted).sum() / fitted.sum())
    nothing = dataclasses.replace(solution, matchability=0.0 * solution.matchability)
    evidence = judge.weigh(estimate_of(nothing), nothing, crop, (128, 128, 3))
    assert evidence[:3] == (0.0, 0.0, 0.0)


def test_what_an_estimate_says_of_its_mask_is_what_the_evidence_says(aligner):
    portrait = read_photo(ASTRONAUT)
    (face,) = aligner(portrait, boxes=[(180, 82, 84, 86)])
    (estimate,) = aligner.solver.locate([crop_photo(portrait, face.crop)])
    said = estimate.matchable_share, estimate.certainty
    assert face.evidence[:2] == said
    matchable = face.matchability > 0.5
    np.testing.assert_allclose(
        said, (matchable.mean(), face.matchability[matchable].mean(dtype=np.float64)), rtol=1e-6
    )


def test_what_lies_outside_the_photograph_does_not_disagree():
    solution = mean_aligner().solver.solve(None)
    left = np.arange(128) < 64
    half = dataclasses.replace(
        solution, matchability=solution.matchability * left, fitted_mask=solution.matchability > 0
    )
    crop = Crop(np.array([63.5, 63.5]), 128.0)
    estimate = estimate_of(half)
    whole = judge.weigh(estimate, half, crop, (128, 128))
    assert whole.agreement == pytest.approx(0.5, abs=0.02)
    assert judge.weigh(estimate, half, crop, (128, 64)).agreement == pytest.approx(1.0)


def test_of_two_fits_the_surer_is_kept_the_turned_one_only_if_it_is_much_surer():
    (face,) = mean_aligner()(np.zeros((100, 100, 3), np.uint8))
    faces = [
        dataclasses.replace(face, evidence=GOOD._replace(certainty=certainty))
        for certainty in (0.95, 0.955, 0.97)
    ]
    assert judge.surest(faces[:1], [None, faces[1]]) is faces[0]
    assert judge.surest(faces[:1], faces[1:]) is faces[2]
    assert judge.surest([None], []) is None
    aside = dataclasses.replace(faces[1], landmarks=face.landmarks + 500.0)
    kept = judge.distinct(faces[:1], [faces[2], aside])
    assert {id(each) for each in kept} == {id(faces[2]), id(aside)}


def test_two_fits_to_one_head_are_one_face_and_two_heads_side_by_side_are_two():
    (face,) = mean_aligner()(np.zeros((100, 100, 3), np.uint8))
    width = np.ptp(face.landmarks[:, 0])
    for shift, count in ((0.7, 1), (0.9, 2)):
        moved = face.landmarks + [shift * width, 0.0]
        less = GOOD._replace(certainty=0.95)
        other = dataclasses.replace(face, landmarks=moved, evidence=less)
        sure = dataclasses.replace(face, evidence=GOOD._replace(certainty=0.97))
        for faces in ([sure, other], [other, sure]):
            kept = judge.distinct(faces, [])
            assert len(kept) == count and any(each is sure for each in kept)


@pytest.mark.slow
def test_boxes_without_a_face_are_uncertain_and_say_why(aligner):
    portrait = read_photo(ASTRONAUT)
    rng = np.random.default_rng(0)
    boxes = [(x, y, 80, 80) for x in (20, 330, 420) for y in (20, 150, 300, 400)]
    found = aligner(portrait, boxes=boxes)
    for cells in (4, 8, 16, 32, 96, 192):
        noise = rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
        found += aligner(np.kron(noise, np.ones((192 // cells, 192 // cells, 1), np.uint8)))
    assert len(found) == 18
    assert sum(face.status == "ok" for face in found) <= 1
    for face in found:
        assert (face.status == "ok") == (face.reasons == ())
        assert face_record(face)["reasons"] == list(face.reasons)


@pytest.mark.slow
def test_what_a_detector_takes_for_a_face_and_is_none_is_left_out(trained):
    portrait = read_photo(ASTRONAUT)
    boxes = [np.array([180.0, 82.0, 84.0, 86.0])]
    boxes += [np.array([x, y, 80.0, 80.0]) for x in (20, 330, 420) for y in (20, 150, 300, 400)]
    given = trained(portrait, boxes=boxes)
    detections = [Detection(box, 1.0, "dfc") for box in boxes]
    aligner = Aligner(trained.solver, trained.model, lambda _: detections, trained.versions, 0)
    found = aligner(portrait)
    assert len(given) == len(boxes) and not all(judge.may_be_a_face(f.evidence) for f in given)
    assert all(judge.may_be_a_face(face.evidence) for face in found)
    (right,) = (face for face in found if face.status == "ok")
    np.testing.assert_array_equal(right.box, boxes[0])


@pytest.mark.slow
def test_a_face_is_ok_also_where_the_photograph_is_cut_to_it(aligner):
    portrait = read_photo(ASTRONAUT)
    box = np.array([180, 82, 84, 86])
    x, y, width, height = box
    cut = portrait[y : y + height, x : x + width]
    for image, where in ((portrait, box), (cut, [0, 0, width, height])):
        (face,) = aligner(image, boxes=[where])
        assert face.status == "ok", face.reasons
