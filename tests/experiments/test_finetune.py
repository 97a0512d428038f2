"""What refinement makes of photographs: labels, turned copies, batches, held-out ones."""

import dataclasses
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import drawn_photos
from tiny import tiny_config

from data_pipelines.photos.balance import yaw_weights
from dfc_jax.errors import ConfigError
from dfc_jax.morphable.file import load_face_model
from dfc_jax.systems.dfc.template import make_template
from experiments import finetune, photographs
from experiments.configs.dfc import finetune_lite

SHARES = "yaw_balance", "turned_share", "turned_expressions"
TEMPLATE = types.SimpleNamespace(size=128)


def test_basel_goes_with_no_rendered_and_no_turned_faces(patched, tmp_path: Path) -> None:
    config = tiny_config("finetune_lite", "tiny")
    with pytest.raises(ConfigError, match="with --basel set config.synthetic_batch"):
        finetune.train(config, tmp_path / "run", ["x"], layout="300w-lp", basel="somewhere")


def test_features_count_more_where_the_landmarks_are() -> None:
    landmarks = np.full((68, 2), 20.0)
    landmarks[:17] = 70.0  # the jaw counts like everything else
    landmarks[40] = [60.0, 30.0]
    counts = np.asarray(finetune.feature_importance(jnp.asarray(landmarks), 100, 3.0))
    assert counts[20, 20] == counts[30, 60] == 3.0
    np.testing.assert_allclose(counts[30, 64], 1.0 + 2.0 * np.exp(-0.5), rtol=1e-5)
    np.testing.assert_allclose(counts[70, 70], 1.0, atol=1e-5)
    assert (finetune.feature_importance(jnp.asarray(landmarks), 100, 1.0) == 1.0).all()


def test_errors_at_eyes_and_mouth_count_more_than_those_at_brows_and_nose() -> None:
    landmarks = np.full((68, 2), 20.0)
    landmarks[36:48], landmarks[48:], landmarks[30] = [60.0, 30.0], [50.0, 80.0], [80.0, 55.0]
    given = jnp.asarray(landmarks), 100, 3.0
    counts = np.asarray(finetune.feature_importance(*given, 6.0))
    assert counts[30, 60] == counts[80, 50] == 6.0
    assert counts[20, 20] == counts[55, 80] == 3.0
    np.testing.assert_array_equal(
        finetune.feature_importance(*given, 1.0), finetune.feature_importance(*given)
    )


def test_every_photograph_is_seen_once_an_epoch_and_orders_repeat() -> None:
    photos = drawn_photos()
    images = photos.images.reshape(7, -1)

    def seen(start: int, count: int) -> list[int]:
        steps = finetune.batches(photos, 2, 0)(start)
        pictures = [next(steps)["photo"].image.reshape(2, -1) for _ in range(count)]
        return [int(np.all(images == p, axis=1).argmax()) for pair in pictures for p in pair]

    epochs = seen(0, 6)
    assert len(set(epochs[:6])) == len(set(epochs[6:])) == 6 and epochs[:6] != epochs[6:]
    assert seen(4, 2) == epochs[8:]


def test_photographs_on_the_device_train_as_those_read_from_disk() -> None:
    photos = drawn_photos()
    config = finetune_lite.get_config()
    config.synthetic_batch = 0
    settings = finetune.settings_of(config)
    template = make_template(load_face_model(), settings.augmentation.size)
    importance = jnp.ones((template.size, template.size))
    kept = jax.tree.map(jnp.asarray, photos.as_example(np.arange(len(photos))))
    made = []
    for resident in (None, kept):
        batch = next(finetune.batches(photos, 4, 0, resident=resident is not None)(0))
        examples = finetune.photo_examples(settings, template, importance, None, resident)
        made.append(jax.jit(examples)(batch, jax.random.key(3)))
    jax.tree.map(np.testing.assert_array_equal, *made)
    assert batch["photo"].shape == (4,)


