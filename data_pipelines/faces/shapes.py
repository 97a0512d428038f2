"""Shapes for painting over an image: signed distances, alpha layers, and the pose of the head.

A grid is the pair of planes (x, y), each (s, s), of pixel centres. Distances are in pixels (or in
the units of the coordinates that go in), negative inside.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from dfc_jax.types import Array, ByValue

Grid = tuple[Array, Array]

# Landmarks that move little with the expression, and where the mean face of the model has them
# (millimetres, model space); the face's left half mirrors the right.
_ANCHORS = (8, 27, 30, 33, 31, 35, 36, 45, 39, 42, 48, 54)
_ANCHORS_MM = (
    (0.0, -75.7, 104.3),
    (0.0, 40.4, 106.6),
    (0.0, 3.2, 130.7),
    (0.0, -11.8, 115.8),
    (-12.9, -10.5, 108.6),
    (12.9, -10.5, 108.6),
    (-44.3, 35.8, 85.9),
    (44.3, 35.8, 85.9),
    (-18.8, 33.3, 92.0),
    (18.8, 33.3, 92.0),
    (-26.8, -35.2, 101.8),
    (26.8, -35.2, 101.8),
)
_SOLVE = np.linalg.pinv(np.column_stack([_ANCHORS_MM, np.ones(len(_ANCHORS))])).astype(np.float32)
# The skull behind the face, millimetres of model space.
SKULL_MM, SKULL_AXES_MM = (0.0, 45.0, 10.0), (78.0, 93.0, 96.0)
# What hangs on the head fades in while its scale grows from the first to the second of these
# (pixels per millimetre).
_SMALLEST_HEAD = (0.05, 0.12)
# Landmark coordinates are clipped to this many pixels either side of the origin.
NEVER_FAR = 1e4


@struct.dataclass(eq=False)
class Layer(ByValue):
    """Soft shapes (...), painted in the order of their leading axis.

    Attributes:
      alpha: (..., s, s) opacity in [0, 1].
      tone: (..., s, s) in [0, 1], which of the two colours.
      colors: (..., 2, 3) RGB for tone 0 and for tone 1.
    """

    alpha: Array
    tone: Array
    colors: Array


@struct.dataclass(eq=False)
class Head(ByValue):
    """The weak-perspective pose of a head: ``pixel = matrix @ model_mm + offset``.

    Attributes:
      matrix: (2, 3) pixels per millimetre, scaled rotation.
      offset: (2,) pixel of the model's origin.
      scale: () pixels per millimetre, positive.
      shown: () in [0, 1], opacity of what hangs on the head; 0 for a very small head.
    """

    matrix: Array
    offset: Array
    scale: Array
    shown: Array


def pixel_planes(size: int) -> Grid:
    """Pixel centres as two planes (s, s), x and y."""
    x, y = (jax.lax.broadcasted_iota(jnp.float32, (size, size), axis) for axis in (1, 0))
    return x, y


def find_head(landmarks_xy: Array) -> Head:
    """The pose of the head whose 68 landmarks lie at these pixels (68, 2): linear least squares on
    those landmarks that the expression hardly moves. Finite for any input."""
    points = landmarks_xy[jnp.array(_ANCHORS)]
    points = jnp.clip(jnp.nan_to_num(points), -NEVER_FAR, NEVER_FAR)
    solved = jnp.asarray(_SOLVE) @ points
    scale = jnp.sqrt(jnp.sum(solved[:3] ** 2) / 2.0)
    return Head(
        matrix=solved[:3].T,
        offset=solved[3],
        scale=jnp.maximum(scale, _SMALLEST_HEAD[0]),
        shown=smoothstep(*_SMALLEST_HEAD, scale),
    )


def at(head: Head, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Array:
    """The pixel (2,) that shows a point of model space, millimetres."""
    return head.matrix @ jnp.stack([jnp.float32(x), jnp.float32(y), jnp.float32(z)]) + head.offset


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 up to `low`, 1 from `high` on, smooth between; falls instead of rising if high < low."""
    t = jnp.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def wave(turns: Array) -> Array:
    """A smooth wave in [0, 1] of period 1, 0 at whole turns; ten times cheaper than a cosine."""
    return smoothstep(1.0, 0.0, jnp.abs(2.0 * (turns - jnp.floor(turns)) - 1.0))


