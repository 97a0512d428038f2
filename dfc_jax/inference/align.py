"""From a photograph to fitted faces: detect, crop, solve each crop, back to photo pixels.

aligner = dfc_jax.load()
faces = aligner(image)        # RGB, uint8 or float in [0, 1]
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import repeat
from numbers import Integral
from pathlib import Path
from pickle import PicklingError
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from numpy.typing import ArrayLike

import dfc_jax
from dfc_jax.cache import compiled_programs
from dfc_jax.crops import apply_affine
from dfc_jax.errors import OptionError
from dfc_jax.files import file_version, require_segmentation
from dfc_jax.inference import DEFAULT_DETECTOR, DEFAULT_SEGMENTATION, MAX_RECROPS
from dfc_jax.inference.boxes import checked_boxes
from dfc_jax.inference.detect import Detection, Detector
from dfc_jax.inference.detectors import make_detector
from dfc_jax.inference.face import Face, angles_of
from dfc_jax.inference.find import FaceDetector
from dfc_jax.inference.forked import check_not_forked
from dfc_jax.inference.runtimes import DEFAULT_RUNTIME, check_runtime
from dfc_jax.inference.schedule import Batches, Deferred, Job, Work, pipelined, run, run_many
from dfc_jax.inference.search import Search
from dfc_jax.inference.segmentation import load_segmentation
from dfc_jax.inference.solve import Solver
from dfc_jax.inference.track import Looked, Tracked, Tracker, TrackSettings
from dfc_jax.landmarks68 import N_JAW, OUTWARDS
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.nets.weights import WeightsError, resolve
from dfc_jax.nets.weights import load as load_weights
from dfc_jax.photo import as_photo
from dfc_jax.systems.dfc.lift import flow_landmarks
from dfc_jax.systems.dfc.networks import NetSpec, Variables
from dfc_jax.systems.dfc.template import Template, make_template, template_landmarks
from dfc_jax.types import Array
from dfc_jax.video import USUAL_FPS, Frame, open_video, read_ahead

DEFAULT_WEIGHTS = "lite"
# Smaller photographs show no face that could be aligned.
MIN_PHOTO_EDGE = 16
# Pixels that have to show a landmark; and the variance, crop pixels^2, of one that a single pixel
# shows, between the 16 that are best on photographs in `experiments.tools.calibrate_uncertainty`
# and rendered faces of all yaws, on which the mesh's landmarks alone are better still.
MIN_SUPPORT = 1.0
FLOW_VARIANCE = 64.0

T = TypeVar("T")
U = TypeVar("U")


Boxes = Sequence[Sequence[float] | np.ndarray] | np.ndarray
FindBoxes = Callable[[np.ndarray], Boxes]


class Aligned(NamedTuple):
    """What `Aligner.many` finds in a photograph.

    Attributes:
      image: (H, W, 3) uint8 RGB; empty if there is an error.
      faces: largest first (in the order of the boxes, if given).
      error: why the photograph could not be used, or None.
    """

    image: np.ndarray
    faces: list[Face]
    error: Exception | None


@dataclass(frozen=True)
class Source:
    """What `load` made an aligner's solver from, to make it again in another process.

    Attributes:
      weights: path of the weight file.
      face_model: path of the face model, None for the embedded one.
      flip_test, runtime: as in `load`.
      segmentation: path of its weight file, None without.
    """

    weights: Path
    face_model: Path | None
    flip_test: bool
    runtime: str
    segmentation: Path | None = None


class Aligner:
    """Aligns the faces of photographs; `dfc_jax.load` makes one.

    Several threads can share one: they get the same faces as one thread does. Other processes get
    a copy by pickling, which loads itself there; start them by "spawn", for JAX hangs after a fork.

    Attributes:
      model: the face model whose triangles and uv the faces' meshes share.
      versions: of the package, the weights, the face model, our own detector and the segmentation,
        by name, of those that there are.
    """

    def __init__(
        self,
        solver: Batches,
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
        boxes: Boxes | None = None,
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
        return run(self._search(as_photo(image), boxes), self.solver)

    def many(
        self,
        photos: Iterable[Any],
        boxes: Iterable[Boxes | FindBoxes | None] | None = None,
        read: Callable[[Any], np.ndarray] = as_photo,
        workers: int | None = None,
    ) -> Iterator[Aligned]:
        """The faces of many photographs, in their order: faster than one after the other.

        Threads read and detect while the device solves crops of several photographs at once.

        Args:
          photos: taken as they are needed; by default each what a call takes as `image`.
          boxes: for each photograph its boxes, a function that finds them in the image, or None
            for the detector.
          read: makes the image (H, W, 3) uint8 RGB of what is in `photos`.
          workers: threads; by default one for each core.

        Yields:
          what was found in each photograph. One that cannot be used stops nothing: its `Aligned`
          holds the error.

        Raises:
          ForkError: the process was forked after the aligner was loaded.
          OptionError: `photos` is one photograph or nothing to iterate over, or `workers` no
            number; while iterating: there are not as many `boxes` as `photos`.
        """
        check_not_forked()
        if _is_one(photos):
            one = photos if isinstance(photos, str | os.PathLike) else type(photos).__name__
            raise OptionError(f"photos needs several, not one ({one}); call the aligner for one")
        workers = (os.cpu_count() or 1) if workers is None else workers
        if not isinstance(workers, Integral) or workers < 1:
            raise OptionError(f"workers needs a whole number from 1 on; got {workers!r}")
        pairs = zip(photos, repeat(None)) if boxes is None else _paired(photos, boxes)
        jobs = (self._read_and_search(photo, own, read) for photo, own in pairs)
        return self._outcomes(jobs, int(workers))

    def track(
        self,
        frames: str | os.PathLike[str] | Iterable[Frame | ArrayLike],
        fps: float | None = None,
        smooth: bool = True,
        max_people: int | None = None,
    ) -> Iterator[Tracked]:
        """The people of a video, frame by frame.

        Each keeps a number, and has one identity and focal length for all frames, as far as these
        have shown them by then. The camera looks through the middle of the frame: poses and meshes
        of all people and frames stand in its space. A frame costs less than a photograph, since the
        detector looks only now and then.

        Args:
          frames: what `dfc_jax.open_video` opens or returns; or pictures (H, W, 3) of one size, as
            a call takes them, one at a time.
          fps: pictures a second, where they do not come with their times (30).
          smooth: smooth poses and expressions over time, by One-Euro filters.
          max_people: the most at a time.

        Yields:
          the people of each frame.

        Raises:
          ForkError: the process was forked after the aligner was loaded.
          OptionError, PhotoError, VideoError: something given cannot be used.
        """
        check_not_forked()
        if max_people is not None and not (isinstance(max_people, Integral) and max_people >= 1):
            raise OptionError(f"max_people needs a whole number from 1 on; got {max_people!r}")
        if fps is not None and not (np.isfinite(fps) and fps > 0):
            raise OptionError(f"fps needs a positive number; got {fps!r}")
        if isinstance(frames, str | os.PathLike):
            frames = open_video(frames, fps)
        settings = TrackSettings(smooth, max_people, recrop=self.recrop)
        tracker = Tracker(self.model, self.detector, settings)
        live = getattr(frames, "live", False)
        timed = _timed(frames, USUAL_FPS if fps is None else fps)
        timed = read_ahead(timed, 1 if live else 4, live)

        def look(frame: Frame) -> Looked:
            return run(tracker.look(*frame), self.solver)

        def note(looked: Looked) -> Tracked:
            return run(tracker.note(looked), self.solver)

        return pipelined(look, tracker.adopt, note, timed, at_once=live)

    def _outcomes(self, jobs: Iterable[Job[Aligned]], workers: int) -> Iterator[Aligned]:
        for outcome in run_many(jobs, self.solver, workers):
            try:
                found = outcome()
            except Exception as error:
                found = Aligned(np.zeros((0, 0, 3), np.uint8), [], error)
            yield found

    def _read_and_search(
        self, photo: Any, boxes: Boxes | FindBoxes | None, read: Callable[[Any], np.ndarray]
    ) -> Job[Aligned]:
        def look() -> tuple[np.ndarray, Boxes | None, Sequence[Detection]]:
            """Read and detect in one go: else all that wait would be read first."""
            image = read(photo)
            if boxes is None and min(image.shape[:2]) >= MIN_PHOTO_EDGE:
                return image, None, self.detector(image)
            return image, boxes(image) if callable(boxes) else boxes, ()

        ((image, own, detected),) = yield [Work(look)]
        faces = yield from self._search(image, own, detected)
        return Aligned(image, faces, None)

    def _search(
        self,
        image: np.ndarray,
        boxes: Boxes | None,
        detected: Sequence[Detection] | None = None,
    ) -> Job[list[Face]]:
        search = Search(image, self.model.expression_names, self.recrop)
        if boxes is not None:
            found = [Detection(box, 1.0, "given") for box in checked_boxes(boxes, image)]
        if min(image.shape[:2]) < MIN_PHOTO_EDGE:
            return []
        if boxes is None:
            return (yield from search.with_detector(self.detector, detected))
        return (yield from search.in_boxes(found))

    def flow_landmarks(self, face: Face) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks (68, 2) in photo pixels straight from the flow, and their support (68,).

        Where the flow lands on an inner landmark's place in the template
        (`systems.dfc.lift.flow_landmarks`), on average over as many pixels as its support says.
        Those that the flow does not show, and the jaw, which has no fixed place there, are the
        mesh's, with support 0.
        """
        check_not_forked()
        given = face.flow, face.visible, self._template_landmarks
        found, support = map(np.asarray, _flow_landmarks(*given))
        seen = (np.arange(len(found)) >= N_JAW) & (support >= MIN_SUPPORT)
        points = np.where(seen[:, None], apply_affine(face.crop.to_photo, found), face.landmarks)
        return points, np.where(seen, support, 0.0)

    def blended_landmarks(self, face: Face) -> np.ndarray:
        """Landmarks (68, 2) between the mesh's and the flow's, the surer the nearer: the mesh's
        have the variance that the fit gives them, the flow's `FLOW_VARIANCE` over its support."""
        points, support = self.flow_landmarks(face)
        variance = np.trace(face.uncertainty.landmarks_px, axis1=1, axis2=2) / 2.0
        # Where the fit knows nothing of its errors, the flow alone counts.
        weight = support * np.minimum(variance * face.crop.scale**2, 1e6)
        share = (weight / (weight + FLOW_VARIANCE))[:, None]
        return share * points + (1.0 - share) * face.landmarks

    @cached_property
    def template(self) -> Template:
        """What flows lead to."""
        return make_template(self.model)

    @cached_property
    def _template_landmarks(self) -> Array:
        return template_landmarks(self.template)


