"""Pictures with faces of any size and tilt, pasted over others, for the training of a detector.

``sample_scene(key, bank, backgrounds, settings)`` is pure, for one picture: it pastes some patches
of a `Bank` over a background, lets a camera spoil it, and may cut it off where a photograph would
end.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from data_pipelines.bank import Bank
from data_pipelines.faces.backgrounds import BackgroundSettings, sample_background
from data_pipelines.faces.degradation import DegradationSettings, degrade
from data_pipelines.scenes.patches import Patches
from dfc_jax.errors import ConfigError
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.systems.detector.scenes import MULTIPLE, PAD, Boxes, Scenes
from dfc_jax.types import AnyArray, Array, ByValue

# How far from its middle a patch covers others, in parts of the edge of its box.
_SQUARE, _OVAL = 1.15, 0.72
# In a crowd: the part of the range of sizes that its faces may have, and that between them.
_SMALL, _ALIKE = 0.6, 0.05
# Parts of a box in the picture with which a face has to be found, and with which it may.
_ENOUGH, _HARDLY = 0.55, 0.2
# Where boxes lie that are in no picture, px.
NOWHERE = -1e5


@dataclasses.dataclass(frozen=True)
class SceneSettings:
    """Ranges of the random pictures.

    Attributes:
      size: pixels along an edge.
      patches: pasted into each, at most; those that would cover another one are left out.
      edge_px: range of the faces' edges, log-uniform.
      crowds: share of pictures whose faces are about as large as each other, and small.
      any_roll: share of faces with any roll; that of the others is normal, `roll_deg` wide.
      roll_deg: see `any_roll`.
      whole: share of patches that are pasted as squares; the others as ovals with soft edges.
      light: standard deviation of the logarithm of a patch's brightness beside the others.
      side_light: standard deviation of its change along each axis, over one edge of the box.
      cut_off: share of pictures that end somewhere inside the square; grey lies beyond.
      tight: share of these that end near the box of a face, or a little inside it.
      background, degradation: see their modules.
    """

    size: int = 128
    patches: int = 8
    edge_px: tuple[float, float] = (9.0, 64.0)
    crowds: float = 0.2
    any_roll: float = 0.25
    roll_deg: float = 18.0
    whole: float = 0.4
    light: float = 0.45
    side_light: float = 0.25
    cut_off: float = 0.35
    tight: float = 0.5
    background: BackgroundSettings = BackgroundSettings(grey=0.05, pictures=0.75, zoom=0.15)
    # Lengths are parts of the picture, in which a face may be small.
    degradation: DegradationSettings = DegradationSettings(
        exposure=0.2,
        cast=0.1,
        contrast=0.2,
        degraded=0.5,
        defocus_part=0.008,
        motion_part=0.025,
        coarse_factor=2.0,
        noise_level=0.06,
    )

    def __post_init__(self) -> None:
        """Raises ConfigError: pictures cannot be that large, or nothing is pasted."""
        if self.size < MULTIPLE or self.size % MULTIPLE:
            raise ConfigError(
                f"config.scenes.size is {self.size}; it must be a multiple of {MULTIPLE}"
            )
        if self.patches < 1:
            raise ConfigError(f"config.scenes.patches is {self.patches}; it must be at least 1")


def sample_scene(
    key: Array, bank: Bank[Patches], backgrounds: Array, settings: SceneSettings
) -> Scenes:
    """One picture without a batch axis; `backgrounds` (M, S, S, 3) uint8 show no faces."""
    keys = jax.random.split(key, 6)
    image = sample_background(keys[0], backgrounds, settings.size, settings.background)
    placed: list[_Placed] = []
    edges = _edges(keys[5], settings)
    for place, edge in zip(jax.random.split(keys[1], settings.patches), edges, strict=True):
        patch = _place(place, edge, bank, settings)
        placed.append(dataclasses.replace(patch, shown=_is_free(patch, placed)))
    every = jax.tree.map(lambda *leaves: jnp.stack(leaves), *placed)
    # A loop: XLA would work out the patches pasted before again for each.
    shapes, lights = jax.random.split(keys[4])
    drawn = jax.random.uniform(shapes, (settings.patches, 3)), _lights(lights, settings), every
    image, _ = jax.lax.scan(lambda image, one: (_paste(image, *one), None), image, drawn)
    image = degrade(keys[2], image, settings.degradation)
    inside, share = _cut_off(keys[3], every, settings)
    levels = jnp.round(255.0 * image).astype(jnp.uint8)
    levels = jnp.where(inside[..., None], levels, jnp.uint8(PAD))
    # Of a face that is cut off: what is left may be one, or is none.
    face = every.face & every.shown & (share >= _HARDLY)
    middle = jnp.where(face[:, None], every.box.middle, NOWHERE)
    boxes = dataclasses.replace(every.box, middle=middle)
    return Scenes(levels, boxes, face & (share >= _ENOUGH))


def turned_too(key: Array, scenes: Scenes) -> Scenes:
    """The scenes (B, ...), and after them all turned clockwise by one, two or three quarters: twice
    as many for a third of the price of new ones."""
    quarters = [functools.partial(_turned, quarters=number) for number in (1, 2, 3)]
    turned = jax.lax.switch(jax.random.randint(key, (), 0, 3), quarters, scenes)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), scenes, turned)


def _turned(scenes: Scenes, quarters: int) -> Scenes:
    boxes, last = scenes.boxes, scenes.image.shape[1] - 1
    middle = jnp.asarray(boxes.middle)
    for _ in range(quarters):
        middle = jnp.stack([last - middle[..., 1], middle[..., 0]], axis=-1)
    image = jnp.rot90(scenes.image, -quarters, axes=(1, 2))
    return Scenes(
        image, Boxes(middle, boxes.edge, boxes.roll_deg + 90.0 * quarters), scenes.present
    )


@struct.dataclass(eq=False)
class _Placed(ByValue):
    """A patch in a picture.

    Attributes:
      image: (P, P, 4) uint8, the patch.
      box: () there, pixels of the picture.
      face: () bool.
      to_patch: (2, 3) map from pixels of the picture to those of the patch.
      whole: () bool, pasted as a square.
      shown: () bool, pasted at all.
    """

    image: Array
    box: Boxes
    face: Array
    to_patch: Array
    whole: Array
    shown: Array


def _edges(key: Array, settings: SceneSettings) -> Array:
    """Edges of the boxes of all patches, px."""
    keys = jax.random.split(key, 3)
    each = jax.random.uniform(keys[0], (settings.patches,))
    alike = _SMALL * jax.random.uniform(keys[1]) + _ALIKE * each
    part = jnp.where(jax.random.uniform(keys[2]) < settings.crowds, alike, each)
    smallest, largest = settings.edge_px
    return smallest * (largest / smallest) ** part


def _lights(key: Array, settings: SceneSettings) -> Array:
    """The logarithm of the brightness of all patches at their middle, and how it changes over an
    edge along x and y (K, 3)."""
    draw = jnp.clip(jax.random.normal(key, (settings.patches, 3)), -2.5, 2.5)
    return draw * jnp.array([settings.light, settings.side_light, settings.side_light])


def _place(key: Array, edge: Array, bank: Bank[Patches], settings: SceneSettings) -> _Placed:
    """A random patch of this size with a random tilt, side and place."""
    keys = jax.random.split(key, 4)
    chance, side, shape, group, within = jax.random.uniform(keys[0], (5,))
    patch = bank.draw(group, within)
    own = patch.boxes
    middle = settings.size * jax.random.uniform(keys[1], (2,))
    any_roll = jax.random.uniform(keys[2], minval=-180.0, maxval=180.0)
    usual = settings.roll_deg * jnp.clip(jax.random.normal(keys[3]), -2.5, 2.5)
    roll = jnp.where(chance < settings.any_roll, any_roll, usual)
    # From the picture: upright, as large as in the patch, perhaps mirrored, tilted as there.
    mirror = jnp.array([jnp.where(side < 0.5, -1.0, 1.0), 1.0])
    linear = own.edge / edge * (_turn(own.roll_deg) * mirror) @ _turn(-roll)
    return _Placed(
        image=jnp.asarray(patch.images),
        box=Boxes(middle, edge, roll),
        face=jnp.asarray(patch.face),
        to_patch=jnp.concatenate([linear, (own.middle - linear @ middle)[:, None]], axis=1),
        whole=shape < settings.whole,
        shown=jnp.array(True),
    )


def _turn(deg: AnyArray) -> Array:
    """(2, 2) turn by so much, clockwise in a picture."""
    cosine, sine = jnp.cos(jnp.deg2rad(deg)), jnp.sin(jnp.deg2rad(deg))
    return jnp.array([[cosine, -sine], [sine, cosine]])


def _is_free(patch: _Placed, others: Sequence[_Placed]) -> Array:
    """Whether the patch covers next to nothing of the boxes of the others that are shown."""
    free = jnp.array(True)
    for other in others:
        apart = jnp.linalg.norm(patch.box.middle - other.box.middle)
        reach = jnp.where(patch.whole, _SQUARE, _OVAL) * patch.box.edge + 0.45 * other.box.edge
        free &= (apart > reach) | ~other.shown
    return free


def _paste(image: Array, draw: Array, light: Array, patch: _Placed) -> Array:
    """The picture with the patch; `draw` (3,) in [0, 1] decides how an oval looks, for `light` see
    `_lights`."""
    size, own = len(image), len(patch.image)
    xy = pixel_grid(size, size) @ patch.to_patch[:, :2].T + patch.to_patch[:, 2]
    inside = jnp.all((xy > 0.0) & (xy < own - 1.0), axis=-1)
    # The oval, in parts of the edge along the axes of the face: wider or narrower around the head.
    arm = (pixel_grid(size, size) - patch.box.middle) / patch.box.edge
    lit = jnp.exp(light[0] + jnp.clip(arm, -1.0, 1.0) @ light[1:])
    arm = arm @ _turn(patch.box.roll_deg)
    axes = jnp.array([0.6, 0.75]) + jnp.array([0.25, 0.25]) * draw[:2]
    away = jnp.linalg.norm((arm + jnp.array([0.0, 0.15])) / axes, axis=-1)
    oval = jnp.clip((1.0 - away) / (0.04 + 0.25 * draw[2]), 0.0, 1.0)
    colors = bilinear_sample(patch.image, xy) / 255.0
    alpha = colors[..., 3] * jnp.where(patch.whole, 1.0, oval) * (inside & patch.shown)
    return image + alpha[..., None] * (jnp.minimum(lit[..., None] * colors[..., :3], 1.0) - image)


def _cut_off(key: Array, placed: _Placed, settings: SceneSettings) -> tuple[Array, Array]:
    """Where the picture is (s, s) bool, and how much of each box (K,) lies in it."""
    keys = jax.random.split(key)
    size = settings.size
    is_cut, is_tight = jax.random.uniform(keys[0], (2,)) < jnp.array(
        [settings.cut_off, settings.tight]
    )
    # Around the first patch, which is always shown: near its box, or anywhere beyond it.
    middle, edge = placed.box.middle[0], placed.box.edge[0]
    part = jax.random.uniform(keys[1], (2, 2))
    near, far = edge * (0.5 - 0.14 + 0.64 * part), 0.5 * edge + size * part
    margins = jnp.where(is_tight, near, far)
    low, high = middle - margins[0], middle + margins[1]
    low = jnp.where(is_cut, jnp.maximum(low, 0.0), 0.0)
    high = jnp.where(is_cut, jnp.minimum(high, size - 1.0), size - 1.0)
    grid = pixel_grid(size, size)
    inside = jnp.all((grid >= low) & (grid <= high), axis=-1)
    half = placed.box.edge[:, None] / 2.0
    shown = jnp.minimum(high, placed.box.middle + half) - jnp.maximum(low, placed.box.middle - half)
    return inside, jnp.prod(jnp.clip(shown / (2.0 * half), 0.0, 1.0), axis=-1)
