"""Make-up: regions of a face on its model's uv atlas, and colours for them.

A region is painted in its own texture: its mean colour gives way to another, while how much
brighter or darker than the mean a pixel is, by pores, folds and light, stays.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dfc_jax.errors import OptionError
from dfc_jax.landmarks68 import JAW, MIRROR
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d
from dfc_jax.raster import interpolate
from dfc_jax.texture.curves import bell, folded, nearest, signed_distance, soft_step, spline
from dfc_jax.texture.light import luminance
from dfc_jax.types import Fragments

# What can be painted, and how opaque it is if nothing is said.
OPACITIES = {"lips": 0.7, "eyeshadow": 0.5, "blush": 0.4, "foundation": 0.4}
# The region of a whole new texture.
FACE = "face"
# Of parts that are not painted or replaced: what lies there moves by itself, or is fitted badly.
_NEVER = ("eyes", "ears", "neck")
# Millimetres over which a new texture fades at its border, how high above the brows that lies in
# the middle, and how far behind the first jaw landmarks.
_FADE_MM, _FOREHEAD_MM, _BEHIND_MM = 10.0, 36.0, 2.0
_COLOUR = re.compile(r"#?([0-9a-fA-F]{6})")


@dataclass(frozen=True)
class Makeup:
    """A colour for a region.

    Attributes:
      region: one of `OPACITIES`.
      colour: RGB in [0, 1].
      opacity: in [0, 1]; at 1 the mean colour of the region becomes `colour`.
    """

    region: str
    colour: tuple[float, float, float]
    opacity: float


def parse_makeup(given: str | Mapping[str, str]) -> tuple[Makeup, ...]:
    """Make-up in words: ``lips=#aa2233:0.8,blush=#dd8877``, or the same as a mapping of regions to
    ``"#aa2233:0.8"``. The opacity may be left out.

    Raises:
      OptionError: there is no such region, or a colour or opacity is none.
    """
    if isinstance(given, str):
        parts = [part.partition("=") for part in given.split(",")]
        pairs = [(region.strip(), value.strip()) for region, _, value in parts]
    else:
        pairs = list(given.items())
    regions = [region for region, _ in pairs]
    for region in regions:
        if region not in OPACITIES:
            raise OptionError(
                f"makeup: there is no region {region!r}; the regions are {', '.join(OPACITIES)}"
            )
        if regions.count(region) > 1:
            raise OptionError(f"makeup: {region} is given twice; give it one colour")
    return tuple(_makeup(region, value) for region, value in pairs)


def _makeup(region: str, value: str) -> Makeup:
    text, colon, number = value.partition(":")
    found = _COLOUR.fullmatch(text)
    if found is None:
        raise OptionError(
            f"makeup: {text!r} is no colour for {region}; write six hexadecimal digits, as #aa2233"
        )
    try:
        opacity = float(number) if colon else OPACITIES[region]
    except ValueError:
        opacity = np.nan
    if not 0.0 <= opacity <= 1.0:
        raise OptionError(f"makeup: {number!r} is no opacity for {region}; write one from 0 to 1")
    red, green, blue = bytes.fromhex(found[1])
    return Makeup(region, (red / 255.0, green / 255.0, blue / 255.0), opacity)


def painted(
    under: np.ndarray, alpha: np.ndarray, makeup: Makeup, exposure: float = 1.0
) -> np.ndarray:
    """A picture with make-up on.

    Where a pixel is as bright as the mean of the region it gets the colour; a darker one the colour
    as much darker; a brighter one a mixture with white, so that highlights stay white.

    Args:
      under: (H, W, 3) float32 in [0, 1].
      alpha: (H, W) float32 in [0, 1], how much of the region each pixel shows.
      makeup: what to paint.
      exposure: factor on its colour, see `light.Light.exposure`.
    """
    luma = luminance(under)
    mean = float((alpha * luma).sum() / max(float(alpha.sum()), 1e-6))
    colour = np.clip(np.float32(exposure) * np.array(makeup.colour, np.float32), 0.0, 1.0)
    ratio = (luma / max(mean, 0.02))[..., None]
    paint = np.where(ratio <= 1.0, ratio * colour, 1.0 - (1.0 - colour) / np.maximum(ratio, 1.0))
    return under + (makeup.opacity * alpha)[..., None] * (paint - under)


def make_regions(model: FaceModel, atlas: Fragments) -> dict[str, np.ndarray]:
    """How much of each region texels of the uv atlas (S, S) belong to: float32 (S, S) in [0, 1].

    `FACE`, what a new texture covers, from jaw to hairline without the eyeballs, and those of
    `OPACITIES`. They follow the model's landmarks on its mean shape, in millimetres there.
    """
    covered = np.asarray(atlas.pix_to_face) >= 0
    part = np.asarray(model.triangle_part)[np.asarray(atlas.pix_to_face)]
    covered &= ~np.isin(part, [PARTS.index(name) for name in _NEVER])
    position = np.asarray(interpolate(atlas, model.triangles, model.mean_mm))[covered]
    marks = np.asarray(landmarks3d(model, model.mean_mm), np.float64)
    # The mean of both sides: the regions of a symmetric mesh are symmetric then.
    marks = (marks + marks[MIRROR] * [-1.0, 1.0, 1.0]) / 2.0
    regions = {}
    for name, region in _REGIONS.items():
        regions[name] = np.zeros(covered.shape, np.float32)
        regions[name][covered] = region(position.astype(np.float64), marks)
    return regions


def _face(points: np.ndarray, marks: np.ndarray) -> np.ndarray:
    jaw, brows = marks[JAW], marks[17:27]
    # Half an ellipse above the ends of the jaw.
    angle = np.pi * _smooth(np.linspace(0.0, 1.0, 400)[1:-1])
    rise = brows[:, 1].max() + _FOREHEAD_MM - jaw[0, 1]
    top = np.stack([jaw[-1, 0] * np.cos(angle), jaw[0, 1] + rise * np.sin(angle) ** 0.7], axis=-1)
    inside = signed_distance(points[:, :2], np.concatenate([spline(jaw)[:, :2], top]))
    # Of the sides of the head, only what is before the ears.
    before = points[:, 2] - (jaw[0, 2] - _BEHIND_MM)
    return _smooth(np.minimum(inside, before) / _FADE_MM)


def _lips(points: np.ndarray, marks: np.ndarray) -> np.ndarray:
    outline = spline(marks[[*range(48, 60), 48]])
    inside = signed_distance(points[:, :2], outline[:, :2])
    # Not the back of the head, which lies inside the outline too.
    return soft_step(inside, 1.0) * soft_step(22.0 - nearest(points, outline)[0], 3.0)


def _eyeshadow(points: np.ndarray, marks: np.ndarray) -> np.ndarray:
    points = folded(points)
    # On to a point outside the corner, as it is worn.
    wing = marks[36] + 0.15 * (marks[17] - marks[36])
    edge = spline(np.concatenate([wing[None], marks[[36, 37, 38, 39]]]))
    brow = spline(marks[17:22])
    distance, at = nearest(points, edge)
    below_brow, _ = nearest(points, brow - [0.0, 3.0, 0.0])
    above = points[:, 1] - edge[at, 1]
    along = distance / np.maximum(distance + below_brow, 1e-6)
    fading = 1.0 - _smooth((along - 0.4) / 0.5)
    return fading * soft_step(above + 0.5, 0.7) * bell(np.maximum(distance - 8.0, 0.0), 4.0)


def _blush(points: np.ndarray, marks: np.ndarray) -> np.ndarray:
    points = folded(points)
    # From the apple of the cheek along its bone.
    apple = (marks[41] + marks[48] + 0.35 * (marks[1] + marks[2])) / 2.7
    bone = 0.6 * apple + 0.4 * marks[1]
    line = apple + np.linspace(0.0, 1.0, 10)[:, None] * (bone + [0.0, 6.0, 0.0] - apple)
    return bell(nearest(points[:, :2], line[:, :2])[0], 10.0) * _face(points, marks)


def _foundation(points: np.ndarray, marks: np.ndarray) -> np.ndarray:
    brow = spline(marks[17:22] - [0.0, 1.5, 0.0])
    no_brow = 1.0 - bell(nearest(folded(points), brow)[0], 4.0)
    return _face(points, marks) * (1.0 - _lips(points, marks)) * no_brow


def _smooth(x: np.ndarray) -> np.ndarray:
    """From 0 at 0 to 1 at 1, level at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


_REGIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    FACE: _face,
    "lips": _lips,
    "eyeshadow": _eyeshadow,
    "blush": _blush,
    "foundation": _foundation,
}
