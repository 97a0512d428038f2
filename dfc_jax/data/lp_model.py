"""The Basel model of 300W-LP, and the faces that the set's own parameters describe.

With ``vertex = mu_shape + mu_exp + w Shape_Para + w_exp Exp_Para`` in micrometres and
``pitch, yaw, roll, t, f = Pose_Para``, its authors draw ``f Rx(pitch) Ry(yaw) Rz(roll) vertex + t``
(y up, from 1) by leaving out z. That is our orthographic camera of ``1000 f`` pixels per
millimetre with the principal point at ``(t_x - 1, height - t_y)``.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dfc_jax.crops import apply_affine
from dfc_jax.data.faces import Parameters
from dfc_jax.data.lp import LP_EDGE_PX
from dfc_jax.errors import FaceModelError
from dfc_jax.morphable.basel import EXPRESSION_FILES, SHAPE_FILES, read_basel
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.types import Camera, FaceParams

UM_PER_MM = 1000.0
# Where along the axis an orthographic face stands is of no consequence; this keeps it in front.
DISTANCE_MM = 1000.0


class LPModel(NamedTuple):
    """The Basel model with what turns 300W-LP's coefficients into ours.

    sigma: (K,) micrometres, and sigma_expression: (E,): one standard deviation of each.
    """

    model: FaceModel
    sigma: np.ndarray
    sigma_expression: np.ndarray


class Posed(NamedTuple):
    """A face as its parameters say, and the orthographic camera that sees it."""

    params: FaceParams
    camera: Camera


def read_lp_model(folder: str | Path) -> LPModel:
    """The Basel model of 300W-LP (see `read_basel`), its shape file in either layout.

    Raises:
      FaceModelError: a file is missing or damaged, or the expressions are not 300W-LP's.
    """
    folder = Path(folder)
    expression = folder / EXPRESSION_FILES[1]
    found = [folder / name for name in reversed(SHAPE_FILES) if (folder / name).is_file()]
    if not found or not expression.is_file():
        raise FaceModelError(
            f"{folder}: 300W-LP's parameters belong to {SHAPE_FILES[1]} (or {SHAPE_FILES[0]}) and "
            f"{expression.name}; put both into this folder"
        )
    model = read_basel((found[0], expression))
    key = "sigma" if found[0].name == SHAPE_FILES[1] else "shapeEV"
    return LPModel(model, _sigma(found[0], key), _sigma(expression, "sigma_exp"))


def _sigma(path: Path, key: str) -> np.ndarray:
    from scipy.io import loadmat  # here: scipy.io is slow to import and rarely needed

    # `read_basel` has read and checked it.
    return np.ravel(loadmat(path, variable_names=[key])[key]).astype(np.float64)


def posed(lp: LPModel, parameters: Parameters, to_square: np.ndarray | None = None) -> Posed:
    """The face of 300W-LP's parameters, NumPy.

    Args:
      lp: their model.
      parameters: as stored.
      to_square: (2, 3) affine matrix that scales photo pixels evenly to those that the camera
        shall count; photo pixels themselves if left out.

    Raises:
      FaceModelError: the model has other numbers of coefficients.
    """
    sizes = len(parameters.shape), len(parameters.expression)
    if sizes != (len(lp.sigma), len(lp.sigma_expression)):
        raise FaceModelError(
            f"the Basel model has {len(lp.sigma)} and {len(lp.sigma_expression)} coefficients, "
            f"the annotation {sizes[0]} and {sizes[1]}; use the model of 300W-LP"
        )
    pitch, yaw, roll, x, y, _, scale = parameters.pose
    centre, zoom = np.array([x - 1.0, LP_EDGE_PX - y]), 1.0
    if to_square is not None:
        centre, zoom = apply_affine(to_square, centre), to_square[0, 0]
    focal = np.float32(zoom * scale * UM_PER_MM)
    rotation = angles_to_rotvec(jnp.rad2deg(jnp.array([yaw, pitch, roll])))
    # In NumPy: thousands of these are stacked before a device sees them.
    values: dict[str, Any] = {
        "focal_px": focal,
        "rotation": np.asarray(rotation),
        "translation_mm": np.array([0.0, 0.0, DISTANCE_MM], np.float32),
        "identity": (parameters.shape / lp.sigma).astype(np.float32),
        "expression": (parameters.expression / lp.sigma_expression).astype(np.float32),
    }
    principal_point: Any = centre.astype(np.float32)
    return Posed(FaceParams(**values), Camera(values["focal_px"], principal_point, "orthographic"))
