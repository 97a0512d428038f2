"""Light for rendered faces: spherical-harmonics environments, cast shadows and highlights.

Everything is in camera space (x right, y down, z away from the camera); the spherical-harmonics
coefficients are those of `dfc_jax.raster.shade`. One face per call, pure, for ``vmap``.
"""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.errors import DatasetError
from dfc_jax.files import load_arrays, write_npz
from dfc_jax.raster.shade import N_SH, sh_basis
from dfc_jax.types import Array, ByValue

# Factors of the clamped cosine on the bands of the basis (Ramamoorthi and Hanrahan 2001).
_COSINE = math.pi * np.repeat([1.0, 2.0 / 3.0, 1.0 / 4.0], [1, 3, 5])
_LUMA = np.array([0.299, 0.587, 0.114])
# Mean of the basis over the pixels of a sphere (its visible half), and over all directions.
_FACING = np.zeros(N_SH)
_FACING[0] = math.sqrt(1.0 / (4.0 * math.pi))
_FACING[2] = -2.0 / 3.0 * math.sqrt(3.0 / (4.0 * math.pi))
_FACING[6] = 0.5 * math.sqrt(5.0 / (16.0 * math.pi))
_AROUND = np.eye(N_SH)[0] * _FACING[0]
# Change of log RGB per 100 mired (1e6 / kelvin), a straight line through black bodies of 3,000
# to 12,000 K; positive is warmer.
_MIRED = np.array([0.4, 0.0, -0.6])
_FRONTAL = np.zeros((N_SH, 3))
_FRONTAL[0], _FRONTAL[2] = 2.4, -0.8
_MIRROR = np.array([-1.0, 1.0, 1.0])
# Waves that make up the pattern of a shadow.
_N_WAVES = 5
# Reflectance of skin at normal incidence.
_SKIN = 0.035
# Where `soft_clip` begins to saturate.
_KNEE = 0.7

# One row per lobe: direction x y z to the light and its spread | intensity from, to | softness
# from, to (radians) | warmth from, to (mired from daylight) | spread of log RGB beside it.
# Directions are mirrored left to right at random; the last lobe is ambient light.
_ENVIRONMENTS = {
    "overcast": (
        (0.0, -1.0, -0.2, 0.2, 1.0, 1.0, 0.7, 1.1, -20, 30, 0.03),
        (0.0, 1.0, -0.3, 0.3, 0.1, 0.4, 0.8, 1.2, 0, 40, 0.1),
        (0.0, 0.0, -1.0, 0.0, 0.3, 1.2, 3.0, 3.0, -20, 20, 0.03),
    ),
    "sun": (
        (0.0, -0.7, -0.5, 0.7, 1.0, 1.0, 0.02, 0.15, 0, 80, 0.03),
        (0.0, -1.0, 0.0, 0.3, 0.15, 0.6, 0.7, 1.0, -70, -10, 0.03),
        (0.0, 0.0, -1.0, 0.0, 0.4, 1.5, 3.0, 3.0, -30, 40, 0.1),
    ),
    "window": (
        (1.0, -0.15, -0.25, 0.3, 1.0, 1.0, 0.25, 0.6, -50, 20, 0.03),
        (-0.7, -0.2, -0.6, 0.5, 0.0, 0.35, 0.5, 1.0, 0, 150, 0.05),
        (0.0, 0.0, -1.0, 0.0, 0.15, 1.2, 3.0, 3.0, -30, 80, 0.05),
    ),
    "ceiling": (
        (0.0, -1.0, -0.1, 0.45, 1.0, 1.0, 0.1, 0.5, 20, 170, 0.05),
        (0.0, -0.9, -0.4, 0.7, 0.1, 0.8, 0.1, 0.6, 20, 170, 0.05),
        (0.0, 0.0, -1.0, 0.0, 0.6, 2.0, 3.0, 3.0, 0, 120, 0.1),
    ),
    "flash": (
        (0.0, -0.1, -1.0, 0.12, 1.0, 1.0, 0.02, 0.15, -10, 20, 0.02),
        (0.0, -1.0, 0.0, 0.5, 0.0, 0.3, 0.1, 0.6, 0, 170, 0.05),
        (0.0, 0.0, -1.0, 0.0, 0.3, 1.2, 3.0, 3.0, 0, 150, 0.1),
    ),
    "back": (
        (0.5, -0.3, 0.8, 0.4, 1.0, 1.0, 0.05, 0.5, -30, 60, 0.05),
        (0.0, -0.2, -1.0, 0.5, 0.0, 0.25, 0.5, 1.0, -40, 60, 0.05),
        (0.0, 0.0, -1.0, 0.0, 0.1, 0.6, 3.0, 3.0, -40, 40, 0.05),
    ),
    "coloured": (
        (0.8, -0.3, -0.4, 0.4, 1.0, 1.0, 0.1, 0.5, -100, 150, 0.4),
        (-0.8, -0.2, -0.4, 0.4, 0.3, 1.0, 0.1, 0.5, -100, 150, 0.4),
        (0.0, 0.0, -1.0, 0.0, 0.1, 1.0, 3.0, 3.0, -50, 100, 0.2),
    ),
    "studio": (
        (0.3, -0.3, -1.0, 0.2, 1.0, 1.0, 0.3, 0.6, -10, 10, 0.02),
        (-0.4, -0.1, -1.0, 0.2, 0.4, 0.9, 0.3, 0.6, -10, 10, 0.02),
        (0.0, 0.0, -1.0, 0.0, 0.5, 1.5, 3.0, 3.0, -10, 10, 0.02),
    ),
}
ENVIRONMENTS = tuple(_ENVIRONMENTS)
_LOBES = np.array([_ENVIRONMENTS[name] for name in ENVIRONMENTS], np.float32)


