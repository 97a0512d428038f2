"""Augmentation: whatever happens to a crop's geometry happens to its labels, and nothing else."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces.degradation import DegradationSettings
from data_pipelines.faces.occluders import OccluderSettings
from data_pipelines.photos import augment as module
from data_pipelines.photos.augment import (
    AugmentSettings,
    LabelledPhoto,
    augment,
    crop_points,
    mirror,
    mirror_points,
    random_similarity,
)
from dfc_jax.morphable.file import load_face_model
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.systems.dfc.template import make_template, template_landmarks

SOURCE, SIZE, CROP = 96, 64, 72.0
SETTINGS = AugmentSettings(size=SIZE)
FLAT = dataclasses.replace(SETTINGS, rotation_deg=0.0, wide_rotation=0.0, scale=1.0)
cut = jax.jit(module.cut, static_argnames="size")
CROPS = jax.jit(jax.vmap(augment, (0, None, None, None)), static_argnums=3)
# The template pixels of the pattern lie in [0, UNIT]; 8-bit colours then tell them to 0.12 px.
UNIT = 63.0
NONE = OccluderSettings(boxes=0, hair=0, glasses=0, mask=0, hat=0, hood=0, objects=0, hand=0)
TURN = np.linspace(0.0, 2.0 * np.pi, 68, endpoint=False)
POINTS = np.array([50.0, 45.0]) + 18.0 * np.stack([np.cos(TURN), np.sin(TURN)], axis=-1)


def pattern(kind: str = "curved") -> LabelledPhoto:
    """A disc of matchable pixels whose red and green are their template pixel over `UNIT` and
    whose blue is the mask; the labels outside the disc are NaN."""
    y, x = np.mgrid[:SOURCE, :SOURCE]
    template = np.stack([0.5 * x + 0.1 * y + 4.0, 0.55 * y - 0.1 * x + 8.0], axis=-1)
    if kind == "curved":
        template += 2.0 * np.sin(np.stack([y, x], axis=-1) / 12.0)
    mask = (x - 50.0) ** 2 + (y - 45.0) ** 2 < 30.0**2
    image = np.concatenate([template / UNIT, mask[..., None]], axis=-1)
    return LabelledPhoto(
        image=jnp.asarray(np.round(255.0 * np.clip(image, 0.0, 1.0)), jnp.uint8),
        template_xy=jnp.asarray(np.where(mask[..., None], template, np.nan), jnp.float16),
        matchable=jnp.asarray(mask),
        points=jnp.asarray(POINTS, jnp.float32),
        annotated=jnp.ones(68, bool),
    )


def eroded(mask: np.ndarray, by: int) -> np.ndarray:
    """Pixels whose neighbours, up to `by` away, are all in the mask."""
    padded = np.pad(mask, by)
    reach = range(2 * by + 1)
    return np.all([padded[i:, j:][: len(mask), : len(mask)] for i in reach for j in reach], axis=0)


def affine(linear, offset) -> jnp.ndarray:
    return jnp.asarray(np.column_stack([linear, offset]), jnp.float32)


def destination(crop) -> np.ndarray:
    """The template pixel that each pixel's flow leads to."""
    return np.asarray(crop.flow + pixel_grid(*crop.flow.shape[-3:-1]))


@pytest.fixture(scope="module")
def crops():
    """Keys, the crops that they make of the pattern, and those of a photo without labels."""
    keys = jax.random.split(jax.random.key(1), 8)
    unlabelled = pattern().replace(matchable=jnp.zeros((SOURCE, SOURCE), bool))
    return keys, *(jax.device_get(CROPS(keys, p, CROP, SETTINGS)) for p in (pattern(), unlabelled))


def test_labels_follow_the_image(monkeypatch) -> None:
    monkeypatch.setattr(module, "degrade", lambda key, image, settings: image)
    settings = dataclasses.replace(SETTINGS, occluders=NONE, wide_rotation=0.5)
    keys = jax.random.split(jax.random.key(0), 24)
    many = jax.vmap(lambda key: augment(key, pattern(), CROP, settings))
    crops = jax.device_get(jax.jit(many)(keys))
    colour = UNIT * crops.image[..., :2]
    mirrored = np.stack([SIZE - 1 - colour[..., 0], colour[..., 1]], axis=-1)
    matchable = crops.matchable > 0
    flips = 0
    for n, mask in enumerate(matchable):
        inside = eroded(mask, 2)
        found = destination(crops)[n]
        straight, turned = (np.abs(found - c[n]).max(axis=-1) for c in (colour, mirrored))
        is_flipped = turned[inside].mean() < straight[inside].mean()
        error = turned if is_flipped else straight
        assert inside.mean() > 0.05
        assert error[inside].max() < 0.2 and error[inside].mean() < 0.08
        assert error[mask].max() < 1.0, "the disc's edge leaks into its labels"
        flips += is_flipped
    np.testing.assert_array_equal(matchable, crops.image[..., 2] > 0.5)
    assert 4 < flips < 20
    assert len(np.unique(matchable.sum(axis=(1, 2)))) > 12, "the crops are all alike"


