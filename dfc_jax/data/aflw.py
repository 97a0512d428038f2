"""AFLW (Koestinger et al., "Annotated Facial Landmarks in the Wild", ICCV Workshops 2011).

Photographs below ``flickr/`` (``0``, ``2``, ``3``) beside the database ``aflw.sqlite``, with these
tables and columns among others:

==================  ==============================================================
`Faces`             face_id, file_id
`FaceImages`        file_id, filepath below ``flickr`` (``0/image00002.jpg``)
`FaceRect`          face_id, x, y, w, h: a square around the head, pixels
`FacePose`          face_id, roll, pitch, yaw: radians
`FeatureCoords`     face_id, feature_id, x, y: pixels; only of points that are visible
`FeatureCoordTypes` feature_id, descr: the names of `dfc_jax.landmarks21` among others
==================  ==============================================================

Pixels are taken as counted from 0, as the annotation tool (Qt and OpenCV) counts them.

The poses are of POSIT with a mean face and the annotated points, a few degrees rough. By the source
of the annotation tool, AFLW's rotation is ``Rz(yaw) Ry(pitch) Rx(roll)`` about the axes x to the
viewer, y to the image's left, z down. So yaw > 0 turns the face to the image's left and pitch > 0
lifts the chin, as in `dfc_jax.types`, but roll > 0 turns the head counter-clockwise. Others who
evaluate on AFLW beside AFLW2000-3D change the sign of the roll alone, too. The three rotations come
in another order than in `dfc_jax.types`, so angles are converted through the matrix. None of this
was checked on photographs of AFLW. The sizes of the angles do not depend on it where two are small.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from dfc_jax.data.faces import AnnotatedFace, FaceSet, refuse_duplicates
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks21 import N_LANDMARKS21, NAMES21
from dfc_jax.landmarks68 import N_LANDMARKS
from dfc_jax.ops.rotations import matrix_to_angles

DATABASE, PHOTOS = "aflw.sqlite", "flickr"
_FACES = "SELECT face_id, filepath FROM Faces LEFT JOIN FaceImages USING (file_id) ORDER BY 1"
_BOXES = "SELECT face_id, x, y, w, h FROM FaceRect"
_POSES = "SELECT face_id, roll, pitch, yaw FROM FacePose"
_POINTS = (
    "SELECT face_id, descr, FeatureCoords.x, FeatureCoords.y"
    " FROM FeatureCoords JOIN FeatureCoordTypes USING (feature_id)"
)
# AFLW's axes, as columns: in the camera's coordinates, and in those of the model (see the module).
_CAMERA_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
_MODEL_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class _Tables:
    """What the database says, by face: file, box (4,), roll, pitch and yaw (3,), named points."""

    photos: dict[int, str | None]
    boxes: dict[int, tuple[float, ...]]
    poses: dict[int, tuple[float, ...]]
    points: dict[int, dict[str, tuple[float, float]]]


def aflw(folder: str | os.PathLike[str]) -> FaceSet[int]:
    """The faces of AFLW by number, with their 21 points, boxes and poses.

    A face's name is that of its photograph with its number, ``0/image00002_39341``.

    Raises:
      DatasetError: no ``aflw.sqlite`` in the folder, or it is damaged or lacks one of the tables.
    """
    folder = Path(folder)
    tables = _read_tables(folder / DATABASE)
    if not tables.photos:
        raise DatasetError(f"{folder / DATABASE}: has no faces; copy it again")
    return FaceSet(str(folder), list(tables.photos), partial(_read_face, folder, tables))


def _read_tables(path: Path) -> _Tables:
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file; give the folder of AFLW that holds it")
    try:
        # Read only: nothing is written beside the file, which may lie where nobody can write.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            faces = opened.execute(_FACES).fetchall()
            refuse_duplicates(path, (number for number, _ in faces))
            points: dict[int, dict[str, tuple[float, float]]] = {}
            for face, name, x, y in opened.execute(_POINTS):
                points.setdefault(face, {})[name] = x, y
            boxes, poses = (dict(_by_face(opened, query)) for query in (_BOXES, _POSES))
    except sqlite3.Error as error:
        raise DatasetError(f"{path}: not a database of AFLW ({error}); copy it again") from error
    return _Tables(dict(faces), boxes, poses, points)


def _by_face(opened: sqlite3.Connection, query: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    for face, *values in opened.execute(query):
        yield face, tuple(values)


def _read_face(folder: Path, tables: _Tables, face: int) -> AnnotatedFace:
    what = f"{folder / DATABASE}: face {face}"
    listed = tables.photos[face]
    if listed is None:
        raise DatasetError(f"{what} has no photograph; leave it out")
    photo = folder / PHOTOS / listed
    if not photo.is_file():
        raise DatasetError(f"{photo}: there is no such photograph; copy {PHOTOS} again")
    box = _numbers(tables.boxes.get(face, (np.nan,) * 4))
    if not (np.isfinite(box).all() and (box[2:] > 0.0).all()):
        raise DatasetError(f"{what} has no box; leave it out")
    named = tables.points.get(face, {})
    points = np.stack([_numbers(named.get(name, (np.nan, np.nan))) for name in NAMES21])
    # The tool writes (-1, -1) where no point is set.
    points[~(points > -1.0).all(axis=-1)] = np.nan
    if np.isnan(points).all():
        raise DatasetError(f"{what} has none of the {N_LANDMARKS21} points; leave it out")
    pose = _numbers(tables.poses.get(face, (np.nan,) * 3))
    return AnnotatedFace(
        photo=photo,
        points=np.full((N_LANDMARKS, 2), np.nan),
        name=f"{Path(listed).with_suffix('').as_posix()}_{face}",
        pose_deg=angles_of_aflw(*pose) if np.isfinite(pose).all() else None,
        box=box,
        points21=points,
    )


def _numbers(values: tuple[Any, ...]) -> np.ndarray:
    """Values of a row as float64, NaN for what is no number."""
    return np.array([v if isinstance(v, int | float) else np.nan for v in values], np.float64)


def angles_of_aflw(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """AFLW's roll, pitch and yaw in radians as yaw, pitch and roll in degrees (3,), with the order
    and the signs of `dfc_jax.types`; see the module."""
    (cr, cp, cy), (sr, sp, sy) = (f([roll, pitch, yaw]) for f in (np.cos, np.sin))
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]])
    about_y = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
    about_z = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
    matrix = _CAMERA_AXES @ about_z @ about_y @ about_x @ _MODEL_AXES.T
    return np.asarray(matrix_to_angles(jnp.asarray(matrix)), np.float64)
