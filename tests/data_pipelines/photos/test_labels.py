"""Labels of photographs: exact for faces we drew ourselves, close for real ones, clear errors."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import shared_data
from PIL import Image
from quick import quick_compilation  # noqa: F401

from data_pipelines.photos.labels import (
    PhotoSet,
    annotation_field,
    area_ratio,
    fit_profiles,
    is_half,
    label,
)
from data_pipelines.photos.sets import label_fitted, open_sets
from data_pipelines.photos.squares import CROP_PX, STORED_PX, Square, read_square, stored_square
from dfc_jax.camera import project, to_camera
from dfc_jax.crops import apply_affine, box_of_points, crop_of_box
from dfc_jax.data.faces import collect
from dfc_jax.errors import DatasetError
from dfc_jax.fitting import LandmarkSettings, project_landmarks
from dfc_jax.landmarks68 import LEFT, MIRROR, N_JAW, RIGHT
from dfc_jax.morphable.linear import shape
from dfc_jax.ops.fields import residual_field
from dfc_jax.ops.rotations import angles_to_rotvec, head_rotation
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster import interpolate
from dfc_jax.raster.flow import fragments_of
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.types import Camera, FaceParams

POSES_DEG = ((0.0, 0.0, 0.0), (20.0, 5.0, -10.0), (-35.0, 0.0, 15.0))
CENTRE = jnp.full(2, (STORED_PX - 1) / 2.0)


def random_face(model, number: int) -> FaceParams:
    rng = np.random.default_rng(number)
    expression = np.zeros(model.n_expression)
    expression[rng.choice(model.n_expression, 4, replace=False)] = rng.uniform(0.0, 0.7, 4)
    return FaceParams(
        focal_px=jnp.float32(700.0),
        rotation=angles_to_rotvec(jnp.array(POSES_DEG[number])),
        # The 68 points are then about half as wide as a stored square, as they should be.
        translation_mm=jnp.array([3.0, 22.0, 1000.0]),
        identity=jnp.asarray(0.8 * rng.standard_normal(50), jnp.float32),
        expression=jnp.asarray(expression, jnp.float32),
    )


@pytest.fixture(scope="module")
def faces(model, template):
    """Three drawn faces: their 68 points, the exact labels, and a picture of each that is
    painted with the template pixel of every surface point."""
    paint = project(template.camera, template.vertices_mm) / template.size

    @jax.jit
    def draw(params):
        vertices = to_camera(params, shape(model, params.identity, params.expression))
        camera = Camera(params.focal_px, CENTRE)
        fragments = fragments_of(vertices, model.triangles, camera, STORED_PX)
        flow, matchable = flow_to_template(fragments, template)
        colour = interpolate(fragments, model.triangles, jnp.pad(paint, ((0, 0), (0, 1))))
        points = project_landmarks(model, params, CENTRE)
        return points, flow + pixel_grid(STORED_PX, STORED_PX), matchable, colour

    drawn = [jax.device_get(draw(random_face(model, n))) for n in range(len(POSES_DEG))]
    return [np.stack(parts) for parts in zip(*drawn, strict=True)]


@pytest.fixture(scope="module")
def images(faces) -> np.ndarray:
    return np.round(255.0 * np.clip(faces[3], 0.0, 1.0)).astype(np.uint8)


@pytest.fixture(scope="module")
def labelled(model, template, faces, images) -> PhotoSet:
    names = [f"{n}.jpg" for n in range(len(images))]
    return label(model, template, images, faces[0], names, LandmarkSettings())


@pytest.mark.slow
def test_labels_of_drawn_faces_are_nearly_exact(labelled, faces) -> None:
    _, exact, matchable, _ = faces
    assert (labelled.error < 0.5).all(), "the fit does not reach the points"
    for n in range(len(labelled)):
        both = labelled.matchable[n] & matchable[n]
        union = labelled.matchable[n] | matchable[n]
        assert both.sum() > 3000 and both.sum() / union.sum() > 0.93
        error = np.linalg.norm(labelled.template_xy[n].astype(np.float32) - exact[n], axis=-1)
        assert error[both].mean() < 0.7


@pytest.mark.slow
def test_labels_of_a_half_that_is_hidden_are_the_models(model, template, faces, images) -> None:
    """A turned face of which the far half and the whole jaw are not annotated."""
    hidden = (MIRROR < np.arange(68)) | (np.arange(68) < N_JAW)
    points = np.where(hidden[:, None], np.nan, faces[0][1:2])
    labels = label(model, template, images[1:2], points, ["half"], LandmarkSettings())
    for values in (labels.template_xy, labels.error):
        assert np.isfinite(values).all()
    assert np.isfinite(labels.points).all(), "hidden points lie where the fit has them"
    np.testing.assert_array_equal(labels.points[0, ~hidden], points[0, ~hidden])
    np.testing.assert_array_equal(labels.annotated[0], ~hidden)
    assert np.linalg.norm(labels.points[0] - faces[0][1], axis=-1).mean() < 2.0
    both = labels.matchable[0] & faces[2][1]
    apart = np.linalg.norm(labels.template_xy[0].astype(float) - faces[1][1], axis=-1)
    assert both.mean() > 0.9 * faces[2][1].mean() and np.median(apart[both]) < 3.0
    assert labels.error[0] < 1.0


@pytest.mark.slow
def test_label_takes_up_what_the_fit_leaves(model, template, faces, labelled) -> None:
    """Annotations that no face of the model has: the labels at the points move along."""
    points, exact, *_ = faces
    moved = points[:1].copy()
    moved[0, 27:36] += [3.0, 0.0]
    warped = label(model, template, labelled.images[:1], moved, ["x"], LandmarkSettings())
    assert warped.error[0] > 2 * labelled.error[0] and warped.error[0] < 5.0
    tip, column = round(moved[0, 30, 1]), round(moved[0, 30, 0])
    there = warped.template_xy[0, tip, column].astype(np.float32)
    before = exact[0, tip, column - 3]
    assert np.linalg.norm(there - before) < 1.0 < np.linalg.norm(there - exact[0, tip, column])


def test_residual_field_interpolates_and_fades() -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(8, 40, 8), np.arange(8, 40, 8)), -1).reshape(-1, 2)
    points = jnp.asarray(grid, jnp.float32)
    residual = jnp.asarray(rng.normal(size=points.shape), jnp.float32)
    field = np.asarray(residual_field(points, residual, pixel_grid(96, 96), 5.0, noise=1e-4))
    np.testing.assert_allclose(field[grid[:, 1], grid[:, 0]], residual, atol=5e-3)
    assert np.abs(field[70:, 70:]).max() < 1e-4
    assert np.abs(np.diff(field, axis=0)).max() < 1.5, "the field is not smooth"
    shrunk = residual_field(points[:1], residual[:1], points[:1], 5.0, noise=0.3)
    np.testing.assert_allclose(shrunk, residual[:1] / 1.3, rtol=1e-4)


def test_lids_and_lips_lie_at_their_points_after_the_field(faces) -> None:
    """Points that no face has: upper lids and lips moved against the lower ones."""
    projected = jnp.asarray(faces[0][0])
    points = projected.at[jnp.array([37, 38, 43, 44])].add(jnp.array([0.0, 1.5]))
    points = points.at[jnp.array([61, 62, 63])].add(jnp.array([0.0, -1.5]))
    grid = pixel_grid(STORED_PX, STORED_PX)
    field = np.asarray(annotation_field(points, projected, grid))
    column, row = np.round(np.asarray(points)).astype(int).T
    left = np.linalg.norm(field[row, column] - (points - projected), axis=-1)
    assert left[36:].max() < 0.6
    assert float(area_ratio(grid - field).min()) > 0.1


def test_points_far_off_do_not_fold_the_labels(faces) -> None:
    projected = jnp.asarray(faces[0][0])
    points = projected.at[5].add(jnp.array([9.0, -2.0])).at[6].add(jnp.array([-9.0, 4.0]))
    points = points.at[57].add(jnp.array([-9.0, 9.0])).at[58].add(jnp.array([9.0, -9.0]))
    grid = pixel_grid(STORED_PX, STORED_PX)
    assert float(area_ratio(grid - annotation_field(points, projected, grid)).min()) > 0.0


def test_stored_square_is_a_wider_crop() -> None:
    points = np.random.default_rng(1).uniform(40.0, 240.0, (68, 2))
    crop, square = crop_of_box(box_of_points(points), 128), stored_square(points)
    np.testing.assert_allclose(square.centre, crop.centre)
    # Its middle CROP_PX pixels are the crop.
    corners = np.array([[-0.5, -0.5], [127.5, 127.5]])
    photo = apply_affine(crop.to_photo, corners)
    expected = (STORED_PX - 1) / 2.0 + CROP_PX * np.array([[-0.5, -0.5], [0.5, 0.5]])
    np.testing.assert_allclose(apply_affine(square.to_crop, photo), expected)


def write_pts(path: Path, points: np.ndarray) -> None:
    """iBUG's files count pixels from 1."""
    lines = "\n".join(f"{x:.4f} {y:.4f}" for x, y in points + 1.0)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n")


