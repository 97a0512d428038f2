"""300W (Sagonas et al., "300 Faces In-The-Wild Challenge", ICCV Workshops 2013) as it is given out.

Photographs beside ``.pts`` files, in folders at any depth: ``01_Indoor`` and ``02_Outdoor`` of the
challenge, or ``afw``, ``helen/testset``, ``helen/trainset``, ``ibug``, ``lfpw/testset`` and
``lfpw/trainset``. A file's layout is that of `dfc_jax.data.ibug`.
"""

import os
from functools import partial
from pathlib import Path

from dfc_jax.data.faces import AnnotatedFace, FaceSet, refuse_duplicates
from dfc_jax.data.ibug import photo_beside, read_pts, without_mirrored
from dfc_jax.errors import DatasetError


def w300(folder: str | os.PathLike[str]) -> FaceSet[Path]:
    """The faces of all folders below one, by name; a name has the folders, ``ibug/image_003_1``.

    Left-right copies (``name_mirror.pts`` beside ``name.pts``) are left out.

    Raises:
      DatasetError: no such folder, no ``.pts`` file below it, or two annotations of one name.
    """
    folder = Path(folder)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".pts" and _is_seen(p))
    if not found:
        raise DatasetError(f"{folder}: there are no .pts files below it; give the folder of 300W")
    listed = without_mirrored(found)
    refuse_duplicates(folder, (_name_in(folder, path) for path in listed))
    return FaceSet(str(folder), listed, partial(_read_face, folder))


def _is_seen(path: Path) -> bool:
    """Not what macOS adds to archives beside the files."""
    return not path.name.startswith("._")


def _name_in(folder: Path, annotation: Path) -> str:
    return annotation.relative_to(folder).with_suffix("").as_posix()


def _read_face(folder: Path, annotation: Path) -> AnnotatedFace:
    return AnnotatedFace(
        photo_beside(annotation), read_pts(annotation), _name_in(folder, annotation)
    )
