"""From a photograph to fitted faces: detect, crop, solve each crop, back to photo pixels.

aligner = dfc_jax.load()
faces = aligner(image)        # RGB, uint8 or float in [0, 1]
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from pickle import PicklingError
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

import dfc_jax
from dfc_jax.cache import compiled_programs
from dfc_jax.crops import Crop, apply_affine, box_of_points, crop_of_box, crop_photo
from dfc_jax.errors import UserError
from dfc_jax.inference import MAX_RECROPS
from dfc_jax.inference.boxes import checked_boxes, has_possible_size
from dfc_jax.inference.detect import (
    Detection,
    Detector,
    WholeImage,
    detect_turned,
    make_detector,
)
from dfc_jax.inference.face import Face, angles_of, face_of
from dfc_jax.inference.forked import check_not_forked
from dfc_jax.inference.judge import (
    distinct,
    is_clear,
    is_sure_though_turned,
    surest,
    weigh,
)
from dfc_jax.inference.solve import Solver, make_solver
from dfc_jax.landmarks68 import N_JAW
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.nets.weights import WeightsError, resolve
from dfc_jax.nets.weights import load as load_weights
from dfc_jax.photo import as_photo
from dfc_jax.systems.dfc.lift import flow_landmarks
from dfc_jax.systems.dfc.template import make_template, template_landmarks
from dfc_jax.types import Array

DEFAULT_WEIGHTS = "lite"
# Smaller photographs show no face that could be aligned.
MIN_PHOTO_EDGE = 16
# How far, in degrees, photographs and crops are turned to find faces that do not stand upright.
QUARTERS_DEG, DIAGONALS_DEG = (90.0, 180.0, 270.0), (45.0, 135.0, 225.0, 315.0)
# A crop is made anew when the face lies further from where it would then lie, in parts of the
# crop's side, degrees, and times its size.
ALIKE_SHIFT, ALIKE_ROLL_DEG, ALIKE_ZOOM = 0.08, 10.0, 1.15
# Pixels that have to show a landmark, and those that a landmark of the mesh is worth: the best of
# 5, 10, 20, 40 and 80 on 40 photographs held out from training.
MIN_SUPPORT, MESH_SUPPORT = 1.0, 40.0


class OptionError(UserError):
    """An option of `load` has no such value; the message is one sentence with those it has."""


@dataclass(frozen=True)
class Source:
    """What `load` made an aligner's solver from, to make it again in another process.

    Attributes:
      weights: path of the weight file.
      face_model: path of the face model, None for the embedded one.
      flip_test: as in `load`.
    """

    weights: Path
    face_model: Path | None
    flip_test: bool


class Aligner:
    """Aligns the faces of photographs; `dfc_jax.load` makes one.

    Several threads can share one: they get the same faces as one thread does. Other processes get
    a copy by pickling, which loads itself there; start them by "spawn", for JAX hangs after a fork.

    Attributes:
      model: the face model whose triangles and uv the faces' meshes share.
      versions: of the package, the weights and the face model, by name.
    """

    def __init__(
        self,
        solver: Solver,
        model: FaceModel,
        detector: Detector,
        versions: dict[str, str],
        recrop: int = 1,
        source: Source | None = None,
    ) -> None:
        self.solver = solver
        self.model = model
        self.detector = detector
        self.versions = versions
        self.recrop = recrop
        self.source = source

    def __reduce__(self) -> tuple[Any, ...]:
        if self.source is None:
            raise PicklingError("only an aligner that dfc_jax.load made can be pickled")
        return _load_again, (self.source, self.detector, self.recrop)

    def __call__(
        self,
        image: ArrayLike | str | os.PathLike[str],
        boxes: Sequence[Sequence[float] | np.ndarray] | np.ndarray | None = None,
    ) -> list[Face]:
        """The faces of a photograph, largest first (in the order of `boxes`, if given).

        Args:
          image: (H, W, 3) RGB, uint8 or float in [0, 1]; or anything else that `as_photo` takes:
            the path of a file, 16 bits, grey, transparency, a picture of Pillow.
          boxes: landmark boxes (x, y, width, height) in photo pixels, instead of a detector. They
            may leave the photograph; their longer edge measures from 4 pixels to 4 times its own.

        Raises:
          PhotoError: not an image, a box of another size, or outside the photograph.
          ForkError: the process was forked after the aligner was loaded.
        """
        check_not_forked()
        image = as_photo(image)
        if boxes is not None:
            found = [Detection(box, 1.0, "given") for box in checked_boxes(boxes, image)]
        if min(image.shape[:2]) < MIN_PHOTO_EDGE:
            return []
        return self._search(image) if boxes is None else self._align_all(image, found)

    def flow_landmarks(self, face: Face) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks (68, 2) in photo pixels straight from the flow, and their support (68,).

        Where the flow lands on an inner landmark's place in the template
        (`systems.dfc.lift.flow_landmarks`), on average over as many pixels as its support says.
        Those that the flow does not show, and the jaw, which has no fixed place there, are the
        mesh's, with support 0.
        """
        check_not_forked()
        given = face.flow, face.mask, self._template_landmarks
        found, support = map(np.asarray, _flow_landmarks(*given))
        seen = (np.arange(len(found)) >= N_JAW) & (support >= MIN_SUPPORT)
        points = np.where(seen[:, None], apply_affine(face.crop.to_photo, found), face.landmarks)
        return points, np.where(seen, support, 0.0)

    def blended_landmarks(self, face: Face) -> np.ndarray:
        """Landmarks (68, 2) between the mesh's and the flow's, weighted by their support: that of
        the flow, and `MESH_SUPPORT`."""
        points, support = self.flow_landmarks(face)
        share = (support / (support + MESH_SUPPORT))[:, None]
        return share * points + (1.0 - share) * face.landmarks

    @cached_property
    def _template_landmarks(self) -> Array:
        return template_landmarks(self.model, make_template(self.model))

    def _search(self, image: np.ndarray) -> list[Face]:
        """The faces that the detector finds, also in the turned photograph if need be."""
        faces = distinct(self._align_all(image, self.detector(image)), [])
        if not self.recrop or isinstance(self.detector, WholeImage):
            return faces
        if not any(is_clear(face.evidence) for face in faces):
            faces = self._search_turned(image, faces, QUARTERS_DEG)
        if all(face.reasons for face in faces):
            faces = self._search_turned(image, faces, DIAGONALS_DEG)
        return faces

    def _search_turned(
        self, image: np.ndarray, faces: list[Face], turns_deg: Sequence[float]
    ) -> list[Face]:
        """With the sure faces of the turned photograph; these alone, if none was sure before."""
        found = [d for turn in turns_deg for d in detect_turned(self.detector, image, turn)]
        turned = self._align_all(image, found)
        sure = [face for face in turned if is_sure_though_turned(face.evidence)]
        upright = [] if all(face.reasons for face in faces) else faces
        return distinct(upright, sure) if sure else faces

    def _align_all(self, image: np.ndarray, found: Sequence[Detection]) -> list[Face]:
        faces = (self._align(image, detection) for detection in found)
        return [face for face in faces if face is not None]

    def _align(self, image: np.ndarray, detection: Detection) -> Face | None:
        crop = detection.crop
        face = self._crop_again(image, detection, self._solve(image, detection, crop))
        if not self.recrop or (face is not None and is_clear(face.evidence)):
            return face
        # The network takes many a face on its side or upside down for an upright one.
        rolls = [crop.roll_deg + quarter for quarter in QUARTERS_DEG]
        tilted = [dataclasses.replace(crop, roll_deg=roll) for roll in rolls]
        turned = surest([], [self._solve(image, detection, each) for each in tilted])
        return surest([face], [self._crop_again(image, detection, turned)])

    def _crop_again(
        self, image: np.ndarray, detection: Detection, face: Face | None
    ) -> Face | None:
        for _ in range(self.recrop):
            if face is None:
                break
            crop = upright_crop(face)
            if stands_alike(crop, face.crop):
                break
            face = better(self._solve(image, detection, crop), face)
        return face

    def _solve(self, image: np.ndarray, detection: Detection, crop: Crop) -> Face | None:
        if not has_possible_size(crop, image):
            return None
        solution: Any = jax.tree.map(np.asarray, self.solver(crop_photo(image, crop)))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(solution)):
            return None
        evidence = weigh(solution, crop, image.shape)
        return face_of(solution, evidence, detection, crop, self.model.expression_names)


