"""Measures what tells a fitted face from a fit to something else.

Prints the bounds of `dfc_jax/inference/judge.py`. Half of the examples give them: each bound
doubts `LOST_PERCENT` of the faces that were fitted rightly. The other half says what the bounds
in force make of faces and of boxes without one. Use training photographs only. The bound of the
visible share takes `--segmentation`; with it, a box may have no fit at all, which is said apart.

    python -m experiments.tools.calibrate_judgement --data helen/trainset --data afw \
        --profiles cfp/train --backgrounds backgrounds      # about five minutes on two cores

Faces: the annotated box displaced and scaled by up to 15 %, then the same turned in the plane,
blurred, darkened, half covered and cut to the box; and profiles. No faces: boxes beside the face of
these photographs, in photographs without any, what the detector takes for one there, and in noise.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags
from tqdm import tqdm

import dfc_jax
from dfc_jax.crops import box_of_points
from dfc_jax.data.cfp import cfp
from dfc_jax.data.ibug import read_ibug
from dfc_jax.errors import DatasetError, PhotoError, WeightsError
from dfc_jax.evaluation.curves import FAILURE_PERCENT
from dfc_jax.evaluation.protocols import intersection_over_union
from dfc_jax.inference.find import FaceDetector
from dfc_jax.inference.judge import NO_FACE_CONFIDENCE, Evidence, doubts
from dfc_jax.photo import read_photo
from experiments.robustness import View, errors, misplaced, rotated, view_of

SEED = 0
LOST_PERCENT = 0.4
# A fit to a face beside the box is no fit to something else.
APART = 0.1
NOISE_PX, NOISES = 192, 200
# From this score on, what the detector takes for a face is looked at.
ALARM_SCORE = 0.3
FALSE_ALARMS = "false alarms"


def blurred(view: View, rng: np.random.Generator) -> np.ndarray:
    """As if the face had been 20 to 50 pixels large."""
    scale = rng.uniform(20.0, 50.0) / max(view.box[2:])
    small = cv2.resize(view.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, view.image.shape[1::-1])


def darkened(view: View, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(0.0, 6.0, view.image.shape)
    return np.clip(view.image * rng.uniform(0.1, 0.35) + noise, 0, 255).astype(np.uint8)


def covered(view: View, rng: np.random.Generator, cover: np.ndarray) -> np.ndarray:
    """With a picture over some part of the face, a third to two thirds as wide."""
    size = (max(view.box[2:]) * rng.uniform(0.35, 0.65, 2)).astype(int)
    low = (view.box[:2] + view.box[2:] * rng.uniform(size=2) - size / 2).astype(int)
    image = view.image.copy()
    shown = np.clip(low, 0, None)
    part = image[shown[1] : low[1] + size[1], shown[0] : low[0] + size[0]]
    part[:] = cv2.resize(cover, size.tolist())[-part.shape[0] :, -part.shape[1] :][
        : part.shape[0], : part.shape[1]
    ]
    return image


def cut(view: View) -> View:
    """The picture cut to the box of the landmarks."""
    low = np.maximum(view.box[:2], 0).astype(int)
    high = np.ceil(view.box[:2] + view.box[2:]).astype(int)
    image = np.ascontiguousarray(view.image[low[1] : high[1], low[0] : high[0]])
    return view_of(image, view.points - low, view.counts)


def faces(view: View, rng: np.random.Generator, covers: list[np.ndarray]) -> dict[str, View]:
    """The views of one annotated photograph that show its face, by kind."""

    def same(image: np.ndarray) -> View:
        return misplaced(View(image, view.points, view.counts, view.box), rng)

    return {
        "plain": same(view.image),
        "turned": misplaced(rotated(view, rng.uniform(-180.0, 180.0)), rng),
        "blurred": same(blurred(view, rng)),
        "darkened": same(darkened(view, rng)),
        "covered": same(covered(view, rng, covers[rng.integers(len(covers))])),
        "cut to the box": cut(view),
    }


def beside(view: View, rng: np.random.Generator) -> np.ndarray | None:
    """A box of the photograph that does not touch the face, if one is found."""
    x, y, width, height = view.box
    head = np.array([x, y - 0.25 * height, width, 1.5 * height])
    for _ in range(50):
        edge = rng.uniform(0.2, 0.5) * max(width, height)
        free = np.array(view.image.shape[1::-1]) - edge
        box = np.array([*rng.uniform(size=2) * np.maximum(free, 0.0), edge, edge])
        if intersection_over_union(box, head) == 0.0:
            return box
    return None


def photographs(folders: list[str], every: int) -> Iterator[View]:
    for example in [e for folder in folders for e in read_ibug(folder)][::every]:
        yield view_of(example.image(), example.points)


def profiles(folder: str, every: int) -> Iterator[View]:
    """Of a folder of CFP."""
    for face in cfp(folder)[::every]:
        yield view_of(face.image(), face.points)


def noise(rng: np.random.Generator) -> np.ndarray:
    cells = int(2 ** rng.uniform(1.0, np.log2(NOISE_PX)))
    picture = rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
    return cv2.resize(picture, (NOISE_PX, NOISE_PX), interpolation=cv2.INTER_CUBIC)


def somewhere(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box in a picture."""
    edge = rng.uniform(0.3, 0.66) * min(image.shape[:2])
    return np.array([*rng.uniform(size=2) * (np.array(image.shape[1::-1]) - edge), edge, edge])


