"""Depth, normals and PNCC lie pixel on pixel over the photograph."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from faces import posed
from PIL import Image

from dfc_jax.export.renders import (
    DEPTH_STEP_MM,
    render_scene,
    write_depth_npy,
    write_depth_png,
)
from dfc_jax.inference.scene import make_scene
from dfc_jax.morphable.linear import PARTS
from dfc_jax.raster import pncc_colors, render
from dfc_jax.types import Camera

SIZE = (301, 200)
MIDDLE = (np.array(SIZE) - 1.0) / 2.0


@pytest.fixture(scope="module")
def mean_face(aligner):
    (found,) = aligner(np.zeros((300, 200, 3), np.uint8))
    return found


def scene_of(aligner, mean_face, *poses, focal_px=500.0, size=SIZE):
    middle = (np.array(size) - 1.0) / 2.0
    faces = [posed(mean_face, aligner.model, *pose, focal_px, middle) for pose in poses]
    return make_scene(faces, size)


@pytest.mark.parametrize("enlarged", [1, 8])
def test_pixels_are_those_of_a_render_of_the_whole_photograph(aligner, mean_face, enlarged):
    """Small, and larger than what is rasterized; partly outside, and not square."""
    model = aligner.model
    size = tuple(enlarged * n for n in SIZE)
    pose = ((30.0, 5.0, 10.0), (-250.0, 20.0, 900.0))
    scene = scene_of(aligner, mean_face, pose, focal_px=500.0 * enlarged, size=size)
    found = render_scene(scene, model)
    assert found.depth_mm.shape == size[::-1]
    not_neck = np.asarray(model.triangle_part) != PARTS.index("neck")
    camera = Camera(jnp.float32(scene.focal_px), jnp.asarray(scene.principal_point, jnp.float32))
    expected = render(
        jnp.asarray(scene.vertices_mm[0]),
        jnp.asarray(np.asarray(model.triangles)[not_neck]),
        camera,
        max(size),
        attributes={"pncc": pncc_colors(model.mean_mm)},
        cull_backfaces=True,
    )
    rows = np.s_[: size[1], : size[0]]
    covered, seen = np.asarray(expected.mask)[rows], found.depth_mm > 0.0
    assert seen.sum() > 1000 * enlarged**2
    assert seen[:, 0].any()
    inner = cv2.erode((covered & seen).astype(np.uint8), np.ones((2 * enlarged + 1,) * 2)) > 0
    assert (covered != seen).mean() < (1e-4 if enlarged == 1 else 3e-3)
    depth = np.asarray(expected.depth_mm)[rows]
    off = np.abs(found.depth_mm - depth)[inner]
    assert np.median(off) < 0.05
    assert np.mean(off > 1.0) < (1e-4 if enlarged == 1 else 0.03)
    codes = np.asarray(expected.attributes["pncc"])[rows]
    assert np.mean(np.abs(found.pncc / 255.0 - codes)[inner] > 0.01) < 0.03
    assert (found.pncc[~seen] == 0).all()
    assert (found.normals[~seen] == 0).all()


def test_normals_are_red_to_the_right_green_up_and_blue_to_the_viewer(aligner, mean_face):
    found = render_scene(
        scene_of(aligner, mean_face, ((0.0,) * 3, (0.0, 0.0, 900.0))), aligner.model
    )
    rows, columns = np.nonzero(found.depth_mm > 0.0)
    unit = found.normals[rows, columns] / 127.5 - 1.0
    assert np.allclose(np.linalg.norm(unit, axis=1), 1.0, atol=0.02)
    right, upper = columns > columns.mean() + 20, rows < rows.mean() - 30
    assert unit[right, 0].mean() > 0.4
    assert unit[columns < columns.mean() - 20, 0].mean() < -0.4
    assert unit[upper, 1].mean() > 0.2
    assert unit[:, 2].mean() > 0.5


def test_the_nearest_face_wins_in_whatever_order_they_come(aligner, mean_face):
    near, far = ((0.0,) * 3, (0.0, 0.0, 800.0)), ((0.0,) * 3, (200.0, 0.0, 1500.0))
    one = render_scene(scene_of(aligner, mean_face, near), aligner.model)
    for poses in ((near, far), (far, near)):
        both = render_scene(scene_of(aligner, mean_face, *poses), aligner.model)
        inside = one.depth_mm > 0.0
        assert np.allclose(both.depth_mm[inside], one.depth_mm[inside], atol=0.5)
        assert (both.depth_mm > 1300.0).sum() > 500
        beyond = (both.depth_mm > 0.0) & ~inside
        assert (both.depth_mm[beyond] > 1300.0).all()


def test_a_face_outside_the_photograph_draws_nothing(aligner, mean_face):
    scene = scene_of(aligner, mean_face, ((0.0,) * 3, (3000.0, 0.0, 900.0)))
    assert not render_scene(scene, aligner.model).depth_mm.any()


def test_depth_is_read_by_others(tmp_path):
    depth = np.array([[0.0, 812.3], [1234.5, 99_999.0]], np.float32)
    write_depth_png(tmp_path / "d.png", depth)
    write_depth_npy(tmp_path / "d.npy", depth)
    assert np.array_equal(np.load(tmp_path / "d.npy"), depth)
    read = cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16
    with Image.open(tmp_path / "d.png") as picture:
        assert np.array_equal(np.asarray(picture), read)
    assert np.allclose(read[0] * DEPTH_STEP_MM, depth[0], atol=DEPTH_STEP_MM / 2)
    assert read[0, 0] == 0
    assert read[1, 1] == 65535
