"""The whole road from a weight file to faces, with an untrained network."""

import dataclasses

import jax
import numpy as np
import pytest
from faces import ASTRONAUT, mean_aligner

import dfc_jax
from dfc_jax.camera import box_of_points
from dfc_jax.inference import align
from dfc_jax.inference.photo import PhotoError, read_photo
from dfc_jax.morphable.model import load_face_model
from dfc_jax.nets import variants, weights


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    spec = variants.SPECS["lite"]
    metadata = {"face_model": load_face_model().version}
    weights.save(path, variants.init(jax.random.key(0), spec), spec, metadata)
    return path


def test_load_aligns_photographs_of_any_size_with_one_program(weight_file):
    aligner = dfc_jax.load(weights=weight_file)
    portrait = read_photo(ASTRONAUT)
    programs = align.solve_crop._cache_size()
    for image in (portrait, portrait[:300, 100:400].astype(np.float32) / 255.0):
        (face,) = aligner(image)
        assert face.detector.startswith("haar")
        assert face.landmarks.shape == (68, 2)
        assert np.isfinite(face.vertices_mm).all()
        assert face.flow.shape == (128, 128, 2)
        points = face.landmarks3d_mm
        projected = face.focal_px * points[:, :2] / points[:, 2:] + face.principal_point
        assert np.abs(projected - face.landmarks).max() < 0.05 / face.crop.scale
    assert align.solve_crop._cache_size() == programs + 1
    assert aligner.versions["weights"].startswith("untrained-")


def test_weights_of_another_face_model_are_refused(weight_file, monkeypatch):
    other = dataclasses.replace(load_face_model(), version="other")
    monkeypatch.setattr(align, "load_face_model", lambda path: other)
    with pytest.raises(weights.WeightsError, match=r"untrained\.safetensors.* face model"):
        dfc_jax.load(weights=weight_file)


def test_a_second_crop_is_made_from_the_first_landmarks():
    image = np.zeros((400, 300, 3), np.uint8)
    (once,), (twice,) = (mean_aligner(recrop=n)(image) for n in (0, 1))
    assert np.allclose(twice.box, box_of_points(once.landmarks))


def test_a_fit_that_is_not_finite_is_no_face():
    aligner = mean_aligner()
    solution = aligner.solver(None)
    bad = dataclasses.replace(solution, focal_px=solution.focal_px * np.nan)
    assert mean_aligner(solver=lambda crop: bad)(np.zeros((64, 64, 3), np.uint8)) == []


def test_little_matchable_is_uncertain():
    solution = mean_aligner().solver(None)
    image = np.zeros((64, 64, 3), np.uint8)
    for mask, status in ((solution.mask, "ok"), (solution.mask * 0, "uncertain")):
        found = dataclasses.replace(solution, mask=mask)
        assert mean_aligner(solver=lambda crop, s=found: s)(image)[0].status == status


@pytest.mark.parametrize("box", [(1, 2, 3), (0, 0, -1, 5), (np.nan, 0, 5, 5), (70, 0, 9, 9)])
def test_impossible_boxes_are_refused(box):
    with pytest.raises(PhotoError, match="the box"):
        mean_aligner()(np.zeros((64, 64, 3), np.uint8), boxes=[box])