class Samples:
    """Evidence of right fits and of fits to no face, by kind.

    Attributes:
      right, none: the evidence.
      nowhere: boxes without a face in which there is no fit.
      wrong: fits to faces that are not right, or missing.
    """

    def __init__(self, weights: str | None, segmentation: str | None = None) -> None:
        self.aligner = dfc_jax.load(weights, detector="none", segmentation=segmentation)
        self.detector = FaceDetector(min_score=ALARM_SCORE)
        self.right: dict[str, list[Evidence]] = defaultdict(list)
        self.none: dict[str, list[Evidence]] = defaultdict(list)
        self.nowhere: Counter[str] = Counter()
        self.wrong = 0

    def add_face(self, kind: str, view: View) -> None:
        found = self.aligner(view.image, boxes=[view.box])
        if found and errors([view], found)[0] < FAILURE_PERCENT:
            self.right[kind].append(found[0].evidence)
        else:
            self.wrong += 1

    def add_none(
        self, kind: str, image: np.ndarray, box: np.ndarray | None, face: np.ndarray | None = None
    ) -> None:
        if box is None:
            return
        fits = self.aligner(image, boxes=[box])
        self.nowhere[kind] += not fits
        for found in fits:
            there = box_of_points(found.landmarks)
            if face is None or intersection_over_union(there, face) < APART:
                self.none[kind].append(found.evidence)

    def add_false_alarms(self, image: np.ndarray) -> None:
        """What the detector finds in a photograph without a face."""
        for found in self.detector(image):
            self.add_none(FALSE_ALARMS, image, found.landmark_box)


def bounds(right: Sequence[Evidence]) -> dict[str, float]:
    """Of each field that is known, what doubts `LOST_PERCENT` of the right fits."""
    found = {}
    for name, values in zip(Evidence._fields, zip(*right, strict=True), strict=True):
        lost = 100.0 - LOST_PERCENT if name == "residual_crop_px" else LOST_PERCENT
        if None not in values:
            found[name] = float(np.percentile(values, lost))
    return found


def report(samples: Samples) -> None:
    calibrating = [e for rows in samples.right.values() for e in rows[::2]]
    for name, bound in bounds(calibrating).items():
        print(f"{name}: bound {bound:.3f}")
    print(f"right fits {len(calibrating)}, wrong fits to faces, left out {samples.wrong}")
    least = min(evidence.confidence for rows in samples.right.values() for evidence in rows)
    alarms = np.array([evidence.confidence for evidence in samples.none[FALSE_ALARMS]])
    print(
        f"confidence: the least of all right fits {least:.3f}; of {len(alarms)} false alarms"
        f" {np.sum(alarms < NO_FACE_CONFIDENCE)} have less than {NO_FACE_CONFIDENCE}"
    )
    for title, kinds in (("faces", samples.right), ("no faces", samples.none)):
        halves = {kind: rows[1::2] for kind, rows in kinds.items()}
        for kind, rows in {
            **halves,
            "all": [row for half in halves.values() for row in half],
        }.items():
            sure = [not doubts(evidence) for evidence in rows]
            share = sum(sure) / max(len(sure), 1)
            print(f"{title}, {kind}: {sum(sure)} of {len(sure)} ok ({share:.1%})")
    for kind, count in samples.nowhere.items():
        print(f"no faces, {kind}: {count} more without a fit")


def measure(values: flags.FlagValues) -> None:
    rng = np.random.default_rng(SEED)
    samples = Samples(values.weights, values.segmentation)
    backgrounds = [read_photo(path) for path in sorted(Path(values.backgrounds).glob("*.jpg"))]
    for view in tqdm(list(photographs(values.data, values.every)), disable=None):
        for kind, shown in faces(view, rng, backgrounds).items():
            samples.add_face(kind, shown)
        samples.add_none("beside a face", view.image, beside(view, rng), view.box)
    for view in tqdm(profiles(values.profiles, values.every) if values.profiles else ()):
        samples.add_face("profiles", misplaced(view, rng))
    for image in tqdm(backgrounds):
        samples.add_none("photographs", image, somewhere(image, rng))
        samples.add_false_alarms(image)
    for _ in tqdm(range(NOISES)):
        image = noise(rng)
        samples.add_none("noise", image, somewhere(image, rng))
    report(samples)


def main(_: list[str]) -> None:
    try:
        measure(flags.FLAGS)
    except (DatasetError, PhotoError, WeightsError) as error:
        print(f"calibrate_judgement: {error}", file=sys.stderr)
        sys.exit(1)


def define_flags() -> None:
    flags.DEFINE_multi_string("data", None, "folder of annotated photographs", required=True)
    flags.DEFINE_string("backgrounds", None, "folder of photographs without faces", required=True)
    flags.DEFINE_string("profiles", None, "folder of profiles, its table beside it as .npz")
    flags.DEFINE_string("weights", None, "name of weights or a file")
    flags.DEFINE_string("segmentation", None, "weight file of a segmentation")
    flags.DEFINE_integer("every", 4, "use every n-th photograph", lower_bound=1)


if __name__ == "__main__":
    define_flags()
    app.run(main)
