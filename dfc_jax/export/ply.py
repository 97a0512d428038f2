"""Meshes with vertex colours as binary PLY."""

import os
from typing import Any

import cv2
import numpy as np

from dfc_jax.export.obj import ObjSpace, to_viewer
from dfc_jax.files import written_aside


def vertex_colours(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """The colours (V, 3) uint8 that a texture (H, W, 3) uint8 has at uv (V, 2), v up; between
    texels, those around are blended."""
    height, width = texture.shape[:2]
    texels = (np.asarray(uv) * [1.0, -1.0] + [0.0, 1.0]) * [width, height] - 0.5
    x, y = texels.astype(np.float32).T[..., None]
    return cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


def write_ply(
    path: str | os.PathLike[str],
    vertices_mm: np.ndarray,
    triangles: np.ndarray,
    colours: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    space: ObjSpace = "camera",
) -> None:
    """Write a mesh of vertices (V, 3), mm, and triangles (T, 3): y up, z to the viewer.

    Args:
      path: of the file.
      vertices_mm: (V, 3); those of camera space are turned, as `write_obj` turns them.
      triangles: (T, 3).
      colours: (V, 3) uint8 RGB.
      normals: (V, 3), unit, in the space of the vertices.
      space: which one the vertices are in.

    Raises:
      ExportError: the file cannot be written.
    """
    import trimesh  # here: slow to import

    turned = to_viewer(space)
    mesh = trimesh.Trimesh(
        np.asarray(vertices_mm, np.float64) * turned,
        np.asarray(triangles),
        vertex_normals=None if normals is None else np.asarray(normals, np.float64) * turned,
        vertex_colors=colours,
        process=False,
    )
    content: Any = mesh.export(file_type="ply", vertex_normal=normals is not None)
    with written_aside(path) as aside:
        aside.write_bytes(content)
