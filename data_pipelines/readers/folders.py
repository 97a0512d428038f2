"""Faces in folders: photographs beside `.pts` files, 300W-LP and AFLW2000-3D as they are given out.

300W-LP and AFLW2000-3D hold photographs of 450 x 450 pixels. What their `.mat` files store:

===================================  ===============================================================
`pt2d` (2, 68)                       300W-LP's points; jaw along the contour, as 300W annotates it.
                                     In AFLW2000-3D: AFLW's 21 points, not used here
`pt3d_68` (3, 68)                    AFLW2000-3D's points: x, y, and z to the viewer; jaw points
                                     are fixed on the surface, hidden ones included
`Pose_Para`, `Shape_Para`, `Exp_..`  see `Parameters`
`landmarks/SET/NAME_pts.mat`         300W-LP, later: `pts_2d` (68, 2), jaw on the visible contour,
                                     and `pts_3d` (68, 2), jaw fixed on the surface
===================================  ===============================================================

The authors' MATLAB code draws vertices at ``x = X``, ``y = height + 1 - Y`` with ``X, Y, Z =
f R vertex + t``, so points count from 1, and `Pose_Para`'s translation has y up. From 0 with y
down that is ``x = X - 1``, ``y = height - Y``.
"""

import os
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from data_pipelines.readers.faces import Face, FaceSet, Jaw, Parameters
from dfc_jax.inference.evaluate import (
    N_POINTS,
    DatasetError,
    list_ibug,
    photo_beside,
    read_pts,
)

LP_SETS = ("AFW", "HELEN", "IBUG", "LFPW")
LP_EDGE_PX = 450
LPPoints = Literal["pt2d", "pts_2d", "pts_3d"]
JAW_OF: dict[LPPoints, Jaw] = {"pt2d": "contour", "pts_2d": "contour", "pts_3d": "surface"}
N_POSE, N_SHAPE, N_EXPRESSION = 7, 199, 29
_PARAMETERS = {
    "Pose_Para": (N_POSE,),
    "Shape_Para": (N_SHAPE,),
    "Exp_Para": (N_EXPRESSION,),
}


def ibug(folder: str | os.PathLike[str], mirrored: bool = False) -> FaceSet[Path]:
    """Photographs beside ``.pts`` files; see `dfc_jax.inference.evaluate.read_ibug`.

    Raises:
      DatasetError: no such folder, or no ``.pts`` file in it.
    """
    return FaceSet(str(folder), list_ibug(folder, mirrored), _read_ibug)


def _read_ibug(annotation: Path) -> Face:
    return Face(photo_beside(annotation), read_pts(annotation), annotation.stem)


def w300lp(
    folder: str | os.PathLike[str], points: LPPoints = "pt2d", flipped: bool = False
) -> FaceSet[Path]:
    """300W-LP from its original folder ``300W_LP``, set by set, by name.

    Args:
      folder: holds ``AFW``, ``HELEN``, ``IBUG``, ``LFPW`` (some of them).
      points: which of its three annotations; see the module.
      flipped: also ``AFW_Flip`` and so on, the left-right copies.

    Raises:
      DatasetError: no such folder, or no ``.mat`` file in its sets.
      ValueError: no such points.
    """
    if points not in JAW_OF:
        raise ValueError(f"there are no points {points!r}; choose from {get_args(LPPoints)}")
    folder = Path(folder)
    names = sorted(LP_SETS + (tuple(f"{s}_Flip" for s in LP_SETS) if flipped else ()))
    # Not `_mat_files`: a set that is not there is left out, here.
    found = [path for name in names for path in sorted((folder / name).glob("*.mat"))]
    if not found:
        raise DatasetError(
            f"{folder}: holds no AFW, HELEN, IBUG or LFPW with .mat files; give the folder 300W_LP"
        )
    return FaceSet(str(folder), found, partial(_read_lp, which=points))


def _read_lp(annotation: Path, which: LPPoints) -> Face:
    own = {"pt2d": (2, N_POINTS)} if which == "pt2d" else {}
    stored = read_mat(annotation, {**own, **_PARAMETERS})
    if which == "pt2d":
        points = stored["pt2d"].T
    else:
        folder = annotation.parents[1] / "landmarks" / annotation.parent.name
        later = folder / f"{annotation.stem}_pts.mat"
        points = read_mat(later, {which: (N_POINTS, 2)})[which]
    return Face(
        photo=photo_beside(annotation),
        points=points - 1.0,
        name=f"{annotation.parent.name}/{annotation.stem}",
        jaw=JAW_OF[which],
        parameters=_parameters(stored),
    )


def aflw2000(folder: str | os.PathLike[str]) -> FaceSet[Path]:
    """AFLW2000-3D from its original folder of ``imageNNNNN.jpg`` and ``.mat``, by number.

    Raises:
      DatasetError: no such folder, or no ``.mat`` file in it.
    """
    folder = Path(folder)
    found = sorted(folder.glob("*.mat"))
    if not found:
        raise DatasetError(f"{folder}: holds no .mat files; give the folder of AFLW2000-3D")
    return FaceSet(str(folder), found, _read_aflw2000)


def _read_aflw2000(annotation: Path) -> Face:
    stored = read_mat(annotation, {"pt3d_68": (3, N_POINTS), **_PARAMETERS})
    return Face(
        photo=photo_beside(annotation),
        points=stored["pt3d_68"][:2].T - 1.0,
        name=annotation.stem,
        jaw="surface",
        parameters=_parameters(stored),
        depth_px=stored["pt3d_68"][2],
    )


def _parameters(stored: dict[str, np.ndarray]) -> Parameters:
    return Parameters(stored["Pose_Para"], stored["Shape_Para"], stored["Exp_Para"])


def read_mat(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Variables of a MATLAB file as float64; a shape (n,) also takes rows and columns.

    Raises:
      DatasetError: the file or a variable is missing, of another shape, or not finite.
    """
    from scipy.io import loadmat  # here: scipy.io is slow to import and rarely needed

    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file; copy the data set again")
    try:
        content = loadmat(path, variable_names=list(shapes))
    except Exception as error:  # a broken file makes loadmat raise almost anything
        raise DatasetError(f"{path}: not a readable MATLAB file; copy it again") from error
    variables = {}
    for name, shape in shapes.items():
        if name not in content:
            raise DatasetError(f"{path}: has no {name}; it belongs to another data set")
        value = np.asarray(content[name])
        value = np.squeeze(value) if len(shape) == 1 else value
        if value.shape != shape or value.dtype.kind not in "iuf":
            raise DatasetError(f"{path}: {name} is {value.shape}, not {shape}; copy it again")
        if not np.isfinite(value).all():
            raise DatasetError(f"{path}: {name} holds numbers that are not finite; leave it out")
        variables[name] = value.astype(np.float64)
    return variables