@dataclasses.dataclass(frozen=True)
class LightSettings:
    """How rendered faces are lit; probabilities, unless said otherwise.

    Attributes:
      vary: random light; the other faces get one fixed frontal light. It also multiplies `shadow`
        and `highlights`: at 0 every face is lit alike.
      environments: weight of each of `ENVIRONMENTS`; they need not add up to 1.
      exposure: irradiance that the camera aims at on the whole face (1 shows the albedo as it
        is), and the standard deviation of its logarithm.
      white_balance: share of the light's colour that the camera takes out, from, to.
      shadow: something casts a shadow on the face.
      shadow_strength: share of the light that they take away, from, to.
      highlights: the skin reflects specularly.
      highlight_strength: factor on the reflection of skin, from, to (log-uniform).
      highlight_exponent: of the Blinn-Phong lobe without gloss, from, to (log-uniform).
    """

    vary: float = 1.0
    environments: tuple[float, ...] = (0.15, 0.2, 0.2, 0.12, 0.1, 0.1, 0.05, 0.08)
    exposure: tuple[float, float] = (0.85, 0.28)
    white_balance: tuple[float, float] = (0.6, 1.0)
    shadow: float = 0.25
    shadow_strength: tuple[float, float] = (0.2, 0.75)
    highlights: float = 0.85
    highlight_strength: tuple[float, float] = (0.4, 2.0)
    highlight_exponent: tuple[float, float] = (6.0, 25.0)


@struct.dataclass(eq=False)
class LightPrior(ByValue):
    """Gaussian of lights: ``(mean (27,) + components (27, k) @ normal (k,)).reshape(9, 3)``."""

    mean: Array
    components: Array


def lobe_irradiance(direction: Array, softness: Array) -> Array:
    """(9,) irradiance of a light of unit power in a direction (3,) of unit length to it.

    Its radiance is the sphere's Gaussian (heat kernel) of `softness` radians, which scales band l
    by ``exp(-l (l + 1) softness^2 / 2)``. A hard light, softness 0, gives the clamped cosine.
    """
    band = np.repeat([0.0, 1.0, 2.0], [1, 3, 5])
    spread = jnp.exp(-0.5 * band * (band + 1.0) * softness**2)
    return spread * _COSINE * sh_basis(direction)


def _between(share: Array, ends: tuple[float, float]) -> Array:
    """Interpolate geometrically between two positive numbers: the first at 0, the second at 1."""
    return ends[0] * (ends[1] / ends[0]) ** share


def _unit(vectors: Array) -> Array:
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))


