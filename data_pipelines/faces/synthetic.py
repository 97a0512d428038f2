"""Labelled pairs of rendered faces, made on the device inside the training step.

``sample_pair(key, assets, settings)`` is pure: the same key gives the same pair, alone, under
``vmap`` or in `sample_batch`. Nothing is stored, so no pair is ever seen twice.

A picture is made in four stages, which the benchmark times one by one: `sample_scene` (who, how
they look, where the camera stands), `rasterize_scene`, `shade_scene` (skin, light, background) and
`take_photograph` (what hides the face, and what the camera adds)."""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from data_pipelines.faces.backgrounds import BackgroundSettings, load_backgrounds, sample_background
from data_pipelines.faces.degradation import DegradationSettings, degrade
from data_pipelines.faces.expressions import ExpressionSettings, sample_expression
from data_pipelines.faces.light import (
    LightPrior,
    LightSettings,
    highlights,
    load_light_prior,
    sample_light,
    shadow,
    soft_clip,
)
from data_pipelines.faces.mouth import (
    Mouth,
    face_fragments,
    make_mouth,
    mouth_light,
    mouth_vertices,
    sample_mouth_albedo,
)
from data_pipelines.faces.occluders import OccluderSettings, hair_behind, occlude
from data_pipelines.faces.skin import SkinSettings, sample_skin, texture_albedo
from data_pipelines.faces.skin_maps import SkinMaps, skin_maps
from data_pipelines.faces.textures import load_texture_bank
from dfc_jax.camera import project, to_camera
from dfc_jax.crops import CROP_LIFT, CROP_SCALE
from dfc_jax.errors import DatasetError
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d, shape, vertex_normals
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.raster import interpolate
from dfc_jax.raster.flow import fragments_of, ground_truth_flow
from dfc_jax.raster.shade import sh_irradiance
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.systems.dfc.pairs import Pair
from dfc_jax.systems.dfc.template import Template
from dfc_jax.types import Array, ByValue, Camera, FaceParams, Fragments


@dataclasses.dataclass(frozen=True)
class SyntheticSettings:
    """Ranges of the random faces; angles are standard deviations in degrees.

    Attributes:
      size: pixels along an edge of the crop.
      identity_std: of the identity coefficients (1 is the model's own spread).
      yaw_deg, pitch_deg, roll_deg: spread of the pose, cut at 2.5 times that.
      wide_yaw, wide_yaw_deg: share of faces whose yaw is uniform up to so many degrees either
        way instead: profiles and beyond.
      wide_roll, wide_roll_deg: the same for the roll.
      distance_mm: range of the distance to the camera, log-uniform.
      shown: how many times as wide as the landmark box the picture is.
      crop_scale, crop_shift: looseness of the box (log-uniform factor; part of the side).
      textured: share of faces with a texture of the bank, where there is one.
      expression, skin, light, occluders, background, degradation: see their modules.
    """

    size: int = 128
    identity_std: float = 1.0
    yaw_deg: float = 30.0
    pitch_deg: float = 14.0
    roll_deg: float = 14.0
    wide_yaw: float = 0.25
    wide_yaw_deg: float = 105.0
    wide_roll: float = 0.1
    wide_roll_deg: float = 60.0
    distance_mm: tuple[float, float] = (350.0, 2500.0)
    shown: float = CROP_SCALE
    crop_scale: float = 1.2
    crop_shift: float = 0.08
    textured: float = 0.5
    expression: ExpressionSettings = ExpressionSettings()
    skin: SkinSettings = SkinSettings()
    light: LightSettings = LightSettings()
    occluders: OccluderSettings = OccluderSettings()
    background: BackgroundSettings = BackgroundSettings()
    degradation: DegradationSettings = DegradationSettings()


@struct.dataclass(eq=False)
class SyntheticAssets(ByValue):
    """What the generator draws from.

    Attributes:
      model: the face model.
      mouth: the inside of its mouth.
      maps: where on it lips, brows, beard and the like are.
      backgrounds: (M, S, S, 3) uint8 pictures; M may be 0.
      textures: (N, S, S, 4) uint8, RGB over the model's atlas and 255 where known; N may be 0.
      light: a prior of lights, None for the built-in environments.
    """

    model: FaceModel
    mouth: Mouth
    maps: SkinMaps
    backgrounds: Array
    textures: Array
    light: LightPrior | None = None


