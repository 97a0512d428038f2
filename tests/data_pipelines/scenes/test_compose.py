"""What is pasted into a scene lies where the scene says, and its faces are left whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.bank import Bank, bank_of
from data_pipelines.faces.backgrounds import BackgroundSettings
from data_pipelines.faces.degradation import DegradationSettings
from data_pipelines.scenes.compose import SceneSettings, sample_scene, turned_too
from data_pipelines.scenes.patches import PATCH_PX, Patches
from dfc_jax.crops import Crop
from dfc_jax.systems.detector.scenes import PAD, Boxes

CLEAR = DegradationSettings(
    exposure=0, cast=0, contrast=0, gamma=0, saturation=0, grey=0, degraded=0
)
SETTINGS = SceneSettings(
    background=BackgroundSettings(grey=1.0),
    degradation=CLEAR,
    cut_off=0.0,
    edge_px=(20.0, 60.0),
    light=0.0,
    side_light=0.0,
)
SCENES = 64
EDGE, ROLL = 32.0, 30.0


def marked(face: bool) -> Patches:
    """A black square with a red middle, a green top and a blue side, tilted by `ROLL`."""
    middle = np.array([34.0, 30.0])
    axes = Crop(np.zeros(2), 1.0, ROLL).rotation
    grid = np.stack(np.meshgrid(*[np.arange(PATCH_PX)] * 2), axis=-1)
    image = np.zeros((PATCH_PX, PATCH_PX, 4), np.uint8)
    image[..., 3] = 255
    for channel, place in enumerate(((0.0, 0.0), (0.0, -0.4), (0.4, 0.0))):
        there = middle + EDGE * axes @ place
        image[np.linalg.norm(grid - there, axis=-1) < 4.0, channel] = 255
    box = Boxes(middle[None], np.array([EDGE]), np.array([ROLL]))
    return Patches(image[None], jax.tree.map(np.float32, box), np.array([face]))


@pytest.fixture(scope="module")
def bank() -> Bank:
    return bank_of([marked(True), marked(False)], (0.8, 0.2))


@pytest.fixture(scope="module")
def sample():
    """``sample(bank, settings)``: many scenes, as NumPy arrays."""

    def sample(bank, settings):
        keys = jax.random.split(jax.random.key(0), SCENES)
        none = jnp.zeros((0, 8, 8, 3), jnp.uint8)
        one = jax.jit(jax.vmap(lambda key: sample_scene(key, bank, none, settings)))
        return jax.tree.map(np.asarray, one(keys))

    return sample


@pytest.fixture(scope="module")
def scenes(bank, sample):
    return sample(bank, SETTINGS)


def faces(scenes):
    """Picture, middle, edge, roll and whether it is present, of each face in a scene."""
    boxes = scenes.boxes
    for n, k in zip(*np.nonzero(boxes.middle[..., 0] > -1e3), strict=True):
        shown = boxes.middle[n, k], boxes.edge[n, k], boxes.roll_deg[n, k]
        yield scenes.image[n], *shown, scenes.present[n, k]


def color_at(image, xy):
    """The pixel there, None outside."""
    x, y = np.round(xy).astype(int)
    return image[y, x].astype(int) if 0 <= min(x, y) and max(x, y) < len(image) else None


def test_boxes_lie_on_what_is_pasted_however_it_is_turned(bank, sample) -> None:
    seen, sides, rolls = 0, [], []
    alone = sample(bank, dataclasses.replace(SETTINGS, patches=1))
    for image, middle, edge, roll, _ in faces(alone):
        axes = Crop(np.zeros(2), 1.0, roll).rotation
        red, green = (color_at(image, middle + edge * axes @ p) for p in ((0, 0), (0, -0.4)))
        if red is None or green is None:
            continue
        assert red[0] > 150 and red[1] < 100, (middle, edge, roll)
        assert green[1] > 150 and green[0] < 100, (middle, edge, roll)
        blue = [color_at(image, middle + edge * axes @ (x, 0.0)) for x in (0.4, -0.4)]
        if all(each is not None for each in blue):
            sides.append(blue[0][2] > blue[1][2])
        rolls.append(roll)
        seen += 1
    assert seen > SCENES / 3
    assert 0.25 < np.mean(sides) < 0.75, "half of them are mirrored"
    assert np.abs(rolls).max() > 120 and np.median(np.abs(rolls)) < 60


def test_no_face_is_covered_by_what_is_pasted_later(scenes) -> None:
    reds = [color_at(image, middle) for image, middle, *_ in faces(scenes)]
    reds = [red for red in reds if red is not None]
    assert len(reds) > 2 * SCENES
    assert np.mean([red[0] > 150 for red in reds]) == 1.0


def test_sizes_are_those_asked_for(scenes) -> None:
    edges = np.array([edge for _, _, edge, _, _ in faces(scenes)])
    assert 20.0 <= edges.min() < 26.0 and 45.0 < edges.max() <= 60.0


def test_faces_of_a_crowd_are_small_and_alike(bank, sample) -> None:
    crowds = sample(bank, dataclasses.replace(SETTINGS, crowds=1.0)).boxes.edge
    others = sample(bank, dataclasses.replace(SETTINGS, crowds=0.0)).boxes.edge
    assert (crowds.max(axis=1) / crowds.min(axis=1)).max() < 1.1 < np.ptp(others, axis=1).min()
    assert crowds.max() < 42.0 < others.max()


def test_things_that_are_no_faces_have_no_box(bank, sample) -> None:
    things = dataclasses.replace(bank, shares=np.array([0.0, 1.0], np.float32))
    scenes = sample(things, SETTINGS)
    assert not list(faces(scenes)) and not scenes.present.any()
    assert (scenes.image[..., 0] > 200).any(), "but they are pasted"


def test_a_face_that_is_cut_off_is_doubtful_or_gone(bank, sample) -> None:
    settings = dataclasses.replace(SETTINGS, cut_off=1.0, tight=0.0, patches=1)
    scenes = sample(bank, settings)
    shares = []
    for image, middle, edge, _, present in faces(scenes):
        rows, columns = np.nonzero((image != PAD).any(axis=-1))
        low = np.maximum(middle - edge / 2, [columns.min(), rows.min()])
        high = np.minimum(middle + edge / 2, [columns.max(), rows.max()])
        share = np.prod(np.clip(high - low, 0, None)) / edge**2
        shares.append(share)
        assert share > 0.1 and (share > 0.45) >= present and present >= (share > 0.65)
    assert len(shares) > SCENES / 3
    assert np.mean([(image == PAD).all(axis=-1).any() for image in scenes.image]) > 0.5


def test_pictures_may_end_at_a_face(bank, sample) -> None:
    settings = dataclasses.replace(SETTINGS, cut_off=1.0, tight=1.0, patches=1)
    scenes = sample(bank, settings)
    for image, middle, edge, _, present in faces(scenes):
        rows, columns = np.nonzero((image != PAD).any(axis=-1))
        if present and (edge < np.minimum(middle, len(image) - middle)).all():
            margins = np.array([middle - [columns.min(), rows.min()]]) / edge - 0.5
            assert (margins > -0.2).all() and (margins < 0.55).all()


def test_turned_scenes_show_their_faces_where_their_boxes_say(bank, sample) -> None:
    alone = sample(bank, dataclasses.replace(SETTINGS, patches=1))
    seen = set()
    for seed in range(9):
        both = jax.tree.map(np.asarray, jax.jit(turned_too)(jax.random.key(seed), alone))
        first, turned = (jax.tree.map(lambda a, n=n: np.split(a, 2)[n], both) for n in (0, 1))
        jax.tree.map(np.testing.assert_array_equal, first, alone)
        np.testing.assert_array_equal(turned.present, alone.present)
        quarters = {round(d) % 360 for d in (turned.boxes.roll_deg - alone.boxes.roll_deg).ravel()}
        seen |= quarters
        count = 0
        for image, middle, edge, roll, _ in faces(turned):
            top = middle + edge * Crop(np.zeros(2), 1.0, roll).rotation @ (0, -0.4)
            red, green = color_at(image, middle), color_at(image, top)
            if red is not None and green is not None:
                assert red[0] > 150 and green[1] > 150
                count += 1
        assert len(quarters) == 1 and count > SCENES / 3
    assert seen == {90, 180, 270}


def test_the_same_key_makes_the_same_scene(bank, scenes) -> None:
    none = jnp.zeros((0, 8, 8, 3), jnp.uint8)
    key = jax.random.split(jax.random.key(0), SCENES)[3]
    alone = jax.jit(lambda key: sample_scene(key, bank, none, SETTINGS))(key)
    assert np.abs(alone.image.astype(int) - scenes.image[3]).max() <= 1
    np.testing.assert_allclose(alone.boxes.middle, scenes.boxes.middle[3], atol=1e-3)


def test_each_patch_has_its_own_light(bank, sample) -> None:
    settings = dataclasses.replace(SETTINGS, light=0.5)
    reds = [color_at(image, middle) for image, middle, *_ in faces(sample(bank, settings))]
    found = np.array([red[0] for red in reds if red is not None])
    assert found.min() < 255 * 0.5 and 0.3 < np.mean(found > 250) < 0.7
    assert 0.8 < np.median(found) / 255 <= 1.0


def test_light_may_come_from_a_side(sample) -> None:
    white = marked(True)
    white = dataclasses.replace(white, images=np.full_like(white.images, 100).astype(np.uint8))
    white.images[..., 3] = 255
    settings = dataclasses.replace(SETTINGS, side_light=0.4, patches=1, whole=1.0)
    turns = []
    for image, middle, edge, *_ in faces(sample(bank_of([white], (1.0,)), settings)):
        ends = [color_at(image, middle + edge * np.array([x, 0.0])) for x in (-0.4, 0.4)]
        if all(end is not None for end in ends):
            turns.append(np.log(ends[1][0] / ends[0][0]) / 0.8)
    assert len(turns) > SCENES / 3
    assert abs(np.mean(turns)) < 0.2 and 0.25 < np.std(turns) < 0.55
