"""How many faces a detector finds: in photographs as they are, turned, tilted, cut off at the face,
in a crowd, in a large picture, and where there are none.

    python -m experiments.tools.check_detector --photos 300w/helen/testset \
        --photos cfp=cfp/validation --photos fasseg=fasseg/multipose --backgrounds FOLDER \
        --detector dfc --json FILE

What the report holds, by name: ``found_<set>`` of ``faces_<set>`` in each set of photographs, with
``found_<set>_yaw_<yaw>`` where yaws are known; for the first set, turned by a quarter or more
(``turned_90``), tilted (``tilted_45``), cut out with a margin in parts of the box (``margin_0``,
``margin_-0.1``), as a crowd of 10 x 10 tiles of 200 px (``crowd``, and all that was found there,
``crowd_boxes``), and one at a time, of so many pixels, in a picture of 6000 x 4000
(``in_6000_of_43_px``); ``false_alarms``, of so many ``backgrounds``; ``ms_640``, the time for a
picture of 640 x 480. A face is found where a box has about its middle and size.

With ``--align`` the aligner goes on from there: ``aligned_<set>``, ``aligned_turned_90``,
``aligned_tilted_45`` count pictures whose face is ``right`` (inner NME at most 8 %), and those with
a face that is ``wrong_and_ok``; ``aligned_backgrounds`` those with ``a_face`` and with ``an_ok``.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import app, flags, logging

import dfc_jax
from data_pipelines.sources.layouts import open_faces, with_layout
from dfc_jax.crops import Crop, apply_affine
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.evaluation.curves import FAILURE_PERCENT
from dfc_jax.files import print_or_write_json
from dfc_jax.inference.align import Aligner
from dfc_jax.inference.detect import Detection, Detector
from dfc_jax.inference.detectors import make_detector
from dfc_jax.photo import read_photo
from experiments import launch
from experiments.robustness import View, errors, view_of

# A box is that of a face if their middles lie within this part of the face's edge, and their edges
# differ by less than this factor.
APART, TIMES = 0.4, 2.0
TURNS, TILTS, MARGINS = (90, 180, 270), (45, 60), (0.0, -0.1)
# Photographs that are turned, tilted, cut out.
TURNED, TILTED, CUT_OUT = 30, 20, 25
TILE_PX, TILES = 200, 10
SIZES_PX = (30, 36, 43, 52, 62, 75, 90, 120, 180)
LARGE = (6000, 4000)
# Photographs in a large picture, for each size; runs of a timing.
IN_LARGE, RUNS = 5, 50


def is_found(detections: Sequence[Detection], box: np.ndarray) -> bool:
    """Whether one of the boxes is that of the face in `box` (4,)."""
    edge, middle = max(box[2:]), box[:2] + box[2:] / 2.0
    for detection in detections:
        own = detection.landmark_box
        away = np.linalg.norm(own[:2] + own[2:] / 2.0 - middle) / edge
        if away <= APART and 1.0 / TIMES <= max(own[2:]) / edge <= TIMES:
            return True
    return False


def turned(image: np.ndarray, deg: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture turned clockwise about its middle, grown to hold its corners, and the map (2, 3)
    of its points."""
    height, width = image.shape[:2]
    turn = Crop(np.zeros(2), 1.0, deg).rotation
    size = np.ceil(np.abs(turn) @ [width, height] - 1e-6)
    offset = (size - 1.0) / 2.0 - turn @ ((np.array([width, height]) - 1.0) / 2.0)
    matrix = np.concatenate([turn, offset[:, None]], axis=1)
    return cv2.warpAffine(image, matrix, (int(size[0]), int(size[1]))), matrix


def turned_box(image: np.ndarray, box: np.ndarray, deg: float) -> tuple[np.ndarray, np.ndarray]:
    """`turned`, and the box (4,) about the turned middle."""
    flat, matrix = turned(image, deg)
    middle = apply_affine(matrix, box[:2] + box[2:] / 2.0)
    return flat, np.concatenate([middle - box[2:] / 2.0, box[2:]])


