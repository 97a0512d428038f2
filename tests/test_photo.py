"""Every kind of photograph is read upright as RGB, or refused in one sentence; crops are exact."""

import cv2
import numpy as np
import pytest
from PIL import Image

from dfc_jax.camera import Crop, apply_affine
from dfc_jax.inference import photo
from dfc_jax.inference.photo import PhotoError, as_uint8, crop_photo, read_photo


def quadrants(height: int = 32, width: int = 48) -> np.ndarray:
    """Red, green over blue, grey: every rotation and channel swap shows."""
    image = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    image[:h, :w], image[:h, w:] = (200, 20, 20), (20, 200, 20)
    image[h:, :w], image[h:, w:] = (20, 20, 200), (128, 128, 128)
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "jpg"])
def test_reads_formats(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(quadrants()).save(
        path, **({"quality": 95} if suffix in ("jpg", "webp") else {})
    )
    image = read_photo(path)
    assert image.dtype == np.uint8
    assert image.shape == (32, 48, 3)
    middle = (slice(4, 12), slice(4, 20))
    tolerance = 12 if suffix in ("jpg", "webp") else 0
    assert np.abs(image[middle].astype(int) - quadrants()[middle]).max() <= tolerance


def test_applies_exif_rotation(tmp_path):
    upright = quadrants()
    stored = Image.fromarray(np.rot90(upright, 1).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for viewing
    path = tmp_path / "turned.jpg"
    stored.save(path, exif=exif, quality=95, subsampling=0)
    image = read_photo(path)
    assert image.shape == upright.shape
    assert np.abs(image[4:12, 4:20].astype(int) - upright[4:12, 4:20]).max() <= 12


def test_grey_becomes_rgb(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(quadrants()[..., 0]).save(path)
    assert np.array_equal(read_photo(path), np.repeat(quadrants()[..., :1], 3, axis=-1))


def test_alpha_is_composited_over_white(tmp_path):
    rgba = np.concatenate([quadrants(), np.zeros((32, 48, 1), np.uint8)], axis=-1)
    rgba[:16, ..., 3] = 255
    path = tmp_path / "alpha.png"
    Image.fromarray(rgba).save(path)
    image = read_photo(path)
    assert np.array_equal(image[:16], quadrants()[:16])
    assert (image[16:] == 255).all()


def test_16_bits_keep_their_range(tmp_path):
    ramp = np.linspace(0, 65535, 48).astype(np.uint16)[None].repeat(32, axis=0)
    grey, colour = tmp_path / "grey16.png", tmp_path / "colour16.png"
    assert cv2.imwrite(str(grey), ramp)
    assert cv2.imwrite(str(colour), np.stack([ramp, ramp * 0, ramp * 0], axis=-1))
    expected = ramp / 257.0
    assert np.abs(read_photo(grey)[..., 0] - expected).max() <= 1.0
    assert np.abs(read_photo(colour)[..., 2] - expected).max() <= 1.0
    assert read_photo(colour)[..., 0].max() == 0


def test_cmyk_becomes_rgb(tmp_path):
    path = tmp_path / "cmyk.jpg"
    Image.fromarray(quadrants()).convert("CMYK").save(path, quality=95)
    image = read_photo(path)
    assert np.abs(image[4:12, 4:20].astype(int) - quadrants()[4:12, 4:20]).max() <= 12


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = tmp_path / "animation.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert (read_photo(path) == (255, 0, 0)).all()


def test_one_pixel_is_read(tmp_path):
    path = tmp_path / "pixel.png"
    Image.new("RGB", (1, 1), "red").save(path)
    assert read_photo(path).shape == (1, 1, 3)


def broken_files(folder):
    jpeg = folder / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(jpeg)
    (folder / "truncated.jpg").write_bytes(jpeg.read_bytes()[:-900])
    (folder / "header.jpg").write_bytes(jpeg.read_bytes()[:30])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is not a photograph")
    (folder / "folder.jpg").mkdir()
    return {
        "truncated.jpg": "truncated",
        "header.jpg": "not an image|truncated",
        "empty.jpg": "empty",
        "text.jpg": "not an image",
        "folder.jpg": "folder",
        "missing.jpg": "no such file",
    }


def test_bad_files_are_refused_in_one_sentence_that_names_them(tmp_path):
    for name, words in broken_files(tmp_path).items():
        with pytest.raises(PhotoError, match=words) as caught:
            read_photo(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_limit_on_pixels_names_itself(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("L", (200, 100)).save(path)
    assert read_photo(path).shape == (100, 200, 3)
    monkeypatch.setattr(photo, "MAX_PIXELS", 19_999)
    with pytest.raises(PhotoError, match=r"large\.png: more than 0 megapixels"):
        read_photo(path)


def test_more_than_pillow_allows_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("L", (200, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
    with pytest.raises(PhotoError, match="megapixels"):
        read_photo(path)


def test_as_uint8_accepts_images_only():
    image = quadrants()
    assert as_uint8(image) is image
    assert np.array_equal(as_uint8(image.astype(np.float32) / 255.0), image)
    assert as_uint8(image[..., 0]).shape == image.shape
    for wrong in (np.zeros((4, 4, 4), np.uint8), np.full((4, 4, 3), 255.0), np.zeros((4, 4), int)):
        with pytest.raises(PhotoError):
            as_uint8(wrong)


@pytest.mark.parametrize("roll", [0.0, -33.0, 180.0])
@pytest.mark.parametrize("side", [40.3, 128.0, 200.7, 300.0, 511.0, 690.5])
def test_crop_keeps_positions(side, roll):
    height, width = 1000, 1100
    y, x = np.mgrid[:height, :width]
    photo_xy = np.stack([x, y, 0 * x], axis=-1).astype(np.float32)
    crop = Crop(centre=np.array([523.4, 487.9]), side_px=side, roll_deg=roll)
    got = crop_photo(photo_xy, crop)
    assert got.shape == (128, 128, 3)
    assert got.dtype == np.float32
    grid = np.stack(np.meshgrid(np.arange(128.0), np.arange(128.0)), axis=-1)
    error = got[..., :2] - apply_affine(crop.to_photo, grid)
    assert np.abs(error).max() < 0.05  # photo pixels


def test_crop_scales_uint8_to_one():
    white = np.full((64, 64, 3), 255, np.uint8)
    for side in (20.0, 50.0):
        got = crop_photo(white, Crop(centre=np.array([31.5, 31.5]), side_px=side))
        assert got.dtype == np.float32
        assert (got == 1).all()


def test_crop_does_not_alias():
    checks = np.indices((1024, 1024)).sum(axis=0) % 2 * 255
    image = np.repeat(checks[..., None], 3, axis=-1).astype(np.uint8)
    for side in (256.0, 391.3, 1000.0):
        got = crop_photo(image, Crop(centre=np.array([511.5, 511.5]), side_px=side))
        assert np.abs(got[2:-2, 2:-2] - 0.5).max() < 0.12


def test_outside_is_black_and_far_outside_does_not_fail():
    white = np.full((50, 50, 3), 255, np.uint8)
    got = crop_photo(white, Crop(centre=np.array([0.0, 24.5]), side_px=50.0))
    assert (got[:, :60] == 0).all()
    assert (got[4:-4, 70:] == 1).all()
    assert not crop_photo(white, Crop(centre=np.array([9e5, 0.0]), side_px=50.0)).any()
    huge = crop_photo(white, Crop(centre=np.array([24.5, 24.5]), side_px=1e6))
    assert huge.max() < 0.02
