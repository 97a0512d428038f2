"""Reading photographs and writing pictures."""

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from dfc_jax.errors import PhotoError
from dfc_jax.files import written_aside


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write an RGB (H, W, 3), RGBA (H, W, 4) or grey (H, W) image, of 8 or 16 bits."""
    _write_coded(path, image, ".png")


def write_picture(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """The same, in the format of the path's suffix: ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``."""
    _write_coded(path, image, Path(path).suffix.lower())


def _write_coded(path: str | os.PathLike[str], image: np.ndarray, suffix: str) -> None:
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    coded = cv2.imencode(suffix, image)[1]
    with written_aside(path) as aside:
        aside.write_bytes(coded.tobytes())


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# What is larger is refused before it is decoded, so that reading takes less than a gigabyte.
MAX_PIXELS = 110_000_000
MAX_EDGE = 65_535  # JPEG's own limit
MAX_DECODING_BYTES = 950_000_000
MAX_FILE_BYTES = 700_000_000  # as many pixels, uncompressed, with 16 bits a channel
_STRIP_PIXELS = 1 << 19


def read_photo(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a photograph as it is meant to be looked at: (H, W, 3) uint8 RGB.

    The EXIF rotation is applied, grey becomes RGB, transparency is composited over white, 16 bits
    are reduced to 8, CMYK is converted, an animation gives its first frame.

    A picture may have `MAX_PIXELS` pixels and `MAX_EDGE` along an edge, and less where its
    decoder needs more memory: reading takes less than a gigabyte, the result included.

    Raises:
      PhotoError: the file is missing, a folder, empty, truncated, not an image in one of
        `FORMATS`, or too large.
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                _check_size(path, image)
                image.load()
                return _upright_rgb(image, image.getexif().get(Base.Orientation))
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"{path}: not an image that can be read here; use JPEG, PNG, WebP, BMP, TIFF or GIF"
        ) from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise _too_large(path, MAX_PIXELS) from error
    except Exception as error:  # decoders raise anything for files made to break them
        raise PhotoError(f"{path}: the image is truncated or damaged; copy it again") from error


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise PhotoError(f"{path}: this is a folder; name the photographs in it")
        size = path.stat().st_size
        if size == 0:
            raise PhotoError(f"{path}: the file is empty; copy it again")
        if size > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES // 1_000_000
            raise PhotoError(f"{path}: a file of more than {limit} MB; make the picture smaller")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise PhotoError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise PhotoError(f"{path}: the file cannot be opened ({error.strerror})") from error


def _check_size(path: Path, image: Image.Image) -> None:
    if max(image.size) > MAX_EDGE:
        raise PhotoError(f"{path}: an edge of more than {MAX_EDGE} pixels; cut the picture first")
    limit = int(min(MAX_PIXELS, MAX_DECODING_BYTES / _decoding_bytes(image)))
    if image.width * image.height > limit:
        raise _too_large(path, limit)


def _too_large(path: Path, limit: int) -> PhotoError:
    return PhotoError(
        f"{path}: more than {limit // 1_000_000} megapixels, the most for a picture of this kind; "
        "make it smaller first"
    )


def _decoding_bytes(image: Image.Image) -> float:
    """Bytes per pixel that reading takes at its peak, the result included; for the worst of a
    kind, as measured."""
    layers = getattr(image, "layer", ())
    if layers and not _has_one_scan(image):
        # libjpeg keeps the coefficients of all components, 2 bytes each, until the last scan.
        sampled = [across * down for _, across, down, _ in layers]
        biggest = max(layer[1] for layer in layers) * max(layer[2] for layer in layers)
        return 4.0 + max(3.0, 2.0 * sum(sampled) / biggest)
    if image.format == "WEBP":
        return 20.0
    if image.format == "TIFF":
        return 8.0 + 13.0 * _strip_share(image)
    return 7.0


def _has_one_scan(image: Any) -> bool:
    """Whether the scan header of a JPEG, which Pillow has just read, names all components.

    The bytes before a shorter header could feign one of four components, but not one of three.
    """
    n = len(image.layer)
    if "progressive" in image.info or n > 3:
        return False
    image.fp.seek(max(0, image.fp.tell() - 2 * n - 8))
    return bool(image.fp.read(5) == bytes([0xFF, 0xDA, 0, 2 * n + 6, n]))


def _strip_share(image: Any) -> float:
    """How large the strips or tiles are that libtiff decodes at once, beside the picture."""
    if image.tile[0][0] != "libtiff":
        return 0.0
    tags = image.tag_v2
    width, height = tags[Base.ImageWidth], tags[Base.ImageLength]
    if Base.TileLength in tags:
        return tags[Base.TileWidth] * tags[Base.TileLength] / (width * height)
    return min(tags.get(Base.RowsPerStrip, height), height) / height


