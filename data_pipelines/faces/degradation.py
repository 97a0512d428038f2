"""What a camera does to a picture, for rendered faces and photographs alike.

The order is a camera's: motion and defocus, the sensor's own pixels and their noise, colours and
tone, JPEG blocks, and the picture enlarged again. Whatever has two axes is a pair of matrix
products, ``rows @ image @ columns^T``: resampling to a random resolution, blur and the blocks'
cosine transform then cost the same for every draw, and nothing has a shape that depends on one.
Inside, pictures are (s, 3, s), row by row the three channels: both products then need no
transposition.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.pictures import CHROMINANCE, COSINES, LUMINANCE, TO_YCC
from dfc_jax.types import Array

_BLOCK = 8
# Farthest that a copy moves in `motion_blur`.
_REACH = 8
# The level that is coded as 0.
_GREY = 128.0 / 255.0
_TO_RGB = np.linalg.inv(TO_YCC).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class DegradationSettings:
    """Strengths of what a camera does. All colours vary; the picture suffers in a share of cases.

    Attributes:
      exposure, cast, contrast, gamma, saturation: standard deviation of the logarithm of the
        brightness, of each channel's gain, of the contrast, of the exponent and of the colours'
        strength.
      grey: probability of no colour at all.
      degraded: probability that any of the following happens, each with its own probability.
      defocus, defocus_part: probability; largest radius (standard deviation), parts of the side.
      motion, motion_part: probability; longest trail, parts of the side.
      coarse, coarse_factor: probability of a low resolution; largest factor, most are small.
      noise, noise_level: probability; largest standard deviation of a white pixel's noise.
      jpeg, jpeg_quality: probability; quality from, to, as libjpeg counts.
    """

    exposure: float = 0.13
    cast: float = 0.07
    contrast: float = 0.13
    gamma: float = 0.16
    saturation: float = 0.2
    grey: float = 0.08
    degraded: float = 0.6
    defocus: float = 0.3
    defocus_part: float = 0.015
    motion: float = 0.12
    motion_part: float = 0.06
    coarse: float = 0.35
    coarse_factor: float = 6.0
    noise: float = 0.6
    noise_level: float = 0.08
    jpeg: float = 0.6
    jpeg_quality: tuple[float, float] = (20.0, 95.0)


def degrade(key: Array, image: Array, settings: DegradationSettings) -> Array:
    """A picture (s, s, 3) in [0, 1] as one camera or another would have taken it.

    Nothing moves: blur and resampling are centred. With every strength and `degraded` at 0 the
    picture stays as it is.
    """
    keys = jax.random.split(key, 3)
    size, padded = image.shape[0], -(-image.shape[0] // _BLOCK) * _BLOCK
    chance, strength = jax.random.uniform(keys[0], (2, 8))
    is_degraded = chance[0] < settings.degraded

    def sometimes(number: int, probability: float, value: Array, otherwise: float = 0.0) -> Array:
        return jnp.where(is_degraded & (chance[number] < probability), value, otherwise)

    trail_px = sometimes(1, settings.motion, settings.motion_part * size * strength[1])
    blur_px = sometimes(2, settings.defocus, settings.defocus_part * size * strength[2])
    factor = sometimes(3, settings.coarse, settings.coarse_factor ** strength[3] ** 1.5, 1.0)
    sigma = sometimes(4, settings.noise, settings.noise_level * strength[4] ** 2)
    low, high = settings.jpeg_quality
    quality = sometimes(5, settings.jpeg, low + (high - low) * strength[5], jnp.inf)
    # The blocks begin anywhere, as far as there is room.
    shift = jnp.minimum(_BLOCK, size - size / factor) * strength[6]

    smaller = shrinking(size, padded, factor, blur_px, shift)
    # The planes of the picture go straight into a matrix product, as whoever paints them makes
    # them: from colours side by side, or through the copies of a moving camera, XLA would work
    # out all that made the picture again for each.
    columns = jnp.moveaxis(image, -1, 0).reshape(-1, size) @ smaller.T
    rows = _first_axis(smaller, columns.reshape(3, size, padded).swapaxes(0, 1))
    rows = motion_blur(rows, trail_px / factor, 2.0 * math.pi * strength[7])
    rows = colors(keys[1], sensor_noise(keys[2], rows, sigma), settings)
    rows = jpeg(rows, quality)
    sharpness = -0.75 * chance[6]
    rows = _both_axes(enlarging(padded, size, factor, shift, sharpness), rows)
    return jnp.clip(rows, 0.0, 1.0).swapaxes(1, 2)


def _both_axes(operator: Array, rows: Array) -> Array:
    """``operator @ image @ operator^T`` for every channel of (s, 3, s)."""
    mixed = _first_axis(operator, rows)
    return (mixed.reshape(-1, mixed.shape[2]) @ operator.T).reshape(*mixed.shape[:2], -1)


def _first_axis(operator: Array, rows: Array) -> Array:
    return (operator @ rows.reshape(rows.shape[0], -1)).reshape(-1, *rows.shape[1:])


def motion_blur(rows: Array, length_px: Array, angle: Array) -> Array:
    """Mean of 8 copies of (s, 3, s) along a centred trail; a length of 0 changes nothing.

    Three times the mean of two copies, shifted both ways by whole pixels; at most `_REACH` px
    each, the edge is continued.
    """
    along = length_px * jnp.stack([jnp.sin(angle), jnp.cos(angle)])
    for part in (4.0, 8.0, 16.0):
        step = jnp.clip(jnp.round(along / part), -_REACH, _REACH).astype(jnp.int32)
        wide = jnp.pad(rows, ((_REACH, _REACH), (0, 0), (_REACH, _REACH)), mode="edge")
        there, back = (
            jax.lax.dynamic_slice(wide, (_REACH + s[0], 0, _REACH + s[1]), rows.shape)
            for s in (step, -step)
        )
        rows = 0.5 * (there + back)
    return rows


def shrinking(size: int, rows: int, factor: Array, blur_px: Array, shift: Array) -> Array:
    """(rows, size) operator: blur, then take every `factor`-th pixel, the first after `shift` rows.

    A Gaussian of variance ``blur_px^2 + (factor^2 - 1) / 4`` (the second part is what a coarser
    pixel covers) around each row's place, its weights add up to 1; rows beyond the picture repeat
    its edge. Factor 1 and no blur is the identity.
    """
    centre = jnp.clip((jnp.arange(rows) - shift + 0.5) * factor - 0.5, 0.0, size - 1.0)
    variance = jnp.maximum(blur_px**2 + 0.25 * (factor**2 - 1.0), 1e-2)
    squared = (jnp.arange(size) - centre[:, None]) ** 2
    # Without the row's smallest distance a narrow Gaussian between two pixels would be 0 / 0.
    squared = squared - (centre - jnp.round(centre))[:, None] ** 2
    weight = jnp.exp(-0.5 * squared / variance)
    return weight / jnp.sum(weight, axis=1, keepdims=True)


def enlarging(rows: int, size: int, factor: Array, shift: Array, sharpness: Array) -> Array:
    """(size, rows) operator: Keys' cubic interpolation, undoes the places of `shrinking`.

    `sharpness` is Keys' a: -0.75 overshoots at edges, 0 does not. Factor 1 and no shift is the
    identity.
    """
    place = (jnp.arange(size) + 0.5) / factor - 0.5 + shift
    d = jnp.abs(jnp.arange(rows) - jnp.clip(place, 0.0, rows - 1.0)[:, None])
    a = sharpness
    near = ((a + 2.0) * d - (a + 3.0)) * d**2 + 1.0
    far = a * (((d - 5.0) * d + 8.0) * d - 4.0)
    weight = jnp.where(d < 1.0, near, jnp.where(d < 2.0, far, 0.0))
    return weight / jnp.sum(weight, axis=1, keepdims=True)


def sensor_noise(key: Array, rows: Array, sigma: Array) -> Array:
    """Add noise of standard deviation `sigma` to white, a fifth of it to black, and saturate.

    Photons make the variance grow with the light. Each channel's draw is ten bits of one random
    word per pixel, bent to the tails of a normal distribution up to 2.5 standard deviations.
    """
    word = jax.random.bits(key, (rows.shape[0], 1, rows.shape[2]), jnp.uint32)
    ten = (word >> jnp.array([0, 10, 20], jnp.uint32)[:, None]) & 1023
    u = (ten.astype(jnp.float32) - 511.5) / 512.0
    normal = u * (1.16 + 1.34 * u**4)
    scale = jnp.sqrt(0.04 + 0.96 * jnp.maximum(rows, 0.0))
    return jnp.clip(rows + sigma * scale * normal, 0.0, 1.0)


def colors(key: Array, rows: Array, settings: DegradationSettings) -> Array:
    """White balance, exposure, gamma, contrast and saturation, or no colour, of (s, 3, s)."""
    draw = jnp.clip(jax.random.normal(key, (8,)), -2.5, 2.5)
    gain = jnp.exp(settings.exposure * draw[0] + settings.cast * draw[1:4])
    rows = jnp.clip(rows * gain[:, None], 0.0, 1.0) ** jnp.exp(settings.gamma * draw[4])
    luma = _mix(TO_YCC[:1], rows)
    is_grey = jax.scipy.stats.norm.cdf(draw[5]) < settings.grey
    saturation = jnp.where(is_grey, 0.0, jnp.exp(settings.saturation * draw[6]))
    mean = jnp.mean(luma)
    rows = mean + (luma + saturation * (rows - luma) - mean) * jnp.exp(settings.contrast * draw[7])
    return jnp.clip(rows, 0.0, 1.0)


def _mix(matrix: np.ndarray, rows: Array) -> Array:
    """Colours (s, 3, s) times a small constant matrix; a matrix product would be slower."""
    mixed = [sum(float(w) * rows[:, c] for c, w in enumerate(line)) for line in matrix]
    return jnp.stack(mixed, axis=1)


def jpeg(rows: Array, quality: Array) -> Array:
    """What is left of (s, 3, s), s a multiple of 8, after JPEG at a quality as in libjpeg.

    Instead of halving the chroma's resolution, the upper half of its frequencies is dropped,
    below a quality of 90. An infinite quality changes nothing.
    """
    coefficients = _each_block(COSINES, _mix(TO_YCC, rows - _GREY))
    scale = jnp.where(quality < 50.0, 50.0 / quality, jnp.maximum(2.0 - quality / 50.0, 0.0))
    frequency = np.maximum(*np.mgrid[:_BLOCK, :_BLOCK])
    table = np.stack([LUMINANCE, CHROMINANCE, CHROMINANCE], axis=1)
    step = jnp.clip(jnp.floor(scale * table + 0.5), 1.0, 255.0) / 255.0
    dropped = (frequency >= _BLOCK // 2)[:, None] & np.array([False, True, True])[:, None]
    kept = jnp.where(dropped & (quality < 90.0), 0.0, step)
    blocks = coefficients.reshape(-1, _BLOCK, 3, rows.shape[2] // _BLOCK, _BLOCK)
    whole = jnp.round(blocks / step[:, :, None]) * kept[:, :, None]
    decoded = _GREY + _mix(_TO_RGB, _each_block(COSINES.T, whole.reshape(rows.shape)))
    return jnp.where(jnp.isinf(quality), rows, decoded)


def _each_block(matrix: np.ndarray, rows: Array) -> Array:
    """``matrix @ block @ matrix^T`` for each 8x8 block of each channel of (s, 3, s)."""
    stacked = rows.reshape(-1, _BLOCK, 3 * rows.shape[2])
    stacked = jnp.einsum("kj,bjm->bkm", matrix, stacked)
    return (stacked.reshape(-1, _BLOCK) @ matrix.T).reshape(rows.shape)
