"""Drawing faces: the overlay on a photograph, and meshes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.morphable.linear import FaceModel, vertex_normals
from dfc_jax.ops.rotations import angles_to_matrix
from dfc_jax.raster.interpolate import interpolate
from dfc_jax.raster.rasterize import rasterize
from dfc_jax.types import Array, Fragments

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face


# The overlay's longer edge in pixels: small photographs are enlarged, large ones shrunk.
OVERLAY_EDGE = (900, 1600)
MESH_SIZE = 512
_MESH_OPACITY = 0.62
_AXIS_MM = 55.0
_AXES = ((235, 70, 70), (90, 205, 90), (80, 130, 255))
# Polylines of the 68 landmarks (first, last, closed) and their colours.
_LINES = (
    (0, 17, False, (255, 214, 102)),
    (17, 22, False, (255, 150, 90)),
    (22, 27, False, (255, 150, 90)),
    (27, 31, False, (130, 235, 160)),
    (31, 36, False, (130, 235, 160)),
    (36, 42, True, (110, 205, 255)),
    (42, 48, True, (110, 205, 255)),
    (48, 60, True, (255, 120, 160)),
    (60, 68, True, (255, 120, 160)),
)
_FRACTION_BITS = 4


def overlay(image: np.ndarray, faces: Sequence["Face"], triangles: np.ndarray) -> np.ndarray:
    """The photograph (H, W, 3) uint8 with each face's mesh, landmarks and axes; uint8 RGB.

    The picture's longer edge lies in `OVERLAY_EDGE`.
    """
    long = max(image.shape[:2])
    scale = float(np.clip(long, *OVERLAY_EDGE)) / long
    canvas = _resized(image, scale)
    far_first = sorted(faces, key=lambda face: -face.translation_mm[2] / face.focal_px)
    for face in far_first:
        _lay_mesh(canvas, face, triangles, scale)
    for face in far_first:
        _draw_landmarks(canvas, face, scale)
        _draw_axes(canvas, face, scale)
    return canvas


@jax.jit
def _lit(seen: Fragments, vertices_mm: Array, triangles: Array) -> tuple[Array, Array]:
    """A matt mesh lit from beside the camera: light (S, S) in [0, 1] and coverage of fragments."""
    normals = interpolate(seen, triangles, vertex_normals(vertices_mm, triangles))
    normals = normals / jnp.maximum(jnp.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    key, fill = jnp.array([-0.45, -0.55, -0.70]), jnp.array([0.70, -0.10, -0.70])
    key, fill = key / jnp.linalg.norm(key), fill / jnp.linalg.norm(fill)
    lit = 0.95 * jnp.maximum(normals @ key, 0.0) ** 1.5 + 0.25 * jnp.maximum(normals @ fill, 0.0)
    # Seen from inside (through an open mouth or behind the ears) the mesh stays see-through.
    covered = (seen.pix_to_face >= 0) & (normals[..., 2] < 0.15)
    return jnp.clip(lit, 0.0, 1.0), covered.astype(jnp.float32)


def render_mesh(
    screen_xy: np.ndarray, vertices_mm: np.ndarray, triangles: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (size, size, 3) float32 in [0, 1] and coverage (size, size) of a mesh.

    Args:
      screen_xy: (V, 2) pixels of the picture.
      vertices_mm: (V, 3) camera space.
      triangles: (T, 3).
      size: edge of the picture.
    """
    screen, vertices = (jnp.asarray(a, jnp.float32) for a in (screen_xy, vertices_mm))
    faces = jnp.asarray(triangles)
    # Not inside another compiled function: textures use the same program.
    seen = rasterize(screen, vertices[:, 2], faces, size)
    light, covered = _lit(seen, vertices, faces)
    dark, bright = np.array([0.05, 0.16, 0.42]), np.array([0.93, 0.99, 1.00])
    colour = dark + np.asarray(light)[..., None] * (bright - dark)
    return colour.astype(np.float32), np.asarray(covered)