@struct.dataclass(eq=False)
class Scene(ByValue):
    """A face before a camera.

    Attributes:
      vertices_mm: (V + M, 3) camera space, the face's vertices and then the mouth's.
      camera: of the crop.
      landmarks_px: (68, 2).
      params: of the face.
    """

    vertices_mm: Array
    camera: Camera
    landmarks_px: Array
    params: FaceParams


def load_assets(
    model: FaceModel,
    backgrounds: str | Path | None = None,
    textures: str | Path | None = None,
    light: str | Path | None = None,
) -> SyntheticAssets:
    """Assets for a model.

    Args:
      model: the face model.
      backgrounds: folder of pictures; None leaves grey and procedural backgrounds.
      textures: file of `experiments.tools.build_texture_bank`; None leaves procedural skin.
      light: file of `data_pipelines.light.save_light_prior`; None for the built-in environments.

    Raises:
      DatasetError: a file cannot be used, or the textures belong to another face model.
    """
    return SyntheticAssets(
        model=model,
        mouth=make_mouth(model),
        maps=skin_maps(model),
        backgrounds=jnp.asarray(load_backgrounds(backgrounds)),
        textures=jnp.asarray(_load_textures(model, textures)),
        light=None if light is None else load_light_prior(light),
    )


def _load_textures(model: FaceModel, path: str | Path | None) -> np.ndarray:
    if path is None:
        return np.zeros((0, 1, 1, 4), np.uint8)
    bank = load_texture_bank(path)
    if bank.face_model != model.version:
        raise DatasetError(
            f"{path}: holds textures of the face model {bank.face_model!r}, not of "
            f"{model.version!r}; build a bank with that one"
        )
    known = np.where(bank.known, np.uint8(255), np.uint8(0))
    return np.concatenate([bank.textures, known[..., None]], axis=-1)


def sample_params(
    key: Array, model: FaceModel, settings: SyntheticSettings, identity: Array | None = None
) -> FaceParams:
    """A random face as a loose detector box would frame it; that of one person if its `identity`
    (K,) is given."""
    keys = jax.random.split(key, 6)
    if identity is None:
        identity = settings.identity_std * jax.random.normal(keys[0], (model.n_identity,))
    low, high = jnp.log(jnp.array(settings.distance_mm))
    distance = jnp.exp(jax.random.uniform(keys[1], minval=low, maxval=high))
    params = FaceParams(
        focal_px=jnp.float32(1.0),
        rotation=angles_to_rotvec(_sample_angles(keys[2], settings)),
        translation_mm=jnp.array([0.0, 0.0, 1.0]) * distance,
        identity=identity,
        expression=sample_expression(keys[3], model.expression_names, settings.expression),
    )
    return _frame(keys[4:], params, model, settings)


def _sample_angles(key: Array, settings: SyntheticSettings) -> Array:
    """Yaw, pitch and roll (3,) in degrees."""
    keys = jax.random.split(key, 3)
    spread = jnp.array([settings.yaw_deg, settings.pitch_deg, settings.roll_deg])
    usual = spread * jnp.clip(jax.random.normal(keys[0], (3,)), -2.5, 2.5)
    limit = jnp.array([settings.wide_yaw_deg, 0.0, settings.wide_roll_deg])
    wide = limit * jax.random.uniform(keys[1], (3,), minval=-1.0)
    share = jnp.array([settings.wide_yaw, 0.0, settings.wide_roll])
    return jnp.where(jax.random.uniform(keys[2], (3,)) < share, wide, usual)


def _frame(
    keys: Array, params: FaceParams, model: FaceModel, settings: SyntheticSettings
) -> FaceParams:
    """Set the focal length and move the face so that the crop shows it as `crop_of_box` does."""
    vertices = shape(model, params.identity, params.expression)
    landmarks = to_camera(params, landmarks3d(model, vertices))
    scale = settings.shown * settings.crop_scale ** jax.random.uniform(keys[0], minval=-1.0)
    shift = settings.crop_shift * jax.random.uniform(keys[1], (2,), minval=-1.0)
    moved = jnp.zeros(3)
    # Moving the face sideways changes its perspective a little; three rounds settle it.
    for _ in range(3):
        # One unit of focal length: coordinates are tangents of the viewing angle.
        xy = project(Camera(jnp.float32(1.0), jnp.zeros(2)), landmarks + moved)
        low, high = xy.min(axis=0), xy.max(axis=0)
        edge = jnp.max(high - low)
        side = scale * edge
        centre = (low + high) / 2.0 - jnp.array([0.0, CROP_LIFT]) * edge + shift * side
        moved -= jnp.append(centre, 0.0) * params.translation_mm[2]
    translation = params.translation_mm + moved
    return dataclasses.replace(params, focal_px=settings.size / side, translation_mm=translation)


