"""Random skin, hair and make-up of a face, as one colour per vertex.

There is no gamma between albedo and image: under an irradiance of 1 the image shows the albedo.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from data_pipelines.faces.skin_maps import SkinMaps, skin_maps
from dfc_jax.raster.shade import sample_texture
from dfc_jax.types import Array, ByValue

__all__ = ["Skin", "SkinMaps", "SkinSettings", "sample_skin", "skin_maps", "texture_albedo"]

# From very light to very dark, in perceptually even steps.
_TONES = (
    (0.92, 0.77, 0.70),
    (0.89, 0.71, 0.61),
    (0.84, 0.64, 0.53),
    (0.77, 0.56, 0.43),
    (0.65, 0.45, 0.33),
    (0.51, 0.34, 0.24),
    (0.37, 0.24, 0.17),
    (0.23, 0.15, 0.11),
)
# Black, dark brown, brown, auburn, dark blond, blond, grey, white.
_HAIRS = (
    (0.05, 0.04, 0.04),
    (0.13, 0.09, 0.07),
    (0.24, 0.16, 0.11),
    (0.36, 0.18, 0.10),
    (0.45, 0.34, 0.22),
    (0.66, 0.53, 0.35),
    (0.45, 0.44, 0.43),
    (0.80, 0.79, 0.77),
)
# Dark brown, brown, hazel, green, blue, grey.
_IRISES = (
    (0.10, 0.06, 0.04),
    (0.23, 0.13, 0.07),
    (0.36, 0.26, 0.13),
    (0.35, 0.40, 0.25),
    (0.33, 0.47, 0.60),
    (0.45, 0.50, 0.53),
)
_BLOOD = (0.06, 0.34, 0.30)  # Share of each channel that full redness absorbs.
_N_WAVES = 4


@dataclasses.dataclass(frozen=True)
class SkinSettings:
    """Ranges of the random skin; every share and strength may be 0, which leaves that out.

    Attributes:
      tones: range of the skin tone, uniform; 0 is the lightest, 1 the darkest.
      variation: spread of brightness, redness and yellowness about the tone.
      blotches: largest relative strength of smooth patches.
      redness: largest redness of cheeks, nose and ears.
      freckles: share of freckled faces.
      moles: share of faces with moles.
      wrinkles: share of faces with lines on the forehead, about the mouth and the eyes, and
        darker rings under them.
      beard: share of faces with a beard, a moustache or stubble.
      makeup: share of faces that wear some.
      hairline: share of faces whose hair reaches the mesh, at forehead and temples.
      brows: largest opacity of the eyebrows.
      gloss: factor of the gloss.
    """

    tones: tuple[float, float] = (0.0, 1.0)
    variation: float = 1.0
    blotches: float = 0.12
    redness: float = 0.6
    freckles: float = 0.2
    moles: float = 0.5
    wrinkles: float = 0.4
    beard: float = 0.4
    makeup: float = 0.3
    hairline: float = 0.85
    brows: float = 0.95
    gloss: float = 1.0


@struct.dataclass(eq=False)
class Skin(ByValue):
    """albedo (V, 3) RGB and gloss (V,), both in [0, 1]; hair (3,), the colour of the hair."""

    albedo: Array
    gloss: Array
    hair: Array


@struct.dataclass(eq=False)
class _Person(ByValue):
    """What the layers of a face share: its tone in [0, 1], the colours (3,) of skin and hair,
    amounts () in [0, 1], white noise (V,) in [0, 1], and smooth noise (V, 3) of deviation 1."""

    tone: Array
    color: Array
    hair: Array
    beard: Array
    makeup: Array
    grain: Array
    waves: Array


def sample_skin(key: Array, maps: SkinMaps, settings: SkinSettings) -> Skin:
    """The skin of a random person: see `SkinSettings` for what varies."""
    # All draws at once: each of them costs more to compile than the arithmetic on it.
    keys = jax.random.split(key, 3)
    u = jax.random.uniform(keys[0], (7, 12))
    grain = jax.random.uniform(keys[1], maps.lips.shape)
    waves = _waves(keys[2], maps.position)
    person = _person(u[0], grain, waves, settings)
    albedo = _complexion(u[1], maps, person, settings)
    albedo = _marks(u[2], albedo, maps, person, settings)
    albedo = _lips_and_makeup(u[3], albedo, maps, person)
    albedo = _hairs(u[4], albedo, maps, person, settings)
    albedo = _eyes(u[5], albedo, maps, person)
    gloss = settings.gloss * _gloss(u[6], maps, person)
    return Skin(jnp.clip(albedo, 0.0, 1.0), jnp.clip(gloss, 0.0, 1.0), person.hair)


def texture_albedo(texture: Array, known: Array, uv: Array, procedural: Array) -> Array:
    """Vertex albedo (V, 3) from a texture, and from a procedural one where it has holes.

    Args:
      texture: (S, S, 3) albedo over the atlas, in [0, 1]; anything finite where unknown.
      known: (S, S) how far each texel can be trusted, in [0, 1].
      uv: (V, 2) atlas coordinates, v up.
      procedural: (V, 3) what to show elsewhere.
    """
    weighted = jnp.concatenate([texture * known[..., None], known[..., None]], axis=-1)
    sampled = sample_texture(weighted, uv)
    # The lookup blends known texels only; their share blends the two albedos.
    return sampled[..., :3] + (1.0 - sampled[..., 3:]) * procedural


def _mix(a: Array, b: Array, share: Array) -> Array:
    """(V, 3): a where the share (V,) is 0, b where it is 1."""
    return a + share[:, None] * (b - a)


def _lookup(table: tuple[tuple[float, ...], ...], at: Array) -> Array:
    """The row at `at` in [0, 1] of a table, interpolated."""
    rows = jnp.asarray(table)
    weight = jnp.maximum(1.0 - jnp.abs(at * (len(table) - 1) - jnp.arange(len(table))), 0.0)
    return weight @ rows


def _person(u: Array, grain: Array, waves: Array, settings: SkinSettings) -> _Person:
    low, high = settings.tones
    tone = low + (high - low) * u[0]
    # Blood absorbs green and blue, carotene absorbs blue; the last row changes the brightness.
    varied = settings.variation * 1.7 * (2.0 * u[8:11] - 1.0)
    absorbed = varied @ jnp.array([[0.0, 0.05, 0.04], [0.0, 0.01, 0.05], [0.05, 0.05, 0.05]])
    color = _lookup(_TONES, tone) * jnp.exp(-absorbed)
    # Light hair is rarer the darker the skin is; grey hair is not.
    grey, light = u[1] < 0.2, (0.8 * u[2] + 0.1) * (1.0 - jnp.minimum(1.2 * tone, 0.95))
    shade = jnp.where(grey, 6.0 / 7.0 + u[2] / 7.0, light)
    is_bearded = u[3] < settings.beard
    makeup_share = settings.makeup / jnp.maximum(1.0 - settings.beard, settings.makeup + 1e-6)
    return _Person(
        tone=tone,
        color=color,
        hair=_lookup(_HAIRS, shade) * (0.8 + 0.4 * u[4]),
        beard=jnp.where(is_bearded, 0.15 + 0.85 * u[5], 0.0),
        # Faces with a beard wear no make-up.
        makeup=jnp.where(~is_bearded & (u[6] < makeup_share), 0.3 + 0.7 * u[7], 0.0),
        grain=grain,
        waves=waves,
    )


def _waves(key: Array, position: Array) -> Array:
    """(V, 3) smooth random functions of position (V, 3), coarse to fine, of deviation 1."""
    directions, phases = jax.random.split(key)
    frequency = jnp.repeat(jnp.array([6.0, 8.0, 11.0]), _N_WAVES)
    vectors = frequency[:, None] * jax.random.normal(directions, (3 * _N_WAVES, 3))
    turn = jax.random.uniform(phases, (3 * _N_WAVES,), maxval=2 * jnp.pi)
    waves = jnp.sin(position @ vectors.T + turn).reshape(-1, 3, _N_WAVES)
    return jnp.sum(waves, axis=-1) * np.sqrt(2.0 / _N_WAVES)


def _complexion(u: Array, maps: SkinMaps, person: _Person, settings: SkinSettings) -> Array:
    """Skin with smooth patches and red cheeks, nose and ears."""
    patches = 0.5 * settings.blotches * u[0] * person.waves[:, 0]
    flush = u[1] * maps.cheeks + u[2] * maps.nose + u[3] * maps.ears
    red = settings.redness * jnp.clip(flush, 0.0, 1.0) * u[4] * (1.0 - 0.6 * person.tone)
    red += 0.5 * settings.blotches * u[5] * person.waves[:, 2]
    taken = red[:, None] * jnp.asarray(_BLOOD)
    return person.color * (1.0 + patches[:, None]) * (1.0 - taken)


def _marks(
    u: Array, albedo: Array, maps: SkinMaps, person: _Person, settings: SkinSettings
) -> Array:
    """Wrinkles, rings under the eyes, freckles and moles."""
    age = jnp.where(u[0] < settings.wrinkles, u[1], 0.0)
    height = 100.0 * maps.position[:, 1]
    spacing, bend = 7.0 + 5.0 * u[2], 4.0 * u[3] * maps.position[:, 0] ** 2
    line = jnp.maximum(jnp.sin(2.0 * jnp.pi * (height / spacing + bend)), 0.0) ** 3
    crow = jnp.maximum(jnp.sin(1.3 * height + 6.0 * u[4]), 0.0) * maps.crow
    dark = 0.20 * u[5] * line * maps.forehead + 0.25 * u[6] * maps.fold + 0.2 * u[7] * crow
    dark += (0.1 + 0.3 * u[4]) * maps.under_eye
    albedo = albedo * (1.0 - age * dark[:, None] * jnp.array([0.8, 1.0, 0.95]))

    v = u[8:]
    density = jnp.where(v[0] < settings.freckles, 0.3 * v[1], 0.0)
    where = 0.2 + jnp.clip(maps.cheeks + maps.nose + 0.4 * maps.forehead, 0.0, 1.0)
    freckle = (person.grain < density * where) * (0.15 + 0.4 * v[2]) * maps.skin
    pigment = person.color * jnp.array([0.62, 0.48, 0.40])
    albedo = _mix(albedo, pigment, freckle * (1.0 - person.tone))
    moles = jnp.where(v[3] < settings.moles, 0.0015 * v[3] / jnp.maximum(settings.moles, 1e-6), 0.0)
    # Most moles are smaller than the distance between vertices, so they are drawn paler.
    return _mix(albedo, person.color * 0.3, 0.6 * (person.grain > 1.0 - moles) * maps.skin)


def _lips_and_makeup(u: Array, albedo: Array, maps: SkinMaps, person: _Person) -> Array:
    natural = albedo * (1.0 - (0.45 + 0.55 * u[0]) * jnp.array([0.22, 0.42, 0.36]))
    albedo = _mix(albedo, natural, maps.lips)
    # Mostly reds, from pink to plum; eye shadow may be anything, but is mostly dark.
    stick = jnp.array([0.35, 0.02, 0.05]) + u[6:9] * jnp.array([0.5, 0.25, 0.35])
    painted = person.makeup * jnp.where(u[1] < 0.8, 0.6 + 0.4 * u[2], 0.0)
    albedo = _mix(albedo, stick, painted * maps.lips)
    blush = person.makeup * u[3] * maps.cheeks * 0.8
    albedo = albedo * (1.0 - blush[:, None] * jnp.asarray(_BLOOD))
    lid = person.makeup * jnp.where(u[4] < 0.6, 0.9 * u[5], 0.0) * maps.lid
    return _mix(albedo, person.color * (0.15 + 0.75 * u[9:12]), lid)


def _hairs(
    u: Array, albedo: Array, maps: SkinMaps, person: _Person, settings: SkinSettings
) -> Array:
    """Beard, hairline, brows and lashes, their opacity random at each vertex."""
    tint = person.hair * jnp.array([1.1, 1.0, 0.95])
    # Full beard, goatee, moustache alone, or chin strap without one.
    full, lip = (u[0] < 0.5).astype(jnp.float32), (u[1] < 0.85).astype(jnp.float32)
    chin = jnp.maximum(full, (u[0] < 0.85).astype(jnp.float32))
    grown = jnp.maximum(full * maps.beard, chin * maps.chin)
    grown = jnp.maximum(grown, jnp.maximum(lip, 1.0 - chin) * maps.moustache)
    thick = 0.75 + 0.5 * person.grain
    # Short stubble looks like a grey shadow, not like the colour of the hair.
    short = 0.5 * person.hair + 0.5 * person.color * jnp.array([0.45, 0.5, 0.55])
    color = jnp.where(person.beard < 0.45, short, tint)
    cover = jnp.clip(1.4 * person.beard * thick * grown, 0.0, 0.95)
    albedo = _mix(albedo, color, cover)

    texture = 0.7 + 0.6 * person.grain[:, None]
    receding = 20.0 * u[2] ** 2 - 6.0 + 3.0 * person.waves[:, 1]
    scalp = jax.nn.sigmoid((maps.hairline_mm - receding) / 2.5) * (0.5 + 0.5 * u[3])
    scalp = jnp.where(u[4] < settings.hairline, scalp, 0.0)
    albedo = _mix(albedo, person.hair * texture, scalp)

    brow_color = person.hair * (0.5 + 0.6 * u[5]) * texture
    width, tail = 2.0 + 3.0 * u[6] ** 1.5, 0.75 + 0.3 * u[7]
    brow = jax.nn.sigmoid((width - maps.brow_mm) / 0.6) * (0.8 + 0.4 * person.grain)
    brow *= jax.nn.sigmoid((tail - maps.brow_along) / 0.05) * settings.brows
    albedo = _mix(albedo, brow_color, jnp.clip(brow * (0.35 + 0.65 * u[8]), 0.0, 1.0))

    upper = jnp.clip(0.5 + 0.5 * u[9] + 0.5 * person.makeup * u[10], 0.0, 1.0)
    lower = 0.4 * u[11] * (0.4 + person.makeup)
    lash = upper * maps.lash_upper + lower * maps.lash_lower
    return _mix(albedo, 0.25 * person.hair + 0.02, jnp.clip(lash, 0.0, 1.0))


def _eyes(u: Array, albedo: Array, maps: SkinMaps, person: _Person) -> Array:
    """White, iris with a dark rim, pupil; both eyes alike. `light.highlights` adds the glints."""
    # Dark eyes are the most common, hence the square, and more so in dark faces.
    color = u[0] ** 2 * jnp.clip(1.3 - 1.6 * person.tone, 0.15, 1.0)
    iris = _lookup(_IRISES, color) * (0.7 + 0.6 * u[1])
    white = jnp.array([0.86, 0.83, 0.80]) * (0.75 + 0.3 * u[2])
    white = white * (1.0 - 0.2 * u[3] * jnp.array([0.1, 0.8, 0.7]))
    radius = 5.6 + 0.8 * u[4]
    rim = jax.nn.sigmoid((maps.iris_mm - 0.75 * radius) / 0.4)
    pupil = jax.nn.sigmoid((1.2 + 1.6 * u[5] - maps.iris_mm) / 0.3)
    inside = jax.nn.sigmoid((radius - maps.iris_mm) / 0.3)
    ring = iris * (1.0 - 0.5 * rim[:, None])
    ball = _mix(_mix(jnp.broadcast_to(white, albedo.shape), ring, inside), jnp.zeros(3), pupil)
    return _mix(albedo, ball, maps.eyes)


def _gloss(u: Array, maps: SkinMaps, person: _Person) -> Array:
    skin = 0.2 + 0.4 * maps.nose + 0.3 * maps.forehead + 0.25 * maps.cheeks + 0.15 * maps.lid
    skin = skin * (0.3 + 0.9 * u[0]) * (1.0 - 0.7 * person.beard * maps.beard)
    lips = 0.3 + 0.4 * u[1] + 0.4 * person.makeup * u[2]
    gloss = skin + maps.lips * (lips - skin)
    return gloss + maps.eyes * (1.0 - gloss)
