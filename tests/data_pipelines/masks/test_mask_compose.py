"""Crops of squares: the mask follows the picture, and what is put in front hides it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.bank import bank_of
from data_pipelines.faces.degradation import DegradationSettings
from data_pipelines.faces.occluders import OccluderSettings
from data_pipelines.masks.compose import MaskSettings, sample_examples
from data_pipelines.masks.squares import FACE, OTHER, UNKNOWN, MaskSquares
from data_pipelines.photos.augment import AugmentSettings
from data_pipelines.photos.squares import STORED_PX

SIZE = 64
NOTHING = OccluderSettings(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
UNCHANGED = DegradationSettings(0.0, 0.0, 0.0, 0.0, 0.0, grey=0.0, degraded=0.0)
PLAIN = MaskSettings(
    AugmentSettings(size=SIZE, occluders=NOTHING, degradation=UNCHANGED), piece=0.0, bare=0.0
)


def square(color: int) -> MaskSquares:
    """A disc of face in a ring of what nobody knows, each of its own colour, right of the middle
    row's left half."""
    y, x = np.mgrid[:STORED_PX, :STORED_PX]
    away = np.hypot(x - 110, y - 95)
    region = np.where(away < 30, FACE, np.where(away < 45, UNKNOWN, OTHER)).astype(np.uint8)
    image = np.stack([np.full_like(region, color), 100 * region, region * 0], axis=-1)
    angle = np.linspace(0.0, 2 * np.pi, 68, endpoint=False)
    points = np.array([110.0, 95.0]) + 30.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return MaskSquares(image[None], region[None], points[None].astype(np.float32))


def sample(settings: MaskSettings, count: int = 24, *groups: MaskSquares):
    bank = bank_of(list(groups) or [square(200)], [1.0] * max(len(groups), 1))
    keys = jax.random.split(jax.random.key(3), count)
    sampled = jax.jit(lambda keys: sample_examples(keys, bank, settings))(keys)
    return jax.tree.map(np.asarray, sampled)


@pytest.fixture(scope="module")
def plain():
    return sample(PLAIN)


def test_the_mask_lies_where_the_picture_shows_the_face(plain) -> None:
    green = plain.image[..., 1] * 255.0
    inside = plain.image[..., 0] > 0.75
    face, unknown = abs(green - 100 * FACE) < 5, abs(green - 100 * UNKNOWN) < 5
    assert (plain.face[face & inside & (plain.counted > 0)] == 1).all()
    assert (plain.counted[unknown & inside] == 0).all()
    assert (plain.counted[(green < 5) & inside] == 1).all()
    assert (plain.face[green < 5] == 0).all()
    for name in ("face", "counted"):
        assert set(np.unique(getattr(plain, name))) == {0.0, 1.0}


def test_crops_differ_in_place_size_and_side(plain) -> None:
    area = plain.face.sum(axis=(1, 2))
    assert area.max() > 1.3 * area.min() > 0
    assert len(np.unique(plain.face.argmax(axis=2).max(axis=1))) > 5
    # The disc lies right of the middle; mirrored, left.
    middle = (plain.face * np.arange(SIZE)).sum(axis=(1, 2)) / area
    assert (middle > SIZE / 2).any() and (middle < SIZE / 2 - 4).any()


def test_beyond_the_square_there_is_no_face() -> None:
    far = dataclasses.replace(PLAIN.augment, translation=1.0)
    some = sample(dataclasses.replace(PLAIN, augment=far))
    beyond = some.image.sum(axis=-1) < 1e-6
    assert beyond.any() and (some.face[beyond] == 0).all() and (some.counted[beyond] == 1).all()


def test_what_is_in_front_hides_the_face_and_is_known(plain) -> None:
    box = dataclasses.replace(NOTHING, boxes=3, box=1.0)
    augment = dataclasses.replace(PLAIN.augment, occluders=box)
    some = sample(dataclasses.replace(PLAIN, augment=augment))
    changed = np.abs(some.image - plain.image).max(axis=-1) > 0.02
    assert 0.02 < changed.mean() < 0.6
    assert (some.face[changed] == 0).all() and (some.counted[changed] == 1).all()
    np.testing.assert_array_equal(some.face[~changed], plain.face[~changed])
    np.testing.assert_array_equal(some.counted[~changed], plain.counted[~changed])


def test_pieces_of_strangers_are_not_this_face(plain) -> None:
    settings = dataclasses.replace(PLAIN, piece=1.0)
    some = sample(settings, 24, square(200), dataclasses.replace(square(30)))
    red = some.image[..., 0] * 255.0
    # Where a colour meets another's square, a piece of it was put there.
    mine = np.median(red[:, ::4, ::4].reshape(24, -1), axis=1)[:, None, None]
    strange = (np.abs(red - mine) > 100) & (red > 20)
    assert strange.any(axis=(1, 2)).sum() > 4
    assert some.face[strange].mean() < 0.1
    alone = sample(settings)
    hidden = (plain.face > 0) & (alone.face == 0)
    assert 0.02 < hidden.sum() / plain.face.sum() < 0.5
    assert (alone.counted[hidden] == 1).all()


def test_a_share_of_crops_stays_bare() -> None:
    box = dataclasses.replace(NOTHING, boxes=3, box=1.0)
    augment = dataclasses.replace(PLAIN.augment, occluders=box)
    covered = dataclasses.replace(PLAIN, augment=augment, piece=1.0)
    bare = sample(dataclasses.replace(covered, bare=1.0))
    # Two programs need not add in the same order.
    np.testing.assert_allclose(bare.image, sample(PLAIN).image, atol=1e-6)
    np.testing.assert_array_equal(bare.face, sample(PLAIN).face)
    half = sample(dataclasses.replace(covered, bare=0.5), 60)
    same = (abs(half.image - sample(PLAIN, 60).image) < 1e-6).all(axis=(1, 2, 3))
    assert 0.3 < same.mean() < 0.7


def test_one_key_gives_one_crop() -> None:
    bank = bank_of([square(200)], (1.0,))
    settings = MaskSettings(AugmentSettings(size=SIZE))
    made = jax.jit(lambda keys: sample_examples(keys, bank, settings))
    first, again, other = (made(jax.random.split(jax.random.key(n))).image for n in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not jnp.array_equal(first, other)
