"""Occluders lie where they belong, change nothing else, and survive any landmarks."""

import dataclasses
import functools
import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces import shapes
from data_pipelines.faces.occluders import OccluderSettings, hair_behind, occlude
from data_pipelines.faces.shapes import Layer, RandomStream, find_head, pixel_planes
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import landmarks3d
from dfc_jax.ops.rotations import angles_to_matrix

SIZE, SCALE, ORIGIN = 64, 0.24, np.array([32.0, 38.0])
KINDS = ("hair", "glasses", "mask", "hat", "hood", "objects", "hand")
NOTHING = OccluderSettings(boxes=0, bald=0.0, **dict.fromkeys(KINDS, 0.0))
PURPLE = np.array([0.9, 0.2, 0.6], np.float32)
HAIRED = dataclasses.replace(NOTHING, hair=1.0, body=1.0, long_hair=0.0)
MANY = jax.jit(jax.vmap(occlude, (0, 0, 0, None)), static_argnums=3)
BEHIND = jax.jit(jax.vmap(hair_behind, (0, None, None, None, None)), static_argnums=3)


@functools.cache
def face_points() -> np.ndarray:
    model = load_face_model()
    return np.asarray(landmarks3d(model, model.mean_mm))


def camera(yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """(2, 3) pixels per millimetre."""
    return SCALE * np.asarray(angles_to_matrix(jnp.array([yaw, 10.0, roll])))[:2]


def seen(points_mm, yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Pixels (..., 2) of model points: the head fills the picture."""
    return np.asarray(points_mm) @ camera(yaw, roll).T + ORIGIN


def keys(count: int = 8, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def picture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(size=(SIZE, SIZE, 3))
    return noise.astype(np.float32)


def covered(settings, count: int = 8, landmarks=None, image=None):
    """Images and masks of `count` random coverings of one picture."""
    landmarks = seen(face_points()) if landmarks is None else landmarks
    image = picture() if image is None else image
    many = [jnp.broadcast_to(jnp.asarray(x), (count, *x.shape)) for x in (image, landmarks)]
    return jax.device_get(MANY(keys(count), *many, settings))


def at(masks: np.ndarray, points_mm, yaw: float = 0.0) -> np.ndarray:
    """Share of the masks that hold at the pixels of model points."""
    x, y = np.round(np.atleast_2d(seen(points_mm, yaw))).astype(int).T
    return masks[:, y, x].mean(axis=0)


# -- shapes ----------------------------------------------------------------------------------------


def planes() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:32, :32].astype(np.float32)
    return x, y


def test_box_and_capsule_have_their_closed_forms() -> None:
    x, y = planes()
    grid = shapes.moved((x, y), jnp.array([12.0, 15.0]))
    ax, ay = np.abs(x - 12.0) - 6.0, np.abs(y - 15.0) - 4.0
    outside = np.hypot(np.maximum(ax, 0), np.maximum(ay, 0))
    expected = outside + np.minimum(np.maximum(ax, ay), 0)
    np.testing.assert_allclose(shapes.box(grid, jnp.array([6.0, 4.0])), expected, atol=1e-5)
    disc = shapes.box(grid, jnp.array([5.0, 5.0]), 5.0)
    np.testing.assert_allclose(disc, np.hypot(x - 12.0, y - 15.0) - 5.0, atol=1e-5)
    a, b = np.array([4.0, 20.0]), np.array([25.0, 9.0])
    along = a + np.linspace(0, 1, 4001)[:, None] * (b - a)
    nearest = np.hypot(x[..., None] - along[:, 0], y[..., None] - along[:, 1]).min(axis=-1)
    found = shapes.capsule((x, y), jnp.asarray(a), jnp.asarray(b), 2.0)
    np.testing.assert_allclose(found, nearest - 2.0, atol=1e-3)
    point = shapes.capsule((x, y), jnp.asarray(a), jnp.asarray(a), 2.0)
    np.testing.assert_allclose(point, np.hypot(x - 4.0, y - 20.0) - 2.0, atol=1e-5)


def test_moved_turns_the_x_axis_to_the_angle() -> None:
    x, y = shapes.moved(planes(), jnp.array([10.0, 10.0]), math.radians(90.0))
    np.testing.assert_allclose([x[14, 10], y[14, 10]], [4.0, 0.0], atol=1e-5)
    np.testing.assert_allclose([x[10, 14], y[10, 14]], [0.0, -4.0], atol=1e-5)


@pytest.mark.parametrize("backwards", [False, True])
def test_polygon_distance_is_opencvs(backwards: bool) -> None:
    corners = np.array([[3, 4], [28, 6], [18, 14], [26, 27], [9, 25]], np.float32)
    corners = corners[::-1] if backwards else corners
    x, y = planes()
    expected = [
        -cv2.pointPolygonTest(corners.reshape(-1, 1, 2), (float(u), float(v)), True)
        for u, v in zip(x.ravel(), y.ravel(), strict=True)
    ]
    found = np.ravel(shapes.polygon((x, y), jnp.asarray(corners)))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_star_that_winds_twice_is_filled() -> None:
    angles = 4.0 * np.pi / 5.0 * np.arange(5)
    star = 16.0 + 12.0 * np.stack([np.sin(angles), -np.cos(angles)], axis=-1)
    found = np.asarray(shapes.polygon(planes(), jnp.asarray(star, jnp.float32)))
    assert found[16, 16] < 0 and found[6, 16] < 0 and found[2, 2] > 0


def test_convex_polygon_of_four_sides_is_the_box_inside() -> None:
    grid = shapes.moved(planes(), jnp.array([15.0, 15.0]))
    found = shapes.convex(grid, jnp.arange(4) * jnp.pi / 2.0, jnp.array([9.0, 6.0, 9.0, 6.0]))
    expected = shapes.box(grid, jnp.array([9.0, 6.0]))
    inside = np.asarray(expected) <= 0
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
    assert (np.asarray(found)[~inside] > 0).all()


@pytest.mark.parametrize("yaw", [0.0, 50.0, -90.0])
def test_head_is_found_from_its_landmarks(yaw: float) -> None:
    head = find_head(jnp.asarray(seen(face_points(), yaw, roll=20.0)))
    # The model's landmarks lie half a millimetre to one side of those that the head is found from.
    np.testing.assert_allclose(head.matrix, camera(yaw, roll=20.0), atol=4e-3)
    np.testing.assert_allclose(head.offset, ORIGIN, atol=0.2)
    assert abs(head.scale - SCALE) < 2e-3 and head.shown == 1.0


@pytest.mark.parametrize("yaw", [0.0, 60.0])
def test_ellipsoid_shows_the_surface_point_of_each_pixel(yaw: float) -> None:
    head = find_head(jnp.asarray(seen(face_points(), yaw)))
    centre, axes = np.array([5.0, 30.0, 10.0]), np.array([60.0, 90.0, 75.0])
    grid = pixel_planes(SIZE)
    distance, point = shapes.ellipsoid(head, grid, jnp.asarray(centre), jnp.asarray(axes))
    distance, point = np.asarray(distance), np.stack(point, axis=-1)
    inside = distance < -2.0
    assert 200 < inside.sum() < SIZE**2 / 2
    np.testing.assert_allclose(np.linalg.norm(point[inside], axis=-1), 1.0, atol=1e-3)
    # The half pixel that guards against edge-on ellipsoids shifts the points a little.
    back = np.moveaxis(seen(centre + axes * point, yaw), -1, 0)
    assert np.abs(back - np.stack(grid))[:, inside].max() < 0.4
    toward = np.cross(*camera(yaw)[::-1])
    assert ((point[inside] / axes) @ toward > 0).all(), "the back of the ellipsoid is shown"
    ball, _ = shapes.ellipsoid(head, grid, jnp.asarray(centre), jnp.full(3, 60.0))
    away = np.hypot(*(np.stack(grid) - seen(centre, yaw)[:, None, None]))
    np.testing.assert_allclose(ball, away - np.hypot(60.0 * SCALE, 0.5), atol=0.3)


def test_layers_are_painted_in_order() -> None:
    image = picture()
    half = np.zeros((SIZE, SIZE), np.float32)
    half[:, :32] = 1.0
    red, grey = np.array([[0, 0, 0], [1.0, 0, 0]]), np.full((2, 3), 0.5)
    below = Layer(*map(jnp.asarray, (half, half, red)))
    above = Layer(*map(jnp.asarray, (0.5 * half[None], half[None], grey[None])))
    painted = np.asarray(shapes.paint(jnp.asarray(image), [below, above]))
    np.testing.assert_array_equal(painted[:, 32:], image[:, 32:])
    np.testing.assert_allclose(
        painted[:, :32], np.broadcast_to([0.75, 0.25, 0.25], (SIZE, 32, 3)), atol=1e-6
    )
    np.testing.assert_array_equal(shapes.opacity([above, below]), half)


def test_a_random_stream_hands_out_every_number_once() -> None:
    uniforms = jax.random.uniform(jax.random.key(0), (3000,))
    rng = RandomStream(uniforms)
    first, second = rng.uniform(shape=(4,)), rng.uniform(2.0, 4.0, (2, 2))
    np.testing.assert_array_equal(first, uniforms[:4])
    np.testing.assert_allclose(np.ravel(second), 2.0 + 2.0 * uniforms[4:8], rtol=1e-6)
    bell = np.asarray(rng.normal((900,)))
    assert abs(bell.mean()) < 0.1 and abs(bell.std() - 1.0) < 0.1 and np.abs(bell).max() <= 3.0
    drawn = [float(rng.bernoulli(p)) for p in (0.0, 1.0)]
    assert drawn == [0.0, 1.0]
    assert sorted({int(rng.choice(3)) for _ in range(40)}) == [0, 1, 2]
    with pytest.raises(IndexError, match="more than 3000"):
        rng.uniform(shape=(3000,))


# -- occluders -------------------------------------------------------------------------------------

EYES = [[-32, 35, 93], [32, 35, 93]]
CHEEKS = [[-42, -35, 85], [42, -35, 85], [-22, 0, 98], [22, 0, 98]]
MOUTH, NOSE = [0, -33, 113], [0, 3, 130]
CROWN, CHIN, TEMPLES = [0, 125, 60], [0, -74, 104], [[-76, 80, 30], [76, 80, 30]]


def worn(kind: str) -> OccluderSettings:
    return dataclasses.replace(HAIRED, **{"hair": 0.0, "sunglasses": 1.0, kind: 1.0})


@pytest.mark.parametrize(
    ("kind", "hidden", "free"),
    [
        ("glasses", EYES, [MOUTH, CHIN, CROWN]),
        ("mask", [MOUTH, NOSE, *CHEEKS], [*EYES, CROWN]),
        ("hat", [CROWN], [MOUTH, NOSE, CHIN]),
        ("hood", [CROWN, *TEMPLES], [NOSE, MOUTH]),
        ("hair", [CROWN], [MOUTH, CHIN]),
    ],
)
def test_what_is_worn_hides_what_it_should(kind: str, hidden, free) -> None:
    settings = worn(kind)
    image, masks = covered(settings)
    assert at(masks, hidden).min() == 1.0
    assert at(masks, free).max() == 0.0
    changed = np.abs(image - picture()).max(axis=-1) > 1e-6
    assert changed[masks].mean() > 0.99, "hidden, but painted as it was"
    around = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((5, 5))) for m in masks]) > 0
    # Thin frames are seen without hiding half of a pixel.
    assert changed[~around].mean() < (0.05 if kind == "glasses" else 0.01)


@pytest.mark.parametrize("kind", ["glasses", "mask", "hat", "hood", "hair"])
def test_nothing_is_worn_without_a_head(kind: str) -> None:
    image, masks = covered(worn(kind), landmarks=np.full((68, 2), 20.0))
    np.testing.assert_array_equal(image, np.broadcast_to(picture(), image.shape))
    assert not masks.any()


def test_clear_lenses_hide_nothing() -> None:
    image, masks = covered(dataclasses.replace(worn("glasses"), sunglasses=0.0))
    assert at(masks, EYES).max() < 0.3
    changed = (image != picture()).any(axis=-1)
    assert at(changed, EYES).min() > 0.7 and masks.any(axis=(1, 2)).mean() > 0.5, "no frame"


@pytest.mark.parametrize("kind", ["objects", "hand"])
def test_what_is_held_comes_in_many_shapes(kind: str) -> None:
    image, masks = covered(dataclasses.replace(NOTHING, **{kind: 1.0}))
    share = masks.mean(axis=(1, 2))
    assert 0.002 < share.min() and share.max() < 0.75 and len(np.unique(share)) > 5
    changed = np.abs(image - picture()).max(axis=-1) > 1e-6
    assert changed[masks].mean() > 0.99 and changed[~masks].mean() < 0.1
    if kind == "hand":
        border = np.concatenate([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], 1)
        assert border.any(axis=1).all(), "a hand without an arm"


def test_boxes_are_upright_rectangles_of_one_colour() -> None:
    settings = dataclasses.replace(NOTHING, boxes=1, box=1.0)
    image, masks = covered(settings)
    for one, mask in zip(image, masks, strict=True):
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert 0 < mask.mean() < 0.2 and (mask == np.outer(rows, columns)).all()
        assert (one[mask] == one[mask][0]).all()
        np.testing.assert_array_equal(one[~mask], picture()[~mask])
    assert len({tuple(one[mask][0]) for one, mask in zip(image, masks, strict=True)}) == len(masks)


@pytest.fixture(scope="module")
def uncovered():
    """Pictures, and the landmarks of faces that look to all sides in them."""
    count = 64
    yaw = np.linspace(-70.0, 70.0, count)
    landmarks = np.stack([seen(face_points(), y, roll=y / 4.0) for y in yaw]).astype(np.float32)
    return np.stack([picture(n) for n in range(count)]), landmarks


@pytest.fixture(scope="module")
def ordinary(uncovered):
    """The pictures and landmarks, and what covering with the default settings makes of them."""
    found = MANY(keys(len(uncovered[0]), seed=3), *uncovered, OccluderSettings())
    return *uncovered, *jax.device_get(found)


@pytest.mark.slow
def test_what_is_not_drawn_leaves_every_bit_alone(ordinary) -> None:
    images, landmarks, image, masks = ordinary
    untouched = (image == images).all(axis=(1, 2, 3))
    assert 0.03 < untouched.mean() < 0.3 and not masks[untouched].any()
    off, hidden = MANY(keys(), images[:8], landmarks[:8], NOTHING)
    np.testing.assert_array_equal(off, images[:8])
    assert not np.asarray(hidden).any()


@pytest.mark.slow
def test_faces_are_covered_in_part_and_not_always(ordinary) -> None:
    images, landmarks, covered, masks = ordinary
    assert covered.shape == images.shape and masks.dtype == bool
    assert covered.min() >= 0.0 and covered.max() <= 1.0
    share = []
    for points, mask in zip(landmarks, masks, strict=True):
        face = np.zeros((SIZE, SIZE), np.uint8)
        cv2.fillConvexPoly(face, cv2.convexHull(np.round(points).astype(np.int32)), 1)
        share.append(mask[face > 0].mean())
    assert 0.06 < np.mean(share) < 0.4
    assert np.mean(np.array(share) < 0.02) > 0.15, "hardly a face is left alone"
    assert np.mean(np.array(share) > 0.25) > 0.1, "hardly a face is covered"


def test_a_key_gives_the_same_alone_and_in_a_batch(uncovered) -> None:
    images, landmarks = uncovered
    some = dataclasses.replace(NOTHING, glasses=1.0, hand=0.5, boxes=2)
    many, masks = MANY(keys(), images[:8], landmarks[:8], some)
    one, mask = jax.jit(occlude, static_argnums=3)(keys()[7], images[7], landmarks[7], some)
    np.testing.assert_allclose(one, many[7], atol=2e-3)
    assert np.mean(mask != masks[7]) < 1e-3
    assert np.abs(many[7] - many[6]).max() > 0.1


HOSTILE = {
    "equal": np.full((68, 2), 20.0),
    "a line": np.stack([np.arange(68.0), np.arange(68.0)], axis=-1),
    "far": 1e7 * np.random.default_rng(0).normal(size=(68, 2)),
    "none": np.full((68, 2), np.nan),
    "infinite": np.full((68, 2), np.inf),
    "half": np.where(np.arange(136).reshape(68, 2) < 68, np.nan, 10.0),
}


@pytest.mark.slow
def test_any_landmarks_leave_the_image_finite(uncovered) -> None:
    images, _ = uncovered
    landmarks = np.stack([*HOSTILE.values()] * 11)[: len(images)].astype(np.float32)
    image, masks = jax.device_get(MANY(keys(len(images)), images, landmarks, OccluderSettings()))
    assert np.isfinite(image).all() and image.min() >= 0.0 and image.max() <= 1.0
    for n in range(len(HOSTILE)):
        assert masks[n :: len(HOSTILE)].any(), "boxes and hands need no head"
    for points in landmarks[: len(HOSTILE)]:
        behind = BEHIND(keys(), images[0], points, HAIRED, PURPLE)
        assert np.isfinite(behind).all() and behind.min() >= 0.0 and behind.max() <= 1.0


def test_a_lens_seen_edge_on_fades() -> None:
    frontal, turned = (
        covered(worn("glasses"), 8, seen(face_points(), yaw).astype(np.float32))[1].mean()
        for yaw in (0.0, 85.0)
    )
    assert 0.2 * frontal > turned > 0.0


@pytest.fixture(scope="module")
def behind():
    """What surrounds the head before white, by kind; the skin is purple."""
    white = np.ones((SIZE, SIZE, 3), np.float32)
    landmarks = seen(face_points()).astype(np.float32)
    kinds = {"haired": {}, "bald": {"bald": 1.0}, "bodiless": {"body": 0.0}}
    return {
        kind: np.asarray(
            BEHIND(keys(), white, landmarks, dataclasses.replace(HAIRED, **changed), PURPLE)
        )
        for kind, changed in kinds.items()
    }


def test_hair_and_shoulders_frame_the_head(behind) -> None:
    x, y = np.round(seen(CROWN)).astype(int)
    hue = behind["bald"][:, y, x] / behind["bald"][:, y, x, :1]
    np.testing.assert_allclose(hue, np.broadcast_to(PURPLE / PURPLE[0], hue.shape), atol=1e-3)
    difference = np.abs(behind["haired"] - behind["bald"])[:, y, x].max(axis=-1)
    assert difference.min() > 0.05
    assert (behind["bodiless"][:, -2:] == 1.0).all()
    assert (behind["haired"][:, -2, SIZE // 2] != 1.0).any(axis=-1).all(), "no body"
    # Few styles reach the corners.
    assert (behind["haired"][:, :4, :4] == 1.0).all(axis=(1, 2, 3)).mean() > 0.6


def test_one_key_gives_one_colour_of_hair(behind) -> None:
    fringe, _ = covered(HAIRED, image=np.ones((SIZE, SIZE, 3), np.float32))
    x, y = np.round(seen(CROWN)).astype(int)
    patch = np.s_[:, y - 2 : y + 3, x - 2 : x + 3]
    back, front = (image[patch].mean(axis=(1, 2)) for image in (behind["haired"], fringe))
    # The light of the scene scales the fringe; beyond that the colours are the same.
    ratio = front / back
    assert (ratio.std(axis=-1) / ratio.mean(axis=-1)).max() < 0.1
    assert len(np.unique(back[:, 0])) == len(back)


def test_pixels_inside_a_polygon_are_those_between_its_sides() -> None:
    grid = pixel_planes(12)
    y, x = np.mgrid[:12, :12]
    # A corner is cut out of a square: 2 to 9, but for what lies beyond 5 in both.
    corners = np.array([[1.5, 1.5], [9.5, 1.5], [9.5, 5.5], [5.5, 5.5], [5.5, 9.5], [1.5, 9.5]])
    for order in (corners, corners[::-1], np.roll(corners, 2, axis=0)):
        inside = np.asarray(shapes.inside_polygon(grid, jnp.asarray(order)))
        square = (x >= 2) & (x <= 9) & (y >= 2) & (y <= 9)
        np.testing.assert_array_equal(inside, square & ~((x > 5) & (y > 5)))
    line = jnp.array([[1.0, 3.0], [9.0, 3.0], [5.0, 3.0]])
    assert not np.asarray(shapes.inside_polygon(grid, line)).any()
    nowhere = jnp.full((4, 2), jnp.nan)
    assert not np.asarray(shapes.inside_polygon(grid, nowhere)).any()