def soft(distance: Array) -> Array:
    """Opacity of a shape: 1 inside, 0 outside, one pixel of transition."""
    return jnp.clip(0.5 - distance, 0.0, 1.0)


def moved(grid: Grid, centre: Array, angle: ArrayLike = 0.0) -> Grid:
    """Coordinates about `centre` (2,), turned so that the x axis points to `angle` (radians)."""
    x, y = grid[0] - centre[0], grid[1] - centre[1]
    c, s = jnp.cos(angle), jnp.sin(angle)
    return c * x + s * y, c * y - s * x


def box(grid: Grid, half: Array, radius: ArrayLike = 0.0) -> Array:
    """Distance to the box of half extents (2,) about the origin, its corners rounded inside."""
    qx = jnp.abs(grid[0]) - half[0] + radius
    qy = jnp.abs(grid[1]) - half[1] + radius
    outside = jnp.sqrt(jnp.maximum(qx, 0.0) ** 2 + jnp.maximum(qy, 0.0) ** 2)
    return outside + jnp.minimum(jnp.maximum(qx, qy), 0.0) - radius


def capsule(grid: Grid, a: Array, b: Array, radius: Array) -> Array:
    """Distance to all that is within `radius` of the segment from a (2,) to b (2,)."""
    x, y, d = grid[0] - a[0], grid[1] - a[1], b - a
    t = jnp.clip((x * d[0] + y * d[1]) / jnp.maximum(d @ d, 1e-6), 0.0, 1.0)
    return jnp.sqrt((x - t * d[0]) ** 2 + (y - t * d[1]) ** 2) - radius


def convex(grid: Grid, angles: Array, offsets: Array) -> Array:
    """The convex polygon whose N sides face `angles` (N,) at `offsets` (N,) from the origin;
    exact inside and beside the sides, too small a distance beyond the corners."""

    c, s = jnp.cos(angles), jnp.sin(angles)
    # Unrolled, here and in `ripples`: a few planes in registers instead of in memory.
    sides = [c[i] * grid[0] + s[i] * grid[1] - offsets[i] for i in range(len(offsets))]
    return functools.reduce(jnp.maximum, sides)


def polygon(grid: Grid, corners: Array) -> Array:
    """Exact distance to a polygon (N, 2) in either order; inside is where it winds around."""

    def add(found: tuple[Array, Array], edge: tuple[Array, Array]) -> tuple:
        a, b = edge
        x, y, d = grid[0] - a[0], grid[1] - a[1], b - a
        t = jnp.clip((x * d[0] + y * d[1]) / jnp.maximum(d @ d, 1e-6), 0.0, 1.0)
        squared = (x - t * d[0]) ** 2 + (y - t * d[1]) ** 2
        left = d[0] * y - d[1] * x > 0.0
        up = (grid[1] >= a[1]) & (grid[1] < b[1]) & left
        down = (grid[1] < a[1]) & (grid[1] >= b[1]) & ~left
        turn = up.astype(jnp.float32) - down
        return (jnp.minimum(found[0], squared), found[1] + turn), None

    start = jnp.full_like(grid[0], jnp.inf), jnp.zeros_like(grid[0])
    (squared, turns), _ = jax.lax.scan(add, start, (corners, jnp.roll(corners, -1, axis=0)))
    distance = jnp.sqrt(squared)
    return jnp.where(turns != 0.0, -distance, distance)


def inside_polygon(grid: Grid, points: Array) -> Array:
    """Pixels (s, s) bool inside a polygon of corners (N, 2), by the even-odd rule."""
    x, y = grid
    inside = jnp.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, jnp.roll(points, -1, axis=0), strict=True):
        crosses = (ay > y) != (by > y)
        # Where a side crosses the row; never asked of a side along it.
        at = ax + (bx - ax) * (y - ay) / jnp.where(by == ay, 1.0, by - ay)
        inside ^= crosses & (x < at)
    return inside


