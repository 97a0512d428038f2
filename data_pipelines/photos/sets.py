"""Sets of annotated faces in several folders, as squares and as labelled squares."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_pipelines.photos.labels import PhotoSet, label
from data_pipelines.photos.shards import ShardedPhotos, write_shards
from data_pipelines.photos.squares import Square, read_square
from data_pipelines.sources.layouts import open_faces
from dfc_jax.data.faces import AnnotatedFace, FaceSet, collect
from dfc_jax.errors import DatasetError
from dfc_jax.fitting import LandmarkSettings
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.systems.dfc.template import Template


def open_sets(folders: Sequence[str | os.PathLike[str]], layout: str) -> FaceSet:
    """The faces of several folders as one set, folder after folder.

    Args:
      folders: of the data sets.
      layout: of all of them, one of `LAYOUTS`.

    Raises:
      DatasetError: a folder is not of this layout.
    """
    sets = [open_faces(layout, folder) for folder in folders]
    keys = [(faces, index) for faces in sets for index in range(len(faces))]

    def read(key: tuple[FaceSet, int]) -> AnnotatedFace:
        faces, index = key
        return faces[index]

    return FaceSet(", ".join(faces.name for faces in sets), keys, read)


def read_sets(
    folders: Sequence[str | os.PathLike[str]], layout: str, count: int | None = None
) -> tuple[list[str], list[Square], list[str]]:
    """The squares of several folders, in memory.

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


def label_fitted(model: FaceModel, template: Template, squares: Sequence[Square]) -> PhotoSet:
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


def write_labelled(
    folder: Path,
    faces: FaceSet,
    label_squares: Callable[[list[Square]], PhotoSet],
    more: int = 0,
) -> ShardedPhotos:
    """Cut out and label the faces of a set, written to a folder of shards; see `write_shards`."""

    def make(start: int, stop: int) -> tuple[PhotoSet | None, list[str]]:
        squares, problems = collect(faces[start:stop], read_square)
        return (label_squares(squares) if squares else None), problems

    return write_shards(folder, len(faces), make, more)
