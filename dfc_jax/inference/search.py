"""The search for the faces of a photograph: which crops to try, and which fits to keep."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dfc_jax.crops import (
    Crop,
    apply_affine,
    box_of_points,
    crop_of_box,
    crop_photo,
    tilt_deg,
)
from dfc_jax.inference.boxes import has_possible_size
from dfc_jax.inference.detect import Detection, Detector, WholeImage, detect_turned, shared
from dfc_jax.inference.face import Face, face_of
from dfc_jax.inference.find import FaceDetector
from dfc_jax.inference.judge import (
    confidence,
    distinct,
    is_clear,
    is_sure_though_turned,
    may_be_a_face,
    surest,
    weigh,
)
from dfc_jax.inference.programs import Known
from dfc_jax.inference.schedule import Finish, Job, Locate, Work, together
from dfc_jax.inference.solve import Estimate
from dfc_jax.types import ByValue

# How far, in degrees, photographs and crops are turned to find faces that do not stand upright.
QUARTERS_DEG, DIAGONALS_DEG = (90.0, 180.0, 270.0), (45.0, 135.0, 225.0, 315.0)
# A crop is made anew when the face lies further from where it would then lie, in parts of the
# crop's side, degrees, and times its size.
ALIKE_SHIFT, ALIKE_ROLL_DEG, ALIKE_ZOOM = 0.08, 10.0, 1.15
# A detector's boxes with more than this part of the smaller one in common are of one head.
SAME_BOX = 0.5


@dataclass(frozen=True, eq=False)
class Fit(ByValue):
    """An estimate in a crop of a photograph.

    Attributes:
      detection: where the face was looked for.
      crop: where it was found.
      estimate: what was found, in crop pixels.
    """

    detection: Detection
    crop: Crop
    estimate: Estimate

    @property
    def landmarks(self) -> np.ndarray:
        """(68, 2) photo pixels."""
        return apply_affine(self.crop.to_photo, self.estimate.landmarks_px.astype(np.float64))

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) from the model to a camera with the photograph's axes."""
        rotation = self.estimate.rotation.copy()
        rotation[:2] = self.crop.rotation @ rotation[:2]
        return rotation

    @property
    def upright_crop(self) -> Crop:
        return upright_crop(self.landmarks, self.rotation)

    @property
    def confidence(self) -> float:
        return confidence(self.estimate.certainty, self.estimate.residual_px)


