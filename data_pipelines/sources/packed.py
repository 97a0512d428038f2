"""Annotated faces packed into one file: squares of their photographs, and their points.

The file is an ``.npz`` with the pictures as `data_pipelines.pictures` packs them; reading it takes
NumPy alone. 3,300 faces take 15 MB. `experiments.bundle` writes such files.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_pipelines import pictures
from dfc_jax.data.faces import AnnotatedFace, FaceSet
from dfc_jax.errors import DatasetError
from dfc_jax.files import load_arrays, write_npz

_COLUMNS = ("names", "points", "boxes", "surface", "profile")


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedFace(AnnotatedFace):
    """A face whose picture is in memory.

    Attributes:
      pixels: (S, S, 3) uint8 RGB.
    """

    pixels: np.ndarray

    def image(self) -> np.ndarray:
        """The picture."""
        return self.pixels


def write_packed(path: str | os.PathLike[str], faces: Sequence[AnnotatedFace]) -> None:
    """Pack faces whose pictures all have one size, a multiple of `pictures.MULTIPLE`.

    Their names, points, boxes, kinds of jaw and whether they are profiles are kept, and nothing
    else of them.

    Raises:
      ExportError: the file cannot be written.
      DatasetError: a picture cannot be used.
      ValueError: the pictures are not of one such size.
    """
    arrays = {
        "names": np.array([face.name for face in faces], str),
        "points": np.stack([face.points for face in faces]).astype(np.float32),
        "boxes": np.stack([face.landmark_box for face in faces]),
        "surface": np.array([face.jaw == "surface" for face in faces]),
        "profile": np.array([face.profile for face in faces]),
        **pictures.pack(np.stack([face.image() for face in faces])),
    }
    write_npz(path, False, **arrays)


def packed(path: str | os.PathLike[str]) -> FaceSet[int]:
    """The faces of a file of `write_packed`, all in memory.

    Raises:
      DatasetError: the file is missing, damaged or another one.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file; give one of packed faces")
    try:
        arrays = load_arrays(path, (*_COLUMNS, "coded", "shape"))
        table = {name: arrays[name] for name in _COLUMNS}
        shown = pictures.unpack(arrays["coded"], arrays["shape"])
    except Exception as error:  # NumPy and zipfile raise many kinds for a broken file
        raise DatasetError(f"{path}: cannot be read as packed faces; copy it again") from error
    return FaceSet(str(path), range(len(shown)), partial(_face, path, table, shown))


def _face(path: Path, table: dict[str, np.ndarray], shown: np.ndarray, index: int) -> AnnotatedFace:
    row = {name: column[index] for name, column in table.items()}
    return PackedFace(
        photo=path,
        points=row["points"].astype(np.float64),
        name=str(row["names"]),
        jaw="surface" if row["surface"] else "contour",
        profile=bool(row["profile"]),
        box=row["boxes"],
        pixels=shown[index],
    )
