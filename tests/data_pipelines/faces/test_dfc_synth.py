"""The files of ``dfc synth`` are pairs of the generator, with what is known of their sources."""

from pathlib import Path

import jax
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces.export import export_pairs
from data_pipelines.faces.synthetic import (
    SyntheticAssets,
    SyntheticSettings,
    load_assets,
    sample_pair,
)
from dfc_jax.data.synth import synth
from dfc_jax.landmarks68 import INNER
from dfc_jax.morphable.linear import landmarks3d
from dfc_jax.ops.sampling import bilinear_sample
from dfc_jax.systems.dfc.template import make_template

pytestmark = pytest.mark.slow
SETTINGS = SyntheticSettings(size=64, wide_yaw=0.0, yaw_deg=10.0)


@pytest.fixture(scope="module")
def assets(model) -> SyntheticAssets:
    return load_assets(model)


@pytest.fixture(scope="module")
def folder(assets, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pairs")
    export_pairs(out, assets, SETTINGS, count=3, seed=5)
    return out


def test_pairs_are_those_of_their_numbers(assets, folder):
    sample = jax.jit(lambda key: sample_pair(key, assets, SETTINGS))
    pair = sample(jax.random.fold_in(jax.random.key(5), 2))
    with np.load(folder / "pair_00002.npz") as written:
        # Alone and in a batch, rounding may differ.
        np.testing.assert_allclose(written["source"] / 255.0, pair.source, atol=0.02)
        np.testing.assert_allclose(written["flow"], pair.flow, atol=0.05)
        assert (written["matchable"] == (np.asarray(pair.matchable) > 0)).mean() > 0.999


def test_the_flow_to_the_template_leads_points_of_the_face_to_its_landmarks(model, folder):
    template = make_template(model, SETTINGS.size)
    camera, params = template.camera, template.params
    mm = np.asarray(landmarks3d(model, model.mean_mm)) * [1, -1, -1] + params.translation_mm
    goal = np.asarray(camera.focal_px) * mm[:, :2] / mm[:, 2:] + np.asarray(camera.principal_point)
    checked = 0
    for face in synth(folder):
        truth = face.dense()
        mask, counted = face.mask()
        # At the edge of the neck a pixel of it may lie over a valid one of the template.
        assert counted.all() and mask[truth.matchable].mean() > 0.99
        points = face.points.astype(np.float32)
        sure = truth.matchable[..., None].astype(np.float32)
        inner = np.flatnonzero(bilinear_sample(sure, points[INNER])[:, 0] > 0.999) + INNER.start
        found = points[inner] + np.asarray(bilinear_sample(truth.flow, points[inner]))
        checked += len(inner)
        off = np.linalg.norm(found - goal[inner], axis=-1)
        # Between the lips and at lids a point lies between pixels of both.
        assert np.median(off) < 0.3 and np.mean(off < 1.0) > 0.9
    assert checked > 40


def test_poses_turn_the_way_that_the_points_do(folder):
    """A nose that lies left of the middle between the corners of the eyes has yaw > 0."""
    for face in synth(folder):
        yaw, _, roll = face.pose_deg
        across = face.points[45] - face.points[36]
        offset = face.points[30] - (face.points[45] + face.points[36]) / 2.0
        along = offset @ across / (across @ across)
        assert np.sign(along) == -np.sign(yaw) or abs(yaw) < 3.0
        assert np.rad2deg(np.arctan2(across[1], across[0])) == pytest.approx(roll, abs=8.0)
