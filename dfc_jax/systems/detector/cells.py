"""Faces as what the network says of its cells: targets to train on, and the way back."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.systems.detector.networks import LARGEST, SMALLEST, STRIDE, Outputs
from dfc_jax.systems.detector.scenes import Boxes
from dfc_jax.types import Array, ByValue

# Cells in the middle of a face learn to find it, out to this part of its edge and at least to this
# distance in pixels, within which there is one for every face; out to `_NEAR` of its edge, no cell
# learns whether there is one.
_MIDDLE, _MIDDLE_PX, _NEAR = 0.3, STRIDE / np.sqrt(2.0), 0.6
# Nor do the cells of faces that are a little too small or too large.
_TOO_SMALL, _TOO_LARGE = 10.0, 60.0
# How much the place and the size of a face count in the loss: with 4 instead of 1 both were 7 %
# more exact after as many steps, and scores and rolls as good.
EXACT = 4.0
# Units of places and sizes.
_PLACE_PX, _EDGE_PX = 16.0, 24.0


@struct.dataclass(eq=False)
class Targets(ByValue):
    """What cells (..., H, W) shall say.

    Attributes:
      face: (...) bool, whether the cell lies in the middle of a face.
      known: (...) bool, whether it matters what the cell says of that.
      edge: (...) of that face, px.
      values: (..., 5) as of `Outputs`, where `face`.
    """

    face: Array
    known: Array
    edge: Array
    values: Array


def targets(boxes: Boxes, present: Array, height: int, width: int) -> Targets:
    """What the cells (height, width) of a picture with these faces (K,) shall say; faces that are
    not `present` (K,) are doubtful: nothing is learnt in their middles."""
    rows, columns = jnp.mgrid[:height, :width]
    cells = jnp.stack([columns, rows], axis=-1) * STRIDE + (STRIDE - 1) / 2.0
    arm = boxes.middle - cells[..., None, :]
    apart = jnp.linalg.norm(arm, axis=-1)
    fits = (boxes.edge >= SMALLEST) & (boxes.edge <= LARGEST) & present
    doubtful = (boxes.edge >= _TOO_SMALL) & (boxes.edge <= _TOO_LARGE)
    inside = fits & (apart <= jnp.maximum(_MIDDLE * boxes.edge, _MIDDLE_PX))
    near = doubtful & (apart <= jnp.maximum(_NEAR * boxes.edge, _MIDDLE_PX))
    face = inside.any(axis=-1)
    which = jnp.argmin(jnp.where(inside, apart / boxes.edge, jnp.inf), axis=-1)
    roll = jnp.deg2rad(boxes.roll_deg[which])
    edge = boxes.edge[which]
    place = jnp.take_along_axis(arm, which[..., None, None], axis=-2)[..., 0, :]
    size = jnp.log(edge / _EDGE_PX)
    values = jnp.stack([size, jnp.cos(roll), jnp.sin(roll)], axis=-1)
    values = jnp.concatenate([place / _PLACE_PX, values], axis=-1)
    return Targets(face, face | ~near.any(axis=-1), edge, values)


def loss(outputs: Outputs, wanted: Targets) -> dict[str, Array]:
    """Means over the faces' cells of a batch, leaves (B, H, W, ...).

    "score": the cross-entropy of all cells that matter, which makes the score a probability.
    "place": distance from the true middle, in parts of the edge. "size": of the logarithm of the
    edge. "roll": squared distance of the direction, a unit vector, from the true one; with the
    distance itself the network kept to upright, where most faces are. "loss": their sum, with place
    and size `EXACT` times.
    """
    count = jnp.maximum(wanted.face.sum(), 1)

    def over_faces(values: Array) -> Array:
        return jnp.where(wanted.face, values, 0.0).sum() / count

    entropy = jax.nn.softplus(outputs.logit) - wanted.face * outputs.logit
    error = outputs.values - wanted.values
    away = jnp.sqrt(jnp.sum(error[..., :2] ** 2, axis=-1) + 1e-6)
    turned = jnp.sum(error[..., 3:] ** 2, axis=-1)
    parts = {
        "score": jnp.where(wanted.known, entropy, 0.0).sum() / count,
        "place": over_faces(away * _PLACE_PX / jnp.where(wanted.face, wanted.edge, 1.0)),
        "size": over_faces(jnp.abs(error[..., 2])),
        "roll": over_faces(turned),
    }
    exact = (EXACT - 1.0) * (parts["place"] + parts["size"])
    return {"loss": jnp.stack(list(parts.values())).sum() + exact, **parts}


def decode(outputs: Outputs, min_score: float) -> tuple[Boxes, np.ndarray]:
    """The boxes (K,) that the cells of a picture (H, W) see with at least this score, and their
    scores (K,); NumPy."""
    # The logits are compared: hardly a cell needs its score.
    logit = np.asarray(outputs.logit)
    rows, columns = np.nonzero(logit >= np.log(min_score / (1.0 - min_score)))
    x, y, size, cosine, sine = np.asarray(outputs.values)[rows, columns].astype(np.float64).T
    middle = np.stack([columns, rows], axis=-1) * STRIDE + (STRIDE - 1) / 2.0
    middle = middle + _PLACE_PX * np.stack([x, y], axis=-1)
    roll = np.rad2deg(np.arctan2(sine, cosine))
    score = 1.0 / (1.0 + np.exp(-logit[rows, columns].astype(np.float64)))
    return Boxes(middle, _EDGE_PX * np.exp(size), roll), score