def model_picture(
    model: FaceModel, vertices_mm: np.ndarray, angles_deg: Sequence[float], size: int
) -> np.ndarray:
    """A face of the model on white, (size, size, 3) uint8.

    Args:
      model: whose triangles to draw.
      vertices_mm: (V, 3) model space.
      angles_deg: yaw, pitch, roll as in `dfc_jax.types`.
      size: edge of the picture.
    """
    rotation = np.asarray(angles_to_matrix(jnp.asarray(angles_deg, jnp.float32)))
    centred = vertices_mm - (vertices_mm.min(axis=0) + vertices_mm.max(axis=0)) / 2.0
    distance = 5.0 * float(np.linalg.norm(centred, axis=-1).max())
    posed = centred @ rotation.T + [0.0, 0.0, distance]
    # A head of any pose fits: the whole ball around it is in the picture.
    screen = 2.4 * size * posed[:, :2] / posed[:, 2:] + (size - 1) / 2.0
    colour, covered = render_mesh(screen, posed, np.asarray(model.triangles), size)
    picture = 1.0 + covered[..., None] * (colour - 1.0)
    return (picture * 255.0 + 0.5).astype(np.uint8)


def _lay_mesh(canvas: np.ndarray, face: "Face", triangles: np.ndarray, scale: float) -> None:
    points = _scaled(projected(face, face.vertices_mm), scale)
    low, high = points.min(axis=0), points.max(axis=0)
    side = float(max(high - low)) * 1.04 + 2.0
    corner = (low + high - side) / 2.0
    zoom = MESH_SIZE / side
    colour, covered = render_mesh(
        (points - corner + 0.5) * zoom - 0.5, face.vertices_mm, triangles, MESH_SIZE
    )
    # Canvas pixels to mesh pixels; soft edges come from blurring the coverage.
    covered = cv2.GaussianBlur(covered, (0, 0), max(0.6, 0.5 * zoom))
    offset = (0.5 - corner) * zoom - 0.5
    matrix = np.array([[zoom, 0.0, offset[0]], [0.0, zoom, offset[1]]])
    size = canvas.shape[1::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    alpha = _MESH_OPACITY * cv2.warpAffine(covered, matrix, size, flags=flags)[..., None]
    paint = 255.0 * cv2.warpAffine(colour, matrix, size, flags=flags)
    canvas[:] = (canvas * (1.0 - alpha) + paint * alpha + 0.5).astype(np.uint8)


def _draw_landmarks(canvas: np.ndarray, face: "Face", scale: float) -> None:
    points = _scaled(face.landmarks, scale)
    extent = float(np.ptp(points, axis=0).max())
    thickness = max(1, round(extent / 260.0))
    radius = max(2.3, extent / 100.0)
    fixed = _fixed(points)
    for first, last, closed, colour in _LINES:
        line = fixed[first:last].reshape(-1, 1, 2)
        cv2.polylines(canvas, [line], closed, colour, thickness, cv2.LINE_AA, _FRACTION_BITS)
    for first, last, _, colour in _LINES:
        for x, y in fixed[first:last].tolist():
            for grow, paint in ((1.45, (25, 25, 30)), (1.0, colour)):
                size = round(radius * grow * (1 << _FRACTION_BITS))
                cv2.circle(canvas, (x, y), size, paint, -1, cv2.LINE_AA, _FRACTION_BITS)


def _draw_axes(canvas: np.ndarray, face: "Face", scale: float) -> None:
    # From the tip of the nose, where the axes are not hidden in the head.
    tip = face.landmarks3d_mm[30]
    ends = np.stack([tip, *(tip + _AXIS_MM * face.rotation[:, i] for i in range(3))])
    fixed = _fixed(_scaled(projected(face, ends), scale))
    thickness = max(2, round(float(np.ptp(face.landmarks, axis=0).max()) * scale / 110.0))
    # The axis that points away from the viewer is drawn first.
    for i in np.argsort(-face.rotation[2]):
        start, end = fixed[0].tolist(), fixed[1 + i].tolist()
        for width, colour in ((thickness + 2, (25, 25, 30)), (thickness, _AXES[i])):
            cv2.line(canvas, start, end, colour, width, cv2.LINE_AA, _FRACTION_BITS)


def projected(face: "Face", points_mm: np.ndarray) -> np.ndarray:
    """Camera-space points (N, 3) to photo pixels (N, 2)."""
    depth = np.maximum(points_mm[:, 2:], 1.0)
    return face.focal_px * points_mm[:, :2] / depth + face.principal_point


def _scaled(points: np.ndarray, scale: float) -> np.ndarray:
    """Photo pixels to pixels of the resized photograph."""
    return scale * (points + 0.5) - 0.5


def _fixed(points: np.ndarray) -> np.ndarray:
    """Pixels to OpenCV's fixed-point integers, held within what it can draw."""
    return np.round(np.clip(points, -20_000, 20_000) * (1 << _FRACTION_BITS)).astype(np.int32)


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return image.copy()
    size = tuple(max(1, round(edge * scale)) for edge in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
