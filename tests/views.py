"""Faces seen from somewhere: what their pixels show, where their landmarks lie."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.camera import project, to_camera
from dfc_jax.morphable.linear import landmarks3d, shape
from dfc_jax.ops.rotations import angles_to_rotvec, head_rotation
from dfc_jax.raster.flow import fragments_of
from dfc_jax.types import Fragments

SIZE = 128


@dataclasses.dataclass
class View:
    """A rendered face: what its pixels see, its vertices and landmarks in the camera."""

    fragments: Fragments
    vertices: jax.Array
    landmarks_px: np.ndarray


@jax.jit
def draw(model, camera, params):
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    landmarks = project(camera, landmarks3d(model, vertices))
    return fragments_of(vertices, model.triangles, camera, SIZE), vertices, landmarks


def view(model, template, yaw=0.0, pitch=0.0, roll=0.0, seed=None):
    """A face turned about the middle of its landmarks, so that it stays inside the crop."""
    params = template.params
    rotvec = angles_to_rotvec(jnp.array([yaw, pitch, roll]))
    middle = landmarks3d(model, model.mean_mm).mean(0) * jnp.array([0.0, 1.0, 0.5])
    slide = (head_rotation(params.rotation) - head_rotation(rotvec)) @ middle
    params = dataclasses.replace(
        params, rotation=rotvec, translation_mm=params.translation_mm + slide
    )
    if seed is not None:
        rng = np.random.default_rng(seed)
        few = rng.uniform(size=model.n_expression) * (rng.uniform(size=model.n_expression) < 0.15)
        params = dataclasses.replace(
            params,
            identity=jnp.asarray(rng.standard_normal(model.n_identity), jnp.float32),
            expression=jnp.asarray(few, jnp.float32),
        )
    fragments, vertices, landmarks = draw(model, template.camera, params)
    return View(fragments, vertices, np.asarray(landmarks))


def empty() -> Fragments:
    """A picture that shows nothing."""
    return Fragments(
        pix_to_face=jnp.full((SIZE, SIZE), -1),
        zbuf=jnp.full((SIZE, SIZE), jnp.inf),
        bary_coords=jnp.zeros((SIZE, SIZE, 3)),
    )
