"""CFP (Sengupta et al., "Frontal to Profile Face Verification in the Wild", WACV 2016).

Photographs ``NAME.jpg`` of heads seen from the side, in a folder, beside it one file of the
folder's name with ``.npz``, which holds `names` (n,) and `points` (n, 68, 2): pixels from 0, NaN
where there is none. 30 points of the near half of the face are placed by hand, those of the jaw on
its *bone*.

The frontal faces of the set are left out. Half of each is annotated, in another way: the lips are
of nearly the same thickness in all of them, even where that makes them overlap, and the two points
of the lower lid stand in each other's place.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, FaceSet
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import MIRROR, N_LANDMARKS

PROFILE = "_profile"
# The landmarks in the plane of symmetry.
_MIDDLE = np.flatnonzero(np.arange(N_LANDMARKS) == MIRROR)


def cfp(folder: str | os.PathLike[str]) -> FaceSet[str]:
    """The faces of a folder of CFP, in the order of the ``.npz`` file beside it.

    Names that end with ``_profile`` are profiles; all others are left out.

    Raises:
      DatasetError: no such folder, no ``.npz`` file beside it, or not one as in the module.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder; give the one with the photographs")
    names, points = _read_table(folder.with_name(f"{folder.name}.npz"))
    by_name = dict(zip(names.tolist(), points, strict=True))
    profiles = [name for name in by_name if name.endswith(PROFILE)]
    return FaceSet(str(folder), profiles, partial(_read_face, folder, by_name))


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Names (n,) and points (n, 68, 2)."""
    if not path.is_file():
        raise DatasetError(
            f"{path}: there is no such file; CFP's points lie in it, put it beside the folder"
        )
    try:
        with np.load(path) as table:
            names, points = table["names"], table["points"]
    except Exception as error:  # a broken file makes NumPy raise almost anything
        raise DatasetError(f"{path}: not a readable table of CFP; copy it again") from error
    shape = (len(names) if names.ndim == 1 else 0, N_LANDMARKS, 2)
    if names.dtype.kind != "U" or points.shape != shape or points.dtype.kind != "f":
        raise DatasetError(f"{path}: has no names and points as CFP has them; copy it again")
    return names, points


def _read_face(folder: Path, points: dict[str, np.ndarray], name: str) -> AnnotatedFace:
    here = points[name].astype(np.float64)
    here[~np.isfinite(here).all(axis=-1)] = np.nan
    photo = folder / f"{name}.jpg"
    if not np.isfinite(here[_MIDDLE]).all(axis=-1).sum() > 1:
        raise DatasetError(f"{photo}: too few of its points are annotated; leave it out")
    return AnnotatedFace(
        photo=photo,
        points=here,
        name=name,
        jaw="surface",
        profile=True,
    )
