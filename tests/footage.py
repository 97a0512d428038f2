"""Rendered videos of people whose motion is known."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.faces.mouth import mouth_vertices
from data_pipelines.faces.occluders import OccluderSettings
from data_pipelines.faces.synthetic import (
    Scene,
    SyntheticAssets,
    SyntheticSettings,
    load_assets,
    rasterize_scene,
    shade_scene,
)
from dfc_jax.camera import project, to_camera
from dfc_jax.morphable.linear import FaceModel, landmarks3d, shape
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.types import Camera, FaceParams

SIZE, FPS, FOCAL_PX = 320, 30.0, 420.0
# Hair and shoulders behind one actor would stand in the air beside another.
PLAIN = SyntheticSettings(size=SIZE, occluders=OccluderSettings(bald=1.0, body=0.0))


class Actor(NamedTuple):
    """Somebody in a frame.

    Attributes:
      who: number of the person: identity and skin.
      angles_deg: yaw, pitch, roll.
      place_mm: (3,) of the model's origin, camera space.
      smile: weight of the smile.
    """

    who: int
    angles_deg: tuple[float, float, float]
    place_mm: tuple[float, float, float]
    smile: float = 0.0


class Truth(NamedTuple):
    """An actor as the camera sees them: landmarks (68, 2) in pixels and the rest of the pose."""

    who: int
    landmarks: np.ndarray
    params: FaceParams


class Studio:
    """Films actors with one camera.

    Args:
      model: the face model.
    """

    def __init__(self, model: FaceModel) -> None:
        self.model = model
        self._assets = load_assets(model)
        self._shoot = jax.jit(_shoot)

    def film(
        self, actors: Sequence[Actor], scene: int, noise: float = 0.0, seed: int = 0
    ) -> tuple[np.ndarray, list[Truth]]:
        """A frame (SIZE, SIZE, 3) uint8, and the truth of every actor.

        Args:
          actors: in the frame.
          scene: number of the place: background and light.
          noise: standard deviation of each pixel's noise, in levels.
          seed: of the noise.
        """
        image, nearest = None, None
        truths = []
        for actor in actors:
            params = self._params(actor)
            keys = jax.random.key(scene), jax.random.key(1000 + actor.who)
            shot, depth, landmarks = self._shoot(self._assets, params, *keys)
            shot, depth = np.asarray(shot), np.asarray(depth)
            if image is None:
                image, nearest = shot, depth
            else:
                image = np.where((depth < nearest)[..., None], shot, image)
                nearest = np.minimum(depth, nearest)
            truths.append(Truth(actor.who, np.asarray(landmarks), params))
        grain = noise * np.random.default_rng(seed).standard_normal((SIZE, SIZE, 3))
        return np.clip(255.0 * image + grain, 0.0, 255.0).astype(np.uint8), truths

    def _params(self, actor: Actor) -> FaceParams:
        rng = np.random.default_rng(actor.who)
        identity = np.zeros(self.model.n_identity, np.float32)
        identity[:50] = 0.8 * rng.standard_normal(50)
        expression = np.zeros(self.model.n_expression, np.float32)
        for i, name in enumerate(self.model.expression_names):
            if name.startswith("mouthSmile"):
                expression[i] = actor.smile
        return FaceParams(
            focal_px=jnp.float32(FOCAL_PX),
            rotation=angles_to_rotvec(jnp.asarray(actor.angles_deg, jnp.float32)),
            translation_mm=jnp.asarray(actor.place_mm, jnp.float32),
            identity=jnp.asarray(identity),
            expression=jnp.asarray(expression),
        )


def _shoot(assets: SyntheticAssets, params: FaceParams, scene_key, skin_key):
    """Picture, depth and landmarks of one actor before the background."""
    coefficients = params.identity, params.expression
    face, mouth = shape(assets.model, *coefficients), mouth_vertices(assets.mouth, *coefficients)
    vertices = to_camera(params, jnp.concatenate([face, mouth]))
    camera = Camera(params.focal_px, jnp.full(2, (SIZE - 1) / 2.0))
    landmarks = project(camera, landmarks3d(assets.model, vertices))
    scene = Scene(vertices, camera, landmarks, params)
    seen = rasterize_scene(scene, assets, PLAIN)
    image = shade_scene(scene_key, scene, seen, assets, PLAIN, skin_key)
    return image, seen.zbuf, landmarks
