"""Backgrounds: whole banks are read or explained, crops are of their pictures, shares hold."""

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces.backgrounds import (
    BackgroundSettings,
    load_backgrounds,
    sample_background,
    tfds_backgrounds,
)
from dfc_jax.errors import DatasetError

SIZE = 32
MANY = jax.jit(jax.vmap(sample_background, (0, None, None, None)), static_argnums=(2, 3))


def keys(count: int = 48) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


def maps(count: int = 3, side: int = 40) -> jnp.ndarray:
    """Pictures whose red is the column, green the row and blue the picture."""
    y, x = np.mgrid[:side, :side]
    one = np.stack([6 * x, 6 * y, 0 * x], axis=-1)
    return jnp.asarray([one + [0, 0, 60 * n] for n in range(count)], jnp.uint8)


def is_plain(images: np.ndarray) -> np.ndarray:
    return np.ptp(images, axis=(1, 2, 3)) < 1e-6


def test_crops_are_upright_squares_of_one_picture() -> None:
    settings = BackgroundSettings(grey=0.0, pictures=1.0, zoom=0.5)
    crops = np.asarray(MANY(keys(), maps(), SIZE, settings)) * 255.0
    column, row, number = np.moveaxis(crops, -1, 0) / np.array([6, 6, 60]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(number, np.broadcast_to(number[:, :1, :1], number.shape), atol=1e-3)
    assert {0, 1, 2} == set(np.round(number[:, 0, 0]).astype(int))
    np.testing.assert_allclose(column, np.broadcast_to(column[:, :1], column.shape), atol=1e-2)
    np.testing.assert_allclose(row, np.broadcast_to(row[:, :, :1], row.shape), atol=1e-2)
    # One step is the same everywhere but at the picture's border; mirrored crops step back.
    across = np.diff(column[:, 0], axis=-1)[:, 2:-2]
    down = np.diff(row[:, :, 0], axis=-1)[:, 2:-2]
    np.testing.assert_allclose(np.abs(across), down, atol=0.02)
    step = down.mean(axis=1) * SIZE / 40.0
    assert 0.49 < step.min() < 0.6 and 0.9 < step.max() < 1.01
    assert 0.2 < np.mean(across[:, 0] < 0) < 0.8


def test_shares_hold_and_no_pictures_means_procedural() -> None:
    settings = BackgroundSettings(grey=0.5, pictures=0.5)
    black = jnp.zeros((1, 8, 8, 3), jnp.uint8)
    images = np.asarray(MANY(keys(200), black, SIZE, settings))
    grey = is_plain(images) & (images[:, 0, 0, 0] > 0.01)
    picture = is_plain(images) & (images[:, 0, 0, 0] == 0.0)
    assert 0.38 < grey.mean() < 0.62 and 0.15 < picture.mean() < 0.35
    assert (np.ptp(images[grey], axis=-1) == 0).all(), "a coloured grey"
    empty = jnp.zeros((0, 8, 8, 3), jnp.uint8)
    procedural = np.asarray(MANY(keys(), empty, SIZE, BackgroundSettings(0.0, 1.0)))
    assert not is_plain(procedural).any()
    assert procedural.shape == (48, SIZE, SIZE, 3) and procedural.dtype == np.float32
    assert np.isfinite(procedural).all() and procedural.min() >= 0 and procedural.max() <= 1
    assert procedural.std(axis=(1, 2)).mean() > 0.05
    assert is_plain(np.asarray(MANY(keys(), empty, SIZE, BackgroundSettings(grey=1.0)))).all()


def test_a_key_gives_the_same_alone_and_in_a_batch() -> None:
    settings = BackgroundSettings(grey=0.2, pictures=0.5)
    batch = MANY(keys(), maps(), SIZE, settings)
    single = jax.jit(sample_background, static_argnums=(2, 3))
    for n in (3, 4, 5):
        np.testing.assert_allclose(single(keys()[n], maps(), SIZE, settings), batch[n], atol=1e-3)
    assert len({float(image.sum()) for image in batch}) == len(batch)


def test_a_folder_is_read_in_colour_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    red = np.zeros((30, 50, 3), np.uint8)
    red[..., 2] = 200
    cv2.imwrite(str(tmp_path / "a.png"), red)
    cv2.imwrite(str(tmp_path / "b.JPG"), red[:20])
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    pictures = np.asarray(load_backgrounds(tmp_path, size=24))
    assert pictures.shape == (2, 24, 24, 3) and pictures.dtype == np.uint8
    np.testing.assert_allclose(pictures[0], np.broadcast_to([200, 0, 0], (24, 24, 3)))
    np.testing.assert_allclose(pictures[1], np.broadcast_to([200, 0, 0], (24, 24, 3)), atol=6)
    assert load_backgrounds(None, size=24).shape == (0, 24, 24, 3)


@pytest.mark.parametrize("content", ["nothing", "a broken file", "no folder"])
def test_a_folder_without_pictures_is_explained(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "absent" if content == "no folder" else tmp_path
    if content == "a broken file":
        (folder / "broken.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=f"{folder}: holds no readable .* give a folder") as one:
        load_backgrounds(folder)
    assert "\n" not in str(one.value)


class Source(list):
    """A prepared split, as TFDS hands it out."""

    def as_data_source(self, split: str) -> "Source":
        if split != "train":
            raise ValueError(f"Unknown split {split!r}.\nShould be one of ['train'].")
        return self


def stub(monkeypatch, source, **more) -> list:
    """TFDS with one data set; the returned list gathers the directories it was read from."""
    read: list = []

    def from_directory(path):
        read.append(Path(path))
        return source

    module = SimpleNamespace(builder_from_directory=from_directory, **more)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return read


def prepare(root: Path, *versions: str) -> None:
    for version in versions:
        (root / version).mkdir(parents=True)
        (root / version / "dataset_info.json").write_text("{}")


def test_tfds_pictures_come_from_the_newest_prepared_version(monkeypatch, tmp_path: Path) -> None:
    prepare(tmp_path, "coco/2014/1.0.0", "coco/2014/1.1.0", "other/3.0.0")
    shades = [np.full((20 + n, 30, 3 if n else 1), 40 * n + 5, np.uint8) for n in range(5)]
    read = stub(monkeypatch, Source({"image": shade} for shade in shades))
    pictures = np.asarray(tfds_backgrounds("coco", 3, tmp_path, size=16))
    assert pictures.shape == (3, 16, 16, 3) and pictures.dtype == np.uint8
    assert [p[0, 0, 0] for p in pictures] == [5, 45, 85] and (np.ptp(pictures, axis=3) == 0).all()
    assert read == [tmp_path / "coco/2014/1.1.0"]
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(tfds_backgrounds("coco", 100, size=16)) == 5


def test_tfds_mistakes_are_one_sentence(monkeypatch, tmp_path: Path) -> None:
    prepare(tmp_path, "coco/1.0.0")

    def missing(name, **asked):
        assert asked["download"] is False, "25 GB without a question"
        raise RuntimeError("\n*****\nDataset not found.\nmore")

    stub(monkeypatch, Source([{"label": 1}]), data_source=missing)
    cases = (
        ({"split": "nope"}, r"no split 'nope' is prepared as array_record in .*Unknown split"),
        ({"name": "none"}, r"none: no split 'train' .* run `tfds build none .*Dataset not found"),
        ({}, "hold no 'image'"),
    )
    for asked, words in cases:
        with pytest.raises(DatasetError, match=words) as caught:
            tfds_backgrounds(**{"name": "coco", "data_dir": tmp_path} | asked)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DatasetError, match="TFDS is not installed; pip install"):
        tfds_backgrounds(data_dir=tmp_path)
