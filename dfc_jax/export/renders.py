"""Depth, normals and PNCC of the faces of a photograph, pixel for pixel beside it."""

import os
from dataclasses import dataclass

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.crops import Crop, apply_affine
from dfc_jax.files import written_aside
from dfc_jax.inference.draw import MESH_SIZE
from dfc_jax.inference.scene import Scene
from dfc_jax.morphable.linear import PARTS, FaceModel, vertex_normals
from dfc_jax.photo import write_png
from dfc_jax.raster import interpolate, pncc_colors
from dfc_jax.raster.flow import fragments_of
from dfc_jax.types import Array, ByValue, Camera

# What one step of a 16-bit depth picture stands for: it reaches 16 metres.
DEPTH_STEP_MM = 0.25
# Rows of a photograph that are drawn at a time, to hold memory.
STRIP_PX = 512


@dataclass(frozen=True, eq=False)
class Renders(ByValue):
    """What a scene's camera sees of its faces, without their necks; the nearest where they overlap,
    0 where there is none.

    Attributes:
      depth_mm: (H, W) float32, along the optical axis.
      normals: (H, W, 3) uint8, of unit outward normals: red is x to the right, green y up, blue z
        to the viewer, -1 as 0 and 1 as 255.
      pncc: (H, W, 3) uint8, the projected normalised coordinate code of 3DDFA: where on the mean
        face a pixel lies, red from the subject's right to the left, green from the lowest to the
        highest and blue from the rearmost to the foremost vertex of the model, 0 to 255.
    """

    depth_mm: np.ndarray
    normals: np.ndarray
    pncc: np.ndarray


def render_scene(scene: Scene, model: FaceModel) -> Renders:
    """Render the faces of a scene at the photograph's size.

    A face that is larger than `MESH_SIZE` pixels is rendered at that size and enlarged.
    """
    size = (scene.height, scene.width)
    renders = Renders(
        np.zeros(size, np.float32), np.zeros((*size, 3), np.uint8), np.zeros((*size, 3), np.uint8)
    )
    shown = np.asarray(model.triangle_part) != PARTS.index("neck")
    triangles = jnp.asarray(np.asarray(model.triangles)[shown])
    codes = pncc_colors(model.mean_mm)
    for vertices in scene.vertices_mm:
        _draw(renders, scene, vertices, triangles, codes)
    return renders


def _draw(
    renders: Renders, scene: Scene, vertices: np.ndarray, triangles: Array, codes: Array
) -> None:
    """Draw one face (V, 3) where it is the nearest so far."""
    own = vertices[np.unique(triangles)]
    points = scene.focal_px * own[:, :2] / np.maximum(own[:, 2:], 1.0) + scene.principal_point
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    # Small faces lie pixel on pixel; the middle of a square of even size is between pixels.
    side = max(float(max(high - low)) + 3.0, MESH_SIZE)
    crop = Crop(np.floor((low + high) / 2.0) + 0.5, side, size=MESH_SIZE)
    camera = Camera(
        jnp.float32(scene.focal_px * crop.scale),
        jnp.asarray(apply_affine(crop.to_crop, scene.principal_point), jnp.float32),
    )
    seen = np.asarray(_seen(jnp.asarray(vertices, jnp.float32), triangles, camera, codes))
    photo = np.array([scene.width, scene.height])
    low, high = (np.clip(end, 0, photo).astype(int) for end in (low - 1.0, high + 2.0))
    if high[0] > low[0]:
        for top in range(low[1], high[1], STRIP_PX):
            bottom = min(top + STRIP_PX, high[1])
            _paste(renders, seen, crop, np.array([low[0], top]), np.array([high[0], bottom]))


def _paste(
    renders: Renders, seen: np.ndarray, crop: Crop, low: np.ndarray, high: np.ndarray
) -> None:
    """Put what is seen (S, S, 8) in a crop into the photograph between two corners (2,)."""
    matrix = crop.to_crop.copy()
    matrix[:, 2] = apply_affine(crop.to_crop, low.astype(np.float64))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # OpenCV takes four channels at most.
    halves = [
        cv2.warpAffine(half, matrix, high - low, flags=flags) for half in np.split(seen, 2, 2)
    ]
    part = np.s_[low[1] : high[1], low[0] : high[0]]
    covered, before = halves[0][..., 0], renders.depth_mm[part]
    # At the outline, the mean of the covered pixels around.
    depth = halves[0][..., 1] / np.maximum(covered, 0.5)
    won = (covered > 0.5) & ((before == 0.0) | (depth < before))
    before[won] = depth[won]
    share = covered[won, None]
    normals = np.concatenate([halves[0][won, 2:], halves[1][won, :1]], axis=-1)
    renders.normals[part][won] = _bytes(0.5 + 0.5 * normals / share)
    renders.pncc[part][won] = _bytes(halves[1][won, 1:] / share)


@jax.jit
def _seen(vertices_mm: Array, triangles: Array, camera: Camera, codes: Array) -> Array:
    """Coverage, depth, normal (x right, y up, z to the viewer) and code: (S, S, 8), 0 around."""
    fragments = fragments_of(vertices_mm, triangles, camera, MESH_SIZE)
    normals = vertex_normals(vertices_mm, triangles) * jnp.array([1.0, -1.0, -1.0])
    image = interpolate(
        fragments,
        triangles,
        jnp.concatenate([vertices_mm[:, 2:], normals, codes], axis=-1),
    )
    length = jnp.linalg.norm(image[..., 1:4], axis=-1, keepdims=True)
    unit = image[..., 1:4] / jnp.maximum(length, 1e-6)
    covered = (fragments.pix_to_face >= 0).astype(jnp.float32)[..., None]
    return jnp.concatenate([covered, image[..., :1], unit, image[..., 4:]], axis=-1)


def _bytes(values: np.ndarray) -> np.ndarray:
    return (255.0 * np.clip(values, 0.0, 1.0) + 0.5).astype(np.uint8)


def write_depth_png(path: str | os.PathLike[str], depth_mm: np.ndarray) -> None:
    """Write depth (H, W) as 16 bits, in steps of `DEPTH_STEP_MM`; what is farther than 65,535
    steps is 65,535.

    Raises:
      ExportError: the file cannot be written.
    """
    steps = np.clip(np.round(depth_mm / DEPTH_STEP_MM), 0.0, np.iinfo(np.uint16).max)
    write_png(path, steps.astype(np.uint16))


def write_depth_npy(path: str | os.PathLike[str], depth_mm: np.ndarray) -> None:
    """Write depth (H, W) as float32 millimetres.

    Raises:
      ExportError: the file cannot be written.
    """
    with written_aside(path) as aside:
        np.save(aside, np.asarray(depth_mm, np.float32), allow_pickle=False)