def test_unmatchable_pixels_have_zero_flow_and_nothing_is_nan(crops) -> None:
    _, labelled, unlabelled = crops
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(labelled))
    assert set(np.unique(labelled.matchable)) == {0.0, 1.0}
    assert not labelled.flow[labelled.matchable == 0].any()
    assert not unlabelled.flow.any() and not unlabelled.matchable.any()


def test_whole_pixel_shift_and_quarter_turn_move_pixels_unchanged() -> None:
    photo = pattern()
    template, mask = np.asarray(photo.template_xy, np.float32), np.asarray(photo.matchable)
    window = slice(10, 10 + SIZE), slice(20, 20 + SIZE)
    shifted = cut(photo, affine(np.eye(2), [20.0, 10.0]), SIZE)
    np.testing.assert_allclose(255.0 * shifted.image, photo.image[window], atol=1e-3)
    np.testing.assert_array_equal(np.asarray(shifted.matchable) > 0, mask[window])
    np.testing.assert_allclose(
        destination(shifted)[mask[window]], template[window][mask[window]], atol=1e-3
    )
    # Crop (u, v) shows photo (95 - v, u): the picture turned a quarter to the left.
    turned = cut(photo, affine([[0.0, -1.0], [1.0, 0.0]], [SOURCE - 1.0, 0.0]), SOURCE)
    np.testing.assert_allclose(255.0 * turned.image, np.rot90(photo.image), atol=1e-3)
    inside = np.rot90(mask)
    np.testing.assert_allclose(
        destination(turned)[inside], np.rot90(template)[inside], rtol=1e-5, atol=1e-3
    )


def test_enlarging_interpolates_the_template_position() -> None:
    photo = pattern("straight")
    crop = cut(photo, affine(0.25 * np.eye(2), [40.0, 35.0]), SIZE)
    x, y = np.moveaxis(0.25 * np.asarray(pixel_grid(SIZE, SIZE)) + [40.0, 35.0], -1, 0)
    expected = np.stack([0.5 * x + 0.1 * y + 4.0, 0.55 * y - 0.1 * x + 8.0], axis=-1)
    assert (np.asarray(crop.matchable) == 1).all()
    np.testing.assert_allclose(destination(crop), expected, atol=0.03)


def test_outside_the_photo_is_black_and_unmatchable() -> None:
    photo = pattern().replace(
        image=jnp.full((SOURCE, SOURCE, 3), 200, jnp.uint8),
        template_xy=jnp.ones((SOURCE, SOURCE, 2)),
        matchable=jnp.ones((SOURCE, SOURCE), bool),
    )
    crop = cut(photo, affine(np.eye(2), [SOURCE - 16.0, 0.0]), SIZE)
    assert not np.asarray(crop.image)[:, 16:].any()
    np.testing.assert_array_equal(np.asarray(crop.matchable)[0], np.arange(SIZE) < 16)


def test_mirror_twice_is_the_identity_and_once_mirrors_both_ends() -> None:
    crop = cut(pattern(), affine(np.eye(2), [16.0, 16.0]), SIZE)
    once = mirror(crop)
    jax.tree.map(np.testing.assert_array_equal, mirror(once), crop)
    np.testing.assert_array_equal(once.image, crop.image[:, ::-1])
    mask = np.asarray(once.matchable) > 0
    expected = destination(crop)[:, ::-1] * [-1.0, 1.0] + [SIZE - 1.0, 0.0]
    np.testing.assert_allclose(destination(once)[mask], expected[mask], atol=1e-4)


def test_template_is_its_own_mirror_image() -> None:
    template = make_template(load_face_model(), 64)
    assert np.abs(template.image - template.image[:, ::-1]).mean() < 0.01
    assert (np.asarray(template.valid) != np.asarray(template.valid)[:, ::-1]).mean() < 0.01


