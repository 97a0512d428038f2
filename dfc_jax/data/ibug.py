"""The iBUG layout of 300W: folders of photographs, each beside a ``.pts`` file of 68 points."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfc_jax.crops import box_of_points
from dfc_jax.data.faces import AnnotatedFace, Example, FaceSet
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import N_LANDMARKS

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PTS_BYTES = 1_000_000  # 68 points take a few kilobytes
_COMMENTS = ("#", "//")
_HEADERS = ("version", "n_points")
_MIRROR = "_mirror"


def read_pts(path: str | os.PathLike[str], count: int = N_LANDMARKS) -> np.ndarray:
    """The 68 points of an iBUG ``.pts`` file: (68, 2) float64, pixel centres from 0.

    Other annotations have another `count` of points.

    The points stand in braces; without braces the lines ``version: ...`` and ``n_points: ...``
    are skipped. ``#`` and ``//`` start comments. The files count pixels from 1, as MATLAB does;
    1 is subtracted here and nowhere else.

    Raises:
      DatasetError: the file is missing or does not hold as many finite points.
    """
    path = Path(path)
    text = _text(path)
    try:
        numbers = _body(text).split()
        points = np.array(numbers[: 2 * count + 1], np.float64).reshape(count, 2)
    except ValueError as error:
        raise DatasetError(
            f"{path}: a .pts file needs {count} points (x y) in this layout; "
            "mend it, or name another layout"
        ) from error
    if not np.isfinite(points).all():
        raise DatasetError(f"{path}: a .pts file needs finite points; annotate it again")
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
        raise DatasetError(
            f"{folder}: there are no .pts files in this folder; give one with them, or its layout"
        )
    return found if mirrored else without_mirrored(found)


def without_mirrored(found: Sequence[Path]) -> list[Path]:
    """The ``.pts`` files that are no left-right copies of others among them; see `list_ibug`."""
    originals = {path.with_suffix("") for path in found}

    def is_copy(path: Path) -> bool:
        original = path.with_name(path.stem.removesuffix(_MIRROR))
        return path.stem.endswith(_MIRROR) and original in originals

    return [path for path in found if not is_copy(path)]


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
    raise DatasetError(
        f"{annotation}: there is no photograph of this name beside it; put it there, or take the "
        "annotation away"
    )


def ibug(folder: str | os.PathLike[str], mirrored: bool = False) -> FaceSet[Path]:
    """The annotated photographs of a folder as a set, by name.

    Args:
      folder: of photographs and annotations; folders inside it are not entered.
      mirrored: see `list_ibug`.

    Raises:
      DatasetError: no such folder, or no ``.pts`` file in it.
    """
    return FaceSet(str(folder), list_ibug(folder, mirrored), _read_face)


def _read_face(annotation: Path) -> AnnotatedFace:
    return AnnotatedFace(photo_beside(annotation), read_pts(annotation), annotation.stem)


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
    """The annotated photographs of a folder, by name; every one has to be in order.

    Args:
      folder: of photographs and annotations; folders inside it are not entered.
      mirrored: see `list_ibug`.

    Raises:
      DatasetError: no such folder, no annotated photograph in it, or a broken one.
    """
    return [read_example(path) for path in list_ibug(folder, mirrored)]
