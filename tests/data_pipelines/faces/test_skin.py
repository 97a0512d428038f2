"""Procedural skin: its maps lie where they should, and its people are as varied as people are."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401
from scipy.spatial import cKDTree

from data_pipelines.faces.skin import SkinSettings, sample_skin, skin_maps, texture_albedo
from dfc_jax.landmarks68 import MIRROR
from dfc_jax.morphable.linear import PARTS, landmarks3d

COUNT = 200
BATCH = 10
OFF = SkinSettings(
    variation=0.0,
    blotches=0.0,
    redness=0.0,
    freckles=0.0,
    moles=0.0,
    wrinkles=0.0,
    beard=0.0,
    makeup=0.0,
    hairline=0.0,
    brows=0.0,
)


@pytest.fixture(scope="module")
def maps(model):
    return skin_maps(model)


@pytest.fixture(scope="module")
def marks(model):
    """The landmarks, left and right averaged: annotators put all of them a little to one side."""
    found = np.asarray(landmarks3d(model, model.mean_mm))
    return (found + found[MIRROR] * [-1.0, 1.0, 1.0]) / 2.0


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def _draw(key, maps, values):
    return sample_skin(key, maps, SkinSettings(**values))


def draw(maps, settings: SkinSettings, count: int):
    """`count` people, in batches of one size and with traced settings: one program for all."""
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    keys = jax.random.split(jax.random.key(0), COUNT)[:count].reshape(-1, BATCH)
    batches = [_draw(batch, maps, values) for batch in keys]
    return jax.tree.map(lambda *a: np.concatenate(a), *batches)


@pytest.fixture(scope="module")
def people(maps):
    return draw(maps, SkinSettings(), COUNT)


@pytest.fixture(scope="module")
def plain(maps):
    return draw(maps, OFF, 20)


@pytest.fixture(scope="module")
def at(model):
    """Mean of a map over the vertices within 4 mm of a point."""
    tree = cKDTree(np.asarray(model.mean_mm))

    def value(image, point) -> np.ndarray:
        near = tree.query_ball_point(point, 4.0) or [tree.query(point)[1]]
        return np.asarray(image)[..., near].mean(axis=-1)

    return value


def test_maps_are_finite_memberships_and_mirror_symmetric(model, maps) -> None:
    mean = np.asarray(model.mean_mm)
    distance, partner = cKDTree(mean).query(mean * [-1.0, 1.0, 1.0])
    exact = distance < 1e-3
    assert exact.mean() > 0.95
    for field in dataclasses.fields(maps):
        image = np.asarray(getattr(maps, field.name))
        assert np.isfinite(image).all() and image.dtype == np.float32, field.name
        if field.name == "position":
            continue
        assert image.shape == (len(mean),), field.name
        if field.name not in ("iris_mm", "brow_mm", "brow_along", "hairline_mm"):
            assert image.min() >= 0.0 and 0.5 < image.max() <= 1.0, field.name
        if field.name != "brow_along":  # ambiguous far from the brow
            error = np.abs(image - image[partner])[exact]
            assert np.quantile(error, 0.99) < 0.05 * max(1.0, np.median(np.abs(image))), field.name


def test_maps_lie_on_their_landmarks(maps, marks, at) -> None:
    lip = (marks[51] + marks[62]) / 2.0
    forehead = marks[27] + [0.0, 40.0, 0.0]
    cheek = (marks[31] + marks[3]) / 2.0
    assert at(maps.lips, lip) > 0.8 > 0.05 > max(at(maps.lips, marks[8]), at(maps.lips, marks[33]))
    assert np.asarray(maps.lips)[np.asarray(maps.position)[:, 2] < 0.8].max() < 0.01
    for upper, brow in ((37, 19), (44, 24)):
        assert at(maps.lash_upper, marks[upper]) > 0.4 > 0.1 > at(maps.lash_upper, marks[brow])
        assert at(maps.brow_mm, marks[brow]) < 3.0 < 10.0 < at(maps.brow_mm, marks[upper])
        assert at(maps.lid, marks[upper] + [0.0, 4.0, 0.0]) > 0.4 > at(maps.lid, marks[brow])
    for lower in (41, 46):
        assert at(maps.under_eye, marks[lower] - [0.0, 5.0, 0.0]) > 0.5
    assert at(maps.nose, marks[30]) > 0.8 and at(maps.nose, cheek) < 0.1
    assert at(maps.beard, marks[8]) > 0.8 and at(maps.chin, marks[8]) > 0.8
    assert at(maps.beard, marks[5]) > 0.6 and at(maps.chin, marks[4]) < 0.1
    assert at(maps.moustache, (marks[33] + marks[51]) / 2.0) > 0.5 > at(maps.moustache, marks[57])
    for image in (maps.beard, maps.moustache):
        assert max(at(image, forehead), at(image, marks[30]), at(image, lip)) < 0.2
    assert at(maps.forehead, forehead) > 0.6 > at(maps.forehead, marks[8])
    assert at(maps.hairline_mm, forehead) < 0.0 < maps.hairline_mm.max()


def test_the_iris_is_a_disc_in_the_middle_of_each_eye(model, maps, marks) -> None:
    iris = np.asarray(maps.iris_mm) < 6.0
    assert np.asarray(maps.eyes)[iris].min() > 0.0
    for eye in (range(36, 42), range(42, 48)):
        centre = marks[list(eye)].mean(axis=0)
        near = iris & (np.abs(np.asarray(model.mean_mm) - centre).max(axis=-1) < 20.0)
        assert near.sum() > 8
        np.testing.assert_allclose(model.mean_mm[near].mean(axis=0)[:2], centre[:2], atol=4.0)


def test_people_are_in_range_and_a_key_gives_the_same_one_alone(maps, people) -> None:
    for image in (people.albedo, people.gloss, people.hair):
        assert image.dtype == jnp.float32 and np.isfinite(image).all()
        assert image.min() >= 0.0 and image.max() <= 1.0
    key = jax.random.split(jax.random.key(0), COUNT)[5]
    alone = jax.jit(sample_skin, static_argnums=2)(key, maps, SkinSettings())
    # Grains at a threshold may fall to either side.
    differs = np.abs(alone.albedo - people.albedo[5]).max(axis=-1) > 1e-4
    assert differs.mean() < 1e-3
    assert np.abs(people.albedo[5] - people.albedo[6]).mean() > 0.02


def test_tones_reach_from_very_light_to_very_dark(people, marks, at) -> None:
    cheek = at(np.moveaxis(np.asarray(people.albedo), -1, 1), (marks[31] + marks[2]) / 2.0)
    luma = cheek @ np.array([0.299, 0.587, 0.114])
    assert np.quantile(luma, 0.05) < 0.28 and np.quantile(luma, 0.95) > 0.68
    assert luma.std() > 0.15
    # Skin of any tone is red more than green, green more than blue.
    assert (cheek[:, 0] > cheek[:, 1]).all() and (cheek[:, 1] > cheek[:, 2]).mean() > 0.9


def test_beards_and_lipstick_have_their_shares_and_seldom_meet(people, plain, marks, at) -> None:
    """Beside the same person's cheek: a dark chin is a beard, a very red lip is lipstick."""

    def color(skin, point):
        return at(np.moveaxis(np.asarray(skin.albedo), -1, 1), point)

    cheek = color(people, (marks[31] + marks[2]) / 2.0)
    chin = np.abs(color(people, marks[8]) / cheek - 1.0).max(axis=-1)
    assert 0.15 < (chin > 0.3).mean() < 0.45
    lip = color(people, (marks[57] + marks[66]) / 2.0)
    redder = (lip[:, 0] / lip[:, 1]) / (cheek[:, 0] / cheek[:, 1])
    assert 0.08 < (redder > 1.6).mean() < 0.35
    assert ((redder > 1.6) & (chin > 0.3)).mean() < 0.05
    shaved = np.abs(color(plain, marks[8]) / color(plain, (marks[31] + marks[2]) / 2.0) - 1.0)
    assert shaved.max() < 1e-3