def write_example(folder: Path, name: str, image: np.ndarray, points: np.ndarray) -> None:
    Image.fromarray(image).save(folder / f"{name}.jpg", quality=98, subsampling=0)
    write_pts(folder / f"{name}.pts", points)


def squares_of(*folders: Path) -> tuple[list[Square], list[str]]:
    """The squares of folders of the ibug layout, and what keeps the other faces from use."""
    return collect(open_sets(folders, "ibug"), read_square)


@pytest.mark.slow
def test_folder_of_photographs_becomes_squares_that_match_their_labels(
    model, template, labelled, tmp_path: Path
) -> None:
    """Photographs painted with the template pixel: image and label must name the same one, so
    an annotation that is read one pixel off, or a shifted square, shows."""
    wide = np.pad(labelled.images, ((0, 0), (25, 10), (40, 5), (0, 0)))
    for n in (0, 1):
        folder = tmp_path / str(n)
        folder.mkdir()
        write_example(folder, f"face{n}", wide[n], labelled.points[n] + [40.0, 25.0])
    squares, problems = squares_of(tmp_path / "0", tmp_path / "1")
    assert not problems
    photos = label_fitted(model, template, squares)
    assert list(photos.names) == ["face0", "face1"] and photos.contour.all()
    assert photos.images.shape == (2, STORED_PX, STORED_PX, 3) and photos.images.dtype == np.uint8
    assert (photos.error < 0.5).all()
    middle = photos.points.min(axis=1) + np.ptp(photos.points, axis=1) / 2.0
    np.testing.assert_allclose(middle[:, 0], (STORED_PX - 1) / 2.0, atol=0.01)
    np.testing.assert_allclose(np.ptp(photos.points, axis=1).max(axis=1), STORED_PX / 2, rtol=1e-4)
    for n in range(2):
        painted = photos.images[n, ..., :2] / 255.0 * template.size
        offset = photos.template_xy[n].astype(np.float32) - painted
        offset = offset[photos.matchable[n]]
        assert np.abs(np.median(offset, axis=0)).max() < 0.3
        assert np.median(np.linalg.norm(offset, axis=-1)) < 0.8


