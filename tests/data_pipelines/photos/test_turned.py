"""Turned photographs: the picture, its labels and its landmarks turn together."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.photos import shards
from data_pipelines.photos.changes import Changes, blink_columns
from data_pipelines.photos.labels import PhotoSet
from data_pipelines.photos.squares import STORED_PX, stored_square
from data_pipelines.photos.turned import ATLAS_PX, turn, turned_photos, write_turned
from dfc_jax.camera import project, to_camera
from dfc_jax.crops import apply_affine
from dfc_jax.evaluation.openings import eye_openings
from dfc_jax.fitting import project_landmarks
from dfc_jax.landmarks68 import MIRROR, N_JAW
from dfc_jax.morphable.linear import shape
from dfc_jax.ops.rotations import angles_to_rotvec, head_rotation, matrix_to_angles
from dfc_jax.raster import interpolate
from dfc_jax.raster.flow import fragments_of
from dfc_jax.texture.atlas import make_atlas
from dfc_jax.types import Camera, FaceParams

pytestmark = pytest.mark.slow

YAW_DEG, PITCH_DEG, ROLL_DEG = 10.0, 4.0, -6.0
# New yaws and pitches.
BOTH = ((YAW_DEG, 30.0), (YAW_DEG, -30.0), (-40.0, 25.0))
CENTRE = jnp.full(2, (STORED_PX - 1) / 2.0)


@pytest.fixture(scope="module")
def params(model) -> FaceParams:
    rng = np.random.default_rng(1)
    return FaceParams(
        focal_px=jnp.float32(700.0),
        rotation=angles_to_rotvec(jnp.array([YAW_DEG, PITCH_DEG, ROLL_DEG])),
        translation_mm=jnp.array([3.0, 22.0, 1000.0]),
        identity=jnp.asarray(0.5 * rng.standard_normal(50), jnp.float32),
        expression=jnp.zeros(model.n_expression),
    )


@pytest.fixture(scope="module")
def painted(model, template, params):
    """A picture whose red and green tell the template pixel of every surface point, left and
    right alike, blue 0 on the head and 1 around it; and its 68 points."""
    paint = symmetric(project(template.camera, template.vertices_mm), template.size) / 128.0

    @jax.jit
    def draw(params):
        vertices = to_camera(params, shape(model, params.identity, params.expression))
        seen = fragments_of(vertices, model.triangles, Camera(params.focal_px, CENTRE), STORED_PX)
        color = interpolate(seen, model.triangles, jnp.pad(paint, ((0, 0), (0, 1))))
        around = jnp.array([0.0, 0.0, 1.0])
        color = jnp.where(seen.pix_to_face[..., None] >= 0, color, around)
        return jnp.clip(color, 0.0, 1.0), project_landmarks(model, params, CENTRE)

    return draw(params)


@pytest.fixture(scope="module")
def turned(model, template, params, painted):
    """To the same yaw, to both sides, and up and down."""
    image, points = painted
    given = model, make_atlas(model, ATLAS_PX), template, image, points, params
    found = {yaw: jax.device_get(turn(*given, yaw, 2.0)) for yaw in (YAW_DEG, 50.0, -50.0)}
    return found | {(y, p): jax.device_get(turn(*given, y, 2.0, p)) for y, p in BOTH}


def symmetric(template_xy, size: int):
    """Distance from the line of symmetry, and height."""
    x, y = template_xy[..., 0], template_xy[..., 1]
    return jnp.stack([2.0 * jnp.abs(x - (size - 1) / 2.0), y], axis=-1)


def agreement(face, size: int) -> np.ndarray:
    """Distance between what the picture shows and what the labels say, template pixels."""
    said = symmetric(face.template_xy, size)
    return np.linalg.norm(128.0 * face.image[..., :2] - said, axis=-1)[face.matchable]


def test_the_same_yaw_gives_the_picture_back(turned, painted, template) -> None:
    _, points = painted
    face = turned[YAW_DEG]
    square = stored_square(np.asarray(points))
    np.testing.assert_allclose(face.points, apply_affine(square.to_crop, points), atol=0.1)
    error = agreement(face, template.size)
    assert np.median(error) < 0.3


@pytest.mark.parametrize("angles", [YAW_DEG, *BOTH])
def test_nose_and_lips_are_those_of_the_photograph(turned, template, angles) -> None:
    """Though the depth changes fast there, and a pixel of a stored square is wide."""
    error = agreement(turned[angles], template.size)
    assert np.mean(error < 3.0) > 0.93


@pytest.mark.parametrize("angles", [50.0, -50.0, *BOTH])
def test_picture_and_labels_turn_together(turned, template, angles) -> None:
    face = turned[angles]
    error = agreement(face, template.size)
    assert len(error) > 2500
    # Exact where the skin was seen on one of the sides; the rest only continues that.
    assert np.median(error) < 0.2 and np.mean(error < 3.0) > 0.6
    assert np.isfinite(face.image).all() and 0.0 <= face.image.min() <= face.image.max() <= 1.0
    # Blue is what was around the head.
    head = face.image[..., 2] < 0.5
    assert np.mean(head[face.matchable]) > 0.98
    assert not head[:8, :24].any() and not head[:8, -24:].any()


def test_points_that_are_hidden_change_nothing_of_a_face_that_fits(
    turned, model, template, params, painted
) -> None:
    image, points = painted
    half = jnp.where((MIRROR < np.arange(68))[:, None], jnp.nan, points)
    atlas = make_atlas(model, ATLAS_PX)
    face = jax.device_get(turn(model, atlas, template, image, half, params, 50.0, 2.0))
    np.testing.assert_allclose(face.image, turned[50.0].image, atol=1e-3)


@pytest.mark.parametrize("yaw", [YAW_DEG, 50.0, -50.0])
def test_only_the_yaw_changes(turned, yaw: float) -> None:
    angles = matrix_to_angles(head_rotation(jnp.asarray(turned[yaw].params.rotation)))
    np.testing.assert_allclose(angles, [yaw, PITCH_DEG, ROLL_DEG], atol=0.05)


@pytest.mark.parametrize("angles", BOTH)
def test_an_open_mouth_shows_what_the_photograph_shows_in_it(
    model, template, params, angles
) -> None:
    expression = jnp.zeros(model.n_expression).at[model.expression_names.index("jawOpen")].set(0.8)
    params = dataclasses.replace(params, expression=expression)
    points = project_landmarks(model, params, CENTRE)
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    seen = fragments_of(vertices, model.triangles, Camera(params.focal_px, CENTRE), STORED_PX)
    # Red between the lips, green skin, and blue around.
    image = np.where(seen.pix_to_face[..., None] >= 0, [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    image[between(points[48:60]) & np.asarray(seen.pix_to_face < 0)] = [1.0, 0.0, 0.0]
    given = jnp.asarray(image, jnp.float32), points, params, angles[0], 2.0, angles[1]
    face = turn(model, make_atlas(model, ATLAS_PX), template, *given)
    is_open = between(face.points[60:]) & ~np.asarray(face.matchable)
    assert is_open.sum() > 30
    blue = np.asarray(face.image)[is_open][:, 2]
    assert blue.mean() < 0.01


def test_eyes_close_in_the_picture_the_labels_and_the_points(
    turned, model, template, params, painted
) -> None:
    image, points = painted
    closed = params.expression.at[jnp.array(blink_columns(model))].set(1.0)
    atlas = make_atlas(model, ATLAS_PX)
    given = model, atlas, template, image, points, params, YAW_DEG, 2.0, None, closed
    face, seen = jax.device_get(turn(*given)), turned[YAW_DEG]
    opening, before = (eye_openings(each.points[None])[0] for each in (face, seen))
    assert (opening < 0.3 * before).all()
    # Elsewhere nothing has changed, and what the picture shows is what the labels say.
    np.testing.assert_allclose(face.points[48:], seen.points[48:], atol=0.1)
    np.testing.assert_allclose(face.params.expression, closed)
    error = agreement(face, template.size)
    assert np.median(error) < 0.3 and np.mean(error < 3.0) > 0.93
    # More skin is seen than with open eyes, whose balls the template's labels leave out.
    window = np.s_[int(seen.points[36:48, 1].min()) : int(seen.points[36:48, 1].max()) + 1]
    assert face.matchable[window].sum() > seen.matchable[window].sum()


def between(lips) -> np.ndarray:
    """(S, S) bool, the pixels within an outline (N, 2) of the lips."""
    corners = np.round(np.asarray(lips)).astype(np.int32)
    return cv2.fillPoly(np.zeros((STORED_PX, STORED_PX), np.uint8), [corners], 1) > 0


@pytest.mark.parametrize("angles", BOTH)
def test_a_given_pitch_turns_the_face_up_or_down_and_keeps_its_roll(turned, model, angles) -> None:
    face = turned[angles]
    found = matrix_to_angles(head_rotation(jnp.asarray(face.params.rotation)))
    np.testing.assert_allclose(found, [*angles, ROLL_DEG], atol=0.05)
    projected = project_landmarks(model, face.params, face.principal_point)
    np.testing.assert_allclose(face.points, projected, atol=1e-2)
    square = stored_square(face.points)
    np.testing.assert_allclose(square.centre, (STORED_PX - 1) / 2.0, atol=1e-2)

    def tip_to_base(face):  # of the nose, over its ridge
        ridge = np.linalg.norm(face.points[30] - face.points[27])
        return (face.points[33, 1] - face.points[30, 1]) / ridge

    # With a lifted chin the tip of the nose rises against the nostrils.
    assert (tip_to_base(face) > tip_to_base(turned[YAW_DEG])) == (angles[1] > 0)


@pytest.mark.parametrize("yaw", [50.0, -50.0])
def test_landmarks_lie_on_the_face_and_know_the_far_side(turned, model, yaw: float) -> None:
    face = turned[yaw]
    square = stored_square(face.points)
    np.testing.assert_allclose(square.centre, (STORED_PX - 1) / 2.0, atol=1e-2)
    np.testing.assert_allclose(square.side_px, STORED_PX, atol=1e-2)
    found = project_landmarks(model, face.params, face.principal_point)
    np.testing.assert_allclose(face.points, found, atol=1e-2)
    # A positive yaw turns the face to the image's left: the subject's right side goes away.
    far, near = ((36, 17), (45, 26)) if yaw > 0 else ((45, 26), (36, 17))
    assert face.visible[near[0]] and face.visible[near[1]] and face.visible[30]
    assert face.visible[N_JAW:].mean() < 0.95
    assert not face.visible[far[0]]


def test_a_set_keeps_its_order(model, template, painted, tmp_path, monkeypatch) -> None:
    image, points = painted
    stored = np.round(255.0 * np.asarray(image)).astype(np.uint8)
    empty = np.zeros((3, STORED_PX, STORED_PX))
    photos = PhotoSet(
        names=np.array(["a", "b", "c"]),
        images=np.stack([stored] * 3),
        points=np.stack([points] * 3),
        annotated=np.stack([np.arange(68) % n < 1 for n in (1, 2, 3)]),
        template_xy=np.stack([empty] * 2, axis=-1).astype(np.float16),
        matchable=empty.astype(bool),
        error=np.arange(3.0),
        contour=np.ones(3, bool),
        profile=np.zeros(3, bool),
        pose=np.zeros((3, 3)),
    )
    angles = np.array([[40.0, 0.0], [-40.0, 20.0], [40.0, 0.0]]).T
    changes = Changes(*angles, calm=np.ones(3), blink=np.zeros((3, 2)))
    found = turned_photos(model, template, photos, changes, batch=2)
    np.testing.assert_array_equal(found.names, photos.names)
    np.testing.assert_array_equal(found.annotated, photos.annotated)
    np.testing.assert_array_equal(found.images[0], found.images[2])
    assert found.images.dtype == np.uint8 and found.template_xy.dtype == np.float16
    # To one side the tip of the nose lies left of the middle between the eyes' corners.
    nose = found.points[:, 30, 0] - found.points[:, [36, 45], 0].mean(axis=1)
    assert nose[0] < 0 < nose[1]
    # A shard at a time, as a set on disk is turned.
    monkeypatch.setattr(shards, "SHARD", 2)
    stored = shards.write_shards(
        tmp_path / "photos", 3, lambda start, stop: (photos.select(np.arange(start, stop)), [])
    )
    copy = write_turned(tmp_path / "turned", model, template, stored, changes)
    turned = copy.load(np.arange(3))
    # Batches of another size round differently.
    np.testing.assert_allclose(turned.points, found.points, atol=0.05)
    difference = np.abs(turned.images.astype(float) - found.images)
    assert difference.mean() < 0.5 and (turned.matchable == found.matchable).mean() > 0.99
    np.testing.assert_array_equal(turned.error, photos.error)
    for each in (turned, found):
        np.testing.assert_allclose(each.pose[:, :2], angles.T)
        np.testing.assert_allclose(each.pose[:, 2], ROLL_DEG, atol=2.0)
