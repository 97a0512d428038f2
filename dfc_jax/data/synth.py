"""What ``dfc synth`` writes: rendered faces, of which everything is known.

``pair_NNNNN.npz`` holds among others `source` (S, S, 3) uint8 RGB, the picture that counts here;
`points` (68, 2), fixed points of the surface, which the head may hide; `angles_deg` (3,); `face`
and `occluded` (S, S) bool, pixels on the face without the neck, and pixels that something covers;
`template_flow` (S, S, 2) and `template_matchable` (S, S), the exact flow to the template of the
face model, and where there is one. Files of older versions have source and occluded alone.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, DenseTruth, FaceSet, Masks
from dfc_jax.data.lp import fits
from dfc_jax.errors import DatasetError
from dfc_jax.files import load_arrays
from dfc_jax.landmarks68 import N_LANDMARKS

# What is read of a file: the length of each axis, None for the picture's edge.
Shapes = Mapping[str, tuple[int | None, ...]]
_PICTURE: Shapes = {"source": (None, None, 3), "points": (N_LANDMARKS, 2), "angles_deg": (3,)}
_MASKS: Shapes = {"face": (None, None), "occluded": (None, None)}
_FLOW: Shapes = {"template_flow": (None, None, 2), "template_matchable": (None, None)}


def synth(folder: str | os.PathLike[str]) -> FaceSet[Path]:
    """The source pictures of a folder of ``dfc synth``, by number.

    Raises:
      DatasetError: no such folder, or no ``pair_NNNNN.npz`` in it.
    """
    found = sorted(Path(folder).glob("pair_*.npz"))
    if not found:
        raise DatasetError(f"{folder}: holds no pair_NNNNN.npz; give a folder of dfc synth")
    return FaceSet(str(folder), found, _read_face)


@dataclass(frozen=True)
class _TrueMask:
    """The mask of one file, read when it is called."""

    path: Path

    def __call__(self) -> Masks:
        stored = _read(self.path, _MASKS)
        mask = (stored["face"] > 0) & ~(stored["occluded"] > 0)
        return mask, np.ones_like(mask)


@dataclass(frozen=True)
class _TrueFlow:
    """The flow of one file, read when it is called."""

    path: Path

    def __call__(self) -> DenseTruth:
        stored = _read(self.path, {**_FLOW, "occluded": _MASKS["occluded"]})
        matchable = (stored["template_matchable"] > 0) & ~(stored["occluded"] > 0)
        return DenseTruth(stored["template_flow"].astype(np.float32), matchable)


def _read_face(path: Path) -> AnnotatedFace:
    import cv2  # here: packed faces need no decoder

    stored = _read(path, _PICTURE)
    source = stored["source"]
    if source.dtype != np.uint8:
        raise DatasetError(f"{path}: source is no picture of 8 bits; make the pairs again")
    return AnnotatedFace(
        photo=path,
        points=stored["points"].astype(np.float64),
        name=path.stem,
        jaw="surface",
        encoded=cv2.imencode(".png", source[..., ::-1])[1].tobytes(),
        pose_deg=stored["angles_deg"].astype(np.float64),
        mask=_TrueMask(path),
        dense=_TrueFlow(path),
    )


def _read(path: Path, shapes: Shapes) -> dict[str, np.ndarray]:
    try:
        stored = load_arrays(path, shapes)
    except Exception as error:  # a broken file makes NumPy raise almost anything
        raise DatasetError(f"{path}: not a readable pair of dfc synth; make it again") from error
    for name, shape in shapes.items():
        if name not in stored:
            raise DatasetError(f"{path}: has no {name}; make the pairs again with this dfc synth")
        if not fits(stored[name].shape, shape):
            raise DatasetError(f"{path}: {name} is {stored[name].shape}; make the pairs again")
    return stored
