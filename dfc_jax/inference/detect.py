"""What detectors have in common, and those of others: OpenCV's Haar cascades and YuNet.

Every detector draws its boxes differently; the aligner wants the tight box of the 68 landmarks.
`landmark_box` is the bridge, with constants measured per detector.

Detectors can be called from several threads at once and can be pickled: OpenCV's own objects can
do neither, so each thread makes its own.
"""

import dataclasses
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from dfc_jax.crops import CROP_LIFT, CROP_SCALE, Crop, crop_of_box
from dfc_jax.errors import UserError
from dfc_jax.types import ByValue

# Longest edge of the copy on which the detectors work.
WORKING_EDGE = 640


class DetectorError(UserError):
    """A detector cannot be made; the message is one sentence with the remedy."""


@dataclass(frozen=True, eq=False)
class Detection(ByValue):
    """One face: the box (x, y, width, height) in photo pixels as its detector draws it.

    Attributes:
      box: (4,) float64.
      score: the detector's own confidence; comparable within one kind only.
      kind: which detector drew the box, a key of `CALIBRATIONS`, or "dfc", "given", "whole", or
        "followed" from frame to frame.
      roll_deg: how far the box, and the face in it, is turned about the box's middle, clockwise.
    """

    box: np.ndarray
    score: float
    kind: str
    roll_deg: float = 0.0

    @property
    def landmark_box(self) -> np.ndarray:
        """The box (x, y, width, height) in which the 68 landmarks are expected, turned alike."""
        box = landmark_box(self.kind, self.box)
        box[:2] += self._turn(_middle(box) - _middle(self.box))
        return box

    @property
    def crop(self) -> Crop:
        """The crop in which the face stands upright."""
        box = self.landmark_box
        upright = crop_of_box(box)
        centre = upright.centre + self._turn(upright.centre - _middle(box))
        return dataclasses.replace(upright, centre=centre, roll_deg=self.roll_deg)

    def _turn(self, arm: np.ndarray) -> np.ndarray:
        """What a turn by the roll adds to `arm` (2,)."""
        return Crop(np.zeros(2), 1.0, self.roll_deg).rotation @ arm - arm


class Calibration(NamedTuple):
    """Landmark box relative to a detector's box, in units of the detector box's edges.

    Attributes:
      scale: longer edge of the landmark box / geometric mean of the detector box's edges.
      dx, dy: from the centre of the detector's box to the centre of the landmark box.
    """

    scale: float
    dx: float
    dy: float


# Medians over every third training photograph of HELEN and AFW (403 faces; nothing of a test set),
# from experiments/tools/calibrate_detectors.py; frontal dx and the two profiles made symmetric. The
# standard deviations of (scale, dx, dy) are 0.08, 0.09, 0.04 (frontal Haar), 0.16, 0.09, 0.06
# (profile) and 0.05, 0.03, 0.03 (YuNet).
CALIBRATIONS: dict[str, Calibration] = {
    "haar-alt2": Calibration(0.873, 0.0, 0.141),
    "haar-alt": Calibration(0.866, 0.0, 0.138),
    "haar-default": Calibration(0.855, 0.0, 0.136),
    "haar-profile": Calibration(0.796, -0.106, 0.150),
    "haar-profile-mirrored": Calibration(0.796, 0.106, 0.150),
    "yunet": Calibration(0.909, 0.0, 0.119),
}
# Boxes that are landmark boxes already.
_EXACT_KINDS = ("given", "whole", "dfc", "followed")


def landmark_box(kind: str, box: np.ndarray) -> np.ndarray:
    """The landmark box (x, y, width, height) expected for a detector's box of this kind."""
    x, y, width, height = np.asarray(box, np.float64)
    if kind in _EXACT_KINDS:
        return np.array([x, y, width, height])
    scale, dx, dy = CALIBRATIONS[kind]
    edge = scale * np.sqrt(width * height)
    centre = np.array([x + (0.5 + dx) * width, y + (0.5 + dy) * height])
    return np.concatenate([centre - edge / 2.0, [edge, edge]])


class Detector(Protocol):
    """Finds the faces of an RGB uint8 image (H, W, 3), largest first.

    An aligner that several threads share calls its detector from all of them, and pickles it with
    itself.
    """

    def __call__(self, image: np.ndarray) -> list[Detection]: ...


class WholeImage:
    """The picture is a face: the crop is the smallest centred square around the picture."""

    def __call__(self, image: np.ndarray) -> list[Detection]:
        height, width = image.shape[:2]
        edge = max(height, width) / CROP_SCALE
        centre = np.array([(width - 1) / 2.0, (height - 1) / 2.0 + CROP_LIFT * edge])
        return [Detection(np.concatenate([centre - edge / 2.0, [edge, edge]]), 1.0, "whole")]


