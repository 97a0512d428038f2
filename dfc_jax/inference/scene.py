"""One camera for all faces of a photograph, so that their meshes stand beside each other.

Each face is fitted in its own crop, by a camera whose principal point is the crop's middle and
whose focal length is its own guess. Here all share the principal point in the photograph's middle
and one focal length; identities and expressions stay, and each head takes the pose from which the
shared camera sees its mesh where it was fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project
from dfc_jax.fitting import levenberg_marquardt
from dfc_jax.inference.draw import projected
from dfc_jax.inference.face import Face
from dfc_jax.ops.rotations import rotvec_to_matrix
from dfc_jax.types import Array, ByValue, Camera

# Every so many vertices of a mesh place it.
STRIDE = 7
# Standard deviations of log focal are held within these: nothing is sure to a part in a hundred.
LOG_FOCAL_RANGE = (0.01, 10.0)


@dataclass(frozen=True, eq=False)
class Scene(ByValue):
    """The F faces of a photograph before one camera; camera space as in `dfc_jax.types`.

    A point (X, Y, Z) mm is seen at ``focal_px * (X, Y) / Z + principal_point``.

    Attributes:
      width, height: of the photograph, pixels.
      focal_px: focal length, photo pixels.
      principal_point: (2,) the photograph's middle, photo pixels.
      rotation: (F, 3, 3) model to camera.
      translation_mm: (F, 3) model origins in camera space.
      vertices_mm: (F, V, 3) the meshes in camera space.
      residual_px: (F,) root mean square distance of the vertices' projections from those of the
        face's own camera.
    """

    width: int
    height: int
    focal_px: float
    principal_point: np.ndarray
    rotation: np.ndarray
    translation_mm: np.ndarray
    vertices_mm: np.ndarray = field(repr=False)
    residual_px: np.ndarray


def make_scene(
    faces: Sequence[Face], size: tuple[int, int], focal_px: float | None = None
) -> Scene:
    """Put the faces of a photograph of `size` (width, height) before one camera.

    Args:
      faces: at least one.
      size: of the photograph, pixels.
      focal_px: of the shared camera, if it is known; else `shared_focal`.

    Raises:
      ValueError: there is no face.
    """
    if not faces:
        raise ValueError("a scene needs at least one face")
    focal = shared_focal(faces) if focal_px is None else float(focal_px)
    middle = (np.array(size, np.float64) - 1.0) / 2.0
    poses = [_posed(face, focal, middle) for face in faces]
    rotation, translation, vertices, residual = map(np.stack, zip(*poses, strict=True))
    return Scene(*size, focal, middle, rotation, translation, vertices, residual)


def shared_focal(faces: Sequence[Face]) -> float:
    """The mean of the logarithms of the faces' focal lengths, the surer the heavier; pixels."""
    deviation = np.array([float(face.uncertainty.log_focal) for face in faces])
    deviation = np.clip(np.nan_to_num(deviation, nan=np.inf), *LOG_FOCAL_RANGE)
    logs = np.log([face.focal_px for face in faces])
    return float(np.exp(np.average(logs, weights=deviation**-2.0)))


def _posed(
    face: Face, focal_px: float, middle: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rotation, translation and vertices of a face before the shared camera, and the residual."""
    points = (face.vertices_mm - face.translation_mm) @ face.rotation
    pixels = projected(face, face.vertices_mm) - middle
    # Where a camera that turns from the own one to the shared one would see it, as large.
    depth = face.translation_mm[2] * focal_px / face.focal_px
    ray = (projected(face, face.translation_mm[None])[0] - middle) / focal_px
    start = depth * np.array([*ray, 1.0])
    turned = _turn(face.translation_mm, start) @ face.rotation
    numbers = (points[::STRIDE], pixels[::STRIDE], focal_px, turned, start)
    rotation, translation = map(np.asarray, _pose(*(jnp.asarray(n, jnp.float32) for n in numbers)))
    vertices = points @ rotation.T + translation
    seen = focal_px * vertices[:, :2] / vertices[:, 2:]
    residual = np.sqrt(np.mean(np.sum((seen - pixels) ** 2, axis=1)))
    return rotation, translation, vertices.astype(np.float32), residual


def _turn(origin: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The shortest rotation (3, 3) from the direction of one vector (3,) to that of another, which
    is not its opposite."""
    a, b = (v / np.linalg.norm(v) for v in (origin, target))
    x, y, z = np.cross(a, b)
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + skew + skew @ skew / (1.0 + a @ b)


@jax.jit
def _pose(
    points_mm: Array, pixels: Array, focal_px: Array, rotation: Array, translation_mm: Array
) -> tuple[Array, Array]:
    """The rotation (3, 3) and translation (3,) near the given ones by which a camera with its
    principal point at 0 sees points (N, 3) best at pixels (N, 2)."""
    camera = Camera(focal_px, jnp.zeros(2))

    def pose(x: Array) -> tuple[Array, Array]:
        return rotvec_to_matrix(x[:3]) @ rotation, translation_mm + x[3:]

    def residual(x: Array) -> Array:
        turned, moved = pose(x)
        return (project(camera, points_mm @ turned.T + moved) - pixels).ravel()

    return pose(levenberg_marquardt(residual, jnp.zeros(6), max_steps=30).x)
