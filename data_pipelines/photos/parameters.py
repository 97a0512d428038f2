"""Labels from 300W-LP's own parameters, as in the paper: the Basel model that was fitted there."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.photos.labels import PhotoSet, angles_of, index_batches
from data_pipelines.photos.squares import STORED_PX, Square
from dfc_jax.camera import project, to_camera
from dfc_jax.data.lp_model import LPModel, Posed, posed
from dfc_jax.errors import DatasetError
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.landmarks68 import INNER
from dfc_jax.morphable.linear import FaceModel, landmarks3d, shape
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster import interpolate, rasterize
from dfc_jax.systems.dfc.labels import flow_to_template, nearest_uv_labels
from dfc_jax.systems.dfc.template import Template
from dfc_jax.types import Array, Fragments


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
