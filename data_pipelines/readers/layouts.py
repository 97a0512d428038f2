"""The readers by the names that programs give them, and whole sets of squares."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_pipelines.photos import PhotoSet, label
from data_pipelines.readers.faces import FaceSet, Square, collect, read_square
from data_pipelines.readers.folders import aflw2000, ibug, w300lp
from data_pipelines.readers.tfds import BUILDERS, tfds_faces
from dfc_jax.correspondence import Template
from dfc_jax.fitting import LandmarkSettings
from dfc_jax.inference.evaluate import DatasetError
from dfc_jax.morphable.core import FaceModel

FOLDERS: dict[str, Callable[..., FaceSet]] = {"ibug": ibug, "300w-lp": w300lp, "aflw2000": aflw2000}
LAYOUTS = (*FOLDERS, *(f"tfds:{name}" for name in BUILDERS))


def open_faces(layout: str, folder: str | os.PathLike[str]) -> FaceSet:
    """The faces of a folder.

    Args:
      layout: one of `LAYOUTS`.
      folder: of the files; for ``tfds:...`` the one in which TFDS prepared the set.

    Raises:
      DatasetError: there is no such layout, or not in this folder.
    """
    if layout in FOLDERS:
        return FOLDERS[layout](folder)
    if layout in LAYOUTS:
        return tfds_faces(layout.removeprefix("tfds:"), folder)
    raise DatasetError(f"there is no layout {layout!r}; choose from {', '.join(LAYOUTS)}")


def read_sets(
    folders: Sequence[str | os.PathLike[str]], layout: str, count: int | None = None
) -> tuple[list[str], list[Square], list[str]]:
    """The squares of several folders.

    Args:
      folders: read one after the other.
      layout: of all of them, one of `LAYOUTS`.
      count: faces of each folder, evenly spaced; None for all.

    Returns:
      the set of each square, the squares, and one sentence for each face that cannot be used.

    Raises:
      DatasetError: a folder is not of this layout, or nothing in them can be used.
    """
    names, squares, problems = [], [], []
    for folder in folders:
        faces = open_faces(layout, folder)
        faces = faces[:: max(1, len(faces) // count)][:count] if count else faces
        some, broken = collect(faces, read_square, partial(tqdm, unit="photo", disable=None))
        names += [_set_name(faces, square) for square in some]
        squares += some
        problems += broken
    if not squares:
        raise DatasetError(f"nothing can be used; first of {len(problems)}: {problems[0]}")
    return names, squares, problems


def _set_name(faces: FaceSet, square: Square) -> str:
    """The folder, with that inside it where a set is made of several."""
    inner = Path(square.face.name).parent
    return faces.name if faces.name.startswith("tfds:") else str(Path(faces.name) / inner)


def label_fitted(
    model: FaceModel,
    template: Template,
    squares: Sequence[Square],
) -> PhotoSet:
    """Dense labels from a fit of the face model to the 68 points of each square."""
    return label(
        model,
        template,
        np.stack([square.image for square in squares]),
        np.stack([square.points for square in squares]),
        [square.face.name for square in squares],
        LandmarkSettings(),
        np.array([square.face.jaw == "contour" for square in squares]),
    )
