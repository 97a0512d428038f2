"""Drawing faces: the overlay on a photograph, and meshes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.crops import Crop, apply_affine, box_of_points
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
# RGB of a mesh for each of 256 shades of light, (256, 1, 3) uint8.
_DARK, _BRIGHT = np.array([13, 41, 107]), np.array([237, 252, 255])
_PAINT = np.round(np.linspace(_DARK, _BRIGHT, 256)).astype(np.uint8)[:, None]
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


class MeshView(NamedTuple):
    """A fitted mesh as the camera sees it, in a square of the photograph around it.

    Attributes:
      crop: the square.
      zbuf: (S, S) depth in mm, infinite on the background; on the device.
      normals: (V, 3) unit normals in camera space; on the device.
      light: (S, S) float32 in [0, 1], of the mesh lit from beside the camera.
      covered: (S, S) float32, 1 where the mesh is shown.
    """

    crop: Crop
    zbuf: Array
    normals: Array
    light: np.ndarray
    covered: np.ndarray


def look_at(
    face: "Face", triangles: Array, shown: Array | None = None, size: int = MESH_SIZE
) -> MeshView:
    """Rasterize the mesh of a face; `shown` (T,) bool are the triangles to show, all if None."""
    points = projected(face, face.vertices_mm)
    low, high = points.min(axis=0), points.max(axis=0)
    crop = Crop((low + high) / 2.0, float(max(high - low)) * 1.04 + 2.0, size=size)
    screen = apply_affine(crop.to_crop, points)
    return MeshView(crop, *_shaded(screen, face.vertices_mm, triangles, size, shown))


def overlay(
    image: np.ndarray,
    faces: Sequence["Face"],
    triangles: Array,
    views: Sequence[MeshView] | None = None,
    edge: tuple[int, int] | None = OVERLAY_EDGE,
) -> np.ndarray:
    """The photograph (H, W, 3) uint8 with each face's mesh, landmarks and axes; uint8 RGB.

    The picture's longer edge lies in `edge`; with None it has the photograph's size. `views` are
    what `look_at` says of the faces, if that is known already.
    """
    long = max(image.shape[:2])
    scale = 1.0 if edge is None else float(np.clip(long, *edge)) / long
    canvas = _resized(image, scale)
    if views is None:
        views = [look_at(face, triangles) for face in faces]
    pairs = zip(faces, views, strict=True)
    far_first = sorted(pairs, key=lambda pair: -pair[0].translation_mm[2] / pair[0].focal_px)
    for _, view in far_first:
        _lay_mesh(canvas, view, scale)
    for face, _ in far_first:
        _draw_landmarks(canvas, face, scale)
        _draw_axes(canvas, face, scale)
    return canvas


@jax.jit
def _lit(
    seen: Fragments, vertices_mm: Array, triangles: Array, shown: Array
) -> tuple[Array, Array, Array]:
    """Unit normals (V, 3) of a matt mesh lit from beside the camera, and the light (S, S) in
    [0, 1] and coverage (S, S) of its fragments."""
    normals = vertex_normals(vertices_mm, triangles)
    key, fill = jnp.array([-0.45, -0.55, -0.70]), jnp.array([0.70, -0.10, -0.70])
    key, fill = key / jnp.linalg.norm(key), fill / jnp.linalg.norm(fill)
    lit = 0.95 * jnp.maximum(normals @ key, 0.0) ** 1.5 + 0.25 * jnp.maximum(normals @ fill, 0.0)
    light, away = jnp.moveaxis(
        interpolate(seen, triangles, jnp.stack([lit, normals[:, 2]], axis=-1)), -1, 0
    )
    # Seen from inside (through an open mouth or behind the ears) the mesh stays see-through.
    covered = (seen.pix_to_face >= 0) & shown[seen.pix_to_face] & (away < 0.15)
    return normals, jnp.clip(light, 0.0, 1.0), covered.astype(jnp.float32)


def _shaded(
    screen_xy: np.ndarray,
    vertices_mm: np.ndarray,
    triangles: Array,
    size: int,
    shown: Array | None = None,
) -> tuple[Array, Array, np.ndarray, np.ndarray]:
    """Depth, normals, light and coverage as in `MeshView`, of vertices (V, 3) in camera space that
    are seen at pixels (V, 2) of a picture of size x size."""
    screen, vertices = (jnp.asarray(a, jnp.float32) for a in (screen_xy, vertices_mm))
    faces = jnp.asarray(triangles)
    everywhere = np.ones(len(triangles), bool)
    # Not inside another compiled function: textures use the same program.
    seen = rasterize(screen, vertices[:, 2], faces, size)
    normals, light, covered = _lit(seen, vertices, faces, everywhere if shown is None else shown)
    return seen.zbuf, normals, np.asarray(light), np.asarray(covered)


def number_faces(canvas: np.ndarray, faces: Mapping[int, "Face"]) -> None:
    """Write each face's number above it, into a picture (H, W, 3) uint8 of the frame's size."""
    for number, face in faces.items():
        x, y, width, height = box_of_points(face.landmarks)
        size = max(max(width, height) / 220.0, 0.45)
        place = (round(x), max(round(y - 0.45 * height), round(24 * size)))
        for thick, colour in ((4, (25, 25, 30)), (2, (255, 214, 102))):
            style = cv2.FONT_HERSHEY_SIMPLEX, size, colour, max(1, round(thick * size)), cv2.LINE_AA
            cv2.putText(canvas, f"{number}", place, *style)


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
    *_, light, covered = _shaded(screen, posed, model.triangles, size)
    paint, white = cv2.applyColorMap(_bytes(light), _PAINT), np.full((size, size, 3), 255, np.uint8)
    return cv2.blendLinear(white, paint, 1.0 - covered, covered)


def _lay_mesh(canvas: np.ndarray, view: MeshView, scale: float) -> None:
    ends = np.array([[0, 0], [view.crop.size] * 2])
    corners = _scaled(apply_affine(view.crop.to_photo, ends), scale)
    low = np.clip(np.floor(corners[0]), 0, canvas.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(corners[1]), low, canvas.shape[1::-1]).astype(int)
    part = canvas[low[1] : high[1], low[0] : high[0]]
    if part.size == 0:
        return
    # Pixels of the part to those of the view; soft edges come from blurring the coverage.
    zoom = view.crop.scale / scale
    offset = apply_affine(view.crop.to_crop, (low + 0.5) / scale - 0.5)
    matrix = np.array([[zoom, 0.0, offset[0]], [0.0, zoom, offset[1]]])
    size, flags = part.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    covered = cv2.GaussianBlur(view.covered, (0, 0), max(0.6, 0.5 * zoom))
    alpha = _MESH_OPACITY * cv2.warpAffine(covered, matrix, size, flags=flags)
    light = cv2.warpAffine(_bytes(view.light), matrix, size, flags=flags)
    paint = cv2.applyColorMap(light, _PAINT)
    part[:] = cv2.blendLinear(np.ascontiguousarray(part), paint, 1.0 - alpha, alpha)


def _bytes(values: np.ndarray) -> np.ndarray:
    return (255.0 * values + 0.5).astype(np.uint8)


def _draw_landmarks(canvas: np.ndarray, face: "Face", scale: float) -> None:
    points = _scaled(face.landmarks, scale)
    extent = float(np.ptp(points, axis=0).max())
    thickness = max(1, round(extent / 260.0))
    radius = max(2.3, extent / 100.0)
    fixed = _fixed(points)
    for first, last, closed, colour in _LINES:
        line = fixed[first:last].reshape(-1, 1, 2)
        cv2.polylines(canvas, [line], closed, colour, thickness, cv2.LINE_AA, _FRACTION_BITS)
    covered = np.zeros(len(points), bool) if face.covered is None else face.covered
    for first, last, _, colour in _LINES:
        for number in range(first, last):
            # Those that something covers are hollow.
            inner = max(1, round(0.4 * radius)) if covered[number] else -1
            for grow, paint, stroke in ((1.45, (25, 25, 30), -1), (1.0, colour, inner)):
                size = round(radius * grow * (1 << _FRACTION_BITS))
                place = fixed[number].tolist()
                cv2.circle(canvas, place, size, paint, stroke, cv2.LINE_AA, _FRACTION_BITS)


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
