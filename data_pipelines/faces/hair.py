"""Hair, necks and shoulders, for `data_pipelines.faces.occluders`."""

import jax.numpy as jnp
from flax import struct

from data_pipelines.faces.shapes import (
    SKULL_AXES_MM,
    SKULL_MM,
    Grid,
    Head,
    Layer,
    RandomStream,
    at,
    capsule,
    cloth_colors,
    ellipsoid,
    moved,
    ripples,
    smoothstep,
    soft,
    unit,
    wave,
)
from dfc_jax.types import Array, ByValue

Planes = tuple[Array, ...]

_HAIR_COLORS = (
    (0.03, 0.025, 0.02),
    (0.10, 0.06, 0.04),
    (0.25, 0.14, 0.08),
    (0.35, 0.12, 0.05),
    (0.60, 0.42, 0.22),
    (0.45, 0.45, 0.45),
    (0.75, 0.74, 0.72),
)


@struct.dataclass(eq=False)
class Hair(ByValue):
    """One random head of hair.

    Attributes:
      colors: (2, 3) RGB, dark and light.
      thickness: () size of its outline relative to the skull.
      turns, phase: (6,) frequencies and phases of the waves that make its strands.
      light: (3,) unit vector that shades it, model space.
      is_bald, is_long: () 0 or 1.
      length_mm, width_mm: () of long hair: below the chin, and to each side.
    """

    colors: Array
    thickness: Array
    turns: Array
    phase: Array
    light: Array
    is_bald: Array
    is_long: Array
    length_mm: Array
    width_mm: Array


def sample_hair(rng: RandomStream, bald: float, long: float) -> Hair:
    """Random hair, mostly of natural colours: `bald` is the probability of none, `long` that of
    long hair where there is any."""
    natural = jnp.array(_HAIR_COLORS)[rng.choice(len(_HAIR_COLORS))]
    natural = natural * jnp.exp(0.15 * rng.normal((3,)))
    color = jnp.where(rng.uniform() < 0.06, rng.uniform(0.1, 0.8, (3,)), natural)
    is_bald = rng.bernoulli(bald)
    flat = rng.uniform(1.05, 1.25)
    thickness = jnp.where(rng.uniform() < 0.1, rng.uniform(1.3, 1.9), flat)
    return Hair(
        colors=jnp.stack([0.35 * color, jnp.minimum(1.25 * color + 0.04, 1.0)]),
        thickness=thickness,
        turns=rng.uniform(2.0, 16.0, (6,)),
        phase=rng.uniform(shape=(6,)),
        light=unit(rng.normal((3,)) + jnp.array([0.0, 1.0, 0.8])),
        is_bald=is_bald,
        is_long=rng.bernoulli(long) * (1.0 - is_bald),
        length_mm=rng.uniform(60.0, 190.0),
        width_mm=rng.uniform(82.0, 115.0),
    )


def _strands(hair: Hair, point: Planes) -> tuple[Array, Array]:
    """Streaks that run down from the crown, and the tone of hair at points of the unit sphere."""
    x, y, z = point
    around = x / (jnp.abs(x) + jnp.abs(z) + 0.1) + 0.1 * wave(0.7 * y + hair.phase[0])
    streaks = ripples(around, hair.turns, hair.phase)
    shade = hair.light[0] * x + hair.light[1] * y + hair.light[2] * z
    gloss = jnp.maximum(1.0 - 5.0 * jnp.abs(shade - 0.75), 0.0)
    tone = streaks * (0.55 + 0.45 * shade) + 0.35 * gloss * streaks
    return streaks, jnp.clip(tone, 0.0, 1.0)


def _scalp(head: Head, grid: Grid, hair: Hair) -> tuple[Array, Planes]:
    axes = jnp.array(SKULL_AXES_MM) * hair.thickness
    return ellipsoid(head, grid, jnp.array(SKULL_MM), axes)


def _fall(head: Head, grid: Grid, hair: Hair) -> tuple[Array, Planes]:
    """Long hair, from the crown to below the chin."""
    bottom = -60.0 - hair.length_mm
    centre = jnp.stack([0.0, (110.0 + bottom) / 2.0, -5.0])
    axes = jnp.stack([hair.width_mm, (110.0 - bottom) / 2.0, jnp.float32(85.0)])
    return ellipsoid(head, grid, centre, axes)


def _frontal(x: Array, z: Array) -> Array:
    """Cosine of the angle around the vertical axis: 1 in front, 0 beside, -1 behind."""
    return z / jnp.sqrt(x**2 + z**2 + 1e-6)