@jax.jit
def _flow_landmarks(flow: Array, mask: Array, template_xy: Array) -> tuple[Array, Array]:
    return flow_landmarks(flow, mask, template_xy, outwards=OUTWARDS)


def load(
    weights: str | os.PathLike[str] | None = None,
    detector: str | Detector = DEFAULT_DETECTOR,
    detector_model: str | Path | None = None,
    face_model: str | Path | None = None,
    recrop: int = 1,
    flip_test: bool = False,
    background: bool = False,
    runtime: str = DEFAULT_RUNTIME,
    segmentation: str | os.PathLike[str] | None = DEFAULT_SEGMENTATION,
) -> Aligner:
    """An aligner with its network, template and face model in place.

    Args:
      weights: name of weights that come with the package, or a file; the default is
        `DEFAULT_WEIGHTS`.
      detector: "dfc", "haar", "yunet" (with `detector_model`), "none" for pictures that are a face,
        or any `Detector`; `dfc_jax.make_detector` makes one with other options.
      detector_model: other weights for "dfc", or the ONNX file of YuNet.
      face_model: a face model file instead of the embedded one.
      recrop: how often, at most (0 to `MAX_RECROPS`), the crop is made anew, upright around the
        face found in the last one, when the face does not stand there in place, size and tilt as
        it should; and unless it is 0, a face that is not clearly right is tried turned by each
        quarter, and a detector other than ours looks at the turned picture where it finds no sure
        face.
      flip_test: also look at each crop's mirror image, and average: better, for twice the time
        in the network.
      background: return while the programs are still being compiled; what needs them first waits,
        and `Aligner.many` reads photographs and detects faces meanwhile. The programs are kept for
        the next start only inside `dfc_jax.cache.compiled_programs`.
      runtime: what runs the network: "jax", or "onnx", ONNX Runtime on the CPU, which the extra
        `onnx` installs and which takes less time there (`docs/RUNTIMES.md`); the rest is JAX's.
      segmentation: a network that says which pixels show the face: a weight file, "segmentation"
        for the one that comes with the package, if any, or None. With it, a face is fitted to what
        is seen of it alone, and `Face` says what covers it.

    Raises:
      ForkError: the process was forked from one that had used JAX.
      DetectorError, FaceModelError, OptionError, WeightsError: something is missing, broken or
        out of range; all are ValueErrors of one sentence that names the file and the remedy.
    """
    check_not_forked()
    whole = isinstance(recrop, Integral) and not isinstance(recrop, bool)
    if not whole or not 0 <= recrop <= MAX_RECROPS:
        raise OptionError(f"recrop needs a whole number from 0 to {MAX_RECROPS}; got {recrop!r}")
    check_runtime(runtime)
    if isinstance(detector, str):
        detector = make_detector(detector, detector_model)
    path = resolve(DEFAULT_WEIGHTS if weights is None else weights)
    segmented = None if segmentation is None else require_segmentation(segmentation).absolute()
    with compiled_programs():
        model = load_face_model(face_model)
        variables, spec = load_network(path, model)
        if isinstance(detector, FaceDetector):
            detector.start()
        told = None if segmented is None else load_segmentation(segmented)
        make = partial(Solver, variables, spec, model, flip_test, runtime, told)
        solver: Batches = Deferred(make) if background else make()
        if isinstance(detector, FaceDetector) and not background:
            detector.wait()
        angles_of(np.eye(3, dtype=np.float32))
    source = Source(
        weights=path.absolute(),
        face_model=None if face_model is None else Path(face_model).absolute(),
        flip_test=flip_test,
        runtime=runtime,
        segmentation=segmented,
    )
    return Aligner(solver, model, detector, _versions(source, model, detector), recrop, source)