def sample_scene(
    key: Array,
    assets: SyntheticAssets,
    settings: SyntheticSettings,
    identity: Array | None = None,
) -> Scene:
    """A random face in a random pose, with the inside of its mouth; see `sample_params`."""
    params = sample_params(key, assets.model, settings, identity)
    coefficients = params.identity, params.expression
    face = shape(assets.model, *coefficients)
    both = jnp.concatenate([face, mouth_vertices(assets.mouth, *coefficients)])
    vertices = to_camera(params, both)
    camera = Camera(params.focal_px, jnp.full(2, (settings.size - 1) / 2.0))
    landmarks = landmarks3d(assets.model, vertices)
    return Scene(vertices, camera, project(camera, landmarks), params)


def rasterize_scene(
    scene: Scene, assets: SyntheticAssets, settings: SyntheticSettings
) -> Fragments:
    """What each pixel sees of face and mouth."""
    return fragments_of(scene.vertices_mm, _triangles(assets), scene.camera, settings.size)


def _triangles(assets: SyntheticAssets) -> Array:
    return jnp.concatenate([assets.model.triangles, assets.mouth.triangles])


def shade_scene(
    key: Array,
    scene: Scene,
    fragments: Fragments,
    assets: SyntheticAssets,
    settings: SyntheticSettings,
    skin_key: Array | None = None,
) -> Array:
    """The picture (s, s, 3) in [0, 1] of a scene: skin, light, what is behind.

    Hair behind the face has the colour of that before it in `take_photograph` with the same key.
    Pictures with one `skin_key` show one skin.
    """
    keys = jax.random.split(key, 7)
    skin_keys = keys[:2] if skin_key is None else jax.random.split(skin_key)
    model = assets.model
    vertices = scene.vertices_mm[: len(model.mean_mm)]
    skin = sample_skin(skin_keys[0], assets.maps, settings.skin)
    albedo = _textured(skin_keys[1], skin.albedo, assets, settings)
    normals = vertex_normals(vertices, model.triangles)
    light = sample_light(keys[2], settings.light, assets.light)
    irradiance = jnp.maximum(sh_irradiance(light, normals), 0.0)
    lit = irradiance * shadow(keys[3], vertices, normals, settings.light)[:, None]
    shine = highlights(keys[4], normals, vertices, light, skin.gloss, settings.light)
    inside = sample_mouth_albedo(keys[5], assets.mouth) * mouth_light(assets.mouth, lit)
    radiance = jnp.concatenate([albedo * lit + shine, inside])
    face = interpolate(fragments, _triangles(assets), soft_clip(radiance))
    behind = sample_background(keys[6], assets.backgrounds, settings.size, settings.background)
    tone = soft_clip(jnp.mean(albedo * lit, axis=0))
    front = _front_key(key)
    behind = hair_behind(front, behind, scene.landmarks_px, settings.occluders, tone)
    return jnp.where(fragments.pix_to_face[..., None] >= 0, face, behind)


def _textured(
    key: Array, procedural: Array, assets: SyntheticAssets, settings: SyntheticSettings
) -> Array:
    if len(assets.textures) == 0:
        return procedural
    which, chosen = jax.random.split(key)
    index = jax.random.randint(which, (), 0, len(assets.textures))
    texture = assets.textures[index].astype(jnp.float32) / 255.0
    found = texture_albedo(texture[..., :3], texture[..., 3], assets.model.uv, procedural)
    return jnp.where(jax.random.bernoulli(chosen, settings.textured), found, procedural)


def take_photograph(
    key: Array, image: Array, landmarks_px: Array, settings: SyntheticSettings
) -> tuple[Array, Array]:
    """Occluders (s, s) and the camera's own effects on a picture (s, s, 3)."""
    image, occluded = occlude(_front_key(key), image, landmarks_px, settings.occluders)
    photo = degrade(jax.random.fold_in(key, 1), image, settings.degradation)
    return photo, occluded.astype(jnp.float32)