def test_broken_photographs_and_annotations_are_named(faces, images, tmp_path: Path) -> None:
    def problem() -> str:
        squares, (problem,) = squares_of(tmp_path)
        assert [square.face.name for square in squares] == ["good"]
        return problem

    with pytest.raises(DatasetError, match="no .pts files"):
        squares_of(tmp_path)
    points, *_ = faces
    write_example(tmp_path, "good", images[0], points[0])
    write_example(tmp_path, "odd", images[1], points[1])
    picture = (tmp_path / "odd.jpg").read_bytes()
    (tmp_path / "odd.jpg").write_bytes(picture[: len(picture) // 2])
    assert "odd.jpg: the image is truncated" in problem()
    (tmp_path / "odd.jpg").write_bytes(picture)
    write_pts(tmp_path / "odd.pts", points[1][:67])
    assert "odd.pts: a .pts file needs 68 points" in problem()
    write_pts(tmp_path / "odd.pts", np.ones((68, 2)))
    assert "odd.jpg: its 68 points span no face" in problem()
    (tmp_path / "good.jpg").unlink()
    squares, problems = squares_of(tmp_path)
    assert squares == [] and len(problems) == 2 and "good" in problems[0]


@pytest.mark.slow
def test_jaw_points_that_follow_no_contour_leave_the_labels_alone(
    model, template, faces, labelled
) -> None:
    points = faces[0][2:].copy()
    given = model, template, labelled.images[2:]
    fine = label(*given, points, ["x"], LandmarkSettings(), np.array([False]))
    points[0, :17] += [9.0, -5.0]
    moved = label(*given, points, ["x"], LandmarkSettings(), np.array([False]))
    np.testing.assert_array_equal(moved.template_xy, fine.template_xy)
    assert not moved.contour.any()
    slid = label(*given, points, ["x"], LandmarkSettings(), np.array([True]))
    both = slid.matchable & fine.matchable
    apart = np.linalg.norm((slid.template_xy - fine.template_xy)[both].astype(np.float32), axis=-1)
    assert apart.mean() > 1.0


@pytest.mark.slow
def test_real_photographs_are_labelled(model, template, tmp_path: Path) -> None:
    for annotation in sorted(shared_data("300w/helen/trainset").glob("*.pts"))[:4]:
        shutil.copy(annotation, tmp_path)
        shutil.copy(annotation.with_suffix(".jpg"), tmp_path)
    photos = label_fitted(model, template, squares_of(tmp_path)[0])
    assert len(photos) == 4
    assert photos.error.mean() < 2.5 and photos.error.max() < 5.0
    share = photos.matchable.mean(axis=(1, 2))
    assert (share > 0.1).all() and (share < 0.5).all()
    end = photos.template_xy[photos.matchable]
    assert np.isfinite(photos.template_xy).all() and end.min() > -1.0 and end.max() < 128.0


@pytest.mark.slow
def test_real_profiles_are_labelled_as_turned_as_they_are(model, template) -> None:
    faces = open_sets([shared_data("cfp/train")], "cfp")
    squares, problems = collect(faces[:1400:70], read_square)
    assert not problems and all(np.isnan(square.points).any() for square in squares)
    photos = label_fitted(model, template, squares)
    assert photos.profile.all() and not photos.contour.any()
    assert np.isfinite(photos.points).all() and np.isfinite(photos.template_xy).all()
    for square, points in zip(squares, photos.points, strict=True):
        annotated = np.isfinite(square.points)
        np.testing.assert_array_equal(points[annotated], square.points[annotated])
    assert photos.error.mean() < 3.0 and photos.error.max() < 5.0
    fits = fit_profiles(model, np.stack([square.points for square in squares]))
    away_deg = np.rad2deg(np.arccos(-head_rotation(fits.rotation)[:, 2, 2]))
    assert 66.0 < np.median(away_deg) < 80.0, np.median(away_deg)
    # The far half projects to a few columns beside the outline.
    eyes = np.ptp(photos.points[:, 36:42, 0], axis=1), np.ptp(photos.points[:, 42:48, 0], axis=1)
    assert (np.minimum(*eyes) < 0.75 * np.maximum(*eyes)).mean() > 0.8


@pytest.mark.slow
def test_a_point_of_a_profile_that_is_far_off_counts_as_hidden(model, template) -> None:
    faces = open_sets([shared_data("cfp/train")], "cfp")
    square = read_square(faces[0])
    moved = square.points.copy()
    moved[19] += [0.0, 30.0]
    fine, wrong = (
        label_fitted(model, template, [dataclasses.replace(square, points=points)])
        for points in (square.points, moved)
    )
    apart = np.linalg.norm(fine.points[0] - wrong.points[0], axis=-1)
    assert apart[19] < 5.0, "the fit says where it is"
    both = fine.matchable & wrong.matchable
    difference = (fine.template_xy - wrong.template_xy)[both].astype(np.float32)
    assert np.linalg.norm(difference, axis=-1).mean() < 1.5


def test_a_half_is_all_of_one_side_missing() -> None:
    points = np.zeros((4, 68, 2))
    points[1, LEFT] = np.nan
    points[2, 5] = np.nan
    points[3, RIGHT | (np.arange(68) == 45)] = np.nan
    np.testing.assert_array_equal(is_half(points), [False, True, False, True])


def test_points_that_are_not_annotated_leave_the_field_alone() -> None:
    rng = np.random.default_rng(0)
    projected = jnp.asarray(rng.uniform(40.0, 150.0, (68, 2)), jnp.float32)
    known = np.zeros(68, bool)
    known[[30, 48, 54]] = True
    points = jnp.where(known[:, None], projected + jnp.array([4.0, -2.0]), jnp.nan)
    field = np.asarray(annotation_field(points, projected, projected + jnp.array([4.0, -2.0])))
    expected = residual_field(
        points[known],
        jnp.tile(jnp.array([4.0, -2.0]), (3, 1)),
        points[known],
        0.08 * float(jnp.ptp(jnp.where(known[:, None], points, projected), axis=0).max()),
        noise=0.3,
    )
    np.testing.assert_allclose(field[known], expected, atol=1e-4)


def test_labels_solve_in_one_batch_since_two_at_once_can_block_each_other() -> None:
    points = jax.ShapeDtypeStruct((3, 68, 2), jnp.float32)
    fields = jax.jit(jax.vmap(annotation_field, in_axes=(0, 0, None)))
    program = fields.lower(points, points, pixel_grid(16, 16)).compile().as_text()
    assert program.count('custom_call_target="lapack_sgetrf_ffi"') == 1
