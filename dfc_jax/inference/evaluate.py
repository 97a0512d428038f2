"""Landmark evaluation on photographs with 68 annotated points (the iBUG layout of 300W)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dfc_jax.camera import box_of_points
from dfc_jax.inference.detect import Detection, Detector
from dfc_jax.inference.photo import read_photo
from dfc_jax.types import ByValue

N_POINTS = 68
INNER = slice(17, 68)
FAILURE_PERCENT = 8.0
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PTS_BYTES = 1_000_000  # 68 points take a few kilobytes
_COMMENTS = ("#", "//")
_HEADERS = ("version", "n_points")
_MIRROR = "_mirror"


class DatasetError(ValueError):
    """A dataset cannot be read; the message is one sentence that names the file."""


def read_pts(path: str | os.PathLike[str]) -> np.ndarray:
    """The 68 points of an iBUG ``.pts`` file: (68, 2) float64, pixel centres from 0.

    The points stand in braces; without braces the lines ``version: ...`` and ``n_points: ...``
    are skipped. ``#`` and ``//`` start comments. The files count pixels from 1, as MATLAB does;
    1 is subtracted here and nowhere else.

    Raises:
      DatasetError: the file is missing or does not hold 68 finite points.
    """
    path = Path(path)
    text = _text(path)
    try:
        numbers = _body(text).split()
        points = np.array(numbers[: 2 * N_POINTS + 1], np.float64).reshape(N_POINTS, 2)
    except ValueError as error:
        raise DatasetError(f"{path}: a .pts file needs {N_POINTS} points (x y), no more") from error
    if not np.isfinite(points).all():
        raise DatasetError(f"{path}: a .pts file needs finite points")
    return points - 1.0


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise FileNotFoundError
        if path.stat().st_size > MAX_PTS_BYTES:
            raise DatasetError(f"{path}: more than a megabyte, which is no .pts file")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as a .pts file; check the path") from error


def _body(text: str) -> str:
    """What stands in the braces, or without braces, below the headers; without comments.

    Raises:
      ValueError: a brace is not closed.
    """
    lines = text.split("\n")
    for mark in _COMMENTS:
        lines = [line.partition(mark)[0] for line in lines]
    text = "\n".join(lines)
    if "{" in text:
        return text[text.index("{") + 1 : text.index("}")]
    return "\n".join(line for line in lines if not _is_header(line))


def _is_header(line: str) -> bool:
    name, colon, _ = line.partition(":")
    return bool(colon) and name.strip().lower() in _HEADERS


@dataclass(frozen=True, eq=False)
class Example(ByValue):
    """One annotated photograph: its file and the 68 points (68, 2) in photo pixels."""

    photo: Path
    points: np.ndarray

    def image(self) -> np.ndarray:
        """The photograph, (H, W, 3) uint8 RGB.

        Raises:
          PhotoError: it cannot be read.
        """
        return read_photo(self.photo)


def list_ibug(folder: str | os.PathLike[str], mirrored: bool = False) -> list[Path]:
    """The ``.pts`` files of a folder, sorted; suffixes count in any case.

    300W comes with left-right copies, ``name_mirror.pts`` beside ``name.pts``: they are listed
    only when `mirrored`, as they are no faces of their own.

    Raises:
      DatasetError: no such folder, or no ``.pts`` file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder; give the one with the .pts files")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".pts")
    if not found:
        raise DatasetError(f"{folder}: there are no .pts files in this folder")
    stems = {path.stem for path in found}

    def is_copy(path: Path) -> bool:
        return path.stem.endswith(_MIRROR) and path.stem.removesuffix(_MIRROR) in stems

    return [path for path in found if mirrored or not is_copy(path)]


def photo_beside(annotation: Path) -> Path:
    """The photograph of the same name; suffixes `PHOTO_SUFFIXES`, also as ``.JPG`` and ``.Jpg``.

    Raises:
      DatasetError: there is none.
    """
    for suffix in PHOTO_SUFFIXES:
        for spelling in (suffix, suffix.upper(), suffix.title()):
            photo = annotation.with_suffix(spelling)
            if photo.is_file():
                return photo
    raise DatasetError(f"{annotation}: there is no photograph of this name beside it")


def read_example(annotation: Path) -> Example:
    """One annotated photograph, ``name.jpg`` beside ``name.pts``.

    Raises:
      DatasetError: a broken ``.pts`` file, points that span no face, or no photograph beside it.
    """
    example = Example(photo_beside(annotation), read_pts(annotation))
    if not (box_of_points(example.points)[2:] > 0.0).all():
        raise DatasetError(f"{annotation}: its 68 points span no face; annotate it again")
    return example


