"""Squares of photographs around annotated faces, as training stores them."""

import dataclasses

import numpy as np

from data_pipelines.sources.packed import PackedFace
from dfc_jax.crops import CROP_SCALE, Crop, apply_affine, box_of_points, crop_of_box, crop_photo
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.errors import DatasetError
from dfc_jax.types import ByValue

# A stored square shows this many times the longer edge of the landmark box.
STORED_SCALE = 2.0
STORED_PX = 192
# Pixels of the stored square that a crop without augmentation covers.
CROP_PX = CROP_SCALE / STORED_SCALE * STORED_PX
# The affine map from a picture to itself.
WHOLE = np.eye(2, 3)


def stored_square(points: np.ndarray) -> Crop:
    """`square_around` the box of 68 points (68, 2), in photo pixels.

    Raises:
      ValueError: the points lie on a line along an axis.
    """
    return square_around(box_of_points(points))


def square_around(box: np.ndarray) -> Crop:
    """The square around a landmark box (4,), in photo pixels, that is stored for training.

    Raises:
      ValueError: the box has no area or is not finite.
    """
    crop = crop_of_box(box, STORED_PX)
    return dataclasses.replace(crop, side_px=STORED_SCALE / CROP_SCALE * crop.side_px)


@dataclasses.dataclass(frozen=True, eq=False)
class Square(ByValue):
    """A square of a photograph around an annotated face, before it is labelled.

    Attributes:
      face: what it was cut from.
      image: (S, S, 3) uint8, S = `STORED_PX`.
      points: (68, 2) float32 in its pixels, NaN where hidden.
      to_square: (2, 3) affine matrix, photo pixels to its pixels.
    """

    face: AnnotatedFace
    image: np.ndarray
    points: np.ndarray
    to_square: np.ndarray


def read_square(face: AnnotatedFace) -> Square:
    """Read a face's photograph and cut out its square; a picture that is that square is not
    resampled.

    Raises:
      DatasetError: the points span no face.
      PhotoError: the photograph cannot be read.
    """
    try:
        crop = square_around(face.landmark_box)
    except ValueError as error:
        raise DatasetError(f"{face.photo}: its 68 points span no face ({error})") from error
    image = face.image()
    if image.shape[:2] != (STORED_PX, STORED_PX) or not np.allclose(crop.to_crop, WHOLE, atol=1e-3):
        cut = crop_photo(image, crop)
        image = np.round(255.0 * np.clip(cut, 0.0, 1.0)).astype(np.uint8)
    return Square(
        face,
        image,
        apply_affine(crop.to_crop, face.points).astype(np.float32),
        crop.to_crop,
    )


def packable(square: Square) -> PackedFace:
    """The face of a square as one whose picture is the square, for `write_packed`."""
    face = square.face
    x, y, width, height = face.landmark_box
    corners = apply_affine(square.to_square, np.array([[x, y], [x + width, y + height]]))
    return PackedFace(
        photo=face.photo,
        points=square.points.astype(np.float64),
        name=face.name,
        jaw=face.jaw,
        profile=face.profile,
        box=np.concatenate([corners[0], corners[1] - corners[0]]),
        pixels=square.image,
    )
