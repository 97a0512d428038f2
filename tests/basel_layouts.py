"""Writes a small known face in the layouts in which Basel 2009 and its expressions circulate."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import savemat

UM_PER_MM = 1e3
ROWS, COLUMNS = 9, 11


class KnownFace(NamedTuple):
    """What a reader must find, in this package's units and frame (see `FaceModel`)."""

    mean_mm: np.ndarray
    identity_mm: np.ndarray
    expression_mm: np.ndarray
    mean_expression_mm: np.ndarray
    triangles: np.ndarray
    keypoints: np.ndarray


def known_face(seed: int = 0, n_identity: int = 4, n_expression: int = 3) -> KnownFace:
    """A half cylinder with a nose: 140 mm wide, 180 mm high, open at the back."""
    rng = np.random.default_rng(seed)
    row, column = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    angle = np.deg2rad(np.linspace(-100, 100, COLUMNS))[column]
    y = np.linspace(-90, 90, ROWS)[row]
    nose = 25 * np.exp(-((y / 20) ** 2) - (angle / 0.3) ** 2)
    mean = np.stack([70 * np.sin(angle), y, 70 * np.cos(angle) + nose], -1).reshape(-1, 3)
    corner = (row * COLUMNS + column)[:-1, :-1].ravel()
    right, above = corner + 1, corner + COLUMNS
    triangles = np.concatenate(
        [np.stack([corner, right, above + 1], -1), np.stack([corner, above + 1, above], -1)]
    )
    return KnownFace(
        mean_mm=mean,
        identity_mm=rng.normal(size=(*mean.shape, n_identity)),
        expression_mm=rng.normal(size=(*mean.shape, n_expression)),
        mean_expression_mm=rng.normal(size=mean.shape),
        triangles=triangles,
        keypoints=rng.permutation(len(mean))[:68],
    )


def components(directions_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions (V, 3, K) of one sigma as unit components (3V, K) and sigmas (K,), micrometres."""
    flat = directions_mm.reshape(-1, directions_mm.shape[-1]) * UM_PER_MM
    sigma = np.linalg.norm(flat, axis=0)
    return flat / sigma, sigma


def column_um(points_mm: np.ndarray) -> np.ndarray:
    """(V, 3) millimetres to the column (3V, 1) in micrometres."""
    return points_mm.reshape(-1, 1) * UM_PER_MM


def write_bfm09(folder: Path, face: KnownFace) -> np.ndarray:
    """`01_MorphableModel.mat`, with six vertices of an inner mouth that the expressions lack.

    The extra vertices lie between the others, and the triangles clockwise from outside, as in
    the original file. Returns the vertices that are not extra: the 1-based `trimIndex`.
    """
    rng = np.random.default_rng(1)
    n_all = len(face.mean_mm) + 6
    keep = np.sort(rng.permutation(n_all)[: len(face.mean_mm)])
    mean = rng.normal(size=(n_all, 3)) * 10
    mean[keep] = face.mean_mm
    identity = rng.normal(size=(n_all, 3, face.identity_mm.shape[-1]))
    identity[keep] = face.identity_mm
    extra = np.setdiff1d(np.arange(n_all), keep)
    mouth = np.concatenate([extra.reshape(2, 3), [[extra[0], *keep[:2]]]])
    triangles = np.concatenate([mouth[:1], keep[face.triangles], mouth[1:]])[:, ::-1]
    basis, sigma = components(identity)
    content = {
        "shapeMU": column_um(mean).astype(np.float32),
        "shapePC": basis.astype(np.float32),
        "shapeEV": sigma[:, None].astype(np.float32),
        "texMU": np.zeros((3 * n_all, 1), np.float32),
        "tl": (triangles + 1).astype(np.float64),
        "segbin": np.zeros((n_all, 4), np.uint8),
    }
    savemat(folder / "01_MorphableModel.mat", content)
    return keep + 1


def write_exp_pca(folder: Path, face: KnownFace) -> None:
    """`Exp_Pca.bin` and `std_exp.txt`."""
    basis, sigma = components(face.expression_mm)
    mean = column_um(face.mean_expression_mm)
    with open(folder / "Exp_Pca.bin", "wb") as file:
        file.write(np.array([sigma.size], "<i4").tobytes())
        file.write(mean.astype("<f4").tobytes())
        file.write(basis.T.astype("<f4").tobytes())
    (folder / "std_exp.txt").write_text(" ".join(f"{s:.9e}" for s in sigma) + "\n")


def write_coarse_data(folder: Path, face: KnownFace) -> None:
    """The Basel file with the expressions of CoarseData and the face parts of its users.

    `facemodel_info.mat` counts its keypoints among the vertices of `BFM_front_idx.mat`.
    """
    trim_index = write_bfm09(folder, face)
    write_exp_pca(folder, face)
    savemat(folder / "BFM_exp_idx.mat", {"trimIndex": trim_index[:, None]})
    front = np.union1d(face.keypoints, np.arange(5))
    savemat(folder / "BFM_front_idx.mat", {"idx": front[:, None] + 1.0})
    keypoints = np.searchsorted(front, face.keypoints)
    savemat(folder / "facemodel_info.mat", {"keypoints": keypoints[None] + 1})


def write_model_shape(folder: Path, face: KnownFace) -> None:
    """`Model_Shape.mat` of 3DDFA."""
    basis, sigma = components(face.identity_mm)
    content = {
        "mu_shape": column_um(face.mean_mm),
        "w": basis,
        "sigma": sigma[:, None],
        "tri": face.triangles.T[::-1] + 1.0,
        "keypoints": face.keypoints[None].astype(np.uint16) + 1,
    }
    savemat(folder / "Model_Shape.mat", content)


def write_model_expression(folder: Path, face: KnownFace) -> None:
    """`Model_Expression.mat` of 3DDFA."""
    basis, sigma = components(face.expression_mm)
    # Components are scaled so that weights are of order one.
    content = {
        "mu_exp": column_um(face.mean_expression_mm),
        "w_exp": basis * 1e5,
        "sigma_exp": sigma[:, None] / 1e5,
    }
    savemat(folder / "Model_Expression.mat", content)


def write_3ddfa(folder: Path, face: KnownFace) -> None:
    """The two files of 3DDFA and 300W-LP."""
    write_model_shape(folder, face)
    write_model_expression(folder, face)


def write_hpen(folder: Path, face: KnownFace) -> None:
    """The Basel file with 3DDFA's expressions, trimmed by `model_info.mat`."""
    trim_index = write_bfm09(folder, face)
    write_model_expression(folder, face)
    info = {"trimIndex": trim_index[:, None], "keypoints": face.keypoints[None] + 1}
    savemat(folder / "model_info.mat", info)
