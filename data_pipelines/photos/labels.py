"""Dense labels of squares: the face model is fitted to the 68 points and rendered."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.photos.augment import LabelledPhoto
from data_pipelines.photos.squares import STORED_PX
from dfc_jax.camera import project, to_camera
from dfc_jax.evaluation.metrics import ALL, nme_percent
from dfc_jax.fitting import (
    FitResult,
    LandmarkSettings,
    fit_landmarks,
    fit_profile,
    profile_landmarks,
    project_landmarks,
)
from dfc_jax.landmarks68 import EYES, INNER, LEFT, MOUTH, N_JAW, RIGHT
from dfc_jax.morphable.linear import FaceModel, shape, surface_positions
from dfc_jax.ops.fields import residual_field
from dfc_jax.ops.rotations import head_rotation, matrix_to_angles
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster.flow import cross2d, fragments_of
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.systems.dfc.template import Template
from dfc_jax.types import Array, ByValue, Camera, FaceParams

# Goes up when the same photographs get other labels or are kept in another form: those that are
# kept are then made again.
LABELS_VERSION = 3

# Range of the field that takes up what a fit leaves, in parts of the longer edge of the landmark
# box, and its noise as in `residual_field`; `_FINE_` what it has at eyes and mouth besides, and
# `_SAFE_NOISE` that of a field which keeps farther away from points.
_FIELD_RANGE, _FIELD_NOISE = 0.08, 0.1
_FINE_RANGE, _FINE_NOISE = 0.03, 0.05
_SAFE_NOISE = 0.3
# A pixel may shrink to this part of its area.
_LEAST_AREA = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoSet(ByValue):
    """N labelled squares of S x S pixels, S = `STORED_PX`, in memory: what labelling returns.

    `ShardedPhotos` reads in the same way and keeps the pixels on disk.

    Attributes:
      names: N names of the faces.
      images: (N, S, S, 3) uint8 RGB.
      points: (N, 68, 2) points in pixels of the squares.
      annotated: (N, 68) bool, which of them are annotated; the others are those of the fit.
      template_xy: (N, S, S, 2) float16, see `LabelledPhoto`.
      matchable: (N, S, S) bool.
      error: (N,) NME of the model's reprojected inner points, %.
      contour: (N,) bool, whether the jaw points follow the contour that the photograph shows.
      profile: (N,) bool, whether the photograph shows one half of the face.
      pose: (N, 3) yaw, pitch and roll of the face, degrees, as in `dfc_jax.types`.
    """

    names: np.ndarray
    images: np.ndarray
    points: np.ndarray
    annotated: np.ndarray
    template_xy: np.ndarray
    matchable: np.ndarray
    error: np.ndarray
    contour: np.ndarray
    profile: np.ndarray
    pose: np.ndarray

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
            annotated=self.annotated[index],
        )


# A point of a profile that lies farther from the fit than this part of the longer edge of all is a
# slip of the annotator; it counts as hidden.
SLIP = 0.12


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


def is_half(points: np.ndarray) -> np.ndarray:
    """Whether only one half of each face is annotated: (N,) bool of points (N, 68, 2)."""
    known = np.isfinite(points).all(axis=-1)
    return known[:, LEFT].any(axis=1) != known[:, RIGHT].any(axis=1)


def fit_profiles(model: FaceModel, points: np.ndarray, batch: int = 32) -> FaceParams:
    """`fit_profile` for points (N, 68, 2) in pixels of stored squares, batched."""
    batches = index_batches(len(points), batch)
    parts = [_fit_profile_batch(model, jnp.asarray(points[index])) for index in batches]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(points)], *parts)


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def _fit_profile_batch(model: FaceModel, points: Array) -> FaceParams:
    return fit_profile(model, points, jnp.full(2, (STORED_PX - 1) / 2.0)).params


def fit_any(
    model: FaceModel,
    points: np.ndarray,
    settings: LandmarkSettings,
    contour: np.ndarray,
    profile: np.ndarray,
) -> FaceParams:
    """The fit that each face's points (N, 68, 2) ask for: `fit_profiles` for a `profile` (N,) of
    which one half alone is annotated, else `fit_points`."""
    one_half = profile & is_half(points)
    kinds = (
        (~one_half, lambda some: fit_points(model, points[some], settings, contour[some]).params),
        (one_half, lambda some: fit_profiles(model, points[some])),
    )
    fits = [(np.flatnonzero(kind), fit(kind)) for kind, fit in kinds if kind.any()]
    order = jnp.argsort(jnp.concatenate([index for index, _ in fits]))
    return jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves)[order], *(params for _, params in fits)
    )


def angles_of(params: FaceParams) -> np.ndarray:
    """(N, 3) yaw, pitch and roll of N faces, degrees."""
    return np.asarray(jax.vmap(lambda r: matrix_to_angles(head_rotation(r)))(params.rotation))


def annotation_field(points: Array, projected: Array, at: Array) -> Array:
    """`residual_field` (S, S, 2) of the 68 annotated points (68, 2) and where a fit projects them,
    at the pixels `at` (S, S, 2) of a grid.

    A point that is not finite is left out. Residuals of the jaw points count across the contour
    only: where along it an annotator puts a point is a habit, not geometry. Lids and lips are
    closer to each other than a smooth field can tell apart, so it has a part of short range too,
    and goes nearer to their points. Where points are so far off that this would fold the picture,
    the field is one of long range alone, and farther away from them.
    """
    known = jnp.isfinite(points).all(axis=-1, keepdims=True)
    filled = jnp.where(known, points, projected)
    residual, jaw = filled - projected, filled[:N_JAW]
    tangent = jnp.concatenate([jaw[1:2] - jaw[:1], jaw[2:] - jaw[:-2], jaw[-1:] - jaw[-2:-1]])
    tangent /= jnp.maximum(jnp.linalg.norm(tangent, axis=-1, keepdims=True), 1e-6)
    along = jnp.sum(residual[:N_JAW] * tangent, axis=-1, keepdims=True) * tangent
    residual = residual.at[:N_JAW].add(-along)
    edge = jnp.max(filled.max(axis=0) - filled.min(axis=0))
    # So far away, a point has no weight anywhere.
    places = jnp.where(known, points, 1e3 * edge)
    noise = np.tile(np.array([[_SAFE_NOISE], [_FIELD_NOISE]], np.float32), len(points))
    noise[1, EYES], noise[1, MOUTH] = _FINE_NOISE, _FINE_NOISE
    ranges = jnp.array([[_FIELD_RANGE, _FIELD_RANGE], [_FIELD_RANGE, _FINE_RANGE]]) * edge
    # In one batch: where a CPU has two cores, two batched solves at once can wait for each other
    # for ever, in the threads that both need.
    field = partial(residual_field, places, residual, at)
    smooth, fine = jax.vmap(field)(ranges, jnp.asarray(noise))
    return jnp.where(jnp.min(area_ratio(at - fine)) < _LEAST_AREA, smooth, fine)


def area_ratio(xy: Array) -> Array:
    """(S - 1, S - 1) signed area that a map (S, S, 2) of pixels makes of each; negative where it
    folds."""
    across, down = jnp.diff(xy, axis=1)[:-1], jnp.diff(xy, axis=0)[:, :-1]
    return cross2d(across, down)


def dense_labels(
    model: FaceModel,
    template: Template,
    params: FaceParams,
    points: Array,
    contour: Array,
    on_bone: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    """Labels of one square from the face that is fitted to its points (68, 2).

    The fitted mesh gives each pixel's place in the template; a smooth field then takes up what
    the fit left at the annotated points, those of the jaw only if they follow its `contour` ().
    Otherwise they lie `on_bone` () or nowhere in particular.

    Returns:
      template_xy (S, S, 2), matchable (S, S), the points (68, 2), of the fit where they are not
      annotated, which are annotated (68,), and the fit's NME at the inner points (%).
    """
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    camera = Camera(params.focal_px, jnp.full(2, (STORED_PX - 1) / 2.0))
    fragments = fragments_of(vertices, model.triangles, camera, STORED_PX)
    flow, matchable = flow_to_template(fragments, template)
    grid = pixel_grid(STORED_PX, STORED_PX)
    projected = project_landmarks(model, params, camera.principal_point)
    bone = surface_positions(vertices, model.triangles, profile_landmarks(model))
    projected = jnp.where(on_bone, project(camera, bone), projected)
    is_jaw = jnp.arange(len(points))[:, None] < N_JAW
    edge = jnp.max(jnp.nanmax(points, axis=0) - jnp.nanmin(points, axis=0))
    slip = jnp.linalg.norm(points - projected, axis=-1, keepdims=True) > SLIP * edge
    points = jnp.where(on_bone & slip & ~is_jaw, jnp.nan, points)
    read = jnp.where(is_jaw & ~contour & jnp.isfinite(points), projected, points)
    field = annotation_field(read, projected, grid)
    mask = matchable[..., None]
    stacked = jnp.concatenate([jnp.where(mask, flow + grid, 0.0), mask], axis=-1)
    moved = bilinear_sample(stacked, grid - field, fill=0.0)
    template_xy = moved[..., :2] / jnp.maximum(moved[..., 2:], 1e-3)
    filled = jnp.where(jnp.isfinite(points), points, projected)
    annotated = jnp.isfinite(points).all(axis=-1)
    error = nme_percent(projected, points, INNER)
    return template_xy, moved[..., 2] > 0.5, filled, annotated, error


_label_batch = jax.jit(jax.vmap(dense_labels, in_axes=(None, None, 0, 0, 0, 0)))


def label(
    model: FaceModel,
    template: Template,
    images: np.ndarray,
    points: np.ndarray,
    names: Sequence[str],
    settings: LandmarkSettings,
    contour: np.ndarray | None = None,
    profile: np.ndarray | None = None,
    batch: int = 16,
) -> PhotoSet:
    """Dense labels for stored squares (N, S, S, 3) with their points (N, 68, 2), NaN where hidden;
    `contour` (N,) as in `PhotoSet`, by default true; `profile` (N,), by default false, whether the
    face is seen from the side."""
    contour = np.ones(len(points), bool) if contour is None else contour
    profile = np.zeros(len(points), bool) if profile is None else profile
    fits = fit_any(model, points, settings, contour, profile)
    half_seen = is_half(points) & profile
    xy, filled = np.zeros((*images.shape[:3], 2), np.float16), np.zeros_like(points)
    matchable, error = np.zeros(images.shape[:3], bool), np.zeros(len(images))
    annotated = np.zeros(points.shape[:2], bool)
    for index in index_batches(len(images), batch):
        some = jax.tree.map(lambda a, index=index: a[index], fits)
        given = (jnp.asarray(column[index]) for column in (points, contour, half_seen))
        labels = _label_batch(model, template, some, *given)
        xy[index], matchable[index], filled[index], annotated[index], error[index] = labels
    columns = error, contour, half_seen, angles_of(fits)
    return PhotoSet(np.array(names), images, filled, annotated, xy, matchable, *columns)