def _front_key(key: Array) -> Array:
    return jax.random.fold_in(key, 0)


@struct.dataclass(eq=False)
class Picture(ByValue):
    """A scene, the fragments of its face, its photograph, and what is occluded there."""

    scene: Scene
    fragments: Fragments
    image: Array
    occluded: Array

    def face(self, model: FaceModel) -> Array:
        """Pixels (s, s) bool on the face, which something may cover; the neck is none of it."""
        seen = self.fragments.pix_to_face
        part = model.triangle_part[jnp.maximum(seen, 0)]
        return (seen >= 0) & (part != PARTS.index("neck"))


def sample_picture(key: Array, assets: SyntheticAssets, settings: SyntheticSettings) -> Picture:
    """A photograph of a random face."""
    geometry, appearance = jax.random.split(key)
    scene = sample_scene(geometry, assets, settings)
    seen = rasterize_scene(scene, assets, settings)
    image = shade_scene(appearance, scene, seen, assets, settings)
    photo, occluded = take_photograph(appearance, image, scene.landmarks_px, settings)
    return Picture(scene, face_fragments(seen, len(assets.model.triangles)), photo, occluded)


def sample_pair(key: Array, assets: SyntheticAssets, settings: SyntheticSettings) -> Pair:
    """Two different random faces in two poses, with the exact flow from one to the other."""
    return sample_pair_and_source(key, assets, settings)[0]


def sample_pair_and_source(
    key: Array, assets: SyntheticAssets, settings: SyntheticSettings
) -> tuple[Pair, Picture]:
    """`sample_pair`, and what is known of its source."""
    # Under one vmap, the program for a face is compiled once and not twice.
    both = jax.vmap(lambda side: sample_picture(side, assets, settings))(jax.random.split(key))
    return _pair_of(both, assets.model), jax.tree.map(lambda leaf: leaf[0], both)


def _pair_of(both: Picture, model: FaceModel) -> Pair:
    """The pair of two pictures, leaves (2, ...)."""
    source, target = (jax.tree.map(lambda leaf, n=n: leaf[n], both) for n in (0, 1))
    flow, matchable = ground_truth_flow(
        source.fragments,
        target.fragments,
        target.scene.vertices_mm[: len(model.mean_mm)],
        target.scene.camera,
        model.triangles,
    )
    matchable = matchable.astype(jnp.float32)
    return Pair(source.image, target.image, flow, matchable, source.occluded)


def sample_to_template(
    key: Array, assets: SyntheticAssets, template: Template, settings: SyntheticSettings
) -> Pair:
    """A random face with its exact flow to the template."""
    return _pair_with(template, sample_picture(key, assets, settings))


def _pair_with(template: Template, source: Picture) -> Pair:
    flow, matchable = flow_to_template(source.fragments, template)
    matchable = matchable.astype(jnp.float32)
    return Pair(source.image, template.image, flow, matchable, source.occluded)


def sample_batch(
    pair_keys: Array,
    template_keys: Array,
    assets: SyntheticAssets,
    template: Template,
    settings: SyntheticSettings,
) -> Pair:
    """`sample_pair` of P keys and then `sample_to_template` of T keys, leaves (P + T, ...).

    All faces come from one `sample_picture` under one vmap: a program holds the generator once.
    """
    pairs, singles = len(pair_keys), len(template_keys)
    # In groups of pairs and singles, so that keys split over devices stay where they are.
    groups = math.gcd(pairs, singles)
    sides = jax.vmap(jax.random.split)(pair_keys)
    grouped = [keys.reshape(groups, -1) for keys in (sides, template_keys)]
    keys = jnp.concatenate(grouped, axis=1).reshape(-1)
    made = jax.vmap(lambda key: sample_picture(key, assets, settings))(keys)
    last = 2 * pairs // groups

    def both(leaf: Array) -> Array:
        rest = leaf.shape[1:]
        return leaf.reshape(groups, -1, *rest)[:, :last].reshape(pairs, 2, *rest)

    def single(leaf: Array) -> Array:
        rest = leaf.shape[1:]
        return leaf.reshape(groups, -1, *rest)[:, last:].reshape(singles, *rest)

    between = jax.vmap(lambda two: _pair_of(two, assets.model))(jax.tree.map(both, made))
    against = jax.vmap(lambda one: _pair_with(template, one))(jax.tree.map(single, made))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), between, against)
