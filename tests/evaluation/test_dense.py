"""Dense errors of the template itself as a photograph, where all is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from dfc_jax.crops import Crop
from dfc_jax.data.faces import DenseTruth
from dfc_jax.evaluation.dense import dense_errors
from dfc_jax.systems.dfc.template import make_template

SIZE = 64


@pytest.fixture(scope="module")
def template(model):
    return make_template(model, SIZE)


@pytest.fixture
def truth(template):
    """Of the template at its own size: every pixel stays where it is."""
    return DenseTruth(np.zeros((SIZE, SIZE, 2), np.float32), np.asarray(template.valid))


def face_of(template, flow=(0.0, 0.0), shift_px=(0.0, 0.0), crop=None):
    """The mean face where the template shows it, with a flow that is the same everywhere."""
    return SimpleNamespace(
        crop=crop or Crop(np.full(2, (SIZE - 1) / 2.0), float(SIZE), size=SIZE),
        flow=np.full((SIZE, SIZE, 2), flow, np.float32),
        vertices_mm=np.asarray(template.vertices_mm),
        focal_px=float(template.camera.focal_px),
        principal_point=np.asarray(template.camera.principal_point) + shift_px,
    )


def test_what_is_right_has_no_error(template, truth):
    errors = dense_errors(truth, face_of(template), template)
    assert errors.flow_px == pytest.approx(0.0, abs=1e-4)
    assert errors.mesh_px == pytest.approx(0.0, abs=1e-2)


def test_a_shifted_flow_and_a_shifted_mesh_are_off_by_the_shift(template, truth):
    face = face_of(template, flow=(0.6, -0.8), shift_px=(3.0, 4.0))
    errors = dense_errors(truth, face, template)
    assert errors.flow_px == pytest.approx(1.0, abs=1e-4)
    assert errors.mesh_px == pytest.approx(5.0, abs=1e-2)


def test_the_photograph_may_have_another_size_than_the_template(model, template):
    """At twice the size, errors of the mesh are twice as many pixels, those of the flow as many."""
    large = make_template(model, 2 * SIZE)
    truth = DenseTruth(np.zeros((2 * SIZE, 2 * SIZE, 2), np.float32), np.asarray(large.valid))
    face = face_of(template, flow=(0.6, -0.8))
    face.crop = Crop(np.full(2, SIZE - 0.5), 2.0 * SIZE, size=SIZE)
    face.focal_px = float(large.camera.focal_px)
    face.principal_point = np.asarray(large.camera.principal_point) + [6.0, 8.0]
    errors = dense_errors(truth, face, template)
    assert errors.flow_px == pytest.approx(1.0, abs=1e-4)
    assert errors.mesh_px == pytest.approx(10.0, abs=0.05)


def test_pixels_outside_the_crop_count_for_the_mesh_alone(template, truth):
    """Of half the photograph at twice the scale, the right flow leads back by half."""
    crop = Crop(np.array([SIZE / 4.0 - 0.5, SIZE / 4.0 - 0.5]), SIZE / 2.0, size=SIZE)
    at = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)
    face = face_of(template, crop=crop)
    face.flow = ((at + 0.5) / 2.0 - 0.5 - at).astype(np.float32)
    errors = dense_errors(truth, face, template)
    assert errors.flow_px == pytest.approx(0.0, abs=1e-3)
    assert errors.mesh_px == pytest.approx(0.0, abs=1e-2)
    face.crop = Crop(np.array([-500.0, -500.0]), 10.0, size=SIZE)
    assert np.isnan(dense_errors(truth, face, template).flow_px)


def test_only_matchable_pixels_count(template, truth):
    flow = truth.flow.copy()
    flow[: SIZE // 2] = 7.0
    lower = truth.matchable & (np.arange(SIZE) >= SIZE // 2)[:, None]
    assert lower.any()
    errors = dense_errors(DenseTruth(flow, lower), face_of(template), template)
    assert errors.flow_px == pytest.approx(0.0, abs=1e-4) and errors.mesh_px < 0.01
    errors = dense_errors(DenseTruth(flow, np.zeros_like(lower)), face_of(template), template)
    assert np.isnan(errors.flow_px) and np.isnan(errors.mesh_px)
