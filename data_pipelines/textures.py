"""Skin textures from photographs: what a fitted face shows, with the light divided out.

``extract(model, chart, params, image, points)`` samples a photograph at every texel of the face
model's uv chart, estimates second-order spherical-harmonics light from the skin, divides it out,
masks what lies before the face and completes hidden texels from the other side of the face.
Colours are the pixel values of the photograph: ``albedo * irradiance`` gives the photograph back.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.chart import Chart, blur, fill, make_chart, mirrored, smooth
from data_pipelines.photos import residual_field
from dfc_jax.camera import to_camera
from dfc_jax.correspondence import fragments_of, ground_truth_flow
from dfc_jax.fitting import project_landmarks
from dfc_jax.inference.evaluate import DatasetError
from dfc_jax.inference.export import write_npz
from dfc_jax.morphable.core import N_JAW, FaceModel, shape, vertex_normals
from dfc_jax.morphable.io import load_arrays
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster import interpolate, sh_basis
from dfc_jax.types import Array, ByValue, Camera, FaceParams

__all__ = [
    "Chart",
    "Extracted",
    "Observation",
    "TextureBank",
    "estimate_light",
    "extract",
    "load_texture_bank",
    "make_chart",
    "observe",
    "save_texture_bank",
    "split_tone",
]

# Depth may change by this much within `MARGIN_PX` of a texel's pixel: beyond, it lies too close
# to a silhouette for a fit to be trusted.
MARGIN_PX, DEPTH_RANGE_MM = 3, 14.0
# Facing (cosine between normal and line of sight) at which a texel begins to count, and counts
# in full.
FACING = (0.15, 0.5)
# A texel is known from this weight on.
KNOWN_WEIGHT = 0.25
# Texels fade towards hidden ones over this part of the chart's edge.
FEATHER = 0.012
DARKEST = 0.02
# Mean albedo over RGB of skin to which deviations on darker skin are scaled.
FAIR_SKIN = 0.5
MAX_BANK_BYTES = 2**33
ROUNDS = 4


class Observation(NamedTuple):
    """A photograph over the chart: color (S, S, 3), weight (S, S) in [0, 1] (0 is not seen),
    normals (S, S, 3) in camera space."""

    color: Array
    weight: Array
    normals: Array


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


def observe(
    model: FaceModel, chart: Chart, params: FaceParams, image: Array, points: Array
) -> Observation:
    """Sample an image (H, H, 3), in [0, 1], at the texels of a fitted face.

    `params` and the 68 annotated points (68, 2) are in pixels of the image, whose centre is the
    principal point. A smooth field takes up what the fit left at the inner points.
    """
    size = image.shape[0]
    camera = Camera(params.focal_px, jnp.full(2, (size - 1) / 2.0))
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    target = fragments_of(vertices, model.triangles, camera, size)
    flow, visible = ground_truth_flow(chart.fragments, target, vertices, camera, model.triangles)
    xy = flow + pixel_grid(chart.size, chart.size)

    residual = (points - project_landmarks(model, params, camera.principal_point))[N_JAW:]
    edge = jnp.max(points.max(axis=0) - points.min(axis=0))
    coarse = 4.0
    places = coarse * pixel_grid(int(size / coarse), int(size / coarse))
    field = residual_field(points[N_JAW:], residual, places, 0.08 * edge, noise=0.3)
    moved = xy + bilinear_sample(field, xy / coarse)

    normals = vertex_normals(vertices, model.triangles)
    normals = interpolate(chart.fragments, model.triangles, normals)
    normals /= jnp.maximum(jnp.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    position = interpolate(chart.fragments, model.triangles, vertices)
    sight = position / jnp.maximum(jnp.linalg.norm(position, axis=-1, keepdims=True), 1e-6)
    facing = -jnp.sum(normals * sight, axis=-1)
    weight = jnp.clip((facing - FACING[0]) / (FACING[1] - FACING[0]), 0.0, 1.0)
    inside = jnp.all((moved >= 0.0) & (moved <= size - 1.0), axis=-1)
    clear = bilinear_sample(_clear(target.zbuf)[..., None], xy)[..., 0]
    weight = jnp.where(visible & inside, weight * clear, 0.0)
    return Observation(bilinear_sample(image, moved), _feathered(chart, weight), normals)


def _feathered(chart: Chart, weight: Array) -> Array:
    """Weights (S, S) that fade towards texels of weight 0, but not towards the chart's borders."""
    covered = (chart.fragments.pix_to_face >= 0).astype(jnp.float32)
    share = smooth((weight > 0).astype(jnp.float32)[..., None], covered, FEATHER * chart.size)
    return weight * jnp.clip(2.0 * share[..., 0] - 1.0, 0.0, 1.0)


def _clear(zbuf: Array) -> Array:
    """1 where the depth (H, W) changes little within `MARGIN_PX`, else 0."""
    edge = 2 * MARGIN_PX + 1
    window, strides = (edge, edge), (1, 1)
    far = jnp.where(jnp.isfinite(zbuf), zbuf, 1e6)
    high = jax.lax.reduce_window(far, -jnp.inf, jax.lax.max, window, strides, "SAME")
    low = jax.lax.reduce_window(far, jnp.inf, jax.lax.min, window, strides, "SAME")
    return (high - low < DEPTH_RANGE_MM).astype(jnp.float32)


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


