"""Skin textures from photographs: what a fitted face shows, with the light divided out.

``extract(model, atlas, params, image, points)`` samples a photograph at every texel of the face
model's uv atlas, estimates second-order spherical-harmonics light from the skin, divides it out,
masks what lies before the face and completes hidden texels from the other side of the face.
Colours are the pixel values of the photograph: ``albedo * irradiance`` gives the photograph back.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.errors import DatasetError
from dfc_jax.files import load_arrays, write_npz
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.raster import sh_basis
from dfc_jax.texture.atlas import Atlas, blur, fill, make_atlas, mirrored, smooth
from dfc_jax.texture.observe import Observation, observe
from dfc_jax.types import Array, ByValue, FaceParams

__all__ = [
    "Atlas",
    "Extracted",
    "Observation",
    "TextureBank",
    "estimate_light",
    "extract",
    "load_texture_bank",
    "make_atlas",
    "observe",
    "save_texture_bank",
    "split_tone",
]
# A texel is known from this weight on.
KNOWN_WEIGHT = 0.25
DARKEST = 0.02
# Mean albedo over RGB of skin to which deviations on darker skin are scaled.
FAIR_SKIN = 0.5
MAX_BANK_BYTES = 2**33
ROUNDS = 4


class Extracted(NamedTuple):
    """What one photograph tells of a face's skin.

    Attributes:
      texture: (S, S, 3) albedo in [0, 1].
      known: (S, S) bool, seen in the photograph or on the other side of the face.
      seen: (S, S) bool, seen in the photograph itself.
      light: (9, 3) spherical harmonics, see `dfc_jax.raster.sh_irradiance`.
      seen_share, covered_share: () shares of the face's skin that the camera could see, and of
        that, what something else covers.
      glasses_share: () share of where glasses sit that does not look like skin.
      residual: () robust relative deviation of the skin's colour from the light's explanation,
        on dark skin as it would be on fair skin.
      colorfulness: () mean distance of the skin's chroma from grey, log units.
    """

    texture: Array
    known: Array
    seen: Array
    light: Array
    seen_share: Array
    covered_share: Array
    glasses_share: Array
    residual: Array
    colorfulness: Array


def _ridge(basis: Array, target: Array, weight: Array, centre: Array, strength: Array) -> Array:
    """argmin_L  mean w (target - basis L)^2 + strength |L - centre|^2, (N, 9) and (N,) to (9,)."""
    weighted = basis * weight[:, None] / jnp.maximum(weight.sum(), 1e-6)
    gram = weighted.T @ basis + jnp.diag(strength) + 1e-9 * jnp.eye(basis.shape[1])
    return jnp.linalg.solve(gram, weighted.T @ target + strength * centre)


_BANDS = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2])
# Light of one colour varies freely; its colours change less over directions.
_GREY_RIDGE = np.array([0.0, 3e-4, 1e-3])[_BANDS]
_COLOR_RIDGE = np.array([0.0, 3e-3, 1e-2])[_BANDS]


def _solve_light(basis: Array, irradiance: Array, weight: Array) -> Array:
    """(9, 3) light that explains the irradiance (N, 3) at basis (N, 9), with weights (N,)."""
    zero = jnp.zeros(basis.shape[1])
    grey = _ridge(basis, irradiance.mean(axis=-1), weight, zero, jnp.asarray(_GREY_RIDGE))
    ridge = jnp.asarray(_COLOR_RIDGE)
    return jnp.stack([_ridge(basis, c, weight, grey, ridge) for c in irradiance.T], axis=-1)


def estimate_light(atlas: Atlas, seen: Observation) -> tuple[Array, Array, Array, Array]:
    """Estimate light and mean skin colour: alternate robust least squares for the light with a
    smooth, symmetric albedo.

    The scale between light and skin is settled by `split_tone`.

    Returns:
      light (9, 3), irradiance (S, S, 3), trust (S, S) in [0, 1] that a texel is lit skin, and the
      robust relative deviation of skin from the explanation ().
    """
    basis = sh_basis(seen.normals)
    usable = jnp.where(atlas.skin, seen.weight, 0.0)
    # Clipped highlights and black say nothing of the light.
    usable *= (seen.color.max(axis=-1) < 0.98) & (seen.color.min(axis=-1) > DARKEST)
    log_color = jnp.log(jnp.maximum(seen.color, DARKEST))
    tone = _weighted_median(log_color, usable)
    relative = jnp.exp(log_color - tone)

    def one_round(carry: tuple[Array, Array], _) -> tuple[tuple[Array, Array], Array]:
        albedo, trust = carry
        target = relative / albedo
        thinned, wanted = (a[::2, ::2].reshape(-1, a.shape[-1]) for a in (basis, target))
        light = _solve_light(thinned, wanted, trust[::2, ::2].ravel())
        irradiance = jnp.maximum(basis @ light, 0.1)
        leftover = jnp.log(target / irradiance)
        deviation = jnp.abs(leftover).mean(axis=-1)
        scale = 1.48 * _weighted_median(deviation[..., None], usable)[0] + 0.02
        trust = usable / (1.0 + (deviation / (2.0 * scale)) ** 2) ** 2
        log_albedo = jnp.log(relative / irradiance / atlas.albedo)
        field = smooth(log_albedo, trust, 0.04 * atlas.size)
        other = mirrored(atlas, field)
        share = smooth(trust[..., None], jnp.ones_like(trust), 0.04 * atlas.size)
        other_share = mirrored(atlas, share)
        field = (share * field + other_share * other) / (share + other_share + 1e-2)
        return (atlas.albedo * jnp.exp(0.7 * field), trust), jnp.append(light, scale)

    start = atlas.albedo, usable
    (_, trust), history = jax.lax.scan(one_round, start, None, length=ROUNDS)
    light, scale = history[-1, :-1].reshape(9, 3), history[-1, -1]
    irradiance = jnp.maximum(basis @ light, 0.1)
    log_skin = _weighted_median(log_color - jnp.log(irradiance), trust)
    log_gain = log_skin - split_tone(log_skin)
    return light * jnp.exp(log_gain), irradiance * jnp.exp(log_gain), trust, scale


# Log albedo of skin, RGB: its mean, the direction in which it darkens, and the deviations along
# and off that direction; log light: deviations in brightness and in colour.
_SKIN_MEAN, _SKIN_DARKENS = np.log([0.68, 0.52, 0.44]), np.array([0.8, 1.0, 1.15])
_SKIN_DEVIATION, _LIGHT_DEVIATION = (0.40, 0.06), (0.25, 0.15)


def split_tone(log_skin: Array) -> Array:
    """Log albedo (3,) of skin that has this mean log colour (3,) in a photograph.

    Photograph = albedo x light; the posterior mean of the first under Gaussian priors in log
    space: skin colours lie close to a line from light to dark, light is close to white.
    """
    skin = _SKIN_DEVIATION[0] ** 2 * np.outer(_SKIN_DARKENS, _SKIN_DARKENS)
    skin += _SKIN_DEVIATION[1] ** 2 * np.eye(3)
    light = _LIGHT_DEVIATION[0] ** 2 * np.ones((3, 3)) + _LIGHT_DEVIATION[1] ** 2 * np.eye(3)
    gain = skin @ np.linalg.inv(skin + light)
    return _SKIN_MEAN + gain @ (log_skin - _SKIN_MEAN)


def _weighted_median(values: Array, weight: Array) -> Array:
    """Median (C,) of texels (S, S, C) with weights (S, S), of one texel in 16."""
    flat, weight = values[::4, ::4].reshape(-1, values.shape[-1]), weight[::4, ::4].ravel()
    order = jnp.argsort(flat, axis=0)
    total = jnp.cumsum(weight[order], axis=0)
    index = jnp.argmax(total >= 0.5 * total[-1:], axis=0)
    return jnp.take_along_axis(jnp.take_along_axis(flat, order, 0), index[None], 0)[0]


# Log brightness (darker, brighter) and log chroma beyond which a colour is not the face's skin, nor
# that of the other side.
_SKIN_LIMIT, _SIDE_LIMIT = (0.6, 0.5, 0.25), (0.35, 0.35, 0.15)


def _beyond(difference: Array, limit: tuple[float, float, float], factor: Array | float = 1.0):
    """(S, S) bool: differences (S, S, 3) in log brightness and two log chromas over a limit."""
    darker, brighter, chroma = limit
    brightness = difference[..., 0] / jnp.where(difference[..., 0] < 0, darker, brighter)
    squared = brightness**2 + jnp.sum((difference[..., 1:] / chroma) ** 2, axis=-1)
    return squared > factor**2


def _covered(atlas: Atlas, log_albedo: Array, weight: Array, trust: Array) -> tuple[Array, Array]:
    """(S, S) bool: texels where hair, glasses, hands or things are seen instead of skin; and the
    share of where glasses sit that does not look like skin.

    Their colour is neither the face's skin nor that of the other side. Where no beard grows, the
    first is enough: a fringe is symmetric.
    """
    calm = smooth(log_albedo, weight, 0.006 * atlas.size)
    calm = calm @ jnp.array([[1 / 3, 1.0, 0.0], [1 / 3, -1.0, 1.0], [1 / 3, 0.0, -1.0]])
    not_skin = _beyond(calm - _weighted_median(calm, trust), _SKIN_LIMIT) & (weight > 0)
    other_seen = mirrored(atlas, weight[..., None])[..., 0] > 0.0
    # The sides of brows, lids and lips do not match to the texel.
    factor = jnp.where(atlas.feature, 2.5, 1.0)
    not_other = other_seen & _beyond(calm - mirrored(atlas, calm), _SIDE_LIMIT, factor)
    covered = not_skin & (atlas.plain | not_other | (~other_seen & ~atlas.feature))
    seen_rims = atlas.rims & (weight > 0)
    # Thin frames hardly change the colour, but draw lines where a face has none.
    lines = jnp.abs(calm - smooth(calm, weight, 0.02 * atlas.size))[..., 0] > 0.10
    rims = jnp.sum(seen_rims & (not_skin | lines)) / jnp.maximum(jnp.sum(seen_rims), 1)
    # What covers a face has an extent, and a soft border.
    grown = blur(covered[..., None].astype(jnp.float32), 0.008 * atlas.size)[..., 0]
    return grown > 0.35, rims


def _complete(atlas: Atlas, albedo: Array, weight: Array) -> tuple[Array, Array]:
    """Albedo (S, S, 3) with hidden texels from the other side of the face, and its weight."""
    other = mirrored(atlas, jnp.concatenate([albedo * weight[..., None], weight[..., None]], -1))
    other_weight = other[..., 3]
    other = other[..., :3] / jnp.maximum(other_weight, 1e-6)[..., None]
    share = (1.0 - weight) * other_weight
    total = weight + share
    blend = (weight[..., None] * albedo + share[..., None] * other) / jnp.maximum(total, 1e-6)[
        ..., None
    ]
    return blend, total


def extract(
    model: FaceModel, atlas: Atlas, params: FaceParams, image: Array, points: Array
) -> Extracted:
    """The skin of one fitted face; arguments as in `observe`."""
    seen = observe(model, atlas, params, image, points)
    light, irradiance, trust, residual = estimate_light(atlas, seen)
    albedo = seen.color / irradiance
    log_albedo = jnp.log(jnp.maximum(albedo, DARKEST))
    log_skin = _weighted_median(log_albedo, trust)
    # Highlights and noise add to the colour instead of scaling it: their logarithms weigh more on
    # dark skin, which must not make it count as covered or badly lit.
    calming = jnp.minimum(jnp.sqrt(jnp.exp(log_skin).mean() / FAIR_SKIN), 1.0)
    covered, rims = _covered(atlas, calming * log_albedo, seen.weight, trust)
    # Of the eyes a photograph shows a strip, and a gaze that the fit does not know.
    weight = jnp.where(covered | atlas.eyes, 0.0, seen.weight)
    completed, total = _complete(atlas, albedo, weight)
    known = total > KNOWN_WEIGHT
    log_color = _weighted_median(jnp.log(jnp.maximum(seen.color, DARKEST)), trust)
    plain = atlas.albedo * jnp.where(atlas.eyes[..., None], 1.0, jnp.exp(log_skin))
    ratio = jnp.log(jnp.maximum(completed, DARKEST) / jnp.maximum(plain, DARKEST))
    texture = plain * jnp.exp(fill(ratio, jnp.where(known, total, 0.0)))
    visible = atlas.skin & (seen.weight > KNOWN_WEIGHT)
    return Extracted(
        texture=jnp.clip(jnp.where(known[..., None], completed, texture), 0.0, 1.0),
        known=known,
        seen=weight > KNOWN_WEIGHT,
        light=light,
        seen_share=visible.sum() / atlas.skin.sum(),
        covered_share=(visible & covered).sum() / jnp.maximum(visible.sum(), 1),
        glasses_share=rims,
        residual=calming * residual,
        colorfulness=jnp.linalg.norm(log_color - log_color.mean()),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class TextureBank(ByValue):
    """N textures over the atlas of one face model, best first.

    Attributes:
      textures: (N, S, S, 3) uint8 RGB albedo; unknown texels hold a plausible continuation.
      known: (N, S, S) bool, texels that a photograph showed, on this side of the face or the other.
      quality: (N,) float32 in [0, 1].
      face_model: version of the face model whose atlas it is.
    """

    textures: np.ndarray
    known: np.ndarray
    quality: np.ndarray
    face_model: str

    def __len__(self) -> int:
        return len(self.textures)


def save_texture_bank(path: str | Path, bank: TextureBank) -> None:
    """Write a compressed ``.npz``; it appears complete or not at all.

    Raises:
      ExportError: it cannot be written there.
    """
    write_npz(
        path,
        textures=np.asarray(bank.textures, np.uint8),
        known=np.packbits(bank.known, axis=-1),
        quality=np.asarray(bank.quality, np.float32),
        face_model=np.array(bank.face_model),
    )


def load_texture_bank(path: str | Path) -> TextureBank:
    """Read what `save_texture_bank` wrote.

    Raises:
      DatasetError: the file is missing, is not a bank, or contradicts itself.
    """
    remedy = "make it again with experiments/tools/build_texture_bank.py"
    try:
        names = ("textures", "known", "quality", "face_model")
        arrays = load_arrays(path, names, MAX_BANK_BYTES)
        textures, bits, quality = arrays["textures"], arrays["known"], arrays["quality"]
        face_model = str(arrays["face_model"])
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such texture bank; check the path") from error
    except Exception as error:  # numpy and zipfile raise many kinds for a broken file
        raise DatasetError(f"{path}: is not a texture bank; {remedy}") from error
    n, size = len(quality) if quality.ndim == 1 else 0, textures.shape[-2:-1]
    fits = textures.shape == (n, *size, *size, 3) and textures.dtype == np.uint8
    fits &= textures.size > 0
    if not fits or bits.shape != (n, *size, -(-size[0] // 8)) or bits.dtype != np.uint8:
        raise DatasetError(
            f"{path}: a texture bank needs textures (N, S, S, 3) uint8 with masks; {remedy}"
        )
    if quality.dtype.kind != "f" or not (abs(quality - 0.5) <= 0.5).all():
        raise DatasetError(f"{path}: the qualities of a texture bank lie in [0, 1]; {remedy}")
    known = np.unpackbits(bits, axis=-1, count=size[0]).astype(bool)
    return TextureBank(textures, known, quality, face_model)
