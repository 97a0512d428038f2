"""Meshes as OBJ with a material."""

import os
from functools import lru_cache
from typing import Literal

import numpy as np

from dfc_jax.files import written_aside

# Camera space (y down, z forward) to the frame of mesh viewers (y up, z towards the viewer).
_TO_VIEWER = np.array([1.0, -1.0, -1.0])
_MATERIAL = "face"

ObjSpace = Literal["model", "camera"]


def write_obj(
    path: str | os.PathLike[str],
    vertices_mm: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    material: str | None = None,
    space: ObjSpace = "camera",
) -> None:
    """Write a mesh of vertices (V, 3), mm, and triangles (T, 3) as OBJ: y up, z to the viewer.

    Args:
      path: of the file.
      vertices_mm: (V, 3); those of camera space are turned, so that a viewer shows the face as the
        photograph does.
      triangles: (T, 3).
      uv: (V, 2), v up.
      normals: (V, 3), unit, in the space of the vertices.
      material: name of a file of `write_mtl`, in the same folder.
      space: which one the vertices are in.
    """
    # Not by trimesh's exporter: it has one number of digits for mm and for uv, and its own names
    # for the material's files.
    turned = to_viewer(space)
    text = [f"# millimetres, {space} space, y up, z towards the viewer\n"]
    if material is not None:
        text.append(f"mtllib {material}\nusemtl {_MATERIAL}\n")
    text.append(_lines("v %.3f %.3f %.3f", np.asarray(vertices_mm, np.float64) * turned))
    corner = "{0}"
    if uv is not None:
        text.append(_kept_lines("vt %.5f %.5f", np.asarray(uv, np.float64)))
        corner = "{0}/{0}"
    if normals is not None:
        text.append(_lines("vn %.3f %.3f %.3f", np.asarray(normals, np.float64) * turned))
        corner = "{0}/{0}/{0}" if uv is not None else "{0}//{0}"
    corners = (corner.format("%d") for _ in range(3))
    repeats = corner.count("{0}")
    ids = np.repeat(np.asarray(triangles) + 1, repeats, axis=1)
    text.append(_kept_lines("f " + " ".join(corners), ids))
    with written_aside(path) as aside:
        aside.write_text("".join(text), encoding="utf-8")


def to_viewer(space: ObjSpace) -> np.ndarray:
    """(3,) signs that turn the axes of a space to those of mesh viewers."""
    return _TO_VIEWER if space == "camera" else np.ones(3)


def write_mtl(path: str | os.PathLike[str], texture: str) -> None:
    """Write the material of `write_obj`: matt, with the colours of a picture in the same folder."""
    lines = (f"newmtl {_MATERIAL}", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "illum 1")
    with written_aside(path) as aside:
        aside.write_text("\n".join([*lines, f"map_Kd {texture}", ""]), encoding="utf-8")


def _kept_lines(pattern: str, rows: np.ndarray) -> str:
    """`_lines` of what is the same for all faces of a model: written once, then remembered."""
    return _lines_of_bytes(pattern, rows.tobytes(), rows.dtype.str, rows.shape[1])


@lru_cache(maxsize=8)
def _lines_of_bytes(pattern: str, rows: bytes, dtype: str, columns: int) -> str:
    return _lines(pattern, np.frombuffer(rows, dtype).reshape(-1, columns))


def _lines(pattern: str, rows: np.ndarray) -> str:
    return (pattern + "\n") * len(rows) % tuple(rows.ravel().tolist())