class Attempt(NamedTuple):
    """One pass of a cascade over the picture.

    Attributes:
      kind: calibration of the boxes that it draws.
      cascade: file name of the cascade.
      neighbours: how many neighbouring windows have to agree.
      min_face: smallest face to look for, relative to the shorter edge of the picture.
      equalised: look at the picture with its local contrast equalised.
      mirrored: look at the mirror image.
      turn_deg: look at the picture turned counter-clockwise (the cascades know upright faces).
    """

    kind: str
    cascade: str
    neighbours: int
    min_face: float
    equalised: bool = False
    mirrored: bool = False
    turn_deg: float = 0.0


_ALT2, _ALT = "haarcascade_frontalface_alt2.xml", "haarcascade_frontalface_alt.xml"
_DEFAULT, _PROFILE = "haarcascade_frontalface_default.xml", "haarcascade_profileface.xml"
# The first round looks for faces of any size; the later ones, which accept more, only for larger
# ones: on pictures without a face, and on the ears of others, they would raise false alarms.
_ANY, _MEDIUM, _LARGE = 0.06, 0.14, 0.25
_TURN_DEG = 25.0

# Rounds of attempts; the first round that finds a face ends the search.
HAAR_ROUNDS: tuple[tuple[Attempt, ...], ...] = (
    (Attempt("haar-alt2", _ALT2, 4, _ANY),),
    (
        Attempt("haar-profile", _PROFILE, 4, _MEDIUM),
        Attempt("haar-profile-mirrored", _PROFILE, 4, _MEDIUM, mirrored=True),
        Attempt("haar-alt2", _ALT2, 4, _MEDIUM, turn_deg=_TURN_DEG),
        Attempt("haar-alt2", _ALT2, 4, _MEDIUM, turn_deg=-_TURN_DEG),
    ),
    (
        Attempt("haar-default", _DEFAULT, 6, _LARGE),
        Attempt("haar-alt2", _ALT2, 3, _LARGE, equalised=True),
        Attempt("haar-alt", _ALT, 3, _LARGE),
    ),
    (
        Attempt("haar-alt2", _ALT2, 1, _LARGE, equalised=True),
        Attempt("haar-default", _DEFAULT, 2, _LARGE, equalised=True),
        Attempt("haar-profile", _PROFILE, 1, _LARGE, equalised=True),
        Attempt("haar-profile-mirrored", _PROFILE, 1, _LARGE, equalised=True, mirrored=True),
        Attempt("haar-alt2", _ALT2, 1, _LARGE, equalised=True, turn_deg=_TURN_DEG),
        Attempt("haar-alt2", _ALT2, 1, _LARGE, equalised=True, turn_deg=-_TURN_DEG),
    ),
)


class HaarDetector:
    """OpenCV's Haar cascades: frontal, then profile, mirrored, turned, then more leniently.

    Args:
      rounds: what to try, see `HAAR_ROUNDS`.
    """

    def __init__(self, rounds: tuple[tuple[Attempt, ...], ...] = HAAR_ROUNDS) -> None:
        self.rounds = rounds
        for attempts in rounds:
            for attempt in attempts:
                _thread_cascade(attempt.cascade)

    def __call__(self, image: np.ndarray) -> list[Detection]:
        small, scale = _shrink(image)
        if min(small.shape[:2]) < 20:
            return []
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        for attempts in self.rounds:
            found = [d for attempt in attempts for d in self._attempt(grey, attempt)]
            if found:
                return [_unshrink(d, scale) for d in merge_overlaps(found)]
        return []

    def _attempt(self, grey: np.ndarray, attempt: Attempt) -> list[Detection]:
        if attempt.equalised:
            grey = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(4, 4)).apply(grey)
        to_view = _view(grey.shape, attempt)
        if attempt.mirrored or attempt.turn_deg:
            grey = cv2.warpAffine(grey, to_view, grey.shape[::-1])
        smallest = max(20, int(attempt.min_face * min(grey.shape)))
        boxes, counts = _thread_cascade(attempt.cascade).detectMultiScale2(
            grey, 1.1, attempt.neighbours, minSize=(smallest, smallest)
        )
        rows = zip(np.asarray(boxes, np.float64), counts, strict=True)
        return [Detection(_seen_from(to_view, b), float(n), attempt.kind) for b, n in rows]


def _view(shape: tuple[int, ...], attempt: Attempt) -> np.ndarray:
    """(2, 3) affine map from the picture's pixels to those of what the cascade looks at."""
    height, width = shape
    if attempt.mirrored:
        return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])
    middle = ((width - 1) / 2.0, (height - 1) / 2.0)
    return cv2.getRotationMatrix2D(middle, attempt.turn_deg, 1.0)


_thread = threading.local()


def _thread_cascade(name: str) -> cv2.CascadeClassifier:
    """The cascade of this thread, for detection writes into it."""
    loaded = _thread.__dict__.setdefault("cascades", {})
    if name not in loaded:
        loaded[name] = _load_cascade(name)
    return loaded[name]


def _load_cascade(name: str) -> cv2.CascadeClassifier:
    if not hasattr(cv2, "CascadeClassifier"):
        raise DetectorError("this OpenCV has no Haar cascades; install opencv-python-headless 4.x")
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / name))
    if cascade.empty():
        raise DetectorError(f"OpenCV's {name} is missing; reinstall opencv-python-headless 4.x")
    return cascade


