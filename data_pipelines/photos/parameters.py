"""Labels from 300W-LP's own parameters, as in the paper: the Basel model that was fitted there.

With ``vertex = mu_shape + mu_exp + w Shape_Para + w_exp Exp_Para`` in micrometres and
``pitch, yaw, roll, t, f = Pose_Para``, its authors draw ``f Rx(pitch) Ry(yaw) Rz(roll) vertex + t``
(y up, from 1) by leaving out z. That is our orthographic camera of ``1000 f`` pixels per
millimetre with the principal point at ``(t_x - 1, height - t_y)``.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.photos.labels import PhotoSet, angles_of, index_batches
from data_pipelines.photos.squares import STORED_PX, Square
from dfc_jax.camera import project, to_camera
from dfc_jax.crops import apply_affine
from dfc_jax.data.faces import Parameters
from dfc_jax.data.lp import LP_EDGE_PX
from dfc_jax.errors import DatasetError, FaceModelError
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.landmarks68 import INNER
from dfc_jax.morphable.basel import EXPRESSION_FILES, SHAPE_FILES, read_basel
from dfc_jax.morphable.linear import FaceModel, landmarks3d, shape
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster import interpolate, rasterize
from dfc_jax.systems.dfc.labels import flow_to_template, nearest_uv_labels
from dfc_jax.systems.dfc.template import Template
from dfc_jax.types import Array, Camera, FaceParams, Fragments

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


def posed_landmarks(model: FaceModel, face: Posed) -> Array:
    """The 68 keypoints of the model in the camera's pixels: (68, 2)."""
    vertices = shape(model, face.params.identity, face.params.expression)
    return project(face.camera, to_camera(face.params, landmarks3d(model, vertices)))


def posed_fragments(model: FaceModel, face: Posed, size: int) -> Fragments:
    """What each pixel of a square image sees of the face."""
    vertices = shape(model, face.params.identity, face.params.expression)
    vertices = to_camera(face.params, vertices)
    return rasterize(
        project(face.camera, vertices),
        vertices[:, 2],
        model.triangles,
        size,
        cull_backfaces=True,
        perspective_correct=False,
    )


@partial(jax.jit, static_argnames="nearest_uv")
def _label_batch(
    model: FaceModel, template: Template, faces: Posed, nearest_uv: bool
) -> tuple[Array, Array, Array]:
    def label(face: Posed) -> tuple[Array, Array, Array]:
        fragments = posed_fragments(model, face, STORED_PX)
        if nearest_uv:
            uv = interpolate(fragments, model.triangles, model.uv)
            flow, matchable = nearest_uv_labels(uv, fragments.pix_to_face >= 0, template)
        else:
            flow, matchable = flow_to_template(fragments, template)
        target = flow + pixel_grid(STORED_PX, STORED_PX)
        xy = jnp.where(matchable[..., None], target, 0.0)
        return xy, matchable, posed_landmarks(model, face)

    return jax.vmap(label)(faces)


def stack(faces: Sequence[Posed]) -> Posed:
    """A batch: every array with a leading axis."""
    return jax.tree.map(lambda *parts: np.stack(parts), *faces)


def label_given(
    lp: LPModel,
    template: Template,
    squares: Sequence[Square],
    nearest_uv: bool = False,
    batch: int = 8,
) -> PhotoSet:
    """Dense labels from the parameters that came with the photographs.

    Args:
      lp: their model.
      template: made of `lp.model`.
      squares: of faces with parameters.
      nearest_uv: the paper's labels (whole template pixels of the nearest uv) instead of exact.
      batch: squares at a time.

    Returns:
      labelled squares; the error is that of the reprojected keypoints.

    Raises:
      DatasetError: a face has no parameters, or there is no face.
      FaceModelError: the model has other numbers of coefficients.
    """
    if not squares:
        raise DatasetError("there are no squares to label")
    faces = []
    for square in squares:
        if square.face.parameters is None:
            raise DatasetError(f"{square.face.name}: comes without parameters; fit a model to it")
        faces.append(posed(lp, square.face.parameters, square.to_square))
    n = len(squares)
    points = np.stack([square.points for square in squares])
    xy = np.zeros((n, STORED_PX, STORED_PX, 2), np.float16)
    matchable, projected = np.zeros(xy.shape[:3], bool), np.zeros((n, *points.shape[1:]))
    for index in index_batches(n, batch):
        some = stack([faces[i] for i in index])
        xy[index], matchable[index], projected[index] = _label_batch(
            lp.model, template, some, nearest_uv
        )
    return PhotoSet(
        names=np.array([square.face.name for square in squares]),
        images=np.stack([square.image for square in squares]),
        points=points,
        annotated=np.isfinite(points).all(axis=-1),
        template_xy=xy,
        matchable=matchable,
        error=nme_percent(projected, points, INNER),
        contour=np.array([square.face.jaw == "contour" for square in squares]),
        profile=np.zeros(len(squares), bool),
        pose=angles_of(stack(faces).params),
    )
