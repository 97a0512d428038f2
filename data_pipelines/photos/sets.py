"""Sets of annotated faces in several folders, as squares and as labelled squares."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.photos.labels import PhotoSet, label
from data_pipelines.photos.shards import ShardedPhotos, write_shards
from data_pipelines.photos.squares import Square, read_square
from data_pipelines.sources.layouts import open_faces, with_layout
from dfc_jax.data.faces import AnnotatedFace, FaceSet, collect
from dfc_jax.fitting import LandmarkSettings
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.systems.dfc.template import Template


def open_sets(folders: Sequence[str | os.PathLike[str]], layout: str) -> FaceSet:
    """The faces of several folders as one set, folder after folder.

    Args:
      folders: of the data sets; ``cfp=FOLDER`` is one of another layout.
      layout: of all others, one of `LAYOUTS`.

    Raises:
      DatasetError: a folder is not of this layout.
    """
    sets = [open_faces(*with_layout(os.fspath(folder), layout)) for folder in folders]
    keys = [(faces, index) for faces in sets for index in range(len(faces))]

    def read(key: tuple[FaceSet, int]) -> AnnotatedFace:
        faces, index = key
        return faces[index]

    return FaceSet(", ".join(faces.name for faces in sets), keys, read)


def label_fitted(model: FaceModel, template: Template, squares: Sequence[Square]) -> PhotoSet:
    """Dense labels from a fit of the face model to the points of each square."""
    return label(
        model,
        template,
        np.stack([square.image for square in squares]),
        np.stack([square.points for square in squares]),
        [square.face.name for square in squares],
        LandmarkSettings(),
        np.array([square.face.jaw == "contour" for square in squares]),
        np.array([square.face.profile for square in squares]),
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
