"""Panels of a face: the crop, the flow with its wheel, matchability and mesh."""

import dataclasses

import cv2
import numpy as np
import pytest

from dfc_jax.crops import apply_affine
from dfc_jax.evaluation.grid import GAP, LINE_PX
from dfc_jax.export.figures import HEADS, longest_flow, meshed, panels, row_of, wheel
from dfc_jax.inference.draw import projected


@pytest.fixture
def image() -> np.ndarray:
    return np.full((300, 260, 3), (200, 120, 40), np.uint8)


@pytest.fixture
def face(aligner, image):
    return aligner(image, boxes=[np.array([60.0, 60.0, 120.0, 140.0])])[0]


def hue_deg(colour: np.ndarray) -> float:
    hsv = cv2.cvtColor(np.float32(colour)[None, None] / 255.0, cv2.COLOR_RGB2HSV)
    return float(hsv[0, 0, 0])


def test_the_wheel_has_the_colours_of_the_flow() -> None:
    size = 101
    drawn = wheel(size)
    middle = size // 2
    assert drawn[middle, middle].min() > 240, "no flow is white"
    for x, y, degrees in ((90, middle, 0.0), (middle, 90, 90.0), (10, middle, 180.0)):
        assert hue_deg(drawn[y, x]) == pytest.approx(degrees, abs=2.0)
    assert (drawn[0, 0] == 0).all()


def test_a_row_shows_crop_flow_mask_and_mesh(aligner, image, face) -> None:
    longest = longest_flow([face])
    photograph, flow, mask, mesh = row_of(image, face, aligner.model.triangles, 256, longest)
    np.testing.assert_array_equal(photograph[128, 128], image[0, 0])
    # The flow turns around the middle: right of it the flow points down.
    assert hue_deg(flow[128, 190]) == pytest.approx(90.0, abs=5.0)
    assert mask[128, 128].tolist() == [255] * 3 and mask[2, 2].tolist() == [0] * 3
    on_mesh = np.abs(mesh.astype(int) - photograph).max(axis=-1) > 20
    points = face.crop.to_crop[:, :2] @ face.landmarks.T + face.crop.to_crop[:, 2:]
    x, y = np.round(2.0 * (points[:, 27:48] + 0.5) - 0.5).astype(int)
    assert on_mesh[y, x].mean() > 0.8, "the mesh is not where the landmarks are"
    vertices = apply_affine(
        dataclasses.replace(face.crop, size=256).to_crop, projected(face, face.vertices_mm)
    )
    y, x = np.nonzero(on_mesh)
    for found, true in ((x, vertices[:, 0]), (y, vertices[:, 1])):
        ends = np.clip([true.min(), true.max()], 0, 255)
        np.testing.assert_allclose([found.min(), found.max()], ends, atol=4.0)


def test_the_mesh_covers_as_much_of_the_crop_at_any_size(aligner, face) -> None:
    shares = []
    for edge in (128, 256):
        plain = np.full((edge, edge, 3), (255, 0, 255), np.uint8)
        drawn = meshed(plain, face, aligner.model.triangles, edge)
        shares.append(float((drawn[..., 1] > 30).mean()))
    assert 0.1 < shares[0] < 0.9 and shares[0] == pytest.approx(shares[1], abs=0.01)


def test_a_figure_has_a_row_for_each_face(aligner, image, face) -> None:
    drawn = panels([image, image], [face, face], aligner.model.triangles, 64)
    assert drawn.shape == (LINE_PX + GAP + 2 * (64 + GAP), GAP + len(HEADS) * (64 + GAP), 3)
    first, second = (drawn[LINE_PX + GAP + k * (64 + GAP) :][:64] for k in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert longest_flow([]) == 1.0
