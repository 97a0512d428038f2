"""Training examples: two pictures with flow and matchability from one to the other."""

from flax import struct

from dfc_jax.types import Array, ByValue


@struct.dataclass(eq=False)
class Pair(ByValue):
    """A training example.

    Attributes:
      source, target: (s, s, 3) RGB in [0, 1].
      flow: (s, s, 2) px from source to target.
      matchable: (s, s) in {0, 1}; what covers the source or the target does not change it.
      occluded: (s, s) in {0, 1}, where something covers the source.
    """

    source: Array
    target: Array
    flow: Array
    matchable: Array
    occluded: Array
