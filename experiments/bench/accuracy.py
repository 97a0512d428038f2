"""How accurate alignment is, without any data: a photograph of the package, and rendered faces."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.faces.synthetic import SyntheticSettings, sample_params
from dfc_jax.camera import crop_camera, project, to_camera
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.fitting import visible_landmarks
from dfc_jax.inference.align import Aligner
from dfc_jax.morphable.linear import FaceModel, shape, surface_positions
from dfc_jax.photo import read_photo
from dfc_jax.raster.render import render
from dfc_jax.texture.appearance import part_vertex_colors
from dfc_jax.types import Array
from experiments.bench.synthetic import Figures

FACES = 8
# No turned and tilted heads, where the error of a face may jump: few faces have to do.
SETTINGS = SyntheticSettings(size=256, yaw_deg=15.0, wide_yaw=0.0, wide_roll=0.0)
LIGHT = np.zeros((9, 3), np.float32)
LIGHT[[0, 2]] = [[2.0], [-1.0]]
MISSED_PERCENT = 100.0


def accuracy_figures(aligner: Aligner, photo: Path, faces: int = FACES) -> Figures:
    """`photo_landmarks_px`, those of the largest face, which have no truth but should stay;
    `rendered_nme_percent`, the mean error of rendered faces (`MISSED_PERCENT` for one not found).
    """
    found = aligner(read_photo(photo))
    landmarks = found[0].landmarks if found else np.zeros((0, 2))
    errors = [rendered_error(aligner, key) for key in jax.random.split(jax.random.key(0), faces)]
    return {
        "photo_landmarks_px": np.round(landmarks, 3).astype(float).tolist(),
        "rendered_nme_percent": round(float(np.mean(errors)), 4),
    }


def rendered_error(aligner: Aligner, key: Array) -> float:
    """Error of the landmarks of one rendered face in its true box, in percent of the box."""
    image, truth = (np.asarray(array) for array in rendered_face(key, aligner.model, SETTINGS))
    corner, extent = truth.min(axis=0), np.ptp(truth, axis=0)
    box = np.concatenate([corner, extent])
    found = aligner(image, boxes=[box])
    return float(nme_percent(found[0].landmarks, truth)) if found else MISSED_PERCENT


@partial(jax.jit, static_argnames="settings")
def rendered_face(key: Array, model: FaceModel, settings: SyntheticSettings) -> tuple[Array, Array]:
    """A picture (S, S, 3) of a random face before grey, and its landmarks (68, 2) in pixels."""
    params = sample_params(key, model, settings)
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    camera = crop_camera(params, settings.size)
    seen = render(
        vertices,
        model.triangles,
        camera,
        settings.size,
        vertex_colors=part_vertex_colors(model),
        sh=jnp.asarray(LIGHT),
    )
    image = jnp.clip(jnp.where(seen.mask[..., None], seen.rgb, 0.5), 0.0, 1.0)
    points = surface_positions(vertices, model.triangles, visible_landmarks(model, params))
    return image, project(camera, points)
