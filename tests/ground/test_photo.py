"""Every kind of photograph is read upright as RGB, or refused in one sentence; crops are exact."""

import pathlib
import tracemalloc

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import broken_files
from PIL import Image

from dfc_jax import photo
from dfc_jax.crops import Crop, apply_affine, crop_photo
from dfc_jax.errors import PhotoError
from dfc_jax.photo import as_photo, as_uint8, read_photo


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


# What a camera stores, by the EXIF orientation that asks to turn it back.
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
@pytest.mark.parametrize("orientation", STORED)
def test_applies_exif_rotation(tmp_path, monkeypatch, orientation, suffix):
    monkeypatch.setattr(photo, "_STRIP_PIXELS", 5 * 48)  # more than one strip
    upright = quadrants()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    stored.save(path, exif=exif, **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    image = read_photo(path)
    assert image.shape == upright.shape
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - upright).max() <= (12 if suffix == "jpg" else 0)


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


def spellings() -> dict[str, tuple[object, np.ndarray]]:
    """What a user may call a photograph, and the picture that it is."""
    image = quadrants()
    grey = np.repeat(image[..., :1], 3, axis=-1)
    clear = np.concatenate([image, np.full((32, 48, 1), 255, np.uint8)], axis=-1)
    clear[16:, ..., 3] = 0
    over_white = image.copy()
    over_white[16:] = 255
    return {
        "uint8": (image, image),
        "float32": (image.astype(np.float32) / 255.0, image),
        "jax": (jnp.asarray(image), image),
        "(H, W)": (image[..., 0], grey),
        "(H, W, 1)": (image[..., :1], grey),
        "RGBA": (clear, over_white),
        "RGBA of floats": (clear / 255.0, over_white),
        "uint16": (image.astype(np.uint16) * 257, image),
        "uint16 grey": ((image[..., 0].astype(">u2") * 257), grey),
        "list": (image.tolist(), image),
        "list of floats": ((image / 255.0).tolist(), image),
        "Pillow": (Image.fromarray(image), image),
        "Pillow with a palette": (Image.fromarray(image).quantize(8), image),
        "Pillow RGBA": (Image.fromarray(clear), over_white),
    }


@pytest.mark.parametrize("name", spellings())
def test_a_photograph_may_be_given_as(name):
    given, wanted = spellings()[name]
    image = as_photo(given)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_photograph_may_be_given_as_its_path(tmp_path, kind):
    path = tmp_path / "photo.png"
    Image.fromarray(quadrants()).save(path)
    np.testing.assert_array_equal(as_photo(kind(path)), quadrants())
    with pytest.raises(PhotoError, match=r"no\.png: there is no such file"):
        as_photo(kind(tmp_path / "no.png"))


def test_an_array_of_the_right_kind_is_not_copied():
    image = quadrants()
    assert as_uint8(image) is image


def test_floats_are_reduced_without_copies_of_the_whole():
    image = np.ones((1500, 1500, 3))
    tracemalloc.start()
    assert as_uint8(image).min() == 255
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes / 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "None, which cv2.imread returns"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"one photograph per call.*\(2, 4, 4, 3\)"),
        ([np.zeros((4, 4, 3), np.uint8)] * 2, "one photograph per call"),
        (np.zeros((3, 32, 32), np.uint8), r"got \(3, 32, 32\)"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (np.zeros(12, np.uint8), r"got \(12,\)"),
        (7, r"got \(\)"),
        (np.zeros((4, 4, 3), bool), "got bool"),
        (np.zeros((4, 4, 3), int), "got int64"),
        (np.zeros((4, 4, 3), complex), "got complex128"),
        ([[[300, 0, 0]]], "got int64"),
        (np.full((4, 4, 3), 255.0), "got 255 to 255"),
        (np.full((4, 4, 3), np.nan), "got nan to nan"),
        (np.full((4, 4, 3), -0.5), "got -0.5 to -0.5"),
        ([[1, 2], [3]], "got a list that cannot be made one"),
        ([["a", "b"]], "got a list"),
        ({"image": 1}, "got a dict"),
        (b"me.jpg", "got a bytes"),
        (object(), "got a object"),
    ],
)
def test_what_is_no_photograph_is_refused_in_a_sentence_that_says_what_was_given(given, words):
    with pytest.raises(PhotoError, match=words) as caught:
        as_photo(given)
    assert "\n" not in str(caught.value)


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
