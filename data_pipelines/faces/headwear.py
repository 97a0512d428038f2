"""Glasses, masks, hats and hoods, for `data_pipelines.faces.occluders`."""

import functools

import jax
import jax.numpy as jnp

from data_pipelines.faces.shapes import (
    SKULL_AXES_MM,
    SKULL_MM,
    Grid,
    Head,
    Layer,
    RandomStream,
    at,
    box,
    capsule,
    cloth_colors,
    ellipsoid,
    polygon,
    ripples,
    smoothstep,
    soft,
    wave,
)
from dfc_jax.types import Array


def glasses(
    rng: RandomStream, head: Head, grid: Grid, landmarks_xy: Array, probability: float, dark: float
) -> list[Layer]:
    """Lenses and frame before the eyes; each lens turns with the head and fades when edge-on."""
    half = jnp.stack([rng.uniform(21.0, 31.0), rng.uniform(13.0, 26.0)])
    corner = jnp.min(half) * rng.uniform(0.2, 1.0)
    rim_mm = rng.uniform(0.6, 4.5)
    wrap = rng.uniform(0.0, 0.25)
    eyes = jnp.stack([landmarks_xy[36:42].mean(axis=0), landmarks_xy[42:48].mean(axis=0)])
    sides = jnp.array([-1.0, 1.0])

    def lens(eye: Array, side: Array) -> tuple[Array, Grid, Array, Array, Array]:
        centre = eye + head.matrix @ jnp.stack([1.5 * side, jnp.float32(-4.0), jnp.float32(14.0)])
        across = head.matrix @ jnp.stack([jnp.cos(wrap), jnp.float32(0.0), -side * jnp.sin(wrap)])
        up = head.matrix[:, 1]
        determinant = across[0] * up[1] - across[1] * up[0]
        facing = -determinant / head.scale**2
        safe = jnp.where(facing > 0.05, determinant, 1.0)
        x, y = grid[0] - centre[0], grid[1] - centre[1]
        local = ((up[1] * x - up[0] * y) / safe, (across[0] * y - across[1] * x) / safe)
        distance = box(local, half, corner) * head.scale * jnp.sqrt(jnp.clip(facing, 0.05, 1.0))
        inner, outer = (centre - sign * side * half[0] * across for sign in (1.0, -1.0))
        hinge = 0.4 * half[1] * up
        return distance, local, smoothstep(0.1, 0.3, facing), inner + hinge, outer + hinge

    distance, local, fade, inner, outer = jax.vmap(lens)(eyes, sides)
    rim_px = jnp.maximum(0.5 * rim_mm * head.scale, 0.3)
    rims = jnp.max(soft(jnp.abs(distance) - rim_px) * fade[:, None, None], axis=0)
    bar = jnp.maximum(0.7 * rim_px, 0.35)
    bridge = soft(capsule(grid, inner[0], inner[1], bar)) * jnp.min(fade)
    ears = jnp.stack([at(head, side * 78.0, 38.0, 5.0) for side in (-1.0, 1.0)])
    temples = jax.vmap(capsule, (None, 0, 0, None))(grid, outer, ears, bar)
    # The temple on the far side is hidden by the head.
    toward = jnp.cross(head.matrix[1], head.matrix[0])[0] / head.scale**2
    near = smoothstep(-0.25, 0.0, sides * toward)
    temples = jnp.max(soft(temples) * near[:, None, None], axis=0)
    shown = rng.bernoulli(probability) * head.shown
    frame = jnp.maximum(jnp.maximum(rims, bridge), temples) * shown

    is_dark = rng.bernoulli(dark)
    clear = rng.uniform(0.0, 0.25)
    opacity = jnp.where(is_dark > 0, rng.uniform(0.6, 1.0), clear)
    x, y = local
    glint = wave(x / 55.0 + y / rng.uniform(40.0, 90.0) + rng.uniform())
    glint = smoothstep(0.55, 0.9, glint) * rng.uniform()
    fading = jnp.clip(0.5 - 0.3 * y / half[1], 0.0, 1.0) * rng.uniform(0.0, 0.4)
    alpha = soft(distance) * fade[:, None, None] * shown * jnp.maximum(opacity, 0.55 * glint)
    tint = 0.12 * rng.uniform(shape=(3,))
    colors = jnp.stack([tint, jnp.array([0.85, 0.92, 1.0])])
    lenses = Layer(alpha, jnp.clip(fading + glint, 0.0, 1.0), jnp.stack([colors, colors]))
    frame_color = jnp.stack([0.4 * tint, 0.05 + 6.0 * tint * rng.bernoulli(0.5)])
    return [lenses, Layer(frame, 0.5 - 0.5 * grid[1] / grid[1].shape[0], frame_color)]