def test_similarities_keep_to_their_ranges() -> None:
    keys = jax.random.split(jax.random.key(2), 500)

    def sample(settings: AugmentSettings) -> np.ndarray:
        one = partial(random_similarity, settings=settings, crop_px=CROP, source_px=SOURCE)
        return np.asarray(jax.jit(jax.vmap(one))(keys))

    def angles(matrices: np.ndarray) -> np.ndarray:
        return np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))

    matrices = sample(dataclasses.replace(SETTINGS, wide_rotation=0.0))
    linear = matrices[:, :, :2]
    scale = np.sqrt(np.linalg.det(linear))
    turned = linear / scale[:, None, None]
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), [np.eye(2)] * 500, atol=1e-5)
    usual = CROP / SIZE
    assert scale.min() > usual / 1.2501 and scale.max() < usual * 1.2501
    assert scale.min() < usual / 1.22 and scale.max() > usual * 1.22
    centre = linear @ np.full(2, (SIZE - 1) / 2.0) + matrices[:, :, 2] - (SOURCE - 1) / 2.0
    assert 0.12 * CROP < np.abs(centre).max() < 0.1301 * CROP
    assert np.abs(centre.mean(axis=0)).max() < 0.02 * CROP
    assert 25.0 < np.abs(angles(matrices)).max() < 37.51
    wide = np.abs(angles(sample(dataclasses.replace(SETTINGS, wide_rotation=1.0))))
    assert 55.0 < wide.max() < 60.01 and 25.0 < wide.mean() < 35.0


def test_without_randomness_a_crop_is_the_middle_of_the_photo() -> None:
    settings = dataclasses.replace(FLAT, translation=0.0)
    matrix = random_similarity(jax.random.key(3), settings, CROP, SOURCE)
    start = (SOURCE - CROP) / 2.0 + (CROP / SIZE - 1.0) / 2.0
    expected = affine(CROP / SIZE * np.eye(2), [start, start])
    np.testing.assert_allclose(matrix, expected, atol=1e-4)


@pytest.mark.slow
def test_the_camera_changes_the_image_alone(crops) -> None:
    keys, labelled, _ = crops
    still = DegradationSettings(0.0, 0.0, 0.0, 0.0, 0.0, grey=0.0, degraded=0.0)
    plain = CROPS(keys, pattern(), CROP, dataclasses.replace(SETTINGS, degradation=still))
    assert np.abs(labelled.image - np.asarray(plain.image)).mean() > 0.01
    np.testing.assert_array_equal(labelled.flow, plain.flow)
    np.testing.assert_array_equal(labelled.matchable, plain.matchable)


@pytest.mark.slow
def test_occluders_change_the_image_alone(crops) -> None:
    keys, labelled, _ = crops
    clear = CROPS(keys, pattern(), CROP, dataclasses.replace(SETTINGS, occluders=NONE))
    assert (labelled.image != np.asarray(clear.image)).any()
    np.testing.assert_array_equal(labelled.flow, clear.flow)
    np.testing.assert_array_equal(labelled.matchable, clear.matchable)


def test_points_follow_the_crop_and_its_mirror_image() -> None:
    matrix = affine([[0.9, -0.4], [0.4, 0.9]], [20.0, 10.0])
    there = np.asarray(crop_points(jnp.asarray(POINTS), matrix))
    np.testing.assert_allclose(there @ matrix[:, :2].T + matrix[:, 2], POINTS, atol=1e-4)
    model = load_face_model()
    face = np.asarray(template_landmarks(make_template(model, SIZE)))
    mirrored = np.asarray(mirror_points(jnp.asarray(face), SIZE))
    assert np.abs(mirrored - face)[17:].max() < 1.0, "left and right names are not swapped"
    np.testing.assert_allclose(mirror_points(jnp.asarray(mirrored), SIZE), face, atol=1e-4)


def test_occluders_are_drawn_about_the_landmarks(monkeypatch) -> None:
    """In place of occluders the picture says where landmark 36 is thought to be."""

    def tell(key, image, points, settings):
        return jnp.zeros_like(image).at[..., :2].set(points[36]), None

    monkeypatch.setattr(module, "occlude", tell)
    monkeypatch.setattr(module, "degrade", lambda key, image, settings: image)
    keys = jax.random.split(jax.random.key(7), 16)
    photo = pattern("straight")
    crops = jax.jit(jax.vmap(lambda key: augment(key, photo, CROP, SETTINGS)))(keys)
    found = jax.vmap(bilinear_sample)(destination(crops), crops.image[:, :1, :1, :2])[:, 0, 0]

    def wanted(number: int) -> np.ndarray:
        x, y = POINTS[number]
        return np.array([0.5 * x + 0.1 * y + 4.0, 0.55 * y - 0.1 * x + 8.0])

    straight = np.abs(found - wanted(36)).max(axis=-1)
    # Seen in a mirror, the outer corner of the one eye is that of the other.
    turned = np.abs(found - (wanted(45) * [-1.0, 1.0] + [SIZE - 1.0, 0.0])).max(axis=-1)
    assert np.minimum(straight, turned).max() < 0.1
    assert 2 < (turned < straight).sum() < 14


def test_a_key_gives_the_same_crop_alone_and_in_a_batch(crops) -> None:
    keys, batch, _ = crops
    alone = jax.jit(augment, static_argnums=3)(keys[3], pattern(), CROP, SETTINGS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[3], atol=1e-4), alone, batch)
    assert np.abs(batch.image[3] - batch.image[2]).mean() > 0.01