def front_hair(rng: RandomStream, hair: Hair, head: Head, grid: Grid, probability: float) -> Layer:
    """Hair over the face: a fringe down to a random line, and strands beside the cheeks."""
    edge, point = _scalp(head, grid, hair)
    x, y, z = point
    streaks, tone = _strands(hair, point)
    # Height of the hairline on the unit sphere: in front, at the sides, and lower off the parting.
    front = rng.uniform(-0.05, 0.5)
    sides = rng.uniform(-0.9, 0.1)
    parting, slope = rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.8)
    line = front - slope * jnp.abs(x - parting) + rng.uniform(-0.25, 0.25) * x
    line = line + (sides - line) * smoothstep(0.75, 0.3, _frontal(x, z))
    ragged = rng.uniform(0.05, 0.45) * (streaks - 0.5)
    radius_px = head.scale * SKULL_AXES_MM[1] * hair.thickness
    scalp = jnp.maximum(edge, (line + ragged - y) * radius_px)
    beside, (across, _, forward) = _fall(head, grid, hair)
    # Long hair is a tube around the head, open towards the face.
    opening = _frontal(across, forward) - rng.uniform(0.35, 0.85)
    curtain = (opening + 0.4 * (streaks - 0.5)) * 80.0 * head.scale
    fall = jnp.maximum(beside + 3.0 * streaks, curtain)
    distance = jnp.where(hair.is_long > 0, jnp.minimum(scalp, fall), scalp)
    shown = rng.bernoulli(probability) * (1.0 - hair.is_bald) * head.shown
    return Layer(soft(distance) * shown, tone, hair.colors)


def back_hair(hair: Hair, head: Head, grid: Grid, skin: Array) -> tuple[Layer, list[Layer]]:
    """The layers behind the face: long hair, to be drawn behind the shoulders, and those in front
    of the shoulders, the skull with `skin` colours (2, 3) and the hair on it."""
    edge, point = _scalp(head, grid, hair)
    streaks, tone = _strands(hair, point)
    nape = (-0.75 - point[1]) * SKULL_AXES_MM[1] * head.scale
    scalp = jnp.maximum(edge + 2.5 * (streaks - 0.5), nape)
    fall, below = _fall(head, grid, hair)
    fall_streaks, fall_tone = _strands(hair, below)
    dome, bare = ellipsoid(head, grid, jnp.array(SKULL_MM), jnp.array(SKULL_AXES_MM))
    dome_tone = jnp.clip(0.7 + 0.3 * sum(hair.light[i] * bare[i] for i in range(3)), 0.0, 1.0)
    long = soft(fall + 4.0 * fall_streaks) * hair.is_long * head.shown
    return Layer(long, 0.8 * fall_tone, hair.colors), [
        Layer(soft(dome) * head.shown, dome_tone, skin),
        Layer(soft(scalp) * (1.0 - hair.is_bald) * head.shown, tone, hair.colors),
    ]


def body(rng: RandomStream, head: Head, grid: Grid, skin: Array, probability: float) -> list[Layer]:
    """Neck, and shoulders that stay more upright than the head does."""
    root, scale = at(head, 0.0, -60.0, -25.0), head.scale
    down = unit(0.6 * unit(at(head, 0.0, -160.0, -35.0) - root) + jnp.array([0.0, 1.0]))
    length = rng.uniform(70.0, 120.0) * scale
    angle = jnp.arctan2(-down[0], down[1])
    across, along = moved(grid, root + length * down, angle)
    half = rng.uniform(130.0, 220.0) * scale
    # Shoulders slope away from the neck on both sides.
    slope = rng.uniform(0.15, 0.5)
    shoulders = jnp.maximum(
        slope * (jnp.sqrt(across**2 + (25.0 * scale) ** 2)) - along, jnp.abs(across) - half
    )
    pattern = wave(
        along / (scale * rng.uniform(20.0, 90.0)) + across * rng.bernoulli(0.5) / (scale * 40.0)
    )
    folds = wave(across / (scale * 110.0) + 0.3 * wave(along / (scale * 140.0)))
    tone = jnp.clip(0.55 + 0.3 * folds + 0.5 * rng.bernoulli(0.4) * (pattern - 0.6), 0.0, 1.0)
    shown = head.shown * rng.bernoulli(probability)
    neck = capsule(grid, root, root + 1.2 * length * down, 52.0 * scale)
    round_ = jnp.clip(-neck / (40.0 * scale), 0.0, 1.0)
    return [
        Layer(soft(neck) * shown, 0.15 + 0.5 * round_, skin),
        Layer(soft(shoulders) * shown, tone, cloth_colors(rng)),
    ]