def _environment(key: Array, settings: LightSettings) -> Array:
    """(9, 3) light of a random environment, before the camera's exposure."""
    keys = jax.random.split(key)
    normal = jax.random.normal(keys[0], (2, _LOBES.shape[1], 3))
    uniform = jax.random.uniform(keys[1], (_LOBES.shape[1] + 1, 3))
    weight = jnp.cumsum(jnp.asarray(settings.environments, jnp.float32))
    lobes = jnp.asarray(_LOBES)[jnp.sum(uniform[0, 0] * weight[-1] > weight[:-1])]
    side = jnp.where(uniform[0, 1] < 0.5, 1.0, _MIRROR)
    direction = _unit(side * lobes[:, :3] + lobes[:, 3:4] * normal[0])
    ranges = lobes[:, 4:10].reshape(-1, 3, 2)
    drawn = ranges[..., 0] + uniform[1:] * (ranges[..., 1] - ranges[..., 0])
    intensity, softness, mired = drawn[:, 0], drawn[:, 1], drawn[:, 2:]
    color = intensity[:, None] * jnp.exp(mired / 100.0 * _MIRED + lobes[:, 10:] * normal[1])
    return jax.vmap(lobe_irradiance)(direction, softness).T @ color


def _expose(key: Array, sh: Array, settings: LightSettings) -> Array:
    """Apply the camera's exposure, metered mostly on the face, and its white balance, which takes
    out most of a colour cast, to a light (9, 3)."""
    keys = jax.random.split(key)
    low, high = settings.white_balance
    balance = low + (high - low) * jax.random.uniform(keys[0])
    metered = jnp.maximum((0.75 * _FACING + 0.25 * _AROUND) @ sh, 1e-3)
    level, spread = settings.exposure
    wanted = level * jnp.exp(spread * jnp.clip(jax.random.normal(keys[1]), -2.5, 2.5))
    return sh * wanted * metered**-balance * (_LUMA @ metered) ** (balance - 1.0)


def sample_light(key: Array, settings: LightSettings, prior: LightPrior | None = None) -> Array:
    """(9, 3) light for `dfc_jax.raster.shade.sh_irradiance`: of `prior` where one is given, else
    of one of `ENVIRONMENTS`, each a few lobes of random direction, softness and colour.

    The irradiance of normals turned away from all light can be slightly negative: clip it.
    """
    keys = jax.random.split(key, 3)
    if prior is None:
        varied = _expose(keys[1], _environment(keys[0], settings), settings)
    else:
        normal = jax.random.normal(keys[0], prior.components.shape[1:])
        varied = (prior.mean + prior.components @ normal).reshape(N_SH, 3)
    return jnp.where(jax.random.bernoulli(keys[2], settings.vary), varied, _FRONTAL)


def shadow(key: Array, positions_mm: Array, normals: Array, settings: LightSettings) -> Array:
    """Factor (V,) in [0, 1] on the light at vertices (V, 3) with unit normals (V, 3), any frame.

    Three kinds: parallel edges (a hat's brim or half a face where they are far apart, blinds
    where they are close), patches as under leaves, and a side turned away from one hard light.
    """
    keys = jax.random.split(key)
    directions = _unit(jax.random.normal(keys[0], (1 + _N_WAVES, 3)))
    u = jax.random.uniform(keys[1], (6 + 2 * _N_WAVES,))
    phase, spread = u[6 : 6 + _N_WAVES], u[6 + _N_WAVES :]
    parallel, turned_away = u[0] < 1.0 / 3.0, u[0] > 2.0 / 3.0
    # The caster is far from the face: the pattern is constant along the light's direction.
    toward = directions[0]
    waves = _unit(jnp.cross(toward, directions[1:]))
    length_mm = jnp.where(parallel, _between(u[1], (25.0, 400.0)), 30.0 * jnp.exp(spread))
    amplitude = jnp.where(parallel, np.eye(_N_WAVES)[0], math.sqrt(1.0 / _N_WAVES))
    centred = positions_mm - jnp.mean(positions_mm, axis=0)
    pattern = _wave(centred @ (waves / length_mm[:, None]).T + phase) @ amplitude
    field = jnp.where(turned_away, normals @ toward, pattern) - (u[2] - 0.5)
    # Change of the field per mm; the normals of a head turn by about 1 radian in 80 mm.
    slope = jnp.where(turned_away, 1.0 / 80.0, 2.0 * math.pi / length_mm[0])
    edge_mm = _between(u[3], (4.0, 25.0))
    t = jnp.clip(0.5 - field / (slope * edge_mm), 0.0, 1.0)
    low, high = settings.shadow_strength
    strength = low + (high - low) * u[4]
    cast = jnp.where(u[5] < settings.shadow * settings.vary, strength, 0.0)
    return 1.0 - cast * t * t * (3.0 - 2.0 * t)