def ellipsoid(
    head: Head, grid: Grid, centre_mm: Array, axes_mm: Array
) -> tuple[Array, tuple[Array, ...]]:
    """The ellipsoid (in model space, millimetres) as the head's camera sees it.

    Returns:
      distance (s, s) to its silhouette, exact to first order, and the planes x, y, z of the point
      of the unit sphere that is stretched to the surface point which each pixel sees; outside of
      the silhouette a longer vector in the plane of the outline.
    """
    sphere = head.matrix * axes_mm
    # Half a pixel is added to every radius, so that an ellipsoid seen edge-on is still one.
    (a, b), (_, d) = sphere @ sphere.T + 0.25 * jnp.eye(2)
    centre = head.matrix @ centre_mm + head.offset
    x, y = grid[0] - centre[0], grid[1] - centre[1]
    determinant = a * d - b * b
    qx, qy = (d * x - b * y) / determinant, (a * y - b * x) / determinant
    squared = x * qx + y * qy
    radius = jnp.sqrt(squared + 1e-6)
    distance = (squared - radius) / (jnp.sqrt(qx * qx + qy * qy) + 1e-9)
    normal = jnp.cross(sphere[1], sphere[0])
    normal = normal / jnp.maximum(jnp.linalg.norm(normal), 1e-9)
    height = jnp.sqrt(jnp.maximum(1.0 - squared, 0.0))
    x, y, z = (sphere[0, i] * qx + sphere[1, i] * qy + normal[i] * height for i in range(3))
    return distance, (x, y, z)


def ripples(coordinate: Array, turns: Array, phase: Array) -> Array:
    """Streaks: the mean of N waves of `turns` (N,) per unit and `phase` (N,), in [0, 1]."""
    waves = (wave(turns[i] * coordinate + phase[i]) for i in range(len(turns)))
    return functools.reduce(operator.add, waves) / len(turns)


def paint(image: Array, layers: list[Layer]) -> Array:
    """An image (s, s, 3) with layers laid over it, the last on top, cut to [0, 1]."""
    planes = jnp.moveaxis(image, -1, 0)
    for layer in layers:
        for alpha, tone, (dark, light) in zip(*_flat(layer), strict=True):
            color = dark[:, None, None] + (light - dark)[:, None, None] * tone
            planes = planes + alpha * (color - planes)
    return jnp.moveaxis(jnp.clip(planes, 0.0, 1.0), 0, -1)


def opacity(layers: list[Layer]) -> Array:
    """(s, s) opacity of the most opaque layer at each pixel."""
    return functools.reduce(jnp.maximum, [a for layer in layers for a in _flat(layer)[0]])


def _flat(layer: Layer) -> tuple[Array, Array, Array]:
    alpha, tone = (x.reshape(-1, *x.shape[-2:]) for x in (layer.alpha, layer.tone))
    return alpha, tone, layer.colors.reshape(-1, 2, 3)


class RandomStream:
    """Uniform random numbers of one key, sampled in one call and handed out in order.

    `jax.random` compiles every call anew, and a picture needs dozens: sampling them one by one
    would take longer to compile than painting the picture.
    """

    def __init__(self, uniforms: Array) -> None:
        """A stream of `uniforms` (N,), which are uniform in [0, 1)."""
        self._uniforms, self._used = uniforms, 0

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple = ()) -> Array:
        """The next numbers, uniform in [low, high), of this shape.

        Raises:
          IndexError: the stream has no more numbers.
        """
        first, self._used = self._used, self._used + math.prod(shape)
        if self._used > len(self._uniforms):
            raise IndexError(f"a picture needs more than {len(self._uniforms)} random numbers")
        return low + (high - low) * self._uniforms[first : self._used].reshape(shape)

    def normal(self, shape: tuple = ()) -> Array:
        """Nearly normal numbers of this shape, mean 0, standard deviation 1, within +-3: twice
        the sum of three uniforms in [-0.5, 0.5)."""
        return 2.0 * jnp.sum(self.uniform(-0.5, 0.5, (3, *shape)), axis=0)

    def bernoulli(self, probability: float) -> Array:
        """1 with this probability, else 0; float32."""
        return (self.uniform() < jnp.float32(probability)).astype(jnp.float32)

    def choice(self, count: int) -> Array:
        """An index below `count`, int32."""
        return jnp.minimum((count * self.uniform()).astype(jnp.int32), count - 1)


def cloth_colors(rng: RandomStream) -> Array:
    """Two colours (2, 3): mostly shades of one, at times two different ones."""
    first, other = rng.uniform(0.02, 0.95, (2, 3))
    grey = jnp.mean(first)
    first = grey + rng.uniform() * (first - grey)
    shade = first * rng.uniform(0.35, 0.8)
    return jnp.stack([jnp.where(rng.bernoulli(0.25) > 0, other, shade), first])


def unit(vector: Array) -> Array:
    """The vector (N,) at length 1; zero stays zero."""
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-6)