def upright_crop(face: Face) -> Crop:
    """The crop in which a face stands upright: that of the landmarks' tight box along its axes."""
    x, y = face.rotation[:2, 1]  # where the head's top points to in the photograph
    roll = float(np.rad2deg(np.arctan2(x, -y)))
    back = Crop(np.zeros(2), 1.0, roll).rotation
    crop = crop_of_box(box_of_points(face.landmarks @ back))
    return dataclasses.replace(crop, centre=back @ crop.centre, roll_deg=roll)


def better(new: Face | None, old: Face) -> Face:
    """The new fit if its residual is no larger than the old one's, else the old."""
    return old if new is None or new.residual_px > old.residual_px else new


def stands_alike(crop: Crop, other: Crop) -> bool:
    """Whether two crops show a face so much alike that one is as good as the other."""
    apart = np.linalg.norm(crop.centre - other.centre) / other.side_px
    turned = abs((crop.roll_deg - other.roll_deg + 180.0) % 360.0 - 180.0)
    zoom = abs(np.log(crop.side_px / other.side_px))
    return bool(apart <= ALIKE_SHIFT and turned <= ALIKE_ROLL_DEG and zoom <= np.log(ALIKE_ZOOM))


@jax.jit
def _flow_landmarks(flow: Array, mask: Array, template_xy: Array) -> tuple[Array, Array]:
    return flow_landmarks(flow, mask, template_xy)


