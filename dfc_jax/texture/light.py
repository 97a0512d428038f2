"""The light on a face, told from the colours of its skin and the normals of its mesh.

One picture does not tell light from skin: how bright the skin is, and how warm, stays with it. What
the colours do tell is how the light changes from normal to normal, by the nine spherical harmonics
of `dfc_jax.raster.shade` in each channel.
"""

from dataclasses import dataclass

import jax
import numpy as np

from dfc_jax.raster.shade import N_SH, sh_basis
from dfc_jax.types import ByValue

# Well exposed skin, light or dark, has luminances from here to there; where the mean of a face lies
# beyond, so is the exposure.
USUAL_LUMA = (0.35, 0.65)
# Ridge for bands 0, 1 and 2, in parts of the variance of the errors: normals that one sees turn
# towards the camera and tell some coefficients from each other only where colours are exact.
_RIDGE = np.repeat([0.0, 0.3, 3.0], [1, 3, 5])
# Errors of colour, from black to white 1, from which a pixel shows something else than skin: at
# least, and in standard deviations as the median has them.
_MIN_ERROR, _DEVIATIONS = 0.01, 2.0
_ROUNDS = 20
# Light is held between these parts of the mean. What is taken off a texture is held nearer to it:
# where little light falls, colours are those of reflections, shadows and noise.
_BOUNDS, _TAKEN_OFF = (0.25, 2.5), (0.6, 1.8)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_basis = jax.jit(sh_basis)


@dataclass(frozen=True, eq=False)
class Light(ByValue):
    """Light on a face.

    Attributes:
      sh: (9, 3) float32, what `sh_irradiance` makes the colour of the face's skin at a normal of
        camera space.
      skin: (3,) float32 RGB, the mean colour of the skin where it is seen.
    """

    sh: np.ndarray
    skin: np.ndarray

    @property
    def exposure(self) -> float:
        """How bright the picture is: 1 where the skin is as bright as skin usually is."""
        luma = max(float(luminance(self.skin)), 1e-3)
        return luma / float(np.clip(luma, *USUAL_LUMA))

    def shading(self, normals: np.ndarray) -> np.ndarray:
        """Light (..., 3) at unit normals (..., 3), in parts of the mean."""
        colour = np.asarray(_basis(normals)) @ self.sh
        return np.clip(colour / np.maximum(self.skin, 1e-3), *_BOUNDS)

    def taken_off(self, colours: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Colours (..., 3) at unit normals (..., 3) as an even light would show them."""
        return colours / np.clip(self.shading(normals), *_TAKEN_OFF)


def luminance(colours: np.ndarray) -> np.ndarray:
    """Luminance (...) of RGB (..., 3)."""
    return colours @ _LUMA


def fit_light(colours: np.ndarray, normals: np.ndarray, weight: np.ndarray) -> Light:
    """The light on N points of skin, by least squares that leave out what is no skin.

    Iteratively reweighted (Geman-McClure, whose scale follows the median of the errors), so that
    hair, a beard, glasses or a shadow change little as long as most points are skin.

    Args:
      colours: (N, 3) RGB in [0, 1].
      normals: (N, 3) unit normals, camera space.
      weight: (N,) in [0, 1], how surely each is skin; without any, the light is even and grey.
    """
    used = weight > 0.0
    if not used.any():
        return no_light()
    colours, weight = colours[used].astype(np.float64), weight[used].astype(np.float64)
    basis = np.asarray(_basis(normals[used].astype(np.float32)), np.float64)
    trust, deviation = np.ones(len(weight)), _MIN_ERROR
    for _ in range(_ROUNDS):
        total = weight * trust
        skin = total @ colours / total.sum()
        gram = (basis * total[:, None]).T @ basis / total.sum() + np.diag(deviation**2 * _RIDGE)
        moments = (basis * total[:, None]).T @ colours / total.sum()
        sh = np.linalg.solve(gram, moments)
        error = np.linalg.norm(basis @ sh - colours, axis=-1)
        deviation = 1.48 * _median(error, weight)
        scale = max(_MIN_ERROR, _DEVIATIONS * deviation)
        trust = 1.0 / (1.0 + (error / scale) ** 2) ** 2
    return Light(sh.astype(np.float32), skin.astype(np.float32))


def no_light() -> Light:
    """An even light on grey skin, where nothing is known of it."""
    grey = np.full(3, 0.5, np.float32)
    sh = np.zeros((N_SH, 3), np.float32)
    sh[0] = np.sqrt(4.0 * np.pi) * grey
    return Light(sh, grey)


def mixed(old: Light, new: Light, share: float) -> Light:
    """A light between two, at 1 the new one."""
    return Light(
        (old.sh + share * (new.sh - old.sh)).astype(np.float32),
        (old.skin + share * (new.skin - old.skin)).astype(np.float32),
    )


def _median(values: np.ndarray, weight: np.ndarray) -> float:
    order = np.argsort(values)
    below = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(below, below[-1] / 2.0)]])
