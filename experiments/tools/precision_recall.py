"""Precision against recall of detectors, on photographs pasted at all sizes over pictures.

    python -m experiments.tools.precision_recall --photos 300w/helen/testset \
        --photos cfp=cfp/validation --backgrounds FOLDER --detector_model FILE --yunet FILE \
        --out out/detectors

Every photograph is pasted once, with a random size, place and tilt, into pictures of 640 x 480 that
are made of the backgrounds; only whole ones that cover no other. Writes `detectors.json`: for each
detector the curve (``recall``, ``precision`` and the ``score`` from which they hold), its
``average_precision``, mean and standard deviation of the logarithm of its edges over the true ones
(``edge_mean``, ``edge_sd``), the time for one of these pictures made so wide (``ms_640``, and
smaller and larger), and ``calibration``, how many of the boxes with about a score show a face,
beside the mean of these scores; `detectors.png`, the curves; and `scenes.png`, some of the pictures
with the faces in them (green) and what `dfc` finds with a probability of a half (red).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from tqdm import tqdm

from data_pipelines.faces.backgrounds import load_backgrounds
from data_pipelines.sources.layouts import open_faces, with_layout
from dfc_jax.crops import Crop
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.errors import DatasetError
from dfc_jax.files import write_json, written_aside
from dfc_jax.inference.detect import Detector
from dfc_jax.inference.detectors import make_detector
from dfc_jax.photo import write_png
from experiments import launch
from experiments.tools.check_detector import is_found, milliseconds

SEED = 0
TIMED_WIDTHS = (320, 640, 1280, 2560)
WIDTH, HEIGHT = 640, 480
# Longer edges of the faces, px; log-uniform.
EDGES_PX = (20.0, 200.0)
# A photograph shows so much beyond the box of its face, in parts of the box's edge.
MARGIN = 0.45
# One face in so many has any roll; those of the others are normal, so wide.
ANY_ROLL, ROLL_DEG = 4, 15.0
# Faces that are tried for one picture, and places for each.
FACES, PLACES = 8, 20
# The curves begin where a detector is hardly sure of anything.
MIN_SCORE = {"dfc": 0.02, "yunet": 0.05, "haar": None}
BINS = 10
DRAWN = 12


class Picture(NamedTuple):
    """A picture with faces.

    Attributes:
      image: (480, 640, 3) uint8 RGB.
      boxes: (K, 4) of them, px.
    """

    image: np.ndarray
    boxes: np.ndarray


class Found(NamedTuple):
    """The boxes that a detector finds.

    Attributes:
      score: (N,) of each.
      right: (N,) bool, the first one to find a face.
      log_ratio: (N,) logarithm of its edge over the face's; NaN where not `right`.
    """

    score: np.ndarray
    right: np.ndarray
    log_ratio: np.ndarray


def pictures(
    faces: Sequence[AnnotatedFace], backgrounds: np.ndarray, rng: np.random.Generator
) -> Iterator[Picture]:
    """Pictures with all faces, each once, over `backgrounds` (M, S, S, 3) uint8."""
    order = list(rng.permutation(len(faces)))
    while order:
        image = mosaic(backgrounds, rng)
        boxes: list[np.ndarray] = []
        for index in [order.pop() for _ in range(min(FACES, len(order)))]:
            edge = EDGES_PX[0] * (EDGES_PX[1] / EDGES_PX[0]) ** rng.uniform()
            place = free_place(edge, boxes, rng)
            if place is None:
                order.insert(0, index)
                continue
            roll = (
                rng.uniform(-180, 180) if rng.integers(ANY_ROLL) == 0 else rng.normal() * ROLL_DEG
            )
            paste(image, faces[index], place, edge, roll)
            boxes.append(np.append(place - edge / 2.0, [edge, edge]))
        yield Picture(image, np.stack(boxes))


def mosaic(backgrounds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture of four backgrounds beside each other."""
    size = WIDTH // 2, HEIGHT // 2
    parts = [cv2.resize(backgrounds[i], size) for i in rng.integers(len(backgrounds), size=4)]
    return np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])


