"""Square crops of a photograph, and the affine maps between the two (NumPy)."""

import numpy as np
from flax import struct

from dfc_jax.types import ByValue


@struct.dataclass(eq=False)
class Crop(ByValue):
    """A square of a photograph, resampled to size x size pixels (NumPy).

    Attributes:
      centre: (2,) photo pixel at the middle of the square.
      side_px: () edge of the square in photo pixels.
      roll_deg: () how far the square is turned in the photograph, clockwise; a head tilted as
        much is upright in the crop.
      size: pixels along an edge of the crop (static).
    """

    centre: np.ndarray
    side_px: float
    roll_deg: float = 0.0
    size: int = struct.field(pytree_node=False, default=128)

    @property
    def scale(self) -> float:
        """Crop pixels per photo pixel."""
        return self.size / self.side_px

    @property
    def rotation(self) -> np.ndarray:
        """(2, 2) matrix that turns directions of the crop into those of the photograph."""
        roll = np.deg2rad(self.roll_deg)
        cosine, sine = np.cos(roll), np.sin(roll)
        return np.array([[cosine, -sine], [sine, cosine]])

    @property
    def to_crop(self) -> np.ndarray:
        """(2, 3) affine matrix, photo pixel centres to crop pixel centres."""
        linear = self.scale * self.rotation.T
        return _around(linear, self.centre, np.full(2, (self.size - 1) / 2.0))

    @property
    def to_photo(self) -> np.ndarray:
        """(2, 3) affine matrix, the inverse of `to_crop`."""
        linear = self.rotation / self.scale
        return _around(linear, np.full(2, (self.size - 1) / 2.0), self.centre)


def _around(linear: np.ndarray, origin: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) affine matrix of linear part (2, 2) that maps `origin` to `target`."""
    return np.concatenate([linear, (target - linear @ origin)[:, None]], axis=1)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (2, 3) affine matrix to points (..., 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


# A crop shows the box of the 68 landmarks with this margin; the forehead lies above the box, so
# the crop's centre lies above the box's.
CROP_SCALE = 1.5
CROP_LIFT = 0.06


def crop_of_box(box: np.ndarray, size: int = 128) -> Crop:
    """The crop for a landmark box (x, y, width, height) in photo pixels.

    The side is `CROP_SCALE` times the longer edge of the box, the centre is moved up by
    `CROP_LIFT` of that edge.

    Raises:
      ValueError: the box has no area or is not finite.
    """
    x, y, width, height = np.asarray(box, np.float64)
    if not (np.isfinite([x, y]).all() and 0 < width < np.inf and 0 < height < np.inf):
        raise ValueError(f"a box needs finite x, y and positive width, height; got {list(box)}")
    edge = max(width, height)
    centre = np.array([x + width / 2.0, y + height / 2.0 - CROP_LIFT * edge])
    return Crop(centre=centre, side_px=CROP_SCALE * edge, size=size)


def tilt_deg(rotation: np.ndarray) -> np.ndarray:
    """How far heads (..., 3, 3), from the model to a camera with the photograph's axes, are tilted
    in it, clockwise: where their tops point to."""
    return np.rad2deg(np.arctan2(rotation[..., 0, 1], -rotation[..., 1, 1]))


def box_of_points(points: np.ndarray) -> np.ndarray:
    """Tight box (x, y, width, height) of the finite ones of points (N, 2); NaN where none is."""
    points = points[np.isfinite(points).all(axis=-1)]
    if len(points) == 0:
        return np.full(4, np.nan)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([low, high - low])


def crop_photo(image: np.ndarray, crop: Crop) -> np.ndarray:
    """Resample a crop of an RGB image: (size, size, 3) float32 in [0, 1], black outside.

    The image is uint8, or float32 in [0, 1]: (H, W, 3).
    Where the photograph is shrunk, every crop pixel is the mean over the photo pixels that it
    covers: whole blocks first, then a supersampled bilinear lookup.
    """
    import cv2  # here: a machine that trains on packed crops may have none

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
    import cv2

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
