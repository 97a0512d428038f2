"""What a face looks like, to tell the people of a video apart (NumPy)."""

import dataclasses

import numpy as np

from dfc_jax.types import ByValue

# Patches along an edge of the template, and the pixels that have to show one.
PATCHES = 8
_MIN_PIXELS = 8
# A memory is the mean of what was seen, of some hundred frames at most.
_MOST_FRAMES = 100.0


@dataclasses.dataclass(frozen=True, eq=False)
class Appearance(ByValue):
    """The colours of a face, patch by patch over the template.

    Attributes:
      colour: (P, 3) mean RGB in [0, 1] of each patch.
      weight: (P,) in how many frames it was seen, 0 if never.
    """

    colour: np.ndarray
    weight: np.ndarray

    def apart(self, other: "Appearance") -> float:
        """Mean difference of the colours of the patches that both have; infinite without any."""
        both = (self.weight > 0) & (other.weight > 0)
        if not both.any():
            return float("inf")
        return float(np.abs(self.colour[both] - other.colour[both]).mean())

    def with_frame(self, other: "Appearance") -> "Appearance":
        """The mean of this memory and what a frame shows."""
        kept = np.minimum(self.weight, _MOST_FRAMES - 1.0)
        weight = kept + other.weight
        total = kept[:, None] * self.colour + other.weight[:, None] * other.colour
        return Appearance(total / np.maximum(weight, 1.0)[:, None], weight)


def appearance(crop: np.ndarray, flow: np.ndarray, matchability: np.ndarray) -> Appearance:
    """Of the face in a crop, whose matchable pixels say where on the template they lie.

    Args:
      crop: (S, S, 3) in [0, 1].
      flow: (S, S, 2) crop pixels, from the crop to the template.
      matchability: (S, S) probability of being matchable.
    """
    size = crop.shape[0]
    matchable = matchability > 0.5
    rows, columns = np.nonzero(matchable)
    at = np.stack([columns, rows], axis=-1) + flow[matchable]
    cell = np.clip(at * PATCHES / size, 0, PATCHES - 1).astype(int)
    patch = cell[:, 1] * PATCHES + cell[:, 0]
    count = np.bincount(patch, minlength=PATCHES**2)
    colours = crop[matchable]
    sums = np.stack([np.bincount(patch, c, PATCHES**2) for c in colours.T], axis=-1)
    seen = count >= _MIN_PIXELS
    colour = np.where(seen[:, None], sums / np.maximum(count, 1)[:, None], 0.0)
    return Appearance(colour, seen.astype(float))