def load(
    weights: str | os.PathLike[str] | None = None,
    detector: str | Detector = "haar",
    detector_model: str | Path | None = None,
    face_model: str | Path | None = None,
    recrop: int = 1,
    flip_test: bool = False,
) -> Aligner:
    """An aligner with its network, template and face model in place.

    Args:
      weights: name of weights that come with the package, or a file; the default is
        `DEFAULT_WEIGHTS`.
      detector: "haar", "yunet" (with `detector_model`), "none" for pictures that are a face,
        or any `Detector`.
      detector_model: the ONNX file of YuNet.
      face_model: a face model file instead of the embedded one.
      recrop: how often, at most (0 to `MAX_RECROPS`), the crop is made anew, upright around the
        face found in the last one, when the face does not stand there in place, size and tilt as
        it should; and unless it is 0, a face that is not clearly right is tried turned by each
        quarter, and the detector looks at the turned picture where it finds no sure face.
      flip_test: also look at each crop's mirror image, and average: better, for twice the time
        in the network.

    Raises:
      ForkError: the process was forked from one that had used JAX.
      DetectorError, FaceModelError, OptionError, WeightsError: something is missing, broken or
        out of range; all are ValueErrors of one sentence that names the file and the remedy.
    """
    check_not_forked()
    whole = isinstance(recrop, Integral) and not isinstance(recrop, bool)
    if not whole or not 0 <= recrop <= MAX_RECROPS:
        raise OptionError(f"recrop needs a whole number from 0 to {MAX_RECROPS}; got {recrop!r}")
    found = make_detector(detector, detector_model) if isinstance(detector, str) else detector
    path = resolve(DEFAULT_WEIGHTS if weights is None else weights)
    with compiled_programs():
        model = load_face_model(face_model)
        variables, spec, metadata = load_weights(path)
        trained_for = metadata.get("face_model", model.version)
        if trained_for != model.version:
            raise WeightsError(
                f"{path}: these weights belong to the face model {trained_for}, not to "
                f"{model.version}; give the matching --face-model"
            )
        solver = make_solver(variables, spec, model, flip_test)
        angles_of(np.eye(3, dtype=np.float32))
    versions = {
        "dfc_jax": dfc_jax.__version__,
        "weights": f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}",
        "face_model": model.version,
    }
    source = Source(
        weights=path.absolute(),
        face_model=None if face_model is None else Path(face_model).absolute(),
        flip_test=flip_test,
    )
    return Aligner(solver, model, found, versions, recrop, source)


def _load_again(source: Source, detector: Detector, recrop: int) -> Aligner:
    return load(
        weights=source.weights,
        detector=detector,
        face_model=source.face_model,
        recrop=recrop,
        flip_test=source.flip_test,
    )
