"""The ICT FaceKit as distributed, in NumPy."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dfc_jax.errors import FaceModelError


class IctModel(NamedTuple):
    """The ICT FaceKit (light) as distributed, in its own frame and in millimetres.

    Attributes:
      neutral_mm: (V, 3), x to the subject's left, y up, z out of the face.
      identity_mm: (K, V, 3) displacements of one standard deviation.
      expression_mm: (E, V, 3) displacements at weight 1.
      expression_names: E names, ARKit style with a ``_L`` / ``_R`` suffix.
      polygons: (F, 4) int vertex indices, the last -1 for triangles.
      polygon_uv: (F, 4, 2) texture coordinates of the corners.
    """

    neutral_mm: np.ndarray
    identity_mm: np.ndarray
    expression_mm: np.ndarray
    expression_names: tuple[str, ...]
    polygons: np.ndarray
    polygon_uv: np.ndarray


# From the FaceKit's documentation: vertex ranges of its geometries and the Multi-PIE landmarks.
ICT_FACE = slice(0, 9409)
ICT_EYEBALL_LEFT = slice(21451, 22221)
ICT_EYEBALL_RIGHT = slice(23021, 23791)
# fmt: off
ICT_LANDMARKS = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088,
    3443, 268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140,
    2075, 1147, 4269, 3360, 1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732,
    5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216,
    6207, 6470, 5517, 5966,
)
# fmt: on
_CM_TO_MM = 10.0


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise FaceModelError(
            f"{path}: cannot be read ({reason}); point to the FaceXModel folder of the ICT FaceKit"
        ) from error


def _vertices(path: Path, lines: list[str]) -> np.ndarray:
    # Vertex order is the correspondence between the shapes, so the lines are read as they come;
    # general mesh loaders split and reorder vertices along texture seams.
    rows = [line[2:] for line in lines if line.startswith("v ")]
    try:
        return np.array(" ".join(rows).split(), np.float64).reshape(len(rows), 3) * _CM_TO_MM
    except ValueError as error:
        raise FaceModelError(
            f"{path}: a vertex line is not three numbers; unpack it again"
        ) from error


def _polygons(path: Path, lines: list[str], n_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """`IctModel.polygons` (F, 4) and `IctModel.polygon_uv` (F, 4, 2)."""
    faces = [[c.split("/") for c in line.split()[1:]] for line in lines if line.startswith("f ")]
    try:
        texture = np.array([line.split()[1:3] for line in lines if line.startswith("vt ")], float)
        polygons = np.array([_padded([int(c[0]) - 1 for c in face], -1) for face in faces], int)
        corners = np.array([_padded([int(c[1]) - 1 for c in face], 0) for face in faces], int)
        polygon_uv = texture[corners]
    except (ValueError, IndexError) as error:
        raise FaceModelError(
            f"{path}: holds a polygon or texture line that is not the FaceKit's; unpack it again"
        ) from error
    if not len(polygons) or polygons.max() >= n_vertices:
        raise FaceModelError(f"{path}: holds no polygons over its vertices; unpack it again")
    return polygons, polygon_uv


def _padded(corners: list[int], fill: int) -> list[int]:
    return corners + [fill] * (4 - len(corners))


def read_ict(folder: str | Path) -> IctModel:
    """Read the ``FaceXModel`` folder of the ICT FaceKit: OBJ files and ``vertex_indices.json``.

    Raises:
      FaceModelError: a file is missing, or disagrees with the neutral mesh.
    """
    folder = Path(folder)
    index_file = folder / "vertex_indices.json"
    try:
        names = tuple(json.loads("\n".join(_read_lines(index_file)))["expressions"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise FaceModelError(f"{index_file}: lists no expressions; unpack it again") from error
    neutral_file = folder / "generic_neutral_mesh.obj"
    lines = _read_lines(neutral_file)
    neutral = _vertices(neutral_file, lines)
    polygons, polygon_uv = _polygons(neutral_file, lines, len(neutral))

    def displacement(path: Path) -> np.ndarray:
        vertices = _vertices(path, _read_lines(path))
        if vertices.shape != neutral.shape:
            raise FaceModelError(
                f"{path}: has {len(vertices)} vertices where the neutral mesh has {len(neutral)}; "
                "take both from one release"
            )
        return vertices - neutral

    identities = sorted(folder.glob("identity*.obj"))
    if not identities:
        raise FaceModelError(f"{folder}: holds no identity*.obj; unpack the FaceKit again")
    return IctModel(
        neutral_mm=neutral,
        identity_mm=np.stack([displacement(path) for path in identities]),
        expression_mm=np.stack([displacement(folder / f"{name}.obj") for name in names]),
        expression_names=names,
        polygons=polygons,
        polygon_uv=polygon_uv,
    )