def cut_out(image: np.ndarray, box: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """What a box (4,) with a margin, in parts of its longer edge, shows; and the box there."""
    grown = margin * max(box[2:])
    low = np.clip(np.round(box[:2] - grown), 0, None).astype(int)
    high = np.round(box[:2] + box[2:] + grown).astype(int) + 1
    return image[low[1] : high[1], low[0] : high[0]], np.concatenate([box[:2] - low, box[2:]])


def crowd(faces: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Photographs as tiles beside each other, and their boxes."""
    picture = np.zeros((TILES * TILE_PX, TILES * TILE_PX, 3), np.uint8)
    boxes = []
    for number, (image, box) in enumerate(faces[: TILES * TILES]):
        corner = TILE_PX * np.array([number % TILES, number // TILES])
        scale = TILE_PX / np.array(image.shape[1::-1])
        tile = cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
        picture[corner[1] : corner[1] + TILE_PX, corner[0] : corner[0] + TILE_PX] = tile
        boxes.append(np.concatenate([box[:2] * scale + corner, box[2:] * scale]))
    return picture, boxes


def in_large(
    image: np.ndarray, box: np.ndarray, edge_px: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The photograph in a grey picture of `LARGE` pixels, its face so large."""
    scale = edge_px / max(box[2:])
    size = np.maximum(1, np.round(np.array(image.shape[1::-1]) * scale)).astype(int)
    small = cv2.resize(image, tuple(map(int, size)), interpolation=cv2.INTER_AREA)
    corner = rng.integers(np.array(LARGE) - size)
    picture = np.full((LARGE[1], LARGE[0], 3), 90, np.uint8)
    picture[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]] = small
    return picture, np.concatenate([box[:2] * scale + corner, box[2:] * scale])


def check_set(detector: Detector, faces: Sequence[AnnotatedFace], name: str) -> dict[str, float]:
    """How many faces of a set are found, also by yaw where that is known for all."""
    hits = np.array([is_found(detector(face.image()), face.landmark_box) for face in faces])
    for face in (face for face, hit in zip(faces, hits, strict=True) if not hit):
        logging.info("%s: not found", face.photo)
    report: dict[str, float] = {f"faces_{name}": len(hits), f"found_{name}": int(hits.sum())}
    if all(face.pose_deg is not None for face in faces):
        yaws = np.array([face.pose_deg[0] for face in faces if face.pose_deg is not None])
        for yaw in np.unique(yaws):
            report[f"found_{name}_yaw_{yaw:g}"] = round(float(hits[yaws == yaw].mean()), 3)
    return report


def check_changed(
    detector: Detector, faces: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    """What is found of photographs with their boxes that are turned, tilted, cut out, in a crowd
    and in a large picture; of each so many."""

    def count(changed: Callable[..., tuple[np.ndarray, np.ndarray]], most: int) -> str:
        some = [changed(*face) for face in faces[:most]]
        return f"{sum(is_found(detector(image), box) for image, box in some)} of {len(some)}"

    report: dict[str, Any] = {}
    for deg in TURNS:
        report[f"turned_{deg}"] = count(partial(turned_box, deg=deg), TURNED)
    for deg in TILTS:
        report[f"tilted_{deg}"] = count(partial(turned_box, deg=deg), TILTED)
    for margin in MARGINS:
        report[f"margin_{margin:g}"] = count(partial(cut_out, margin=margin), CUT_OUT)
    picture, boxes = crowd(faces)
    found = detector(picture)
    report["crowd"] = f"{sum(is_found(found, box) for box in boxes)} of {len(boxes)}"
    report["crowd_boxes"] = len(found)
    rng = np.random.default_rng(0)
    for edge in SIZES_PX:
        some = [in_large(*face, edge, rng) for face in faces[:IN_LARGE]]
        hits = sum(is_found(detector(image), box) for image, box in some)
        report[f"in_6000_of_{edge}_px"] = f"{hits} of {len(some)}"
    return report


def picture_files(folder: Path) -> list[Path]:
    """The .jpg and .png pictures of a folder."""
    return [file for file in sorted(folder.iterdir()) if file.suffix.lower() in (".jpg", ".png")]


def false_alarms(detector: Detector, folder: Path) -> dict[str, int]:
    """In how many pictures of a folder without faces one is found."""
    files = picture_files(folder)
    alarms = sum(bool(detector(read_photo(file))) for file in files)
    return {"backgrounds": len(files), "false_alarms": alarms}


def check_aligned(aligner: Aligner, views: Sequence[View]) -> dict[str, int]:
    """How many pictures of one face give it rightly, and how many a wrong one that is "ok"."""
    right = wrong = 0
    for view in views:
        faces = aligner(view.image)
        hits = errors([view] * len(faces), faces) <= FAILURE_PERCENT
        right += bool(hits.any())
        wrong += any(face.status == "ok" and not hit for face, hit in zip(faces, hits, strict=True))
    return {"right": right, "wrong_and_ok": wrong, "of": len(views)}


def check_all_aligned(
    aligner: Aligner, sets: dict[str, Sequence[AnnotatedFace]], backgrounds: Path | None
) -> dict[str, Any]:
    """What the aligner makes of the sets, of the first one's turned photographs, and of pictures
    without a face."""

    def views(faces: Sequence[AnnotatedFace], deg: float) -> list[View]:
        found = []
        for face in faces:
            image, matrix = turned(face.image(), deg) if deg else (face.image(), np.eye(2, 3))
            found.append(view_of(image, apply_affine(matrix, face.points)))
        return found

    report: dict[str, Any] = {}
    for name, faces in sets.items():
        report[f"aligned_{name}"] = check_aligned(aligner, views(faces, 0.0))
    first = next(iter(sets.values()))
    for kind, turns, most in (("turned", TURNS, TURNED), ("tilted", TILTS, TILTED)):
        for deg in turns:
            report[f"aligned_{kind}_{deg}"] = check_aligned(aligner, views(first[:most], deg))
    if backgrounds is not None:
        found = [aligner(file) for file in picture_files(backgrounds)]
        report["aligned_backgrounds"] = {
            "a_face": sum(map(bool, found)),
            "an_ok": sum(any(face.status == "ok" for face in faces) for faces in found),
            "of": len(found),
        }
    return report


def milliseconds(detector: Detector, image: np.ndarray, width: int = 640) -> float:
    """The median time for a picture, made so wide and three quarters as high."""
    picture = cv2.resize(image, (width, width * 3 // 4), interpolation=cv2.INTER_AREA)
    detector(picture)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        detector(picture)
        times.append(time.perf_counter() - start)
    return round(1e3 * float(np.median(times)), 2)


def open_all(folders: Sequence[str]) -> dict[str, Sequence[AnnotatedFace]]:
    """The sets of photographs by names for the report."""
    sets: dict[str, Sequence[AnnotatedFace]] = {}
    for given in folders:
        layout, folder = with_layout(given, "ibug")
        sets[f"{layout}_{Path(folder).name}"] = list(open_faces(layout, folder))
    return sets


def check(
    detector: Detector, sets: dict[str, Sequence[AnnotatedFace]], backgrounds: Path | None
) -> dict[str, Any]:
    """The report on a detector; see the module."""
    report: dict[str, Any] = {}
    for name, faces in sets.items():
        report |= check_set(detector, faces, name)
    shown = [(face.image(), face.landmark_box) for face in next(iter(sets.values()))]
    report["ms_640"] = milliseconds(detector, shown[0][0])
    report |= check_changed(detector, shown)
    return report | (false_alarms(detector, backgrounds) if backgrounds else {})


def define_flags() -> None:
    """Those of this program."""
    flags.DEFINE_multi_string("photos", None, "annotated photographs, or LAYOUT=FOLDER")
    flags.mark_flag_as_required("photos")
    flags.DEFINE_string("backgrounds", None, "folder of pictures without faces")
    flags.DEFINE_enum("detector", "dfc", ["dfc", "haar", "yunet"], "what is checked")
    flags.DEFINE_string("detector_model", None, "its file, instead of the package's")
    flags.DEFINE_float("min_score", None, "probability below which a face is none")
    flags.DEFINE_bool("align", False, "count also what the aligner makes of what is found")
    flags.DEFINE_string("json", "-", "file for the report, - for the standard output")


def check_as_told(values: flags.FlagValues) -> None:
    """`check` with what the command line says."""
    detector = make_detector(values.detector, values.detector_model, min_score=values.min_score)
    backgrounds = None if values.backgrounds is None else Path(values.backgrounds)
    sets = open_all(values.photos)
    report = check(detector, sets, backgrounds)
    if values.align:
        report |= check_all_aligned(dfc_jax.load(detector=detector), sets, backgrounds)
    print_or_write_json(values.json, report)


if __name__ == "__main__":
    define_flags()
    app.run(
        lambda _: launch.run_program(lambda: check_as_told(flags.FLAGS)),
        flags_parser=partial(launch.parse_flags, example=""),
    )
