"""The pictures show the face where it is."""

import dataclasses

import numpy as np
import pytest
from faces import half_covered, mean_aligner

from dfc_jax.inference import draw
from dfc_jax.systems.dfc.draw import flow_picture, mask_picture


@pytest.mark.parametrize("shape", [(300, 200), (2400, 1500)])
def test_overlay_changes_the_face_and_only_the_face(aligner, shape):
    image = np.full((*shape, 3), 90, np.uint8)
    faces = aligner(image)
    picture = draw.overlay(image, faces, np.asarray(aligner.model.triangles))
    low, high = draw.OVERLAY_EDGE
    assert low <= max(picture.shape) <= high
    scale = max(picture.shape) / max(shape)
    changed = (np.abs(picture.astype(int) - 90) > 8).any(axis=-1)
    inner = (faces[0].landmarks[27:] * scale).astype(int)
    assert changed[inner[:, 1], inner[:, 0]].all()
    rows, columns = np.nonzero(changed)
    mesh = draw._scaled(draw.projected(faces[0], faces[0].vertices_mm), scale)
    assert np.abs(rows.min() - mesh[:, 1].min()) < 6
    assert np.abs(rows.max() - mesh[:, 1].max()) < 6
    assert np.abs(columns.min() - mesh[:, 0].min()) < 6
    assert np.abs(columns.max() - mesh[:, 0].max()) < 6


def test_covered_landmarks_are_hollow(model):
    half = half_covered(model)
    (face,) = mean_aligner(solver=lambda crop: half)(np.zeros((900, 900, 3), np.uint8))
    assert face.covered.any() and not face.covered.all()
    plain = np.zeros((900, 900, 3), np.uint8)
    hollow = plain.copy()
    draw._draw_landmarks(plain, dataclasses.replace(face, covered=None), 1.0)
    draw._draw_landmarks(hollow, face, 1.0)
    # Jaw, brows and nose, whose points are apart.
    x, y = np.round(face.landmarks[:36]).astype(int).T
    covered = face.covered[:36]
    assert 5 < covered.sum() < 31
    assert (plain[y, x].max(axis=-1) > 100).all()
    assert (hollow[y, x].max(axis=-1) < 60).tolist() == covered.tolist()
    # A ring is there.
    for number in np.flatnonzero(covered):
        around = hollow[y[number] - 8 : y[number] + 9, x[number] - 8 : x[number] + 9]
        assert (around.max(axis=-1) > 100).sum() > 10


def test_overlay_without_faces_is_the_photograph():
    image = np.random.default_rng(0).integers(0, 255, (1000, 950, 3), np.uint8)
    assert np.array_equal(draw.overlay(image, [], np.zeros((0, 3), int)), image)


def test_flow_colours_tell_directions_apart_and_black_is_unmatchable():
    flow = np.zeros((4, 4, 2))
    flow[0, 0], flow[0, 1], flow[0, 2] = (5, 0), (-5, 0), (0, 5)
    mask = np.ones((4, 4))
    mask[3] = 0
    picture = flow_picture(flow, mask, edge=4)
    assert tuple(picture[0, 0]) == (255, 0, 0)
    assert tuple(picture[0, 1]) == (0, 255, 255)
    assert tuple(picture[1, 1]) == (255, 255, 255)
    assert (picture[3] == 0).all()
    assert mask_picture(mask, edge=8)[0, 0] == 255


def test_model_picture_turns_with_the_angles(aligner):
    vertices = np.asarray(aligner.model.mean_mm)

    def silhouette(yaw):
        picture = draw.model_picture(aligner.model, vertices, (yaw, 0.0, 0.0), draw.MESH_SIZE)
        return (picture < 250).any(axis=-1)

    left, right = silhouette(40.0), silhouette(-40.0)
    assert 0.1 < left.mean() < 0.7
    assert not (left[0].any() or left[-1].any() or left[:, 0].any() or left[:, -1].any())
    assert (left ^ right[:, ::-1]).mean() < 0.02
    assert (left ^ right).mean() > 0.04
