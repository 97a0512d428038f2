"""Reader of the Basel Face Model 2009 with FaceWarehouse expressions, in its two common layouts.

========================  =========================================  ============================
shape file                expression file                            expression file's partners
========================  =========================================  ============================
`01_MorphableModel.mat`   `Exp_Pca.bin` (Guo et al., CoarseData)     `std_exp.txt`
`Model_Shape.mat`         `Model_Expression.mat` (3DDFA, 300W-LP)    none
========================  =========================================  ============================

Any shape file goes with any expression file. The expressions lack the inner mouth (53,215 of
Basel's 53,490 vertices); where the two counts differ, the vertices kept are `trimIndex` of
`BFM_exp_idx.mat` or of 3DDFA's `model_info.mat`, beside either file. All indices in these files
count from 1, lengths are micrometres, coordinates run x0, y0, z0, x1, ...

`Exp_Pca.bin` is little-endian: int32 n, then float32 mean (3V), then n components (3V each).

The models are licensed separately by their authors and are not part of this package.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dfc_jax.errors import FaceModelError
from dfc_jax.landmarks68 import N_JAW, N_LANDMARKS
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.types import SurfacePoints

SHAPE_FILES = ("01_MorphableModel.mat", "Model_Shape.mat")
EXPRESSION_FILES = ("Exp_Pca.bin", "Model_Expression.mat")
FRONT_FILES = ("facemodel_info.mat", "BFM_front_idx.mat")
MM_PER_UM = 1e-3


class _Linear(NamedTuple):
    """A file's mean (V, 3) and directions (V, 3, K) of one standard deviation, millimetres."""

    path: Path
    mean_mm: np.ndarray
    basis_mm: np.ndarray


def read_basel(source: str | Path | tuple[str | Path, str | Path]) -> FaceModel:
    """Read Basel 2009 shape and FaceWarehouse expressions into a `FaceModel`.

    Basel's frame is already ours (x to the subject's left, y up, z out of the face, origin inside
    the head), so only the unit changes. What differs from the embedded model:

    - Expressions `exp_00`, ... are principal components. Their weights are *signed standard
      deviations*, not blendshape weights in [0, 1]. The same model in 300W-LP's terms:
      ``identity = Shape_Para / sigma``, ``expression = Exp_Para / sigma_exp``.
    - `Model_Expression.mat` adds its mean offset `mu_exp` to the mean shape, because the
      parameters of 300W-LP and AFLW2000-3D are relative to it. That of `Exp_Pca.bin` opens the
      mouth and is left out, as its users do: zero weights are Basel's neutral face.
    - uv is a cylindrical chart, u growing to the subject's left, v up. It overlaps where the
      surface folds back along a ray from the axis (nostrils, behind the ears).
    - Every triangle's part is skin: Basel's `segbin` regions are wider than ours.
    - Landmarks are vertices: `keypoints` of `Model_Shape.mat`, else of `model_info.mat`, else of
      `facemodel_info.mat` through `BFM_front_idx.mat`. Without any of them `landmarks` and
      `contours` are empty.
    - A contour is its jaw landmark alone (L = 1).

    Args:
      source: the folder of the files, or the paths (shape file, expression file).

    Raises:
      FaceModelError: a file or a key is missing, sizes disagree, or an index is out of range.
    """
    shape_path, expression_path = _paths(source)
    folders = tuple(dict.fromkeys([shape_path.parent, expression_path.parent]))
    shape, triangles = _read_shape(shape_path)
    expression = _read_expression(expression_path)
    if len(shape.mean_mm) != len(expression.mean_mm):
        keep = _kept_vertices(shape, expression, folders)
        shape = _Linear(shape_path, shape.mean_mm[keep], shape.basis_mm[keep])
        triangles = _trim(triangles, keep)
    mean_mm = shape.mean_mm
    if expression_path.suffix != ".bin":
        mean_mm = mean_mm + expression.mean_mm
    triangles = _outward(mean_mm, triangles)
    landmarks = _landmarks(shape_path, folders, triangles, len(mean_mm))
    return FaceModel(
        mean_mm=jnp.asarray(mean_mm, jnp.float32),
        identity_mm=jnp.asarray(shape.basis_mm, jnp.float32),
        expression_mm=jnp.asarray(expression.basis_mm, jnp.float32),
        triangles=jnp.asarray(triangles, jnp.int32),
        uv=jnp.asarray(_cylindrical_chart(mean_mm), jnp.float32),
        triangle_part=jnp.zeros(len(triangles), jnp.int32),
        landmarks=landmarks,
        contours=SurfacePoints(
            triangle=landmarks.triangle[:N_JAW, None],
            barycentric=landmarks.barycentric[:N_JAW, None],
        ),
        expression_names=tuple(f"exp_{i:02d}" for i in range(expression.basis_mm.shape[-1])),
        version=f"basel2009/{shape_path.stem}+{expression_path.stem}",
    )


