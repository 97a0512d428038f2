"""Reading photographs, and cutting the network's square crops out of them."""

import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dfc_jax.camera import Crop, apply_affine

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# Just under the size at which Pillow refuses a picture as a decompression bomb.
MAX_PIXELS = 175_000_000
_ALPHA_BACKGROUND = (255, 255, 255)


class PhotoError(ValueError):
    """A photograph cannot be used; the message is one sentence that names the file."""


def read_photo(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a photograph as it is meant to be looked at: (H, W, 3) uint8 RGB.

    The EXIF rotation is applied, grey becomes RGB, transparency is composited over white, 16 bits
    are reduced to 8, CMYK is converted, an animation gives its first frame.

    Raises:
      PhotoError: the file is missing, a folder, empty, truncated, not an image in one of
        `FORMATS`, or larger than `MAX_PIXELS`.
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(path)
                image.load()
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"{path}: not an image that can be read here; use JPEG, PNG, WebP, BMP, TIFF or GIF"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PhotoError(f"{path}: the image is truncated or damaged; copy it again") from error


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise PhotoError(f"{path}: this is a folder; name the photographs in it")
        if path.stat().st_size == 0:
            raise PhotoError(f"{path}: the file is empty; copy it again")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise PhotoError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise PhotoError(f"{path}: the file cannot be opened ({error.strerror})") from error


def _too_large(path: Path) -> PhotoError:
    limit = MAX_PIXELS // 1_000_000
    return PhotoError(f"{path}: more than {limit} megapixels; make the picture smaller first")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32) / 257.0
        image = Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, np.float32))
        grey = grey * 255.0 if grey.max(initial=0.0) <= 1.0 else grey
        image = Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*_ALPHA_BACKGROUND, 255))
        image = Image.alpha_composite(canvas, image)
    return image.convert("RGB")


def as_uint8(image: np.ndarray) -> np.ndarray:
    """An RGB image (H, W, 3), uint8 or float in [0, 1], or grey (H, W), as uint8 RGB.

    Raises:
      PhotoError: the array is not such an image.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise PhotoError(f"an image needs the shape (height, width, 3); got {image.shape}")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise PhotoError(f"an image needs uint8, or floats in [0, 1]; got {image.dtype}")
    if not np.isfinite(image).all() or image.min() < 0.0 or image.max() > 1.0:
        raise PhotoError("a floating-point image needs finite values in [0, 1]")
    return (image * 255.0 + 0.5).astype(np.uint8)


def crop_photo(image: np.ndarray, crop: Crop) -> np.ndarray:
    """Resample a crop of an RGB image: (size, size, 3) float32 in [0, 1], black outside.

    The image is uint8, or float32 in [0, 1]: (H, W, 3).
    Where the photograph is shrunk, every crop pixel is the mean over the photo pixels that it
    covers: whole blocks first, then a supersampled bilinear lookup.
    """
    shrink = 1.0 / crop.scale
    block = max(1, int(shrink / 2.0))
    patch, origin = _patch(image, crop, block)
    if patch.size == 0:
        return np.zeros((crop.size, crop.size, 3), np.float32)
    if block > 1:
        size = (patch.shape[1] // block, patch.shape[0] // block)
        patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
    samples = max(1, int(np.ceil(shrink / block - 1e-6)))
    # Sample pixel -> crop pixel -> photo pixel -> pixel of the reduced patch.
    step = shrink / samples
    first = apply_affine(crop.to_photo, np.full(2, 0.5 / samples - 0.5))
    offset = (first - origin + 0.5) / block - 0.5
    matrix = np.concatenate([step / block * crop.rotation, offset[:, None]], axis=1)
    edge = crop.size * samples
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(patch, matrix, (edge, edge), flags=flags)
    if samples > 1:
        fine = cv2.resize(fine, (crop.size, crop.size), interpolation=cv2.INTER_AREA)
    return fine / np.float32(255.0) if fine.dtype == np.uint8 else fine


def _patch(image: np.ndarray, crop: Crop, block: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that the crop needs, zero-padded to whole blocks, and its origin."""
    limit = np.array(image.shape[1::-1])
    half = np.abs(crop.rotation[0]).sum() * crop.side_px / 2.0 + 2 * block + 1
    low = np.clip(np.floor(crop.centre - half), 0, limit).astype(int)
    high = np.clip(np.ceil(crop.centre + half), 0, limit).astype(int)
    patch = image[low[1] : high[1], low[0] : high[0]]
    if patch.size == 0:
        return patch, low
    pad_y, pad_x = (-patch.shape[0]) % block, (-patch.shape[1]) % block
    if pad_y or pad_x:
        patch = cv2.copyMakeBorder(patch, 0, pad_y, 0, pad_x, cv2.BORDER_CONSTANT)
    return patch, low
