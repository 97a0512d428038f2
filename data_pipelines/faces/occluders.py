"""Occluders over and around a face: hair, glasses, hats, masks, hands, objects, rectangles.

`hair_behind` paints a background before the head is drawn over it, `occlude` a finished image.
Both find the head from its 68 landmarks alone, so photographs can be covered as rendered faces
are. Given one key, they agree on the colour of the hair.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from data_pipelines.faces.hair import Hair, back_hair, body, front_hair, sample_hair
from data_pipelines.faces.headwear import glasses, hat, hood, mask
from data_pipelines.faces.shapes import (
    NEVER_FAR,
    Grid,
    Head,
    Layer,
    RandomStream,
    box,
    capsule,
    cloth_colors,
    convex,
    find_head,
    moved,
    opacity,
    paint,
    pixel_planes,
    soft,
    wave,
)
from dfc_jax.types import Array


@dataclasses.dataclass(frozen=True)
class OccluderSettings:
    """How often each kind is drawn; all are probabilities in [0, 1] but the number of boxes.

    Attributes:
      boxes: plain rectangles anywhere (the paper's occluders), at most.
      box: of each of them.
      hair: hair that falls over forehead, temples or cheeks.
      glasses: of any kind; `sunglasses` is the share of them with dark or mirroring lenses.
      mask: a cloth mask over mouth and nose.
      hat: caps, woollen hats, brims and helmets.
      hood: cloth around the face, as a hood or a hijab.
      objects: of each of two objects (cups, phones, microphones, anything).
      hand: a hand that reaches in from the border.
      bald: heads without hair in `hair_behind`.
      long_hair: share of the others whose hair falls to the shoulders.
      body: neck and shoulders in `hair_behind`.
    """

    boxes: int = 3
    box: float = 0.3
    hair: float = 0.3
    glasses: float = 0.25
    sunglasses: float = 0.35
    mask: float = 0.06
    hat: float = 0.1
    hood: float = 0.05
    objects: float = 0.12
    hand: float = 0.15
    bald: float = 0.12
    long_hair: float = 0.4
    body: float = 0.9


# Random numbers sampled for each occluder; none uses more.
_MAX_UNIFORMS = 64
_DARK_SKIN, _LIGHT_SKIN = (0.22, 0.13, 0.09), (0.92, 0.73, 0.63)


def hair_behind(
    key: Array,
    background: Array,
    landmarks_xy: Array,
    settings: OccluderSettings,
    skin_color: Array | tuple[float, float, float] = (0.6, 0.45, 0.37),
) -> Array:
    """What shows of a head and its body around the face that will be drawn over it.

    Args:
      key: give `occlude` the same one and the fringe has the colour of the hair.
      background: (s, s, 3) RGB in [0, 1].
      landmarks_xy: (68, 2) pixels, any values.
      settings: how often heads are bald, hair is long and bodies show.
      skin_color: (3,) RGB of the bald head and the neck, as lit.

    Returns:
      (s, s, 3): shoulders in clothes, neck, and hair, or a bald head.
    """
    grid, head = pixel_planes(background.shape[0]), find_head(landmarks_xy)
    hair = _hair_of(key, settings)
    skin = jnp.clip(jnp.asarray(skin_color), 0.0, 1.0)
    skin = jnp.stack([0.45 * skin, skin])
    long, skull = back_hair(hair, head, grid, skin)
    rng = _random_stream(jax.random.fold_in(key, 1))
    shoulders = body(rng, head, grid, skin, settings.body)
    return paint(background, [long, *shoulders, *skull])


def _random_stream(key: Array, count: int = _MAX_UNIFORMS) -> RandomStream:
    return RandomStream(jax.random.uniform(key, (count,)))


def _hair_of(key: Array, settings: OccluderSettings) -> Hair:
    rng = _random_stream(jax.random.fold_in(key, 0))
    return sample_hair(rng, settings.bald, settings.long_hair)


def _hand(
    rng: RandomStream, head: Head, grid: Grid, landmarks_xy: Array, probability: float
) -> Layer:
    """An arm from beyond the border, a palm, four fingers and a thumb over a part of the face."""
    size = grid[0].shape[0]
    aims = jnp.array([8, 4, 12, 48, 54, 57, 33, 40, 47, 19])
    aim = landmarks_xy[aims[rng.choice(len(aims))]]
    aim = jnp.clip(aim, -0.2 * size, 1.2 * size)
    scale = jnp.clip(head.scale, 0.25 / 128 * size, 1.2 / 128 * size)
    # From below as a rule; x is along the fingers.
    angle = -0.5 * jnp.pi + 0.9 * rng.normal()
    along, across = moved(grid, aim, angle)
    along, across = along / scale, across * jnp.sign(rng.uniform(-1.0)) / scale
    spread, bend = rng.uniform(0.03, 0.3), rng.uniform(0.5, 1.0)
    index = jnp.arange(4.0) - 1.5
    root = jnp.stack([-15.0 - 2.0 * index**2, 19.0 * index], axis=-1)
    turn = spread * index + 0.06 * rng.normal((4,))
    reach = bend * jnp.array([58.0, 74.0, 70.0, 62.0]) * rng.uniform(0.7, 1.1, (4,))
    tips = root + reach[:, None] * jnp.stack([jnp.cos(turn), jnp.sin(turn)], axis=-1)
    thumb = jnp.array([[-70.0, 26.0], [-40.0, 62.0]]) + 8.0 * rng.normal((2, 2))
    palm = jnp.array([[[-74.0, -9.0], [-26.0, -15.0]], [[-74.0, 9.0], [-26.0, 15.0]]])
    arm = jnp.array([[-90.0, 0.0], [-500.0, 0.0]])
    starts = jnp.concatenate([root, thumb[:1], palm[:, 0], arm[:1]])
    ends = jnp.concatenate([tips, thumb[1:], palm[:, 1], arm[1:]])
    radii = jnp.array([8.5, 9.5, 9.5, 9.0, 10.5, 24.0, 24.0, 27.0])

    def add(total: Array, part: tuple[Array, ...]) -> tuple[Array, None]:
        return total + jnp.exp(-capsule((along, across), *part) / 4.0), None

    # A smooth union: knuckles and wrist have no creases.
    total, _ = jax.lax.scan(add, jnp.full_like(along, 1e-30), (starts, ends, radii))
    distance = -4.0 * jnp.log(total)
    round_ = 1.0 - (1.0 - jnp.clip(-distance / 12.0, 0.0, 1.0)) ** 2
    tone = 0.2 + 0.65 * round_ + 0.15 * across / 60.0 * rng.uniform(-1.0)
    skin = _skin(rng)
    alpha = soft(distance * scale) * rng.bernoulli(probability)
    return Layer(alpha, jnp.clip(tone, 0.0, 1.0), jnp.stack([0.4 * skin, skin]))


def _skin(rng: RandomStream) -> Array:
    mix = rng.uniform()
    return mix * jnp.array(_LIGHT_SKIN) + (1.0 - mix) * jnp.array(_DARK_SKIN)


def _object(rng: RandomStream, grid: Grid, landmarks_xy: Array, probability: float) -> Layer:
    """A rounded bar, box or disc, or an odd polygon, shaded, striped or checked."""
    size = grid[0].shape[0]
    point = landmarks_xy[rng.choice(len(landmarks_xy))]
    near = jnp.clip(point, 0.0, size) + 0.08 * size * rng.normal((2,))
    centre = jnp.where(rng.bernoulli(0.6) > 0, near, size * rng.uniform(shape=(2,)))
    x, y = moved(grid, centre, rng.uniform(0.0, 2.0 * jnp.pi))
    half = size * jnp.exp(rng.uniform(math.log(0.025), math.log(0.25), (2,)))
    rounded = box((x, y), half, jnp.min(half) * rng.uniform())
    angles = (jnp.arange(6.0) + rng.uniform(-0.35, 0.35, (6,))) * jnp.pi / 3.0
    odd = convex((x, y), angles, jnp.max(half) * rng.uniform(0.35, 1.0, (6,)))
    distance = jnp.where(rng.bernoulli(0.4) > 0, odd, rounded)
    u, v = x / half[0], y / half[1]
    frequency = rng.uniform(0.2, 2.5)
    stripes = wave(frequency * u + rng.uniform())
    checks = wave(frequency * v)
    pattern = jnp.array([0.0, 0.5, 0.9, 0.9])[rng.choice(4)]
    checked = stripes + checks - 2.0 * stripes * checks
    motif = jnp.where(rng.bernoulli(0.4) > 0, checked, stripes)
    cylinder = 0.5 + 0.4 * v - 0.2 * u * u
    tone = jnp.clip(cylinder + pattern * (motif - cylinder), 0.0, 1.0)
    alpha = soft(distance) * rng.bernoulli(probability)
    return Layer(alpha, tone, cloth_colors(rng))


def _boxes(rng: RandomStream, grid: Grid, settings: OccluderSettings) -> Layer:
    """The paper's occluders: upright rectangles of one colour, hard-edged."""
    size, count = grid[0].shape[0], settings.boxes
    centre = size * rng.uniform(shape=(count, 2, 1, 1))
    half = size * rng.uniform(0.03, 0.2, (count, 2, 1, 1))
    inside = jnp.all(jnp.abs(jnp.stack(grid) - centre) < half, axis=1)
    drawn = rng.uniform(shape=(count, 1, 1)) < settings.box
    alpha = (inside & drawn).astype(jnp.float32)
    color = rng.uniform(shape=(count, 1, 3))
    return Layer(alpha, jnp.zeros_like(alpha), jnp.repeat(color, 2, axis=1))


def occlude(
    key: Array, image: Array, landmarks_xy: Array, settings: OccluderSettings
) -> tuple[Array, Array]:
    """Cover parts of a face.

    Args:
      key: random key; see `hair_behind`.
      image: (s, s, 3) RGB in [0, 1].
      landmarks_xy: (68, 2) pixels, any values: what is worn needs a plausible head and is left
        out when there is none.
      settings: how often each kind is drawn.

    Returns:
      image (s, s, 3), and (s, s) bool where an occluder hides more than half of what was there.
    """
    grid, head = pixel_planes(image.shape[0]), find_head(landmarks_xy)
    points = jnp.clip(jnp.nan_to_num(landmarks_xy), -NEVER_FAR, NEVER_FAR)
    rows = jax.random.uniform(jax.random.fold_in(key, 2), (9, _MAX_UNIFORMS))
    rng = [RandomStream(row) for row in rows]
    worn_and_held = (
        (settings.mask, lambda p: [mask(rng[0], head, grid, points, p)]),
        (settings.glasses, lambda p: glasses(rng[1], head, grid, points, p, settings.sunglasses)),
        (settings.hair, lambda p: [front_hair(rng[2], _hair_of(key, settings), head, grid, p)]),
        (settings.hood, lambda p: [hood(rng[3], head, grid, p)]),
        (settings.hat, lambda p: hat(rng[4], head, grid, p)),
        (settings.objects, lambda p: [_object(rng[i], grid, points, p) for i in (5, 6)]),
        (settings.hand, lambda p: [_hand(rng[7], head, grid, points, p)]),
    )
    # What is never drawn costs nothing; what is drawn shares the light of the scene.
    lit = [layer for p, draw in worn_and_held if p > 0.0 for layer in draw(p)]
    light = jnp.clip(1.8 * jnp.mean(image), 0.2, 1.0) * rng[8].uniform(0.6, 1.2)
    layers = [
        dataclasses.replace(layer, colors=jnp.clip(light * layer.colors, 0.0, 1.0)) for layer in lit
    ]
    if settings.boxes and settings.box > 0.0:
        layers.append(
            _boxes(_random_stream(jax.random.fold_in(key, 3), 8 * settings.boxes), grid, settings)
        )
    if not layers:
        return image, jnp.zeros(image.shape[:2], bool)
    return paint(image, layers), opacity(layers) > 0.5
