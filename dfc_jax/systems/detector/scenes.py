"""Pictures with faces: what the detector learns from and what it finds.

A face is where the aligner wants its crop: the middle and the longer edge of the tight box of the
68 landmarks along the axes of the face, and the roll of these axes.
"""

import numpy as np
from flax import struct

from dfc_jax.types import AnyArray, ByValue

# Pictures have edges of multiples of this.
MULTIPLE = 16
# What is outside of pictures: the grey that the network sees as zero.
PAD = 128


@struct.dataclass(eq=False)
class Boxes(ByValue):
    """K upright boxes of faces (..., K).

    Attributes:
      middle: (..., K, 2) px.
      edge: (..., K) px, the longer one.
      roll_deg: (..., K) how far the face is tilted, clockwise.
    """

    middle: AnyArray
    edge: AnyArray
    roll_deg: AnyArray


@struct.dataclass(eq=False)
class Scenes(ByValue):
    """Pictures with faces, to learn from.

    Attributes:
      image: (B, S, S, 3) uint8 RGB.
      boxes: (B, K) of the faces.
      present: (B, K) bool; where not, there may be a face or not, and nothing is learnt there.
    """

    image: AnyArray
    boxes: Boxes
    present: AnyArray


def boxes_of_points(points: np.ndarray, roll_deg: np.ndarray) -> Boxes:
    """Boxes (N,) of landmarks (N, 68, 2) in pixels of faces with these rolls (N,)."""
    roll = np.deg2rad(roll_deg)
    cosine, sine = np.cos(roll), np.sin(roll)
    turn = np.moveaxis(np.array([[cosine, -sine], [sine, cosine]]), -1, 0)
    upright = points @ turn
    low, high = upright.min(axis=1), upright.max(axis=1)
    middle = np.einsum("nij,nj->ni", turn, (low + high) / 2.0)
    return Boxes(middle, (high - low).max(axis=1), np.asarray(roll_deg))
