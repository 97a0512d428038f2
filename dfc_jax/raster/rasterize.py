"""Which triangle each pixel sees: a z-buffer in plain `jax.numpy`, without gradients.

The bounding box of every triangle to draw is cut into runs of `RUN` pixels. The runs of all
triangles form one list, which is processed in chunks of a fixed length. In each chunk a cumulative
sum finds the triangle of each run, a scatter-min writes the nearest depths to the z-buffer, and a
second one writes the lowest index among the triangles at that depth. Triangles with very large
boxes are tested one by one against the whole image instead. The number of chunks is dynamic: the
work depends on what is on screen.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dfc_jax.camera import MIN_DEPTH_MM
from dfc_jax.raster.interpolate import barycentrics
from dfc_jax.types import Array, Fragments

# Pixel tests in a chunk. On a CPU small chunks waste little; on an accelerator each iteration waits
# for the host, so one chunk holds a face at 128 pixels.
CHUNK_TESTS_CPU, CHUNK_TESTS_ACCELERATOR = 1 << 13, 1 << 16
# Pixel tests in a run, which looks up its triangle once. A face's triangles cover about as many.
RUN = 4
# Pixels in the largest box that goes into chunks.
MAX_BOX_PX = 1 << 12
# Triangles that are smaller, or thinner relative to their length, count as degenerate.
MIN_AREA_PX2, MIN_THICKNESS = 1e-8, 1e-6

Buffers = tuple[Array, Array]  # (H, W) nearest depth so far, and the index of its triangle


@functools.partial(jax.jit, static_argnames=("image_size", "cull_backfaces", "perspective_correct"))
def rasterize(
    screen_xy: Array,
    depth_mm: Array,
    triangles: Array,
    image_size: int,
    cull_backfaces: bool = False,
    perspective_correct: bool = True,
) -> Fragments:
    """The nearest triangle at each pixel centre of a square image; stops gradients.

    A pixel belongs to a triangle when its centre lies inside or on an edge; at equal depth the
    lowest index wins. Triangles without area are dropped, and so are those with a vertex that is
    not finite or, in perspective, nearer than `MIN_DEPTH_MM` (nothing is clipped at a near plane).

    Args:
      screen_xy: (V, 2) projected vertices, pixels; integers are pixel centres.
      depth_mm: (V,) depth along the optical axis, millimetres.
      triangles: (T, 3) int32, counter-clockwise seen from outside.
      image_size: height and width of the image (static).
      cull_backfaces: drop triangles that turn their inside to the camera (static).
      perspective_correct: interpolate 1/z, as a pinhole camera sees a plane; False for an
        orthographic camera, where depth is affine on screen and may be negative (static).

    Returns:
      `Fragments` of (image_size, image_size) pixels.
    """
    screen_xy, depth_mm = lax.stop_gradient((screen_xy, depth_mm))
    corners = jnp.concatenate([screen_xy, depth_mm[:, None]], axis=-1)[triangles]
    rows = lax.optimization_barrier(corners.reshape(-1, 9))
    boxes, is_large = _boxes(rows, image_size, cull_backfaces, perspective_correct)
    shape = (image_size, image_size)
    buffers = jnp.full(shape, jnp.inf), jnp.full(shape, len(triangles), jnp.int32)
    buffers = _draw_chunks(buffers, rows, boxes, perspective_correct)
    zbuf, face = _draw_one_by_one(buffers, rows, is_large, perspective_correct)
    fragments = Fragments(
        pix_to_face=jnp.where(zbuf < jnp.inf, face, -1),
        zbuf=zbuf,
        bary_coords=jnp.zeros((*shape, 3)),
    )
    bary = barycentrics(fragments, screen_xy, depth_mm, triangles, perspective_correct)
    return dataclasses.replace(fragments, bary_coords=bary)


def _components(rows: Array) -> Array:
    """Rows (n, 9) as (3, 3, n), corner, then x, y, depth: the long axis is last for speed."""
    return rows.T.reshape(3, 3, -1)


def _boxes(
    rows: Array, image_size: int, cull_backfaces: bool, perspective_correct: bool
) -> tuple[Array, Array]:
    """Bounding boxes (4, T) in pixels of the triangles to draw in chunks: x, y, width, height; the
    other triangles have width and height 0. And (T,) whether the box is too large for chunks."""
    a, b, c = corners = lax.optimization_barrier(_components(rows))
    low, high = jnp.minimum(jnp.minimum(a, b), c), jnp.maximum(jnp.maximum(a, b), c)
    first = jnp.clip(jnp.ceil(low[:2]), 0, image_size)
    extent = jnp.clip(jnp.floor(high[:2]), -1, image_size - 1) - first + 1
    # Counter-clockwise seen from outside is a negative area where y points down.
    area = -_signed_area(corners) if cull_backfaces else jnp.abs(_signed_area(corners))
    # In thinner triangles rounding decides which pixels are inside.
    length = jnp.maximum(high[0] - low[0], high[1] - low[1])
    drawn = (extent > 0).all(axis=0) & jnp.isfinite(corners).all(axis=(0, 1))
    drawn &= (area > MIN_AREA_PX2) & (area > MIN_THICKNESS * length**2)
    if perspective_correct:
        drawn &= low[2] >= MIN_DEPTH_MM
    # The runs of all triangles together have to fit an int32.
    limit = min(MAX_BOX_PX, np.iinfo(np.int32).max // len(rows))
    is_large = extent[0] * extent[1] > limit
    extent = jnp.where(drawn & ~is_large, extent, 0.0)
    return jnp.concatenate([first, extent]).astype(jnp.int32), drawn & is_large


def _signed_area(corners: Array) -> Array:
    """Twice the area (T,) of triangles (3, 3, T), positive if clockwise as seen (y is down)."""
    u, v = corners[1] - corners[0], corners[2] - corners[0]
    return u[0] * v[1] - u[1] * v[0]


def _edges(corners: Array) -> list[tuple[Array, Array, Array, Array]]:
    """The edges (3, 4, T) opposite each corner of triangles (3, 3, T): start, then direction.

    A point is inside when direction x (point - start) >= 0 for all three. Each edge starts at
    its lexicographically smaller end, and the sign goes into the direction. So two triangles that
    share an edge compute the same number, and rounding leaves no gap between them.
    """
    sign = jnp.sign(_signed_area(corners))
    edges = []
    for k in range(3):
        (ax, ay), (bx, by) = corners[k - 2, :2], corners[k - 1, :2]
        swap = (ax > bx) | ((ax == bx) & (ay > by))
        side = jnp.where(swap, -sign, sign)
        sx, sy = jnp.where(swap, bx, ax), jnp.where(swap, by, ay)
        ex, ey = jnp.where(swap, ax, bx), jnp.where(swap, ay, by)
        edges.append((sx, sy, (ex - sx) * side, (ey - sy) * side))
    return edges


def _depth_at(corners: Array, x: Array, y: Array, perspective_correct: bool) -> Array:
    """Depth of triangles (3, 3, ...) at pixels; +inf outside."""
    z = corners[:, 2]
    x, y = x.astype(z.dtype), y.astype(z.dtype)
    weights = [dx * (y - sy) - dy * (x - sx) for sx, sy, dx, dy in _edges(corners)]
    total = weights[0] + weights[1] + weights[2]
    inside = (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0) & (total > 0)
    scale = 1.0 / z if perspective_correct else z
    blended = sum(w * s for w, s in zip(weights, scale, strict=True))
    depth = total / blended if perspective_correct else blended / total
    return jnp.where(inside, depth, jnp.inf)


def _draw_chunks(buffers: Buffers, rows: Array, boxes: Array, perspective_correct: bool) -> Buffers:
    """Draw triangles, each over its box (4, T), see `_boxes`."""
    size, n_triangles = len(buffers[0]), len(rows)
    tests = CHUNK_TESTS_CPU if jax.default_backend() == "cpu" else CHUNK_TESTS_ACCELERATOR
    chunk = tests // RUN
    ends = jnp.cumsum((boxes[2] * boxes[3] + RUN - 1) // RUN)
    begins = jnp.concatenate([jnp.zeros(1, jnp.int32), ends[:-1]])
    box_rows = lax.optimization_barrier(jnp.concatenate([boxes, begins[None]]).T)

    def body(i: Array, buffers: Buffers) -> Buffers:
        zbuf, face = buffers
        # The index of a run's triangle is the number of triangles whose runs end before it.
        passed = jnp.maximum(ends - i * chunk, 0)
        passed = jnp.zeros(chunk, jnp.int32).at[passed].add(1, mode="drop")
        triangle = jnp.minimum(jnp.cumsum(passed), n_triangles - 1)
        corners, (left, top, width, height, begin) = lax.optimization_barrier(
            (rows[triangle], box_rows[triangle].T)
        )
        run = i * chunk + jnp.arange(chunk, dtype=jnp.int32) - begin
        place = RUN * run + jnp.arange(RUN)[:, None]
        # Division of floats is exact for boxes of up to `MAX_BOX_PX`, and many times faster than
        # that of integers. After the last run the width may be 0.
        line = ((place + 0.5) / jnp.maximum(width, 1)).astype(jnp.int32)
        x, y = left + place - line * width, top + line
        depth = _depth_at(_components(corners), x, y, perspective_correct)
        hit = (line < height) & (depth < jnp.inf)
        # Both scatters must see the very same depths, not two roundings of one expression.
        depth, pixel = lax.optimization_barrier((depth, jnp.where(hit, y * size + x, size**2)))
        nearest = zbuf.at[pixel].min(depth, mode="drop")
        face = jnp.where(nearest < zbuf, n_triangles, face)
        won = depth == nearest.at[pixel].get(mode="fill", fill_value=-jnp.inf)
        winner = jnp.broadcast_to(triangle, pixel.shape)
        return nearest, face.at[jnp.where(won, pixel, size**2)].min(winner, mode="drop")

    flat = tuple(b.reshape(-1) for b in buffers)
    flat = lax.fori_loop(0, (ends[-1] + chunk - 1) // chunk, body, flat)
    return tuple(b.reshape(size, size) for b in flat)


def _draw_one_by_one(
    buffers: Buffers, rows: Array, chosen: Array, perspective_correct: bool
) -> Buffers:
    """Draw the chosen (T,) triangles one after the other, over the whole image."""
    y, x = np.mgrid[: len(buffers[0]), : len(buffers[0])]

    def body(_: Array, state: tuple[Buffers, Array]) -> tuple[Buffers, Array]:
        (zbuf, face), left = state
        triangle = jnp.argmax(left).astype(jnp.int32)
        corners = rows[triangle].reshape(3, 3, 1, 1)
        depth = _depth_at(corners, x, y, perspective_correct)
        tie = (depth == zbuf) & (triangle < face) & (depth < jnp.inf)
        won = (depth < zbuf) | tie
        drawn = jnp.where(won, depth, zbuf), jnp.where(won, triangle, face)
        return drawn, left.at[triangle].set(False)

    return lax.fori_loop(0, chosen.sum(), body, (buffers, chosen))[0]
