"""Training examples: pictures with flow and matchability from one to the other."""

from flax import struct

from dfc_jax.types import Array, ByValue


@struct.dataclass(eq=False)
class Pair(ByValue):
    """A training example.

    Attributes:
      source, target: (s, s, 3) RGB in [0, 1].
      flow: (s, s, 2) px from source to target.
      matchable: (s, s) in {0, 1}; occluders of the source or the target do not change it.
      occluded: (s, s) in {0, 1}, where something covers the source.
    """

    source: Array
    target: Array
    flow: Array
    matchable: Array
    occluded: Array


@struct.dataclass(eq=False)
class Examples(ByValue):
    """A batch of training examples, from wherever they come.

    Attributes:
      source: (B, s, s, 3) RGB in [0, 1].
      target: (B, s, s, 3), or (1, s, s, 3) for one that all examples share.
      flow: (B, s, s, 2) px from source to target.
      matchable: (B, s, s) in {0, 1}.
      importance: (B, s, s) weight of each pixel's flow error in the loss; None for 1 everywhere.
      points: (B, 68, 2) annotated landmarks, px of the source; None where there are none.
    """

    source: Array
    target: Array
    flow: Array
    matchable: Array
    importance: Array | None = None
    points: Array | None = None
