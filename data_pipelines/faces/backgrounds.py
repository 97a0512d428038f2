"""Backgrounds for rendered faces: grey, procedural, or cut from a bank of pictures.

A bank is (M, S, S, 3) uint8 RGB on the device; `load_backgrounds` reads one from a folder and
`tfds_backgrounds` from a prepared TFDS data set, without TensorFlow. An empty bank is one too.
"""

import dataclasses
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import pictures
from data_pipelines.faces.shapes import RandomStream, cloth_colors, moved, pixel_planes, soft, wave
from dfc_jax.errors import DatasetError
from dfc_jax.files import load_arrays, write_npz
from dfc_jax.types import Array

PICTURE_SIZE = 160
_SUFFIXES = (".jpg", ".jpeg", ".png")
_DISCS = 6
_ROLLS = 512


@dataclasses.dataclass(frozen=True)
class BackgroundSettings:
    """What is behind the faces.

    Attributes:
      grey: share of plain greys (the paper's first half of pretraining: 1).
      pictures: share of the rest that is cut from a picture, when there are any; what remains
        is procedural.
      zoom: a crop shows between this part of a picture's side and all of it.
    """

    grey: float = 0.2
    pictures: float = 0.7
    zoom: float = 0.4


def load_backgrounds(folder: str | Path | None, size: int = PICTURE_SIZE) -> Array:
    """The .jpg and .png pictures of a folder, squeezed to (M, size, size, 3) uint8.

    Files that are no pictures are passed over; None gives no pictures, (0, size, size, 3). Instead
    of a folder there may be a file of `save_backgrounds`, whose pictures keep their size.

    Raises:
      DatasetError: the folder holds no readable picture, or the file is damaged.
    """
    if folder is None:
        return jnp.zeros((0, size, size, 3), jnp.uint8)
    if Path(folder).is_file():
        return _load_packed(Path(folder))
    import cv2  # here: packed pictures need no decoder

    inside = sorted(Path(folder).glob("*"))
    files = [file for file in inside if file.suffix.lower() in _SUFFIXES and file.is_file()]
    found = [cv2.imread(str(file)) for file in files]
    read = [_square(picture[..., ::-1], size) for picture in found if picture is not None]
    if not read:
        raise DatasetError(
            f"{folder}: holds no readable .jpg or .png picture to use as background; give a"
            " folder with some, or none at all for procedural backgrounds"
        )
    return jnp.asarray(np.stack(read))


def save_backgrounds(path: str | Path, backgrounds: Array) -> None:
    """Pack a bank of pictures (M, S, S, 3) uint8 into one file for `load_backgrounds`.

    Raises:
      ExportError: the file cannot be written.
    """
    write_npz(path, False, **pictures.pack(np.asarray(backgrounds)))


def _load_packed(path: Path) -> Array:
    try:
        return jnp.asarray(pictures.unpack(**load_arrays(path, ("coded", "shape"))))
    except Exception as error:  # NumPy and zipfile raise many kinds for a broken file
        raise DatasetError(f"{path}: holds no packed backgrounds; copy it again") from error


