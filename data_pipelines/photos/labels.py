"""Dense labels of squares: the face model is fitted to the 68 points and rendered."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.photos.augment import LabelledPhoto
from data_pipelines.photos.squares import STORED_PX
from dfc_jax.camera import to_camera
from dfc_jax.evaluation.metrics import ALL, nme_percent
from dfc_jax.fitting import FitResult, LandmarkSettings, fit_landmarks, project_landmarks
from dfc_jax.landmarks68 import INNER, N_JAW
from dfc_jax.morphable.linear import FaceModel, shape
from dfc_jax.ops.fields import residual_field
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster.flow import fragments_of
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.systems.dfc.template import Template
from dfc_jax.types import Array, ByValue, Camera


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoSet(ByValue):
    """N labelled squares of S x S pixels, S = `STORED_PX`, in memory: what labelling returns.

    `ShardedPhotos` reads in the same way and keeps the pixels on disk.

    Attributes:
      names: N names of the faces.
      images: (N, S, S, 3) uint8 RGB.
      points: (N, 68, 2) annotated points in pixels of the squares, NaN where hidden.
      template_xy: (N, S, S, 2) float16, see `LabelledPhoto`.
      matchable: (N, S, S) bool.
      error: (N,) NME of the model's reprojected inner points, %.
      contour: (N,) bool, whether the jaw points follow the contour that the photograph shows.
    """

    names: np.ndarray
    images: np.ndarray
    points: np.ndarray
    template_xy: np.ndarray
    matchable: np.ndarray
    error: np.ndarray
    contour: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: np.ndarray) -> "PhotoSet":
        """The squares at `index` (M,), in its order."""
        return PhotoSet(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    def as_example(self, index: np.ndarray | slice = ALL) -> LabelledPhoto:
        """The squares at `index` (M,) as a batch: every array has a leading axis of M."""
        return LabelledPhoto(
            image=self.images[index],
            template_xy=self.template_xy[index],
            matchable=self.matchable[index],
            points=self.points[index],
        )


def index_batches(n: int, size: int) -> Iterator[np.ndarray]:
    """Index batches of one size; the last one repeats its first entries."""
    for start in range(0, n, size):
        yield np.resize(np.arange(start, min(start + size, n)), size)


def fit_points(
    model: FaceModel,
    points: np.ndarray,
    settings: LandmarkSettings,
    contour: np.ndarray | None = None,
    batch: int = 64,
) -> FitResult:
    """`fit_landmarks` for points (N, 68, 2) in pixels of stored squares, batched.

    Jaw points that do not follow the contour (`contour` (N,) false) are left out.
    """
    contour = np.ones(len(points), bool) if contour is None else contour
    results = [
        _fit_batch(model, jnp.asarray(points[index]), jnp.asarray(contour[index]), settings)
        for index in index_batches(len(points), batch)
    ]
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)
    return jax.tree.map(lambda a: a[: len(points)], joined)


@partial(jax.jit, static_argnames="settings")
def _fit_batch(
    model: FaceModel, points: Array, contour: Array, settings: LandmarkSettings
) -> FitResult:
    centre = jnp.full(2, (STORED_PX - 1) / 2.0)

    def one(points: Array, contour: Array) -> FitResult:
        weight = jnp.where(jnp.arange(len(points)) < N_JAW, contour, True).astype(points.dtype)
        return fit_landmarks(model, points, centre, settings, weight=weight)

    return jax.vmap(one)(points, contour)


def annotation_field(points: Array, projected: Array, at: Array) -> Array:
    """`residual_field` of the 68 annotated points (68, 2) and where a fit projects them.

    Residuals of the jaw points count across the contour only: where along it an annotator puts
    a point is a habit, not geometry.
    """
    residual, jaw = points - projected, points[:N_JAW]
    tangent = jnp.concatenate([jaw[1:2] - jaw[:1], jaw[2:] - jaw[:-2], jaw[-1:] - jaw[-2:-1]])
    tangent /= jnp.linalg.norm(tangent, axis=-1, keepdims=True)
    along = jnp.sum(residual[:N_JAW] * tangent, axis=-1, keepdims=True) * tangent
    edge = jnp.max(points.max(axis=0) - points.min(axis=0))
    return residual_field(points, residual.at[:N_JAW].add(-along), at, 0.08 * edge, noise=0.3)


def dense_labels(
    model: FaceModel, template: Template, fitted: FitResult, points: Array, contour: Array
) -> tuple[Array, Array, Array]:
    """Labels of one square from the fit to its points (68, 2).

    The fitted mesh gives each pixel's place in the template; a smooth field then takes up what
    the fit left at the annotated points, those of the jaw only if they follow its `contour` ().

    Returns:
      template_xy (S, S, 2), matchable (S, S), and the fit's NME at the inner points (%).
    """
    params = fitted.params
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    camera = Camera(params.focal_px, jnp.full(2, (STORED_PX - 1) / 2.0))
    fragments = fragments_of(vertices, model.triangles, camera, STORED_PX)
    flow, matchable = flow_to_template(fragments, template)
    grid = pixel_grid(STORED_PX, STORED_PX)
    projected = project_landmarks(model, params, camera.principal_point)
    is_read = (contour | (jnp.arange(len(points)) >= N_JAW)) & jnp.isfinite(points).all(axis=-1)
    field = annotation_field(jnp.where(is_read[:, None], points, projected), projected, grid)
    mask = matchable[..., None]
    stacked = jnp.concatenate([jnp.where(mask, flow + grid, 0.0), mask], axis=-1)
    moved = bilinear_sample(stacked, grid - field, fill=0.0)
    template_xy = moved[..., :2] / jnp.maximum(moved[..., 2:], 1e-3)
    return template_xy, moved[..., 2] > 0.5, nme_percent(projected, points, INNER)


_label_batch = jax.jit(jax.vmap(dense_labels, in_axes=(None, None, 0, 0, 0)))


def label(
    model: FaceModel,
    template: Template,
    images: np.ndarray,
    points: np.ndarray,
    names: Sequence[str],
    settings: LandmarkSettings,
    contour: np.ndarray | None = None,
    batch: int = 16,
) -> PhotoSet:
    """Dense labels for stored squares (N, S, S, 3) with their points (N, 68, 2); `contour` as in
    `PhotoSet`, by default true."""
    contour = np.ones(len(points), bool) if contour is None else contour
    fits = fit_points(model, points, settings, contour)
    xy = np.zeros((*images.shape[:3], 2), np.float16)
    matchable, error = np.zeros(images.shape[:3], bool), np.zeros(len(images))
    for index in index_batches(len(images), batch):
        some = jax.tree.map(lambda a, index=index: a[index], fits)
        given = jnp.asarray(points[index]), jnp.asarray(contour[index])
        labels = _label_batch(model, template, some, *given)
        xy[index], matchable[index], error[index] = labels
    return PhotoSet(np.array(names), images, points, xy, matchable, error, contour)
