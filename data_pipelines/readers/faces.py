"""The record that every reader returns, and passing over a set without stopping at bad files."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, overload

import cv2
import numpy as np
from absl import logging

from data_pipelines.photos import stored_square
from dfc_jax.camera import apply_affine
from dfc_jax.inference.evaluate import DatasetError, Example
from dfc_jax.inference.photo import PhotoError, crop_photo
from dfc_jax.types import ByValue

# What one bad file of a set may raise.
UNUSABLE = (DatasetError, PhotoError)
# Whether the 17 jaw points follow the contour that the photograph shows, as annotators draw it,
# or are fixed points of the surface, which the turned head may hide.
Jaw = Literal["contour", "surface"]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Parameters(ByValue):
    """The fitted Basel model that 300W-LP and AFLW2000-3D give with a photograph, as stored.

    Attributes:
      pose: (7,) `Pose_Para`: pitch, yaw, roll (radians, as in `dfc_jax.types`), translation x, y,
        z (pixels from 1, y *up* from the photograph's lower edge, z to the viewer), scale (pixels
        per micrometre).
      shape: (199,) `Shape_Para`, micrometres along unit components.
      expression: (29,) `Exp_Para`.
    """

    pose: np.ndarray
    shape: np.ndarray
    expression: np.ndarray


@dataclass(frozen=True, eq=False)
class Face(Example):
    """One annotated face; what it has beyond an `Example`:

    Attributes:
      name: unique in its set, with the folder where there are several (``AFW/AFW_1_0``).
      jaw: what the 17 jaw points are.
      parameters: of 300W-LP and AFLW2000-3D.
      depth_px: (68,) of AFLW2000-3D: `pt3d_68`'s third row, pixels, growing to the viewer.
      encoded: the photograph's file, where it is not one on disk (then `photo` only names it).
    """

    name: str
    jaw: Jaw = "contour"
    parameters: Parameters | None = None
    depth_px: np.ndarray | None = None
    encoded: bytes | None = field(default=None, repr=False)

    def image(self) -> np.ndarray:
        if self.encoded is None:
            return super().image()
        decoded = None
        if self.encoded:
            decoded = cv2.imdecode(np.frombuffer(self.encoded, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise PhotoError(f"{self.photo}: the image is damaged; prepare the data set again")
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


class FaceSet(Sequence[Face], Generic[T]):
    """Faces that are read when asked for; slices are sets again.

    Indexing raises `DatasetError` (or `PhotoError`) for a face that cannot be used.
    """

    def __init__(self, name: str, keys: Sequence[T], read: Callable[[T], Face]):
        """
        Args:
          name: of the set, for messages and reports.
          keys: one for each face, in order.
          read: the face of a key.
        """
        self.name, self._keys, self._read = name, keys, read

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> "FaceSet[T]": ...
    def __getitem__(self, index: int | slice) -> "Face | FaceSet[T]":
        if isinstance(index, slice):
            return FaceSet(self.name, self._keys[index], self._read)
        return self._read(self._keys[index])


@dataclass(frozen=True, eq=False)
class Square(ByValue):
    """A face cut out as `data_pipelines.photos` stores it.

    Attributes:
      face: what it was cut from.
      image: (S, S, 3) uint8, S = `STORED_PX`.
      points: (68, 2) float32 in its pixels.
      to_square: (2, 3) affine matrix, photo pixels to its pixels.
    """

    face: Face
    image: np.ndarray
    points: np.ndarray
    to_square: np.ndarray


def read_square(face: Face) -> Square:
    """Cut out the square that is kept for training.

    Raises:
      DatasetError: the points span no face.
      PhotoError: the photograph cannot be read.
    """
    try:
        crop = stored_square(face.points)
    except ValueError as error:
        raise DatasetError(f"{face.photo}: its 68 points span no face ({error})") from error
    image = crop_photo(face.image(), crop)
    return Square(
        face,
        np.round(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8),
        apply_affine(crop.to_crop, face.points).astype(np.float32),
        crop.to_crop,
    )


def itself(face: Face) -> Face:
    return face


def collect(
    faces: Sequence[Face],
    prepare: Callable[[Face], Any] = itself,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[list[Any], list[str]]:
    """Everything in a set that can be used, in its order.

    Args:
      faces: the set.
      prepare: made of each face, e.g. `read_square`; may raise what `UNUSABLE` names.
      progress: wraps the iteration, e.g. in a progress bar.

    Returns:
      what `prepare` made, and one sentence for each face that cannot be used.
    """
    prepared, problems = [], []
    for index in progress(range(len(faces))):
        try:
            prepared.append(prepare(faces[index]))
        except UNUSABLE as error:
            problems.append(str(error))
    return prepared, problems


def stream(
    faces: Sequence[Face],
    seed: int,
    prepare: Callable[[Face], Any] = itself,
    report: Callable[[str], None] = logging.warning,
) -> Any:
    """An endless `grain.MapDataset` over a set, in a new order every epoch.

    Element n depends on the set, the seed and n alone: ``stream(faces, seed)[n:]`` goes on where
    a run stopped, ``[process::processes]`` is one process's share, and iterators over
    ``.to_iter_dataset()`` have ``get_state`` and ``set_state``. A face that cannot be used is
    element None, which iteration passes over; it is reported once.

    Args:
      faces: the set.
      seed: of the order, in [0, 2^32).
      prepare: made of each face, e.g. `read_square`; may raise what `UNUSABLE` names.
      report: called with a sentence for each face that cannot be used.

    Raises:
      DatasetError: the set is empty, grain is not installed, or (on reading) nothing in the set
        can be used.
    """
    if not len(faces):
        raise DatasetError("a set without faces cannot be streamed; check its folder")
    grain = required("grain")
    unusable: set[int] = set()

    def read(index: int) -> Any:
        try:
            return prepare(faces[int(index)])
        except UNUSABLE as error:
            if index not in unusable:
                unusable.add(index)
                report(str(error))
            # Passing over nothing but bad files would never end.
            if len(unusable) == len(faces):
                raise DatasetError(f"none of {len(faces)} faces can be used; {error}") from error
            return None

    return grain.MapDataset.range(len(faces)).shuffle(seed=seed).repeat().map(read)


def required(module: str) -> Any:
    """A module of the extra `tfds`.

    Raises:
      DatasetError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DatasetError(
            f"{module} is needed to read this; install it with: pip install 'dfc_jax[tfds]'"
        ) from error
