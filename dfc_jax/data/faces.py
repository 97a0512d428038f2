"""Annotated faces: the records that readers return, sets of them, and passing over bad files."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

import numpy as np

from dfc_jax.crops import box_of_points
from dfc_jax.errors import DatasetError, PhotoError
from dfc_jax.types import ByValue

# What reading one face of a set may raise; the others can still be used.
UNUSABLE = (DatasetError, PhotoError)
# Whether the 17 jaw points follow the contour that the photograph shows, as annotators draw it,
# or are fixed points of the surface, which the turned head may hide.
Jaw = Literal["contour", "surface"]
# Where the face is, and where that counts: (H, W) bool both.
Masks = tuple[np.ndarray, np.ndarray]
T = TypeVar("T")


class DenseTruth(NamedTuple):
    """Exact dense correspondence of a square picture with the template of its size.

    flow: (S, S, 2) float32 pixels; matchable: (S, S) bool, where the template sees the same point
    of the face, and nothing covers it in the picture.
    """

    flow: np.ndarray
    matchable: np.ndarray


@dataclass(frozen=True, eq=False)
class Example(ByValue):
    """One annotated photograph.

    Attributes:
      photo: its file.
      points: (68, 2) float64, photo pixels; NaN where a point is hidden or not annotated.
    """

    photo: Path
    points: np.ndarray

    @property
    def landmark_box(self) -> np.ndarray:
        """(4,) x, y, width, height of the annotated face in photo pixels: tight around the points
        that are there."""
        return box_of_points(self.points)

    def image(self) -> np.ndarray:
        """The photograph, (H, W, 3) uint8 RGB.

        Raises:
          PhotoError: it cannot be read.
        """
        from dfc_jax.photo import read_photo  # here: packed faces need no decoder

        return read_photo(self.photo)


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

    @property
    def pose_deg(self) -> np.ndarray:
        """(3,) yaw, pitch and roll as in `dfc_jax.types`; a pitch of 0 is the Basel model's, a few
        degrees from that of other models."""
        return np.rad2deg(self.pose[[1, 0, 2]])


@dataclass(frozen=True, eq=False)
class AnnotatedFace(Example):
    """One annotated face of a set.

    Attributes:
      photo, points: see `Example`.
      name: unique in its set, with the folder where there are several (``AFW/AFW_1_0``).
      jaw: what the 17 jaw points are.
      parameters: of 300W-LP and AFLW2000-3D.
      depth_px: (68,) of AFLW2000-3D: `pt3d_68`'s third row, pixels, growing to the viewer.
      encoded: the bytes of the photograph's file, where it is not on disk; `photo` then is a name.
      pose_deg: (3,) true yaw, pitch and roll as in `dfc_jax.types`, NaN where one is unknown; None
        where all are.
      profile: whether the set says that it is seen from the side, where the pose is not known.
      box: (4,) the landmark box, where the points that are annotated do not span the face.
      points21: (21, 2) float64, photo pixels, in the order of `dfc_jax.landmarks21`; NaN where a
        point is hidden or not annotated. Of sets with these points alone `points` are NaN, and
        `box` is given.
      labels: which annotation of the set this is, "original" or the name of another one.
      mask: reads where the photograph shows the face, (H, W) bool: skin, brows, eyes, nose, mouth
        and ears, without hair, neck and what covers the face; and which pixels count, (H, W) bool:
        not those of which the set does not say what they show. It raises `DatasetError` if the
        file cannot be read. None where the set has no masks.
      dense: reads the exact flow to the template, and raises in the same way; None where it is not
        known.
    """

    name: str
    jaw: Jaw = "contour"
    parameters: Parameters | None = None
    depth_px: np.ndarray | None = None
    encoded: bytes | None = field(default=None, repr=False)
    pose_deg: np.ndarray | None = None
    profile: bool = False
    box: np.ndarray | None = None
    points21: np.ndarray | None = None
    labels: str = "original"
    mask: Callable[[], Masks] | None = None
    dense: Callable[[], DenseTruth] | None = None

    @property
    def landmark_box(self) -> np.ndarray:
        """(4,) x, y, width, height: `box` where it is given, else that of the points."""
        return super().landmark_box if self.box is None else self.box

    def image(self) -> np.ndarray:
        """The photograph, (H, W, 3) uint8 RGB.

        Raises:
          PhotoError: it cannot be read.
        """
        if self.encoded is None:
            return super().image()
        import cv2

        decoded = None
        if self.encoded:
            decoded = cv2.imdecode(np.frombuffer(self.encoded, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise PhotoError(f"{self.photo}: the image is damaged; prepare the data set again")
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


class FaceSet(Sequence[AnnotatedFace], Generic[T]):
    """Faces that are read when they are asked for; a slice is a set again.

    Indexing raises what `UNUSABLE` names for a face that cannot be used. `keys` has one for each
    face: its annotation's file, where each has its own.
    """

    def __init__(self, name: str, keys: Sequence[T], read: Callable[[T], AnnotatedFace]):
        """A set of the faces of `keys`.

        Args:
          name: of the set, for messages and reports.
          keys: one for each face, in order.
          read: reads the face of a key.
        """
        self.name, self.keys, self._read = name, keys, read

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> AnnotatedFace: ...
    @overload
    def __getitem__(self, index: slice) -> "FaceSet[T]": ...
    def __getitem__(self, index: int | slice) -> "AnnotatedFace | FaceSet[T]":
        if isinstance(index, slice):
            return FaceSet(self.name, self.keys[index], self._read)
        return self._read(self.keys[index])


def refuse_duplicates(where: Path, names: Iterable[object]) -> None:
    """Names of faces have to be unique in their set.

    Raises:
      DatasetError: one occurs twice.
    """
    seen: set[object] = set()
    for name in names:
        if name in seen:
            raise DatasetError(f"{where}: there are two faces {name}; remove one of them")
        seen.add(name)


def itself(face: AnnotatedFace) -> AnnotatedFace:
    """The face as it is: what `collect` prepares by default."""
    return face


def collect(
    faces: Sequence[AnnotatedFace],
    prepare: Callable[[AnnotatedFace], Any] = itself,
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


def read_usable(faces: FaceSet[T]) -> tuple[list[AnnotatedFace], dict[T, str]]:
    """The faces of a set that can be used, in its order, and by key one sentence for each other.

    Raises:
      DatasetError: none can be used.
    """
    examples, problems = [], {}
    for index, key in enumerate(faces.keys):
        try:
            face = faces[index]
            if not (face.landmark_box[2:] > 0.0).all():
                raise DatasetError(f"{key}: its points span no face; annotate it again")
            examples.append(face)
        except UNUSABLE as error:
            problems[key] = str(error)
    if not examples:
        first = next(iter(problems.values()), "it is empty")
        raise DatasetError(f"none of {len(problems)} annotations can be used; {first}")
    return examples, problems
