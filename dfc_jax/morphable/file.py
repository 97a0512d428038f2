"""The face model's file: one ``.npz`` with everything in `FaceModel`."""

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dfc_jax.errors import FaceModelError
from dfc_jax.files import load_arrays, write_npz
from dfc_jax.landmarks68 import N_JAW, N_LANDMARKS
from dfc_jax.morphable.linear import PARTS, FaceModel
from dfc_jax.types import Array, SurfacePoints

_ARRAYS = {
    "mean_mm": np.float32,
    "identity_mm": np.float16,
    "expression_mm": np.float16,
    "triangles": np.uint32,
    "uv": np.float32,
    "triangle_part": np.uint8,
}
_POINTS = ("landmarks", "contours")
# Shapes as in `FaceModel`; a number fixes an axis, equal letters are equal lengths.
_SHAPES: dict[str, tuple[str | int, ...]] = {
    "mean_mm": ("V", 3),
    "identity_mm": ("V", 3, "K"),
    "expression_mm": ("V", 3, "E"),
    "expression_names": ("E",),
    "triangles": ("T", 3),
    "triangle_part": ("T",),
    "uv": ("V", 2),
    "landmarks_triangle": (N_LANDMARKS,),
    "landmarks_barycentric": (N_LANDMARKS, 3),
    "contours_triangle": (N_JAW, "L"),
    "contours_barycentric": (N_JAW, "L", 3),
    "version": (),
}
_INDICES = ("triangles", "triangle_part", *(f"{name}_triangle" for name in _POINTS))
_NEVER_EMPTY = ("V", "T", "L")
_MAX_VALUE = 1e6
_BARYCENTRIC_TOLERANCE = 1e-3


def save_face_model(path: str | Path, model: FaceModel) -> None:
    """Write `model` to a compressed ``.npz``; displacements are kept as float16 millimetres."""
    arrays: dict[str, Any] = {
        name: np.asarray(getattr(model, name), dtype) for name, dtype in _ARRAYS.items()
    }
    for name in _POINTS:
        points = getattr(model, name)
        arrays[f"{name}_triangle"] = np.asarray(points.triangle, np.uint32)
        arrays[f"{name}_barycentric"] = np.asarray(points.barycentric, np.float32)
    write_npz(
        path,
        **arrays,
        expression_names=np.array(model.expression_names, str),
        version=np.array(model.version),
    )


@lru_cache(maxsize=4)
def load_face_model(path: str | Path | None = None) -> FaceModel:
    """Read a face model; without a path, the one that comes with the package.

    A path is read once per process; call ``load_face_model.cache_clear()`` after rewriting it.

    Raises:
      FaceModelError: the file is missing, is not such a file, or contradicts itself.
    """
    if path is None:
        path = Path(str(resources.files("dfc_jax") / "assets" / "face_model.npz"))
    try:
        arrays = load_arrays(path, _SHAPES)
    except FileNotFoundError as error:
        raise FaceModelError(
            f"{path}: no such face model; leave the option out for the embedded one"
        ) from error
    except Exception as error:  # numpy and zipfile raise many kinds for a broken file
        raise FaceModelError(
            f"{path}: is not a readable .npz face model; make it again with "
            "experiments/tools/build_face_model.py"
        ) from error
    try:
        return _from_arrays(arrays)
    except ValueError as error:
        raise FaceModelError(
            f"{path}: is not a face model of this version ({error}); make it again with "
            "experiments/tools/build_face_model.py"
        ) from error


def _check(arrays: dict[str, np.ndarray]) -> None:
    lengths = _check_shapes(arrays)
    for name in _INDICES:
        _check_kind(arrays, name, "iu", "whole numbers")
    limits = {"triangles": "V", **{f"{name}_triangle": "T" for name in _POINTS}}
    for name, axis in limits.items():
        if arrays[name].min() < 0 or arrays[name].max() >= lengths[axis]:
            raise ValueError(f"{name} points past the end")
    part = arrays["triangle_part"]
    if part.min() < 0 or part.max() >= len(PARTS):
        raise ValueError("triangle_part names an unknown part")
    for name in ("expression_names", "version"):
        _check_kind(arrays, name, "U", "text")
    for name in _SHAPES.keys() - {*_INDICES, "expression_names", "version"}:
        _check_kind(arrays, name, "f", "real numbers")
        # Not finite, or no place on a head in millimetres even so.
        if not float(np.abs(arrays[name]).max(initial=0.0)) <= _MAX_VALUE:
            raise ValueError(f"{name} holds numbers that are not finite or far too large")
    for name in _POINTS:
        if np.abs(arrays[f"{name}_barycentric"].sum(axis=-1) - 1.0).max() > _BARYCENTRIC_TOLERANCE:
            raise ValueError(f"{name}_barycentric does not add up to 1")


def _check_kind(arrays: dict[str, np.ndarray], name: str, kinds: str, what: str) -> None:
    if arrays[name].dtype.kind not in kinds:
        raise ValueError(f"{name} must hold {what}")


def _check_shapes(arrays: dict[str, np.ndarray]) -> dict[str | int, int]:
    """The lengths of the axes that letters name."""
    lengths: dict[str | int, int] = {}
    for name, expected in _SHAPES.items():
        if name not in arrays:
            raise ValueError(f"{name} is missing")
        found = arrays[name].shape
        wanted = tuple(
            axis if isinstance(axis, int) else lengths.setdefault(axis, length)
            for axis, length in zip(expected, found, strict=False)
        )
        if len(found) != len(expected) or found != wanted:
            raise ValueError(f"{name} has shape {found}")
        if any(lengths.get(axis) == 0 for axis in expected if axis in _NEVER_EMPTY):
            raise ValueError(f"{name} is empty")
    return lengths


def _from_arrays(arrays: dict[str, np.ndarray]) -> FaceModel:
    _check(arrays)

    # Converted by NumPy, and put as they are: JAX would compile a program for each shape.
    def floats(name: str) -> Array:
        return jax.device_put(arrays[name].astype(np.float32))

    def integers(name: str) -> Array:
        return jax.device_put(arrays[name].astype(np.int32))

    def points(name: str) -> SurfacePoints:
        return SurfacePoints(integers(f"{name}_triangle"), floats(f"{name}_barycentric"))

    return FaceModel(
        mean_mm=floats("mean_mm"),
        identity_mm=floats("identity_mm"),
        expression_mm=floats("expression_mm"),
        triangles=integers("triangles"),
        uv=floats("uv"),
        triangle_part=integers("triangle_part"),
        landmarks=points("landmarks"),
        contours=points("contours"),
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        version=str(arrays["version"]),
    )