def _paths(source: str | Path | tuple[str | Path, str | Path]) -> tuple[Path, Path]:
    if isinstance(source, tuple):
        return Path(source[0]), Path(source[1])
    folder = Path(source)
    if not folder.is_dir():
        raise FaceModelError(f"{folder}: not a folder; give the folder of the Basel files")

    def first(names: Sequence[str], what: str) -> Path:
        found = _beside(names, (folder,))
        if found is None:
            raise FaceModelError(
                f"{folder}: no {what} file here; put {' or '.join(names)} into it, or give "
                "the paths (shape file, expression file)"
            )
        return found

    return first(SHAPE_FILES, "shape"), first(EXPRESSION_FILES, "expression")


def _beside(names: Sequence[str], folders: Sequence[Path]) -> Path | None:
    candidates = (folder / name for name in names for folder in folders)
    return next((path for path in candidates if path.is_file()), None)


def _load_mat(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    from scipy.io import loadmat  # here: scipy.io is slow to import and rarely needed

    if not path.is_file():
        raise FaceModelError(f"{path}: no such file")
    try:
        # Named variables only: the texture basis next to them takes 250 MB.
        content = loadmat(path, variable_names=[*keys, *optional])
    except NotImplementedError as error:
        raise FaceModelError(f"{path}: a MATLAB 7.3 file; save it with `-v7`") from error
    except Exception as error:  # a broken file makes loadmat raise almost anything
        raise FaceModelError(f"{path}: not a readable MATLAB file ({error})") from error
    missing = [key for key in keys if key not in content]
    if missing:
        raise FaceModelError(
            f"{path}: has no {', '.join(missing)}; it must be the file of that name as its "
            "authors distribute it"
        )
    return content


def _linear(path: Path, mean: np.ndarray, basis: np.ndarray, sigma: np.ndarray) -> _Linear:
    """Micrometres, (3V,), (3V, K) and (K,), to a `_Linear` in millimetres."""
    mean, sigma = np.ravel(mean), np.ravel(sigma)
    if mean.size % 3 or basis.shape != (mean.size, sigma.size):
        raise FaceModelError(
            f"{path}: sizes disagree: mean {mean.size}, basis {basis.shape}, "
            f"standard deviations {sigma.size}; expected 3V, (3V, K), K"
        )
    scaled = basis * (sigma * MM_PER_UM)
    if not (np.isfinite(mean).all() and np.isfinite(scaled).all()):
        raise FaceModelError(f"{path}: holds numbers that are not finite; fetch it again")
    return _Linear(path, mean.reshape(-1, 3) * MM_PER_UM, scaled.reshape(-1, 3, sigma.size))


def _read_shape(path: Path) -> tuple[_Linear, np.ndarray]:
    keys = ("mu_shape", "w", "sigma", "tri")
    if path.name == SHAPE_FILES[0]:
        keys = ("shapeMU", "shapePC", "shapeEV", "tl")
    mean, basis, sigma, triangles = (_load_mat(path, keys)[key] for key in keys)
    shape = _linear(path, mean, basis, sigma)
    if triangles.shape[-1] != 3:
        triangles = triangles.T
    if triangles.ndim != 2 or triangles.shape[-1] != 3:
        raise FaceModelError(f"{path}: {keys[-1]} must list three vertices per triangle")
    return shape, _zero_based(path, keys[-1], triangles, len(shape.mean_mm))


def _zero_based(path: Path, key: str, indices: np.ndarray, count: int) -> np.ndarray:
    zero_based = indices.astype(np.int64) - 1
    if zero_based.size and not (0 <= zero_based.min() and zero_based.max() < count):
        raise FaceModelError(
            f"{path}: {key} must lie in 1 to {count}, found {zero_based.min() + 1} to "
            f"{zero_based.max() + 1}; it belongs to another model"
        )
    return zero_based


def _read_expression(path: Path) -> _Linear:
    if path.suffix == ".bin":
        return _read_exp_pca(path)
    keys = ("mu_exp", "w_exp", "sigma_exp")
    content = _load_mat(path, keys)
    return _linear(path, *(content[key] for key in keys))


def _read_exp_pca(path: Path) -> _Linear:
    if not path.is_file():
        raise FaceModelError(f"{path}: no such file")
    deviations = path.with_name("std_exp.txt")
    if not deviations.is_file():
        raise FaceModelError(
            f"{deviations}: no such file; it holds the standard deviations of {path.name}, put "
            "the two into one folder"
        )
    header = np.fromfile(path, "<i4", count=1)
    n = int(header[0]) if header.size else 0
    floats = (path.stat().st_size - 4) // 4
    if not 0 < n < 1000 or floats <= 0 or path.stat().st_size % 4 or floats % (3 * (n + 1)):
        raise FaceModelError(
            f"{path}: {path.stat().st_size} bytes do not hold a mean and {n} components; "
            "the download is incomplete or another file, fetch it again"
        )
    rows = np.fromfile(path, "<f4", offset=4).reshape(n + 1, -1)
    try:
        sigma = np.loadtxt(deviations)
    except ValueError as error:
        raise FaceModelError(f"{deviations}: not a list of numbers ({error})") from error
    return _linear(path, rows[0], rows[1:].T, sigma)


def _kept_vertices(shape: _Linear, expression: _Linear, folders: Sequence[Path]) -> np.ndarray:
    """Which shape vertices the expressions describe, in the expressions' order."""
    n_shape, n_expression = len(shape.mean_mm), len(expression.mean_mm)
    counts = f"{shape.path} has {n_shape} vertices, {expression.path} {n_expression}"
    path = _beside(("BFM_exp_idx.mat", "model_info.mat"), folders)
    if path is None:
        raise FaceModelError(
            f"{counts}; put BFM_exp_idx.mat or model_info.mat, which say which vertices are "
            "kept, beside one of them"
        )
    keep = _zero_based(path, "trimIndex", _load_mat(path, ["trimIndex"])["trimIndex"], n_shape)
    if keep.size != n_expression:
        raise FaceModelError(f"{counts}, but trimIndex of {path} keeps {keep.size}")
    return keep.ravel()


def _trim(triangles: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Triangles among the kept vertices, renumbered."""
    renumbered = np.full(max(triangles.max(), keep.max()) + 1, -1)
    renumbered[keep] = np.arange(keep.size)
    triangles = renumbered[triangles]
    return triangles[(triangles >= 0).all(axis=1)]


def _outward(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """All triangles turned together so that the volume they enclose with the middle is positive."""
    a, b, c = np.moveaxis((vertices - vertices.mean(axis=0))[triangles], 1, 0)
    return triangles if np.sum(a * np.cross(b, c)) > 0 else triangles[:, ::-1]


def _cylindrical_chart(vertices: np.ndarray) -> np.ndarray:
    """Angle about a vertical axis, and height, both stretched to [0, 1], x = 0 at u = 1/2."""
    x, y, z = vertices.T
    # Behind all that lies near the middle plane, so that no triangle crosses the seam.
    axis_z = z.min() + 0.25 * np.ptp(z)
    angle = np.arctan2(x, z - axis_z)
    return np.stack([0.5 + 0.5 * angle / np.abs(angle).max(), (y - y.min()) / np.ptp(y)], axis=1)


def _landmarks(
    shape_path: Path, folders: Sequence[Path], triangles: np.ndarray, n_vertices: int
) -> SurfacePoints:
    path, vertices = _keypoints(shape_path, folders, n_vertices)
    if vertices.size not in (0, N_LANDMARKS):
        raise FaceModelError(f"{path}: {vertices.size} keypoints; expected {N_LANDMARKS}")
    first_triangle = np.full(n_vertices, -1)
    # Backwards, so that the first triangle of a vertex is written last.
    first_triangle[triangles[::-1].ravel()] = np.repeat(np.arange(len(triangles))[::-1], 3)
    triangle = first_triangle[vertices]
    if (triangle < 0).any():
        raise FaceModelError(f"{path}: a keypoint is a vertex of no triangle")
    one_hot = triangles[triangle] == vertices[:, None]
    return SurfacePoints(
        triangle=jnp.asarray(triangle, jnp.int32), barycentric=jnp.asarray(one_hot, jnp.float32)
    )


def _keypoints(
    shape_path: Path, folders: Sequence[Path], n_vertices: int
) -> tuple[Path, np.ndarray]:
    """Vertices of the landmarks (68,), or (0,) where no file tells them, and their file."""
    info = _beside(("model_info.mat",), folders)
    own = [shape_path] if shape_path.name != SHAPE_FILES[0] else []
    for path in own + ([info] if info else []):
        keypoints = _load_mat(path, (), ("keypoints",)).get("keypoints")
        if keypoints is not None:
            return path, _zero_based(path, "keypoints", keypoints, n_vertices).ravel()
    info, front = (_beside((name,), folders) for name in FRONT_FILES)
    if info is None or front is None:
        return shape_path, np.zeros(0, np.int64)
    vertices = _zero_based(front, "idx", _load_mat(front, ["idx"])["idx"], n_vertices).ravel()
    keypoints = _load_mat(info, ["keypoints"])["keypoints"]
    return info, vertices[_zero_based(info, "keypoints", keypoints, vertices.size).ravel()]