def tfds_backgrounds(
    name: str = "coco",
    count: int = 2000,
    data_dir: str | Path | None = None,
    split: str = "train",
    size: int = PICTURE_SIZE,
) -> Array:
    """The first `count` pictures of a prepared TFDS data set, (M, size, size, 3) uint8.

    Reads array_record files without TensorFlow; nothing is downloaded.

    Args:
      name: of the data set, ``coco`` or ``coco/2017``; the newest version found is taken.
      count: pictures, at most.
      data_dir: where TFDS keeps its data; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.
      split: a split, or a slice of one.
      size: of the pictures, squeezed to squares.

    Raises:
      DatasetError: TFDS is not installed, or the data set has not been prepared as array_record,
        or its examples have no pictures.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DatasetError(
            f"{name}: TFDS is not installed; pip install 'dfc-jax[tfds]', or give a folder of"
            " pictures instead"
        ) from error
    root = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    prepared = sorted((Path(root).expanduser() / name).rglob("dataset_info.json"))
    try:
        if prepared:
            # The files alone are enough; a data set's own code may import TensorFlow.
            source = tfds.builder_from_directory(prepared[-1].parent).as_data_source(split)
        else:
            source = tfds.data_source(name, split=split, data_dir=data_dir, download=False)
    except Exception as error:  # TFDS raises many kinds, its own among them.
        raise DatasetError(
            f"{name}: no split {split!r} is prepared as array_record in {root}; run"
            f" `tfds build {name} --file_format=array_record` ({_first_line(error)})"
        ) from error
    examples = (source[i] for i in range(min(count, len(source))))
    read = [_square(example["image"], size) for example in examples if "image" in example]
    if not read:
        raise DatasetError(f"{name}: its examples hold no 'image'; give a data set of pictures")
    return jnp.asarray(np.stack(read))


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip(" *")]
    return lines[0] if lines else type(error).__name__


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    if picture.ndim == 2 or picture.shape[-1] == 1:
        picture = np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=-1)
    import cv2

    return cv2.resize(np.ascontiguousarray(picture), (size, size), interpolation=cv2.INTER_AREA)


def sample_background(
    key: Array, pictures: Array, size: int, settings: BackgroundSettings
) -> Array:
    """A background (size, size, 3) in [0, 1]: grey, a picture's crop, or procedural.

    `pictures` is (M, S, S, 3) uint8; with M = 0 the pictures' share is procedural too.
    """
    rng = RandomStream(jax.random.uniform(key, (_ROLLS,)))
    image = _procedural(rng, size)
    if len(pictures):
        is_picture = rng.bernoulli(settings.pictures) > 0
        image = jnp.where(is_picture, _crop(rng, pictures, size, settings), image)
    grey = rng.uniform(0.05, 0.95)
    return jnp.where(rng.bernoulli(settings.grey) > 0, grey, image)


def _crop(rng: RandomStream, pictures: Array, size: int, settings: BackgroundSettings) -> Array:
    """A random square of a random picture, mirrored half of the time."""
    picture = pictures[rng.choice(len(pictures))]
    side = picture.shape[0]
    shown = side * rng.uniform(settings.zoom, 1.0)
    first = (side - shown) * rng.uniform(shape=(2,))
    steps = (jnp.arange(size) + 0.5) / size
    across = jnp.where(rng.bernoulli(0.5) > 0, 1.0 - steps, steps)
    # An upright crop is separable: blend whole rows first, then columns.
    rows = _blend(picture.astype(jnp.float32) / 255.0, first[1] + shown * steps - 0.5)
    columns = _blend(jnp.swapaxes(rows, 0, 1), first[0] + shown * across - 0.5)
    return jnp.swapaxes(columns, 0, 1)


def _blend(lines: Array, positions: Array) -> Array:
    """Linear interpolation between the entries of (S, ...) at fractional indices (s,)."""
    positions = jnp.clip(positions, 0.0, lines.shape[0] - 1.0)
    low = jnp.minimum(positions.astype(jnp.int32), lines.shape[0] - 2)
    part = (positions - low)[:, None, None]
    return (1.0 - part) * lines[low] + part * lines[low + 1]


def _smooth_noise(rng: RandomStream, size: int, cells: int) -> Array:
    """A smooth random plane (size, size) in [0, 1] with about `cells` x `cells` bumps."""
    values = rng.uniform(shape=(cells + 1, cells + 1))
    position = (jnp.arange(size) + 0.5) * cells / size
    away = jnp.abs(position[:, None] - jnp.arange(cells + 1.0))
    weight = jnp.where(away < 1.0, (1.0 - away) ** 2 * (1.0 + 2.0 * away), 0.0)
    return weight @ values @ weight.T


def _procedural(rng: RandomStream, size: int) -> Array:
    """A gradient, noise, stripes or checks in two colours, blotched, and lights out of focus."""
    x, y = moved(pixel_planes(size), size * rng.uniform(shape=(2,)), rng.uniform(0.0, 2 * jnp.pi))
    coarse, fine = _smooth_noise(rng, size, 4), _smooth_noise(rng, size, 16)
    mottled = jnp.where(rng.bernoulli(0.5) > 0, coarse, 0.5 * (coarse + fine))
    # Straight in half of the backgrounds, bent by the noise in the others.
    bend = size * rng.bernoulli(0.5) * rng.uniform(0.0, 0.3) * coarse
    period = size * jnp.exp(rng.uniform(math.log(0.06), math.log(0.8)))
    sharpness = jnp.exp(rng.uniform(0.0, 2.5))

    def bands(coordinate: Array) -> Array:
        return jnp.clip(0.5 + sharpness * (wave((coordinate + bend) / period) - 0.5), 0.0, 1.0)

    stripes, others = bands(x), bands(y)
    checks = stripes + others - 2.0 * stripes * others
    gradient = jnp.clip(0.5 + 0.7 * x / size, 0.0, 1.0)
    kind = rng.choice(4)
    tone = jnp.where(
        kind < 2,
        jnp.where(kind == 0, gradient, mottled),
        jnp.where(kind == 2, stripes, checks),
    )
    tone = tone + rng.uniform(0.0, 0.5) * (mottled - 0.5)
    dark, light = cloth_colors(rng)
    image = dark + jnp.clip(tone, 0.0, 1.0)[..., None] * (light - dark)
    return jnp.clip(image + rng.bernoulli(0.3) * _lights(rng, size), 0.0, 1.0)


def _lights(rng: RandomStream, size: int) -> Array:
    """Discs of light out of focus (bokeh), (size, size, 3), to be added."""
    centres = size * rng.uniform(shape=(_DISCS, 2))
    radius = size * rng.uniform(0.03, 0.15, (_DISCS,))
    colors = rng.uniform(0.0, 0.5, (_DISCS, 3, 1, 1))
    x, y = pixel_planes(size)
    discs = (
        colors[i] * soft(jnp.sqrt((x - centres[i, 0]) ** 2 + (y - centres[i, 1]) ** 2) - radius[i])
        for i in range(_DISCS)
    )
    return jnp.moveaxis(sum(discs), 0, -1)
