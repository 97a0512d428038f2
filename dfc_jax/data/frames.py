"""The pictures of a video with a ``.pts`` file for each frame, in the order of the frames.

Pictures and annotations lie in one folder, or the annotations in ``annot`` in it, as those of 300VW
(Shen et al., "The First Facial Landmark Tracking in-the-Wild Challenge", ICCV Workshops 2015) do:
``000001.pts``, ``000002.pts``, ... 300VW gives a video instead of pictures; ``ffmpeg -i vid.avi
%06d.png`` makes them. A frame's number is the last number of its file's name; an annotation belongs
to the picture of the same number. A file's layout is that of `dfc_jax.data.ibug`.
"""

import os
import re
from functools import partial
from pathlib import Path

from dfc_jax.data.faces import AnnotatedFace, FaceSet, refuse_duplicates
from dfc_jax.data.ibug import PHOTO_SUFFIXES, list_ibug, read_pts
from dfc_jax.errors import DatasetError

ANNOTATIONS = "annot"
_NUMBER = re.compile(r"\d+(?!.*\d)")


def frames(folder: str | os.PathLike[str]) -> FaceSet[Path]:
    """The annotated frames of a video by their numbers; pictures without annotation are left out.

    Raises:
      DatasetError: no such folder, no ``.pts`` file in it or in its ``annot``, a name without a
        number, or two annotations or pictures of one number.
    """
    folder = Path(folder)
    inner = folder / ANNOTATIONS
    by_number = _numbered(folder, list_ibug(inner if inner.is_dir() else folder, mirrored=True))
    pictures = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in PHOTO_SUFFIXES)
    photos = _numbered(folder, [p for p in pictures if _NUMBER.search(p.stem)])
    ordered = [by_number[number] for number in sorted(by_number)]
    return FaceSet(str(folder), ordered, partial(_read_frame, photos))


def _numbered(folder: Path, paths: list[Path]) -> dict[int, Path]:
    numbers = [_number(path) for path in paths]
    refuse_duplicates(folder, (f"of frame {number}" for number in numbers))
    return dict(zip(numbers, paths, strict=True))


def _number(path: Path) -> int:
    found = _NUMBER.search(path.stem)
    if found is None:
        raise DatasetError(f"{path}: its name has no number of a frame; rename it")
    return int(found[0])


def _read_frame(photos: dict[int, Path], annotation: Path) -> AnnotatedFace:
    number = _number(annotation)
    if number not in photos:
        raise DatasetError(f"{annotation}: there is no picture of frame {number}; extract it again")
    return AnnotatedFace(photos[number], read_pts(annotation), annotation.stem)