def estimate_light(chart: Chart, seen: Observation) -> tuple[Array, Array, Array, Array]:
    """Light and mean skin colour by turns of robust least squares and a smooth, symmetric albedo.

    The scale between light and skin is settled by `split_tone`.

    Returns:
      light (9, 3), irradiance (S, S, 3), trust (S, S) in [0, 1] that a texel is lit skin, and the
      robust relative deviation of skin from the explanation ().
    """
    basis = sh_basis(seen.normals)
    usable = jnp.where(chart.skin, seen.weight, 0.0)
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
        log_albedo = jnp.log(relative / irradiance / chart.albedo)
        field = smooth(log_albedo, trust, 0.04 * chart.size)
        other = mirrored(chart, field)
        share = smooth(trust[..., None], jnp.ones_like(trust), 0.04 * chart.size)
        other_share = mirrored(chart, share)
        field = (share * field + other_share * other) / (share + other_share + 1e-2)
        return (chart.albedo * jnp.exp(0.7 * field), trust), jnp.append(light, scale)

    start = chart.albedo, usable
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


def _covered(chart: Chart, log_albedo: Array, weight: Array, trust: Array) -> tuple[Array, Array]:
    """(S, S) bool: texels where hair, glasses, hands or things are seen instead of skin; and the
    share of where glasses sit that does not look like skin.

    Their colour is neither the face's skin nor that of the other side. Where no beard grows, the
    first is enough: a fringe is symmetric.
    """
    calm = smooth(log_albedo, weight, 0.006 * chart.size)
    calm = calm @ jnp.array([[1 / 3, 1.0, 0.0], [1 / 3, -1.0, 1.0], [1 / 3, 0.0, -1.0]])
    not_skin = _beyond(calm - _weighted_median(calm, trust), _SKIN_LIMIT) & (weight > 0)
    other_seen = mirrored(chart, weight[..., None])[..., 0] > 0.0
    # The sides of brows, lids and lips do not match to the texel.
    factor = jnp.where(chart.feature, 2.5, 1.0)
    not_other = other_seen & _beyond(calm - mirrored(chart, calm), _SIDE_LIMIT, factor)
    covered = not_skin & (chart.plain | not_other | (~other_seen & ~chart.feature))
    seen_rims = chart.rims & (weight > 0)
    # Thin frames hardly change the colour, but draw lines where a face has none.
    lines = jnp.abs(calm - smooth(calm, weight, 0.02 * chart.size))[..., 0] > 0.10
    rims = jnp.sum(seen_rims & (not_skin | lines)) / jnp.maximum(jnp.sum(seen_rims), 1)
    # What covers a face has an extent, and a soft border.
    grown = blur(covered[..., None].astype(jnp.float32), 0.008 * chart.size)[..., 0]
    return grown > 0.35, rims


def _complete(chart: Chart, albedo: Array, weight: Array) -> tuple[Array, Array]:
    """Albedo (S, S, 3) with hidden texels from the other side of the face, and its weight."""
    other = mirrored(chart, jnp.concatenate([albedo * weight[..., None], weight[..., None]], -1))
    other_weight = other[..., 3]
    other = other[..., :3] / jnp.maximum(other_weight, 1e-6)[..., None]
    share = (1.0 - weight) * other_weight
    total = weight + share
    blend = (weight[..., None] * albedo + share[..., None] * other) / jnp.maximum(total, 1e-6)[
        ..., None
    ]
    return blend, total


def extract(
    model: FaceModel, chart: Chart, params: FaceParams, image: Array, points: Array
) -> Extracted:
    """The skin of one fitted face; arguments as in `observe`."""
    seen = observe(model, chart, params, image, points)
    light, irradiance, trust, residual = estimate_light(chart, seen)
    albedo = seen.color / irradiance
    log_albedo = jnp.log(jnp.maximum(albedo, DARKEST))
    log_skin = _weighted_median(log_albedo, trust)
    # Highlights and noise add to the colour instead of scaling it: their logarithms weigh more on
    # dark skin, which must not make it count as covered or badly lit.
    calming = jnp.minimum(jnp.sqrt(jnp.exp(log_skin).mean() / FAIR_SKIN), 1.0)
    covered, rims = _covered(chart, calming * log_albedo, seen.weight, trust)
    # Of the eyes a photograph shows a strip, and a gaze that the fit does not know.
    weight = jnp.where(covered | chart.eyes, 0.0, seen.weight)
    completed, total = _complete(chart, albedo, weight)
    known = total > KNOWN_WEIGHT
    log_color = _weighted_median(jnp.log(jnp.maximum(seen.color, DARKEST)), trust)
    plain = chart.albedo * jnp.where(chart.eyes[..., None], 1.0, jnp.exp(log_skin))
    ratio = jnp.log(jnp.maximum(completed, DARKEST) / jnp.maximum(plain, DARKEST))
    texture = plain * jnp.exp(fill(ratio, jnp.where(known, total, 0.0)))
    visible = chart.skin & (seen.weight > KNOWN_WEIGHT)
    return Extracted(
        texture=jnp.clip(jnp.where(known[..., None], completed, texture), 0.0, 1.0),
        known=known,
        seen=weight > KNOWN_WEIGHT,
        light=light,
        seen_share=visible.sum() / chart.skin.sum(),
        covered_share=(visible & covered).sum() / jnp.maximum(visible.sum(), 1),
        glasses_share=rims,
        residual=calming * residual,
        colorfulness=jnp.linalg.norm(log_color - log_color.mean()),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class TextureBank(ByValue):
    """N textures over the chart of one face model, best first.

    Attributes:
      textures: (N, S, S, 3) uint8 RGB albedo; unknown texels hold a plausible continuation.
      known: (N, S, S) bool, texels that a photograph showed, on this side of the face or the other.
      quality: (N,) float32 in [0, 1].
      face_model: version of the face model whose chart it is.
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
    remedy = "make it again with experiments/build_texture_bank.py"
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