def mask(
    rng: RandomStream, head: Head, grid: Grid, landmarks_xy: Array, probability: float
) -> Layer:
    """A surgical mask: both halves of the face below the bridge of the nose, and the loops."""
    outline = landmarks_xy[jnp.array([[2, 4, 6, 8, 30, 28], [14, 12, 10, 8, 30, 28]])]
    cloth = jnp.min(jax.vmap(polygon, (None, 0))(grid, outline), axis=0) - 3.0 * head.scale
    thin = jnp.maximum(head.scale, 0.4)
    loops = [
        capsule(grid, landmarks_xy[end], landmarks_xy[ear], thin)
        for end, ear in ((2, 0), (4, 0), (14, 16), (12, 16))
    ]
    distance = functools.reduce(jnp.minimum, loops, cloth)
    up = head.matrix[:, 1] / head.scale**2
    height_mm = (grid[0] - landmarks_xy[30, 0]) * up[0] + (grid[1] - landmarks_xy[30, 1]) * up[1]
    pleats = wave(height_mm / rng.uniform(12.0, 22.0))
    shade = jnp.clip(-cloth / (35.0 * head.scale), 0.0, 1.0)
    usual = jnp.array([[0.35, 0.52, 0.62], [0.75, 0.88, 0.95]])
    colors = jnp.where(rng.bernoulli(0.5) > 0, usual, cloth_colors(rng))
    alpha = soft(distance) * rng.bernoulli(probability) * head.shown
    return Layer(alpha, jnp.clip(0.25 + 0.5 * shade + 0.3 * pleats, 0.0, 1.0), colors)


def hat(rng: RandomStream, head: Head, grid: Grid, probability: float) -> list[Layer]:
    """A crown above a line over the brows, with no brim, a visor or a brim all around."""
    axes = jnp.array(SKULL_AXES_MM) * rng.uniform(1.06, 1.22)
    axes = axes * jnp.stack([1.0, rng.uniform(1.0, 1.35), 1.0])
    line_mm, tilt = rng.uniform(68.0, 100.0), rng.uniform(-0.1, 0.35)
    edge, (x, y, z) = ellipsoid(head, grid, jnp.array(SKULL_MM), axes)
    above_mm = axes[1] * y + SKULL_MM[1] - line_mm + tilt * axes[2] * (1.0 - z)
    distance = jnp.maximum(edge, -above_mm * head.scale)
    band = smoothstep(18.0, 16.0, above_mm) * rng.bernoulli(0.5)
    panels = wave(4.0 * x) * rng.uniform(0.0, 0.3)
    tone = jnp.clip(0.45 + 0.3 * x * rng.uniform(-1.0) + 0.3 * y + panels - 0.5 * band, 0, 1)
    # kinds: none, a visor in front, a brim all around
    kind = rng.choice(3)
    wide = rng.uniform(1.25, 1.75)
    visor, around = jnp.array([70.0, 5.0, 65.0]), jnp.array([80.0, 5.0, 98.0]) * wide
    brim_axes = jnp.where(kind == 1, visor, around)
    centre = jnp.stack([0.0, line_mm, jnp.where(kind == 1, 85.0, 10.0)])
    disc, (_, _, forward) = ellipsoid(head, grid, centre, brim_axes)
    hidden = (edge < 0.0) & (forward < 0.2)
    colors = cloth_colors(rng)
    shown = rng.bernoulli(probability) * head.shown
    brim = soft(disc) * jnp.where(hidden | (kind == 0), 0.0, shown)
    brim_tone = jnp.full_like(disc, 0.3)
    return [Layer(soft(distance) * shown, tone, colors), Layer(brim, brim_tone, colors)]


def hood(rng: RandomStream, head: Head, grid: Grid, probability: float) -> Layer:
    """Cloth around head and neck that leaves an oval of the face open."""
    axes = jnp.array(SKULL_AXES_MM) * rng.uniform(1.08, 1.25)
    axes = axes * jnp.array([1.0, 1.35, 1.0])
    edge, (x, y, z) = ellipsoid(head, grid, jnp.array([0.0, 20.0, 10.0]), axes)
    drape, (side, down, _) = ellipsoid(
        head, grid, jnp.array([0.0, -190.0, 0.0]), jnp.array([150.0, 130.0, 95.0])
    )
    face, _ = ellipsoid(head, grid, jnp.array([0.0, -5.0, 50.0]), jnp.array([66.0, 88.0, 75.0]))
    oval = jnp.stack([rng.uniform(0.6, 0.8), rng.uniform(0.55, 0.75)])
    inside = 1.0 - jnp.sqrt((x / oval[0]) ** 2 + ((y + 0.15) / oval[1]) ** 2 + 1e-6)
    opening = jnp.where(z > 0.0, inside, -1.0) * 55.0 * head.scale
    chin = (down - 0.97) * 130.0 * head.scale
    # Seen from above, the face is before the shoulders.
    below = jnp.maximum(jnp.maximum(drape, chin), -face)
    distance = jnp.minimum(jnp.maximum(edge, opening), below)
    folds = ripples(x - 0.6 * y + side, rng.uniform(0.5, 3.0, (3,)), rng.uniform(shape=(3,)))
    tone = jnp.clip(0.3 + 0.6 * folds + 0.2 * x * rng.uniform(-1.0), 0.0, 1.0)
    alpha = soft(distance) * rng.bernoulli(probability) * head.shown
    return Layer(alpha, tone, cloth_colors(rng))
