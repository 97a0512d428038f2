"""300W-LP and AFLW2000-3D (Zhu et al. 2016) from their original folders.

Both come as 450 x 450 photographs, each beside a MATLAB file with the Basel model that was fitted
to it. 300W-LP gives three annotations: ``pt2d`` (in the same file), and ``pts_2d`` and ``pts_3d``
(under ``landmarks/``), whose jaw points follow the contour or stay on the surface. The files count
pixels from 1; 1 is subtracted here.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, FaceSet, Jaw, Parameters, refuse_duplicates
from dfc_jax.data.ibug import photo_beside
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import N_LANDMARKS

LP_SETS = ("AFW", "HELEN", "IBUG", "LFPW")
# Edge of every photograph of the two sets, in pixels.
LP_EDGE_PX = 450
LPPoints = Literal["pt2d", "pts_2d", "pts_3d"]
JAW_OF: dict[LPPoints, Jaw] = {"pt2d": "contour", "pts_2d": "contour", "pts_3d": "surface"}
N_POSE, N_SHAPE, N_EXPRESSION = 7, 199, 29
REANNOTATED, REANNOTATED_ORDER = "AFLW2000-3D-Reannotated.pts68.npy", "AFLW2000-3D_crop.list"
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


def aflw2000_reannotated(folder: str | os.PathLike[str]) -> FaceSet[str]:
    """AFLW2000-3D with the points that Bulat and Tzimiropoulos ("How far are we from solving the 2D
    & 3D face alignment problem?", ICCV 2017) annotated again, and the poses of the original.

    Args:
      folder: that of AFLW2000-3D, and in it ``AFLW2000-3D-Reannotated.pts68.npy`` of 3DDFA's
        repository, (n, 2 or 3, 68): x, y (and depth) of the faces. Its order is that of
        ``AFLW2000-3D_crop.list`` beside it, a photograph's name a line, and without this list that
        of the names of all photographs, of which there have to be n. Pixels are counted from 1,
        as in the original: 3DDFA compares one prediction with both.

    Raises:
      DatasetError: no such folder, the points are missing, damaged or of another number than the
        photographs, or a name is listed twice.
    """
    folder = Path(folder)
    points = _read_reannotated(folder / REANNOTATED)
    listed = folder / REANNOTATED_ORDER
    if listed.is_file():
        names = [Path(line).stem for line in listed.read_text("utf-8", "replace").split()]
    else:
        names = sorted(path.stem for path in folder.glob("*.mat"))
    if len(names) != len(points):
        raise DatasetError(
            f"{folder / REANNOTATED}: has points of {len(points)} faces, but there are "
            f"{len(names)}; put {REANNOTATED_ORDER} beside it, or all photographs"
        )
    refuse_duplicates(listed, names)
    by_name = dict(zip(names, points, strict=True))
    return FaceSet(str(folder), names, partial(_read_again, folder, by_name))


def _read_reannotated(path: Path) -> np.ndarray:
    """The points (n, 68, 2), counted from 0."""
    if not path.is_file():
        raise DatasetError(
            f"{path}: there is no such file; copy it there from 3DDFA's test.configs"
        )
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: not a readable .npy file; copy it again") from error
    if stored.dtype.kind != "f" or not any(
        fits(stored.shape, (None, rows, N_LANDMARKS)) for rows in (2, 3)
    ):
        raise DatasetError(f"{path}: is {stored.shape}, not (any, 2 or 3, 68); copy it again")
    return np.swapaxes(stored[:, :2], 1, 2).astype(np.float64) - 1.0


def _read_again(folder: Path, points: dict[str, np.ndarray], name: str) -> AnnotatedFace:
    if not np.isfinite(points[name]).all():
        raise DatasetError(f"{folder / REANNOTATED}: the points of {name} are not finite")
    original = _read_aflw2000(folder / f"{name}.mat")
    return replace(original, points=points[name], depth_px=None, labels="reannotated")


def _parameters(stored: dict[str, np.ndarray]) -> Parameters:
    return Parameters(stored["Pose_Para"], stored["Shape_Para"], stored["Exp_Para"])


def read_mat(
    path: Path, shapes: Mapping[str, tuple[int | None, ...]], finite: bool = True
) -> dict[str, np.ndarray]:
    """Variables of a MATLAB file as float64; a shape (n,) also takes rows and columns, None in it
    any length.

    Raises:
      DatasetError: the file or a variable is missing, of another shape, or, where it has to be
        `finite`, not that.
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
        if not fits(value.shape, shape) or value.dtype.kind not in "iuf":
            expected = str(shape).replace("None", "any")
            raise DatasetError(f"{path}: {name} is {value.shape}, not {expected}; copy it again")
        if finite and not np.isfinite(value).all():
            raise DatasetError(f"{path}: {name} holds numbers that are not finite; leave it out")
        variables[name] = value.astype(np.float64)
    return variables


def fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether an array's shape is the expected one, None in which is any length."""
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(want in (None, length) for length, want in pairs)
