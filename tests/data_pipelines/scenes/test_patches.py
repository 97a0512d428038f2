"""Faces of photographs become patches with their boxes, and patches are drawn group by group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.bank import bank_of
from data_pipelines.faces.synthetic import SyntheticSettings, load_assets
from data_pipelines.photos.labels import PhotoSet
from data_pipelines.photos.squares import STORED_PX
from data_pipelines.scenes.patches import (
    PATCH_PX,
    THING_PX,
    of_alarms,
    of_photographs,
    of_rendered,
    of_things,
)

PART = STORED_PX // PATCH_PX


class Stored:
    """Two squares as `ShardedPhotos` has them: black beyond column 60 of the second."""

    profile = np.array([False, True])
    pose = np.array([[0.0, 0.0, 20.0], [60.0, 0.0, 0.0]])

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(100, 255, (2, STORED_PX, STORED_PX, 3), np.uint8)
        self.images[1, :, 60:] = rng.integers(0, 4, (STORED_PX, STORED_PX - 60, 3))
        self.images[0, 90:100, 90:100] = 0
        angle = np.linspace(0.0, 2 * np.pi, 68, endpoint=False)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        self.points = np.repeat((95.5 + 48.0 * circle)[None], 2, axis=0).astype(np.float32)

    def __len__(self) -> int:
        return 2

    def as_example(self, index):
        count = len(index)
        return PhotoSet(
            names=np.array(["a", "b"])[index],
            images=self.images[index],
            points=self.points[index],
            annotated=np.ones((count, 68), bool),
            template_xy=np.zeros((count, 1, 1, 2), np.float16),
            matchable=np.zeros((count, 1, 1), bool),
            error=np.zeros(count),
            contour=np.ones(count, bool),
            profile=self.profile[index],
            pose=self.pose[index],
        ).as_example(np.arange(count))


@pytest.fixture(scope="module")
def stored() -> Stored:
    return Stored()


def test_a_square_becomes_a_patch_with_its_box(stored) -> None:
    patches = of_photographs(stored)
    assert patches.face.all()
    blocks = stored.images.reshape(2, PATCH_PX, PART, PATCH_PX, PART, 3).mean(axis=(2, 4))
    assert np.abs(patches.images[..., :3] - blocks).max() <= 0.51
    np.testing.assert_allclose(patches.boxes.middle, (PATCH_PX - 1) / 2, atol=0.02)
    np.testing.assert_allclose(patches.boxes.edge, 96.0 / PART, rtol=2e-3)
    np.testing.assert_allclose(patches.boxes.roll_deg, [20.0, 0.0], atol=1e-3)


def test_what_lies_beyond_a_photograph_is_not_shown(stored) -> None:
    alpha = of_photographs(stored).images[..., 3]
    assert (alpha[1, :, :20] == 255).all() and (alpha[1, :, 20:] == 0).all()
    # Black inside of a photograph is shown.
    assert (alpha[0] == 255).all()


def test_covered_faces_have_the_same_boxes(stored) -> None:
    plain, covered = of_photographs(stored), of_photographs(stored, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, plain.boxes, covered.boxes)
    assert (plain.images != covered.images).any()


def test_rendered_faces_lie_in_their_boxes(model) -> None:
    settings = SyntheticSettings(roll_deg=25.0, wide_roll=0.0, crop_scale=1.0, crop_shift=0.0)
    patches = of_rendered(jax.random.key(0), 3, load_assets(model), settings)
    assert (
        patches.images.shape == (3, PATCH_PX, PATCH_PX, 4) and (patches.images[..., 3] == 255).all()
    )
    assert np.abs(patches.boxes.middle - PATCH_PX / 2).max() < 0.15 * PATCH_PX
    np.testing.assert_allclose(patches.boxes.edge, PATCH_PX / 1.5, rtol=0.12)
    assert np.ptp(patches.boxes.roll_deg) > 5.0
    assert np.abs(patches.boxes.roll_deg).max() < 90.0, "upright is 0"


@pytest.mark.parametrize("backgrounds", [0, 3])
def test_things_are_no_faces(stored, backgrounds) -> None:
    pictures = np.random.default_rng(1).integers(0, 255, (backgrounds, 40, 40, 3), np.uint8)
    things = of_things(0, stored, pictures, 5)
    assert len(things.face) == 5 and not things.face.any()
    assert (things.boxes.edge == THING_PX).all()


def test_false_alarms_become_things_of_their_size_and_place() -> None:
    """A white square of 60 pixels, another one of 8 in the corner, and a picture without any."""
    pictures = np.full((2, 100, 120, 3), 50, np.uint8)
    pictures[0, 20:80, 30:90] = 255
    pictures[0, :8, :8] = 255
    boxes = [np.array([29.5, 19.5, 60.0, 60.0]), np.array([-0.5, -0.5, 8.0, 8.0])]
    patches = of_alarms(lambda picture: boxes if picture.max() == 255 else [], pictures)
    assert len(patches.face) == 2 and not patches.face.any()
    np.testing.assert_allclose(patches.boxes.edge, THING_PX)
    inside = slice(round(PATCH_PX / 2 - THING_PX / 2) + 2, round(PATCH_PX / 2 + THING_PX / 2) - 2)
    for patch in patches.images:
        assert patch[inside, inside, :3].min() > 235
        assert patch[2, PATCH_PX // 2, 0] == 50 or patch[2, PATCH_PX // 2, 3] == 0
    large, small = patches.images[..., 3]
    # The larger one lies inside of the picture, whose border is where the smaller one begins.
    assert (large[14:50] == 255).all()
    assert (small[40:, 40:] == 255).all() and (small[:12] == 0).all() and (small[:, :12] == 0).all()
    assert len(of_alarms(lambda _: [], pictures).face) == 0


def test_nothing_to_draw_from_is_no_group(stored, model) -> None:
    class Empty(Stored):
        def __len__(self) -> int:
            return 0

    assert len(of_photographs(Empty()).face) == 0
    assert len(of_rendered(jax.random.key(0), 0, load_assets(model), SyntheticSettings()).face) == 0
    bank = bank_of([of_photographs(Empty()), of_photographs(stored)], (0.5, 0.5))
    np.testing.assert_array_equal(bank.shares, [0.0, 1.0])
    drawn = jax.vmap(bank.draw)(jnp.linspace(0.0, 0.999, 20), jnp.linspace(0.0, 0.999, 20))
    assert set(np.round(np.asarray(drawn.boxes.roll_deg))) == {0.0, 20.0}


def test_groups_are_drawn_as_often_as_they_shall(stored) -> None:
    faces, things = of_photographs(stored), of_things(0, stored, np.zeros((0, 1, 1, 3)), 50)
    bank = bank_of([things, faces], (1.0, 3.0))
    keys = jax.random.uniform(jax.random.key(0), (4000, 2))
    drawn = jax.vmap(lambda u: bank.draw(u[0], u[1]))(keys)
    assert abs(np.mean(drawn.face) - 0.75) < 0.03
    # Each face as often as the other.
    rolls = np.asarray(drawn.boxes.roll_deg)[np.asarray(drawn.face)]
    assert abs(np.mean(rolls > 10.0) - 0.5) < 0.03