def _versions(source: Source, model: FaceModel, detector: Detector) -> dict[str, str]:
    """See `Aligner`."""
    versions = {
        "dfc_jax": dfc_jax.__version__,
        "weights": file_version(source.weights),
        "face_model": model.version,
    }
    if isinstance(detector, FaceDetector):
        versions["detector"] = detector.version
    if source.segmentation is not None:
        versions["segmentation"] = file_version(source.segmentation)
    return versions


def _timed(frames: Iterable[Frame | ArrayLike], fps: float) -> Iterator[Frame]:
    for number, frame in enumerate(frames):
        yield frame if isinstance(frame, Frame) else Frame(number / fps, as_photo(frame))


def _is_one(photos: Any) -> bool:
    """Whether what should be several photographs is a single one, or could be none."""
    if isinstance(photos, np.ndarray):
        # An array is a stack of pictures, but for one whose last axis is that of colours.
        return photos.ndim < 3 or (photos.ndim == 3 and photos.shape[-1] in (1, 3, 4))
    return isinstance(photos, str | bytes | os.PathLike) or not isinstance(photos, Iterable)


def load_network(path: Path, model: FaceModel) -> tuple[Variables, NetSpec]:
    """Variables and spec of a network for this face model.

    Raises:
      WeightsError: the file holds none, or one for another face model.
    """
    variables, spec, metadata = load_weights(path, NetSpec)
    trained_for = metadata.get("face_model", model.version)
    if trained_for != model.version:
        raise WeightsError(
            f"{path}: these weights belong to the face model {trained_for}, not to "
            f"{model.version}; give the matching --face-model"
        )
    return variables, spec


def _paired(photos: Iterable[T], boxes: Iterable[U]) -> Iterator[tuple[T, U]]:
    """Each photograph with its boxes; raises OptionError where there are not as many."""
    others = iter(boxes)
    for photo in photos:
        try:
            own = next(others)
        except StopIteration:
            raise OptionError("boxes has fewer entries than photos; give one for each") from None
        yield photo, own
    if next(others, others) is not others:
        raise OptionError("boxes has more entries than photos; give one for each")


def _load_again(source: Source, detector: Detector, recrop: int) -> Aligner:
    return load(
        weights=source.weights,
        detector=detector,
        face_model=source.face_model,
        recrop=recrop,
        flip_test=source.flip_test,
        runtime=source.runtime,
        segmentation=source.segmentation,
    )