@dataclass(frozen=True, eq=False)
class Search(ByValue):
    """Finds the faces of a photograph (H, W, 3) uint8 RGB.

    Attributes:
      image: the photograph.
      names: of the expression shapes.
      recrop: as in `dfc_jax.inference.align.load`.
      known: says of a crop what is known of the face in it, if anything is.
    """

    image: np.ndarray
    names: Sequence[str]
    recrop: int
    known: Callable[[Crop], Known] | None = None

    def with_detector(
        self, detector: Detector, found: Sequence[Detection] | None = None
    ) -> Job[list[Face]]:
        """The faces that a detector finds, also in the turned photograph if need be; what it takes
        for a face and is none is left out.

        `found` is what it finds in the photograph as it is, if that is known already.
        """
        if found is None:
            (found,) = yield [Work(partial(detector, self.image))]
        faces = distinct((yield from self.in_boxes(found)), [])
        if isinstance(detector, WholeImage):
            return faces
        # Our own detector would find nothing in the turned picture that it does not find in this.
        if self.recrop and not isinstance(detector, FaceDetector):
            faces = yield from self._or_turned(detector, faces)
        return [face for face in faces if may_be_a_face(face.evidence)]

    def _or_turned(self, detector: Detector, faces: list[Face]) -> Job[list[Face]]:
        """The faces, or those that the turned photograph shows better."""
        if not any(is_clear(face.evidence) for face in faces):
            faces = yield from self._turned(detector, faces, QUARTERS_DEG)
        if all(face.reasons for face in faces):
            faces = yield from self._turned(detector, faces, DIAGONALS_DEG)
        return faces

    def in_boxes(self, found: Sequence[Detection]) -> Job[list[Face]]:
        """The face in each of the boxes, but for those in which none is located."""
        upright = yield from together(self._upright(one, one.crop) for one in found)
        clear = [face for _, face in upright if face is not None and is_clear(face.evidence)]
        faces = yield from together(
            self._or_tilted(detection, *tried, clear)
            for detection, tried in zip(found, upright, strict=True)
        )
        return [face for face in faces if face is not None]

    def in_crop(self, detection: Detection, crop: Crop) -> Job[Fit | None]:
        """The fit to a crop, or to one around what is found there, if it may show a face."""
        fit = yield from self._upright_fit(detection, crop)
        return fit if fit is not None and may_be_a_face(fit) else None

    def finish(self, fit: Fit) -> Job[Face]:
        """The face that was fitted."""
        (solution,) = yield [Finish(fit.estimate)]
        evidence = weigh(fit.estimate, solution, fit.crop, self.image.shape)
        where = fit.detection, fit.crop, self.names, self.image.shape
        return face_of(solution, evidence, *where)

    def _turned(
        self, detector: Detector, faces: list[Face], turns_deg: Sequence[float]
    ) -> Job[list[Face]]:
        """With the sure faces of the turned photograph; these alone, if none was sure before."""
        looks: list[Callable[[], list[Detection]]] = [
            partial(detect_turned, detector, self.image, turn) for turn in turns_deg
        ]
        found = yield [Work(look) for look in looks]
        turned = yield from self.in_boxes([detection for some in found for detection in some])
        sure = [face for face in turned if is_sure_though_turned(face.evidence)]
        upright = [] if all(face.reasons for face in faces) else faces
        return distinct(upright, sure) if sure else faces

    def _upright(self, detection: Detection, crop: Crop) -> Job[tuple[Fit | None, Face | None]]:
        """What is found in a crop as it stands."""
        fit = yield from self._upright_fit(detection, crop)
        return fit, None if fit is None else (yield from self.finish(fit))

    def _or_tilted(
        self, detection: Detection, upright: Fit | None, face: Face | None, clear: Sequence[Face]
    ) -> Job[Face | None]:
        """The face in a box, or what is found there when it is turned, if that is surer.

        The network takes many a face on its side or upside down for an upright one. Boxes of a head
        that is `clear` from another box are not turned, unless they are given by the user."""
        if not self.recrop or (face is not None and is_clear(face.evidence)):
            return face
        box = detection.landmark_box
        same = (box_of_points(other.landmarks) for other in clear if detection.kind != "given")
        if any(shared(box, other) > SAME_BOX for other in same):
            return face
        crop = detection.crop
        rolls = [crop.roll_deg + quarter for quarter in QUARTERS_DEG]
        tilted = [dataclasses.replace(crop, roll_deg=roll) for roll in rolls]
        tries = yield from self._locate(detection, tilted)
        turned = yield from self._crop_again(surest([], tries))
        best = surest([upright], [turned])
        if best is None or best is upright:
            return face
        return (yield from self.finish(best))

    def _upright_fit(self, detection: Detection, crop: Crop) -> Job[Fit | None]:
        (first,) = yield from self._locate(detection, [crop])
        return (yield from self._crop_again(first))

    def _crop_again(self, fit: Fit | None) -> Job[Fit | None]:
        for _ in range(self.recrop):
            if fit is None:
                break
            crop = fit.upright_crop
            if stands_alike(crop, fit.crop):
                break
            (new,) = yield from self._locate(fit.detection, [crop])
            fit = better(new, fit)
        return fit

    def _locate(self, detection: Detection, crops: Sequence[Crop]) -> Job[list[Fit | None]]:
        possible = [crop for crop in crops if has_possible_size(crop, self.image)]
        found = yield [
            Locate(crop_photo(self.image, crop), self.known(crop) if self.known else None)
            for crop in possible
        ]
        fits = {
            id(crop): Fit(detection, crop, estimate)
            for crop, estimate in zip(possible, found, strict=True)
            if estimate is not None
        }
        return [fits.get(id(crop)) for crop in crops]


def upright_crop(landmarks: np.ndarray, rotation: np.ndarray) -> Crop:
    """The crop in which a face stands upright: that of the landmarks' tight box along its axes.

    Args:
      landmarks: (68, 2) photo pixels.
      rotation: (3, 3) from the model to a camera with the photograph's axes.
    """
    roll = float(tilt_deg(rotation))
    back = Crop(np.zeros(2), 1.0, roll).rotation
    crop = crop_of_box(box_of_points(landmarks @ back))
    return dataclasses.replace(crop, centre=back @ crop.centre, roll_deg=roll)


def better(new: Fit | None, old: Fit) -> Fit:
    """The new fit if its residual is no larger than the old one's in photo pixels, else the old."""

    def residual_px(fit: Fit) -> float:
        return fit.estimate.residual_px / fit.crop.scale

    return old if new is None or residual_px(new) > residual_px(old) else new


def stands_alike(crop: Crop, other: Crop) -> bool:
    """Whether two crops show a face so much alike that one is as good as the other."""
    apart = np.linalg.norm(crop.centre - other.centre) / other.side_px
    turned = abs((crop.roll_deg - other.roll_deg + 180.0) % 360.0 - 180.0)
    zoom = abs(np.log(crop.side_px / other.side_px))
    return bool(apart <= ALIKE_SHIFT and turned <= ALIKE_ROLL_DEG and zoom <= np.log(ALIKE_ZOOM))
