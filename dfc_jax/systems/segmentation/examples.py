"""What the segmentation learns from."""

from flax import struct

from dfc_jax.types import Array, ByValue


@struct.dataclass(eq=False)
class Examples(ByValue):
    """Crops of which it is known what they show.

    Attributes:
      image: (B, s, s, 3) RGB in [0, 1].
      face: (B, s, s) in {0, 1}, where the face is seen: skin, brows, eyes, nose, lips and ears,
        without neck, hair and what covers it.
      counted: (B, s, s) in {0, 1}, where that is known.
    """

    image: Array
    face: Array
    counted: Array
