"""Packed pictures: how near they come back, in how many bytes, and what is refused."""

import cv2
import numpy as np
import pytest
from paths import ROOT

from data_pipelines import pictures
from dfc_jax.photo import read_photo


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Twelve squares of a photograph, 96 pixels wide."""
    photo = read_photo(ROOT / "examples" / "astronaut.jpg")
    small = cv2.resize(photo, (384, 384), interpolation=cv2.INTER_AREA)
    rows = small[:288].reshape(3, 96, 4, 96, 3)
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(12, 96, 96, 3))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def jpeg(picture: np.ndarray) -> tuple[int, np.ndarray]:
    """Bytes and pixels of a picture as JPEG of the same quality."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, pictures.QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    coded = cv2.imencode(".jpg", picture[..., ::-1], flags)[1]
    return len(coded), cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]


def test_pictures_come_back_as_near_as_jpegs_in_fewer_bytes(faces) -> None:
    packed = pictures.pack(faces)
    sizes, decoded = zip(*map(jpeg, faces), strict=True)
    found = pictures.unpack(**packed)
    assert found.dtype == np.uint8 and found.shape == faces.shape
    assert psnr(found, faces) > psnr(np.stack(decoded), faces) - 0.3
    assert sum(array.nbytes for array in packed.values()) < sum(sizes)


def test_pictures_keep_their_order_and_colours() -> None:
    """Also over the bounds of what is transformed at once."""
    rng = np.random.default_rng(0)
    plain = np.broadcast_to(rng.integers(0, 256, (300, 1, 1, 3), np.uint8), (300, 16, 32, 3))
    found = pictures.unpack(**pictures.pack(plain))
    assert np.abs(found.astype(int) - plain).max() <= 8
    assert np.ptp(found, axis=(1, 2)).max() <= 1


def test_edges_of_luminance_stay_in_place() -> None:
    """Colours are half as sharp, as in JPEG, and clipping them changes the luminance a little."""
    picture = np.zeros((1, 32, 48, 3), np.uint8)
    picture[:, :16, :32] = (200, 40, 40)
    found = pictures.unpack(**pictures.pack(picture))
    luminance = np.array([0.299, 0.587, 0.114])
    assert np.abs(found @ luminance - picture @ luminance).max() <= 10
    away = np.ones((32, 48), bool)
    away[15:17], away[:, 31:33] = False, False
    assert np.abs(found.astype(int) - picture)[0, away].max() <= 8


def test_no_pictures_are_pictures_too() -> None:
    assert pictures.unpack(**pictures.pack(np.zeros((0, 16, 16, 3), np.uint8))).shape[0] == 0


def test_sizes_that_are_no_multiple_are_refused() -> None:
    with pytest.raises(ValueError, match="30x32 pixels are no multiple of 16"):
        pictures.pack(np.zeros((1, 32, 30, 3), np.uint8))


def test_damaged_pictures_are_refused(faces) -> None:
    packed = pictures.pack(faces)
    cut = {**packed, "coded": packed["coded"][:-40]}
    wrong = {**packed, "shape": packed["shape"] + np.array([1, 0, 0, 0], np.int32)}
    for damaged in (cut, wrong, {**packed, "coded": packed["coded"][::-1].copy()}):
        with pytest.raises(ValueError, match="damaged"):
            pictures.unpack(**damaged)
