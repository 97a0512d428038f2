"""Projection, and the affine maps between a photograph and its square crops."""

import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.ops.rotations import head_rotation
from dfc_jax.types import Array, ByValue, Camera, FaceParams

MIN_DEPTH_MM = 1.0


def project(camera: Camera, points_mm: Array) -> Array:
    """Camera-space points (..., 3) to pixels (..., 2).

    Perspective divides by the depth, which is held above `MIN_DEPTH_MM` so that points behind
    the camera stay finite; whoever draws them has to cull them (the rasterizer does).
    """
    xy = points_mm[..., :2]
    if camera.projection == "perspective":
        xy = xy / jnp.maximum(points_mm[..., 2:], MIN_DEPTH_MM)
    return camera.focal_px[..., None] * xy + camera.principal_point


def project_jacobian(camera: Camera, points_mm: Array) -> Array:
    """Derivative of `project` by the camera-space points (..., 3): (..., 2, 3), perspective only.

    Zero along the depth of points that `project` holds at `MIN_DEPTH_MM`.
    """
    depth = jnp.maximum(points_mm[..., 2:], MIN_DEPTH_MM)[..., None]
    ratio = points_mm[..., :2, None] / depth
    along = jnp.where(points_mm[..., 2:, None] > MIN_DEPTH_MM, ratio, 0.0)
    across = jnp.broadcast_to(jnp.eye(2), (*along.shape[:-1], 2))
    return camera.focal_px[..., None, None] / depth * jnp.concatenate([across, -along], axis=-1)


def to_camera(params: FaceParams, points_mm: Array) -> Array:
    """Model-space points (..., 3) to camera space: X_c = R X + t."""
    rotation = head_rotation(params.rotation)
    return points_mm @ jnp.swapaxes(rotation, -1, -2) + params.translation_mm


def crop_camera(params: FaceParams, size: int) -> Camera:
    """Perspective camera of a size x size crop, principal point at the crop's centre."""
    centre = (size - 1) / 2.0
    return Camera(
        focal_px=jnp.asarray(params.focal_px), principal_point=jnp.array([centre, centre])
    )


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


def box_of_points(points: np.ndarray) -> np.ndarray:
    """Tight box (x, y, width, height) of points (N, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([low, high - low])