def free_place(
    edge: float, boxes: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray | None:
    """The middle (2,) of a face that neither covers the others nor leaves the picture, if one is
    found."""
    reach = (0.5 + MARGIN) * edge
    for _ in range(PLACES):
        place = rng.uniform(reach, np.maximum(reach, np.array([WIDTH, HEIGHT]) - reach))
        if all(
            np.abs(place - box[:2] - box[2:] / 2.0).max() > reach + (0.5 + MARGIN) * box[2]
            for box in boxes
        ):
            return np.asarray(place)
    return None


def paste(
    image: np.ndarray, face: AnnotatedFace, place: np.ndarray, edge: float, roll_deg: float
) -> None:
    """Draw what surrounds a face into the picture, tilted clockwise."""
    photo, box = face.image(), face.landmark_box
    scale = edge / max(box[2:])
    small = min(1.0, scale)
    if small < 1.0:
        photo = cv2.resize(photo, None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
    box = box * small
    turn = scale / small * Crop(np.zeros(2), 1.0, roll_deg).rotation
    matrix = np.concatenate([turn, (place - turn @ (box[:2] + box[2:] / 2.0))[:, None]], axis=1)
    shown = np.zeros(photo.shape[:2], np.uint8)
    margin = MARGIN * max(box[2:])
    low = np.maximum(box[:2] + (box[2:] - max(box[2:])) / 2.0 - margin, 0.0).astype(int)
    high = low + int((1.0 + 2.0 * MARGIN) * max(box[2:]))
    shown[low[1] : high[1], low[0] : high[0]] = 255
    alpha = cv2.warpAffine(shown, matrix, (WIDTH, HEIGHT))[..., None] / 255.0
    pasted = cv2.warpAffine(photo, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    image[:] = np.round(image + alpha * (pasted.astype(np.float64) - image)).astype(np.uint8)


def found_in(detector: Detector, shown: Sequence[Picture]) -> Found:
    """All that a detector finds in pictures, the surest first."""
    rows: list[tuple[float, bool, float]] = []
    for picture in tqdm(shown, disable=None):
        left = list(picture.boxes)
        for detection in sorted(detector(picture.image), key=lambda one: -one.score):
            hits = [i for i, box in enumerate(left) if is_found([detection], box)]
            edge = left.pop(hits[0])[2] if hits else np.nan
            ratio = np.log(max(detection.landmark_box[2:]) / edge)
            rows.append((detection.score, bool(hits), ratio))
    rows.sort(key=lambda row: -row[0])
    score, right, ratio = np.array(rows, float).reshape(-1, 3).T
    return Found(score, right.astype(bool), ratio)


def curve(scores: np.ndarray, right: np.ndarray, faces: int) -> dict[str, Any]:
    """Precision and recall from each score on, and the area under their curve.

    The area is that under the highest precision at each recall or beyond, as in Pascal VOC 2010.
    """
    hits = np.cumsum(right)
    recall, precision = hits / faces, hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    area = float(np.sum(np.diff(recall, prepend=0.0) * best))
    return {
        "average_precision": round(area, 4),
        "recall": recall.round(4).tolist(),
        "precision": precision.round(4).tolist(),
        "score": scores.round(4).tolist(),
    }


def calibration(scores: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Of the boxes in each tenth of the scores: how many, their mean score, the share of them that
    show a face."""
    which = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        {
            "boxes": int((which == one).sum()),
            "score": round(float(scores[which == one].mean()), 3),
            "right": round(float(right[which == one].mean()), 3),
        }
        for one in range(BINS)
        if (which == one).any()
    ]


def draw_curves(report: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(5.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, found in report["detectors"].items():
        axes.plot(
            found["recall"],
            found["precision"],
            label=f"{name}: {found['average_precision']:.3f}",
            drawstyle="steps-post",
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0.0, 1.01), ylim=(0.0, 1.01))
    axes.grid(alpha=0.3)
    axes.legend(title="average precision", loc="lower left")
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=120)


def draw_scenes(detector: Detector, shown: Sequence[Picture], path: Path) -> None:
    tiles = []
    for picture in shown[:DRAWN]:
        image = picture.image.copy()
        sure = [one.box for one in detector(picture.image) if one.score >= 0.5]
        for boxes, color in ((picture.boxes, (0, 255, 0)), (sure, (255, 0, 0))):
            for x, y, width, height in np.round(boxes).astype(int).reshape(-1, 4).tolist():
                cv2.rectangle(image, (x, y), (x + width, y + height), color, 2)
        tiles.append(cv2.resize(image, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    write_png(path, np.vstack([np.hstack(tiles[i : i + 4]) for i in range(0, len(tiles), 4)]))


def compare(detectors: dict[str, Detector], shown: Sequence[Picture]) -> dict[str, Any]:
    """The report; see the module."""
    faces = sum(len(picture.boxes) for picture in shown)
    report: dict[str, Any] = {"pictures": len(shown), "faces": faces, "detectors": {}}
    for name, detector in detectors.items():
        found = found_in(detector, shown)
        ratio = found.log_ratio[found.right]
        report["detectors"][name] = {
            **curve(found.score, found.right, faces),
            # How much too large the boxes are, and how much that varies: of logarithms.
            "edge_mean": round(float(ratio.mean()), 3) if len(ratio) else None,
            "edge_sd": round(float(ratio.std()), 3) if len(ratio) else None,
            **{f"ms_{w}": milliseconds(detector, shown[0].image, w) for w in TIMED_WIDTHS},
        }
        if name == "dfc":
            report["detectors"][name]["calibration"] = calibration(found.score, found.right)
    return report


def define_flags() -> None:
    """Those of this program."""
    flags.DEFINE_multi_string("photos", None, "annotated photographs, or LAYOUT=FOLDER")
    flags.mark_flag_as_required("photos")
    flags.DEFINE_string("backgrounds", None, "folder of pictures without faces", required=True)
    flags.DEFINE_string("detector_model", None, "weights of dfc, instead of the package's")
    flags.DEFINE_string("yunet", None, "YuNet's file, to compare it, too")
    flags.DEFINE_string("out", None, "folder to write to", required=True)


def compare_as_told(values: flags.FlagValues) -> None:
    """`compare` with what the command line says."""
    rng, out = np.random.default_rng(SEED), Path(values.out)
    faces = [face for given in values.photos for face in open_faces(*with_layout(given, "ibug"))]
    if not faces:
        raise DatasetError(f"{', '.join(values.photos)}: no photograph is there to be pasted")
    shown = list(pictures(faces, np.asarray(load_backgrounds(values.backgrounds)), rng))
    models = {"dfc": values.detector_model, "haar": None, "yunet": values.yunet}
    if values.yunet is None:
        del models["yunet"]
    detectors = {
        name: make_detector(name, model, min_score=MIN_SCORE[name])
        for name, model in models.items()
    }
    report = compare(detectors, shown)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "detectors.json", report)
    draw_curves(report, out / "detectors.png")
    draw_scenes(detectors["dfc"], shown, out / "scenes.png")
    for name, found in report["detectors"].items():
        times = ", ".join(f"{found[f'ms_{w}']} ms at {w} x {w * 3 // 4}" for w in TIMED_WIDTHS)
        print(f"{name}: average precision {found['average_precision']:.3f}, {times}")


if __name__ == "__main__":
    define_flags()
    app.run(
        lambda _: launch.run_program(lambda: compare_as_told(flags.FLAGS)),
        flags_parser=partial(launch.parse_flags, example=""),
    )