def test_without_features_skin_is_plain_and_symmetric(model, maps, plain) -> None:
    away = np.asarray(maps.skin) > 0.999
    away &= (np.asarray(maps.lash_upper) < 1e-4) & (np.asarray(maps.lash_lower) < 1e-4)
    assert away.mean() > 0.7
    skin = np.asarray(plain.albedo)[:, away]
    np.testing.assert_allclose(skin, np.broadcast_to(skin[:, :1], skin.shape), atol=2e-3)
    mean = np.asarray(model.mean_mm)
    distance, partner = cKDTree(mean).query(mean * [-1.0, 1.0, 1.0])
    error = np.abs(plain.albedo - plain.albedo[:, partner])[:, distance < 1e-3]
    assert np.quantile(error, 0.99) < 0.05


@pytest.mark.parametrize(
    ("setting", "region"),
    [
        ({"freckles": 1.0}, "cheeks"),
        ({"wrinkles": 1.0}, "forehead"),
        ({"redness": 1.0}, "nose"),
        ({"beard": 1.0}, "beard"),
        ({"makeup": 1.0}, "lips"),
    ],
)
def test_a_feature_changes_its_region_and_little_else(maps, plain, setting, region) -> None:
    changed = draw(maps, dataclasses.replace(OFF, **setting), 20)
    difference = np.abs(np.asarray(changed.albedo - plain.albedo)).mean(axis=(0, 2))
    inside = np.asarray(getattr(maps, region)) > 0.5
    far = (np.asarray(maps.eyes) > 0.5) | (np.asarray(maps.hairline_mm) > 5.0)
    assert difference[inside].mean() > 0.002
    assert difference[far].mean() < 0.3 * difference[inside].mean()


def test_eyes_lips_and_nose_shine_more_than_the_neck(maps, people) -> None:
    gloss = np.asarray(people.gloss).mean(axis=0)
    neck = gloss[np.asarray(maps.neck) > 0.5].mean()
    for region in (maps.eyes, maps.lips, maps.nose, maps.forehead):
        assert gloss[np.asarray(region) > 0.5].mean() > 1.3 * neck


def test_models_without_parts_still_get_skin(model) -> None:
    bare = model.replace(triangle_part=jnp.full_like(model.triangle_part, PARTS.index("skin")))
    maps = skin_maps(bare)
    assert maps.eyes.max() == 0.0 and maps.lips.max() > 0.9
    albedo = draw(maps, SkinSettings(), BATCH).albedo
    assert np.isfinite(albedo).all() and albedo.max() <= 1.0


def test_a_texture_shows_where_it_is_known() -> None:
    uv = jnp.array([[0.25, 0.75], [0.75, 0.75], [0.25, 0.25], [0.5, 0.75]])
    texture = jnp.zeros((4, 4, 3)).at[:2, :2].set(0.8).at[:2, 2:].set(0.3).at[2:].set(0.9)
    known = jnp.ones((4, 4)).at[2:].set(0.0).at[:2, 2:].set(0.5)
    albedo = texture_albedo(texture, known, uv, jnp.full((4, 3), 0.1))
    expected = [0.8, 0.5 * 0.3 + 0.5 * 0.1, 0.1, 0.4 + 0.25 * 0.3 + 0.25 * 0.1]
    np.testing.assert_allclose(albedo, np.repeat(np.array(expected)[:, None], 3, 1), atol=1e-6)