def read_ibug(folder: str | os.PathLike[str], mirrored: bool = False) -> list[Example]:
    """The annotated photographs of a folder (``name.jpg`` beside ``name.pts``), by name.

    Args:
      folder: of photographs and annotations; folders inside it are not entered.
      mirrored: see `list_ibug`.

    Raises:
      DatasetError: no such folder, no annotated photograph in it, or a broken one.
    """
    return [read_example(path) for path in list_ibug(folder, mirrored)]


def read_usable(folder: str | os.PathLike[str]) -> tuple[list[Example], dict[Path, str]]:
    """The same, but what is broken is left out: a sentence for each such ``.pts`` file.

    Raises:
      DatasetError: no such folder, or nothing in it can be used.
    """
    examples, problems = [], {}
    for path in list_ibug(folder):
        try:
            examples.append(read_example(path))
        except DatasetError as error:
            problems[path] = str(error)
    if not examples:
        first = next(iter(problems.values()))
        raise DatasetError(f"none of {len(problems)} annotations can be used; {first}")
    return examples, problems


class LandmarkAligner(Protocol):
    """What an evaluation needs of an aligner: the faces' landmarks for landmark boxes."""

    def __call__(self, image: np.ndarray, boxes: list[np.ndarray]) -> Sequence[Any]: ...


def predict(
    aligner: LandmarkAligner,
    example: Example,
    detector: Detector | None = None,
    readings: Sequence[Callable[[Any], np.ndarray]] = (lambda face: face.landmarks,),
) -> np.ndarray:
    """Landmarks (k, 68, 2) in photo pixels, NaN where the face was not found.

    Args:
      aligner: called as ``aligner(image, boxes=[landmark box])``.
      example: what to predict.
      detector: finds the box; without one it is the tight box of the true points. Where it finds
        several faces, the one that overlaps the annotated face most is scored.
      readings: k functions from a face to its landmarks (68, 2).

    Raises:
      PhotoError: the photograph cannot be read, or shows nothing of the annotated face.
    """
    missing = np.full((len(readings), N_POINTS, 2), np.nan)
    image = example.image()
    box = box_of_points(example.points)
    if detector is not None:
        found = best_match(detector(image), box)
        if found is None:
            return missing
        box = found.landmark_box
    faces = aligner(image, boxes=[box])
    return np.stack([read(faces[0]) for read in readings]) if faces else missing


def best_match(detections: Sequence[Detection], box: np.ndarray) -> Detection | None:
    """The detection whose landmark box overlaps `box` most (intersection over union), if any."""
    scored = [(intersection_over_union(d.landmark_box, box), d) for d in detections]
    score, best = max(scored, key=lambda pair: pair[0], default=(0.0, None))
    return best if score > 0.0 else None


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes (x, y, width, height)."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = np.prod(np.maximum(high - low, 0.0))
    return float(shared / (np.prod(a[2:]) + np.prod(b[2:]) - shared))


def nme_percent(predicted: np.ndarray, true: np.ndarray, points: slice) -> np.ndarray:
    """Normalised mean error in percent, per face: (n,) from two (n, 68, 2).

    The mean distance over `points`, divided by sqrt(width * height) of the tight box of the 68
    true points; NaN for a face without a prediction.
    """
    sizes = np.array([np.sqrt(np.prod(box_of_points(face)[2:])) for face in true])
    distances = np.linalg.norm(predicted - true, axis=-1)
    return 100.0 * distances[:, points].mean(axis=1) / sizes


def summarise(predicted: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Scores of predictions (n, 68, 2), NaN where missing.

    Returns:
      ``n``, ``no_output`` (faces without a prediction), and for ``inner`` (the 51 points
      without the jaw) and ``all68``: ``mean`` and ``median`` in percent over the faces that
      were found (None if none was), and ``over_8``, the share of all faces whose error is over
      8 %, the missing ones counted in.
    """
    missing = np.isnan(predicted).any(axis=(1, 2))
    scores: dict[str, Any] = {"n": len(true), "no_output": int(missing.sum())}
    for name, points in (("inner", INNER), ("all68", slice(0, N_POINTS))):
        errors = nme_percent(predicted[~missing], true[~missing], points)
        failures = missing.sum() + (errors > FAILURE_PERCENT).sum()
        scores[name] = {
            "mean": float(errors.mean()) if errors.size else None,
            "median": float(np.median(errors)) if errors.size else None,
            "over_8": float(failures / len(true)),
        }
    return scores