def test_balanced_batches_draw_rare_yaws_more_often_and_repeat() -> None:
    photos = drawn_photos()
    images = photos.images.reshape(7, -1)
    pose = np.zeros((7, 3))
    pose[6, 0] = 80.0
    photos = dataclasses.replace(photos, pose=pose)

    def seen(start: int, count: int) -> list[int]:
        weights = yaw_weights(pose[:, 0], 1.0)
        steps = finetune.batches(photos, 7, 0, weights)(start)
        pictures = [next(steps)["photo"].image.reshape(7, -1) for _ in range(count)]
        return [[int(np.all(images == p, axis=1).argmax()) for p in batch] for batch in pictures]

    epochs = seen(0, 20)
    times = np.bincount(np.ravel(epochs), minlength=7)
    assert times.sum() == 140 and 60 <= times[6] <= 80
    assert (times[:6] >= 7).all(), "which squares an epoch leaves out changes"
    assert seen(13, 2) == epochs[13:15]


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        *((name, value, "between 0 and 1") for name in SHARES for value in (-0.1, 1.5)),
        ("turned_deg", -300.0, "between 0 and 120"),
        ("turned_pitch_deg", 200.0, "between 0 and 90"),
        ("turned", -2, "at least 0"),
        ("synthetic_batch", -1, "at least 0"),
        ("feature_gain", -1.0, "at least 0"),
        ("eyes_mouth_gain", -3.0, "at least 0"),
        ("matchability_weight", -5.0, "at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(patched, name: str, value: float, limit: str) -> None:
    config = tiny_config("finetune_lite", "tiny")
    config[name] = value
    with pytest.raises(ConfigError, match=f"config.{name} is {value:g}; it must be {limit}"):
        finetune.settings_of(config)


def test_held_out_photographs_are_scored_at_the_points_that_are_annotated() -> None:
    photos = drawn_photos()
    seen = np.tile(np.arange(68) % 3 > 0, (7, 1))
    photos = dataclasses.replace(photos, annotated=seen)
    template = make_template(load_face_model(), 128)
    some = finetune.held_out_examples(template, photos.as_example(np.arange(7)))
    np.testing.assert_array_equal(np.isfinite(some.points).all(axis=-1), seen)
    middle = (photos.points - 95.5) * 128 / finetune.CROP_PX + 63.5
    np.testing.assert_allclose(some.points[:, 1], middle[:, 1], atol=1e-3)


def test_few_photographs_fill_a_batch_by_repeating() -> None:
    photos = drawn_photos().select(np.arange(5))
    batch = next(finetune.batches(photos, 16, 0)(0))["photo"]
    images = photos.images.reshape(5, -1)
    seen = [int(np.all(images == p, axis=1).argmax()) for p in batch.image.reshape(16, -1)]
    assert sorted(np.bincount(seen)) == [3, 3, 3, 3, 4]


@pytest.mark.parametrize(
    ("count", "held_out", "expected"),
    [(2, 0.1, 1), (6, 0.1, 1), (40, 0.1, 4), (1207, 0.1, 40), (6, 0.0, 0), (6, 5, 5), (40, 1, 1)],
)
def test_held_out_is_a_share_or_a_number(count, held_out, expected) -> None:
    assert photographs.held_out_count(count, held_out) == expected


@pytest.mark.parametrize(("count", "held_out"), [(0, 0.0), (0, 0.1), (1, 0.1), (40, 40), (6, 0.99)])
def test_too_few_photographs_are_one_sentence(count, held_out) -> None:
    with pytest.raises(ConfigError, match=f"there are {count} usable .* none to train on"):
        photographs.held_out_count(count, held_out)


@pytest.mark.parametrize("held_out", [-1, -0.1, 2.5])
def test_held_out_that_is_neither_share_nor_number_is_refused(held_out) -> None:
    with pytest.raises(ConfigError, match="config.held_out is .* whole number"):
        photographs.held_out_count(40, held_out)
