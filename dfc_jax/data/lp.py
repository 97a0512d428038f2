"""300W-LP and AFLW2000-3D (Zhu et al. 2016) from their original folders.

Both come as 450 x 450 photographs, each beside a MATLAB file with the Basel model that was fitted
to it. 300W-LP gives three annotations: ``pt2d`` (in the same file), and ``pts_2d`` and ``pts_3d``
(under ``landmarks/``), whose jaw points follow the contour or stay on the surface. The files count
pixels from 1; 1 is subtracted here.
"""

import os
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, FaceSet, Jaw, Parameters
from dfc_jax.data.ibug import photo_beside
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import N_LANDMARKS

LP_SETS = ("AFW", "HELEN", "IBUG", "LFPW")
# Edge of every photograph of the two sets, in pixels.
LP_EDGE_PX = 450
LPPoints = Literal["pt2d", "pts_2d", "pts_3d"]
JAW_OF: dict[LPPoints, Jaw] = {"pt2d": "contour", "pts_2d": "contour", "pts_3d": "surface"}
N_POSE, N_SHAPE, N_EXPRESSION = 7, 199, 29
_PARAMETERS = {
    "Pose_Para": (N_POSE,),
    "Shape_Para": (N_SHAPE,),
    "Exp_Para": (N_EXPRESSION,),
}


def w300lp(
    folder: str | os.PathLike[str], points: LPPoints = "pt2d", flipped: bool = False
) -> FaceSet[Path]:
    """300W-LP from its original folder ``300W_LP``, set by set, by name.

    Args:
      folder: holds ``AFW``, ``HELEN``, ``IBUG``, ``LFPW`` (some of them).
      points: which of the three annotations; see the module.
      flipped: also ``AFW_Flip`` and so on, the left-right copies.

    Raises:
      DatasetError: no such folder, or no ``.mat`` file in its sets.
      ValueError: no such points.
    """
    if points not in JAW_OF:
        raise ValueError(f"there are no points {points!r}; choose from {get_args(LPPoints)}")
    folder = Path(folder)
    names = sorted(LP_SETS + (tuple(f"{s}_Flip" for s in LP_SETS) if flipped else ()))
    found = [path for name in names for path in sorted((folder / name).glob("*.mat"))]
    if not found:
        raise DatasetError(
            f"{folder}: holds no AFW, HELEN, IBUG or LFPW with .mat files; give the folder 300W_LP"
        )
    return FaceSet(str(folder), found, partial(_read_lp, which=points))


def _read_lp(annotation: Path, which: LPPoints) -> AnnotatedFace:
    own = {"pt2d": (2, N_LANDMARKS)} if which == "pt2d" else {}
    stored = read_mat(annotation, {**own, **_PARAMETERS})
    if which == "pt2d":
        points = stored["pt2d"].T
    else:
        folder = annotation.parents[1] / "landmarks" / annotation.parent.name
        later = folder / f"{annotation.stem}_pts.mat"
        points = read_mat(later, {which: (N_LANDMARKS, 2)})[which]
    parameters = _parameters(stored)
    return AnnotatedFace(
        photo=photo_beside(annotation),
        points=points - 1.0,
        name=f"{annotation.parent.name}/{annotation.stem}",
        jaw=JAW_OF[which],
        parameters=parameters,
        pose_deg=parameters.pose_deg,
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


def _read_aflw2000(annotation: Path) -> AnnotatedFace:
    stored = read_mat(annotation, {"pt3d_68": (3, N_LANDMARKS), **_PARAMETERS})
    parameters = _parameters(stored)
    return AnnotatedFace(
        photo=photo_beside(annotation),
        points=stored["pt3d_68"][:2].T - 1.0,
        name=annotation.stem,
        jaw="surface",
        parameters=parameters,
        pose_deg=parameters.pose_deg,
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
            raise DatasetError(f"{path}: has no {name}; it is damaged, or of another data set")
        value = np.asarray(content[name])
        value = np.squeeze(value) if len(shape) == 1 else value
        if value.shape != shape or value.dtype.kind not in "iuf":
            raise DatasetError(f"{path}: {name} is {value.shape}, not {shape}; copy it again")
        if not np.isfinite(value).all():
            raise DatasetError(f"{path}: {name} holds numbers that are not finite; leave it out")
        variables[name] = value.astype(np.float64)
    return variables