def _wave(turns: Array) -> Array:
    """A sine of period 1 approximated by parabolas, within 0.06 and many times cheaper."""
    t = turns - jnp.round(turns)
    return 16.0 * t * (0.5 - jnp.abs(t))


def highlights(
    key: Array,
    normals: Array,
    vertices_mm: Array,
    sh: Array,
    gloss: Array,
    settings: LightSettings,
) -> Array:
    """Specular light (V, 3) of skin: Blinn-Phong, normalised, with Schlick's Fresnel term.

    Args:
      key: for the exponent and the strength.
      normals: (V, 3) unit normals, camera space.
      vertices_mm: (V, 3) camera space; the camera is at the origin.
      sh: (9, 3) light; its first band holds the direction, power and colour of the lamp.
      gloss: (V,) in [0, 1]; 0 for no specular light.
      settings: ranges.
    """
    u = jax.random.uniform(key, (3,))
    band = jnp.stack([sh[3], sh[1], sh[2]])
    to_light = _unit(band @ jnp.asarray(_LUMA, band.dtype))
    hard = _COSINE[1] * math.sqrt(3.0 / (4.0 * math.pi))
    power = jnp.maximum(to_light @ band, 0.0) / hard
    to_camera = _unit(-vertices_mm)
    half = _unit(to_light + to_camera)
    exponent = _between(u[0], settings.highlight_exponent) * (1.0 + 3.0 * gloss)
    strength = _between(u[1], settings.highlight_strength)
    lit = jnp.maximum(normals @ to_light, 0.0)
    lobe = jnp.clip(jnp.sum(normals * half, axis=-1), 0.0, 1.0) ** exponent
    grazing = 1.0 - jnp.clip(half @ to_light, 0.0, 1.0)
    fresnel = _SKIN + (1.0 - _SKIN) * grazing**5
    shining = u[2] < settings.highlights * settings.vary
    scale = jnp.where(shining, strength, 0.0) * gloss * fresnel * (exponent + 8.0) / 8.0
    return (scale * lobe * lit)[:, None] * power


def soft_clip(radiance: Array) -> Array:
    """Tone-map radiance to [0, 1]: linear up to 0.7, then saturating exponentially."""
    above = jnp.maximum(radiance - _KNEE, 0.0) / (1.0 - _KNEE)
    return jnp.clip(radiance, 0.0, _KNEE) + (1.0 - _KNEE) * (1.0 - jnp.exp(-above))


def save_light_prior(path: str | Path, prior: LightPrior) -> None:
    """Write a prior as ``.npz`` with `mean` (27,) and `components` (27, k).

    Raises:
      ExportError: it cannot be written there.
    """
    mean, components = (np.asarray(a, np.float32) for a in (prior.mean, prior.components))
    write_npz(path, mean=mean, components=components)


def load_light_prior(path: str | Path) -> LightPrior:
    """Read what `save_light_prior` wrote.

    Raises:
      DatasetError: the file is missing, is no such file, or holds anything else.
    """
    try:
        arrays = load_arrays(path, ("mean", "components"))
        with np.errstate(over="ignore"):
            mean, components = (
                arrays[name].astype(np.float32, casting="same_kind")
                for name in ("mean", "components")
            )
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such light prior; leave it out for the default") from error
    except Exception as error:  # numpy and zipfile raise many kinds for a broken file
        raise DatasetError(
            f"{path}: is not a light prior; it needs the arrays mean and components in an .npz"
        ) from error
    size = 3 * N_SH
    if mean.shape != (size,) or components.ndim != 2 or components.shape[0] != size:
        raise DatasetError(
            f"{path}: a light prior needs mean ({size},) and components ({size}, k), not "
            f"{mean.shape} and {components.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(components).all()):
        raise DatasetError(f"{path}: the light prior is not finite; make it again")
    return LightPrior(mean=jnp.asarray(mean), components=jnp.asarray(components))