# The upright picture, seen as it is stored, by EXIF orientation.
_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def _upright_rgb(image: Image.Image, orientation: Any = 1) -> np.ndarray:
    """A decoded picture as (H, W, 3) uint8 RGB, made strip by strip to spare memory."""
    turned = orientation in (5, 6, 7, 8)
    upright = np.empty((*(image.size if turned else image.size[::-1]), 3), np.uint8)
    stored = _STORED[orientation](upright) if orientation in _STORED else upright
    white = _white(image)
    for top, strip in _strips(image):
        stored[top : top + strip.height] = _to_rgb(strip, white)
    return upright


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _white(image: Image.Image) -> float:
    """The value of white in a picture of more than 8 bits; floats go up to 1 or to 255."""
    if image.mode != "F":
        return 65535.0
    return 1.0 if max(_numbers(strip).max() for _, strip in _strips(image)) <= 1.0 else 255.0


def _numbers(strip: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(strip).astype(np.float32))


def _to_rgb(strip: Image.Image, white: float) -> np.ndarray:
    if strip.mode.startswith(("I", "F")):
        grey = np.clip(_numbers(strip) * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)
        return grey[..., None]
    if strip.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in strip.info:
        strip = strip.convert("RGBA")
        canvas = Image.new("RGBA", strip.size, "white")
        strip = Image.alpha_composite(canvas, strip)
    return np.asarray(strip.convert("RGB"))


def as_photo(image: Any) -> np.ndarray:
    """What a user may call a photograph, as (H, W, 3) uint8 RGB.

    Args:
      image: the path of a file, for `read_photo`; an array or nested list, grey (H, W) or
        (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4), of uint8, uint16 or floats in [0, 1]; or a
        picture of Pillow, as it lies in memory (its EXIF rotation is not applied).

    Raises:
      PhotoError: it is none of these.
    """
    if image is None:
        raise PhotoError(
            "the image is None, which cv2.imread returns for a file that it cannot read; "
            "use dfc_jax.read_photo, which says why"
        )
    if isinstance(image, str | os.PathLike):
        return read_photo(image)
    if isinstance(image, Image.Image):
        try:
            return _upright_rgb(image)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise PhotoError("the image is truncated or damaged; copy it again") from error
    return as_uint8(image)


def as_uint8(image: Any) -> np.ndarray:
    """An array or nested list, see `as_photo`, as (H, W, 3) uint8 RGB.

    Raises:
      PhotoError: it is no such image.
    """
    array = _checked_array(image)
    array = _with_8_bits(array[..., None] if array.ndim == 2 else array)
    if array.shape[-1] == 1:
        return np.repeat(array, 3, axis=-1)
    return array if array.shape[-1] == 3 else _upright_rgb(Image.fromarray(array))


def _checked_array(image: Any) -> np.ndarray:
    try:
        array = np.asarray(image)
    except (TypeError, ValueError) as error:
        raise PhotoError(
            f"an image needs an array; got a {type(image).__name__} that cannot be made one"
        ) from error
    if array.dtype.kind in "OSU":
        raise PhotoError(f"an image needs an array of numbers; got a {type(image).__name__}")
    if array.ndim == 4:
        raise PhotoError(f"one photograph per call: loop over the first axis of {array.shape}")
    grey_or_colour = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
    if not grey_or_colour or 0 in array.shape:
        raise PhotoError(
            "an image needs the shape (height, width, 3), or 4 with transparency, "
            f"or (height, width) for grey; got {array.shape}"
        )
    if isinstance(image, list | tuple) and array.dtype.kind == "i":
        in_range = 0 <= array.min() and array.max() <= 255
        return array.astype(np.uint8) if in_range else array
    return array


def _with_8_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    floating = np.issubdtype(array.dtype, np.floating)
    if not floating and array.dtype.newbyteorder("=") != np.uint16:
        raise PhotoError(f"an image needs uint8, uint16, or floats in [0, 1]; got {array.dtype}")
    scale = 255.0 if floating else 255.0 / 65535.0
    reduced = np.empty(array.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // array.shape[1])
    for top in range(0, len(array), rows):
        part = array[top : top + rows]
        if floating and not ((part >= 0.0) & (part <= 1.0)).all():
            raise PhotoError(
                "a floating-point image needs finite values in [0, 1]; "
                f"got {part.min():g} to {part.max():g}"
            )
        reduced[top : top + rows] = part * scale + 0.5
    return reduced