class YuNetDetector:
    """YuNet (Wu et al. 2023), OpenCV's small face network.

    Args:
      model_path: the ONNX file.
      min_score: detections below this confidence are dropped.

    Raises:
      DetectorError: the file is missing or not a YuNet model.
    """

    def __init__(self, model_path: str | Path, min_score: float = 0.6) -> None:
        path = Path(model_path)
        if not path.is_file():
            raise DetectorError(f"{path}: there is no such detector model; check the path")
        # The file's content, so that threads and unpickled copies do not depend on the file.
        self._model, self._min_score = np.fromfile(path, np.uint8), min_score
        self._thread = threading.local()
        try:
            self._thread_net().detect(np.zeros((320, 320, 3), np.uint8))
        except (cv2.error, SystemError) as error:
            raise DetectorError(
                f"{path}: not a YuNet model; use face_detection_yunet from OpenCV's model zoo"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_thread": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_thread": threading.local()}

    def _thread_net(self) -> cv2.FaceDetectorYN:
        """The net of this thread, for the size of its input is a state of it."""
        made = self._thread.__dict__
        if "net" not in made:
            options = (320, 320), self._min_score, 0.3
            made["net"] = cv2.FaceDetectorYN.create(
                "onnx", self._model, np.empty(0, np.uint8), *options
            )
        return made["net"]

    def __call__(self, image: np.ndarray) -> list[Detection]:
        small, scale = _shrink(image)
        if min(small.shape[:2]) < 20:
            return []
        net = self._thread_net()
        net.setInputSize((small.shape[1], small.shape[0]))
        _, rows = net.detect(np.ascontiguousarray(small[..., ::-1]))
        rows = np.zeros((0, 15)) if rows is None else rows
        found = [Detection(r[:4].astype(np.float64), float(r[14]), "yunet") for r in rows]
        found = [d for d in found if min(d.box[2:]) > 0]
        return [_unshrink(d, scale) for d in merge_overlaps(found)]


def detect_turned(detector: Detector, image: np.ndarray, turn_deg: float) -> list[Detection]:
    """What a detector finds in the picture turned counter-clockwise by `turn_deg`.

    The boxes lie in the picture as it is, turned clockwise as much (`Detection.roll_deg`). The
    picture is made as small as the detectors would make it, and larger to hold its corners.
    """
    small, scale = _shrink(image)
    height, width = small.shape[:2]
    to_view = cv2.getRotationMatrix2D(((width - 1) / 2.0, (height - 1) / 2.0), turn_deg, 1.0)
    size = np.ceil(np.abs(to_view[:, :2]) @ np.array([width, height]) - 1e-6)
    to_view[:, 2] += (size - np.array([width, height])) / 2.0
    found = detector(cv2.warpAffine(small, to_view, (int(size[0]), int(size[1]))))
    placed = [dataclasses.replace(d, box=_seen_from(to_view, d.box)) for d in found]
    return [_unshrink(dataclasses.replace(d, roll_deg=turn_deg), scale) for d in placed]


def _middle(box: np.ndarray) -> np.ndarray:
    return box[:2] + box[2:] / 2.0


def _seen_from(to_view: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box of the same size about the same point, before the affine map `to_view`."""
    from_view = cv2.invertAffineTransform(to_view)
    # Edges are counted from the corner of the picture, points from the middle of its first pixel.
    middle = from_view[:, :2] @ (_middle(box) - 0.5) + from_view[:, 2] + 0.5
    return np.concatenate([middle - box[2:] / 2.0, box[2:]])


def merge_overlaps(found: list[Detection], overlap: float = 0.4) -> list[Detection]:
    """One detection per face, largest first.

    Two boxes show the same face when they share more than `overlap` of the smaller one; the
    one with the higher score stays (scores of different kinds are compared as they are).
    """
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda d: -d.score):
        if all(shared(detection.box, other.box) <= overlap for other in kept):
            kept.append(detection)
    return sorted(kept, key=lambda d: -d.box[2] * d.box[3])


def shared(a: np.ndarray, b: np.ndarray) -> float:
    """The part of the smaller one of two boxes (x, y, width, height) that both have in common."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    return float(np.prod(np.maximum(high - low, 0.0)) / min(a[2] * a[3], b[2] * b[3]))


def _shrink(image: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy with the longer edge at most `WORKING_EDGE`, and its scale."""
    scale = WORKING_EDGE / max(image.shape[:2])
    if scale >= 1.0:
        return image, 1.0
    size = tuple(max(1, round(edge * scale)) for edge in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _unshrink(detection: Detection, scale: float) -> Detection:
    """Back to photo pixels; the corner moves by half a pixel (see `dfc_jax.types`)."""
    box = detection.box / scale
    box[:2] += 0.5 / scale - 0.5
    return dataclasses.replace(detection, box=box)
