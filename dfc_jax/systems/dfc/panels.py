"""Pictures of what a network makes of a batch, for TensorBoard."""

from functools import partial

import jax
import numpy as np

from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.systems.dfc.draw import flow_picture, mask_picture
from dfc_jax.systems.dfc.networks import Outputs, matchability
from dfc_jax.systems.dfc.pairs import Examples, Pair
from dfc_jax.types import Array


def panels(pairs: Pair | Examples, outputs: Outputs) -> np.ndarray:
    """A row per example (B of them, each with a target), uint8 (B S, 7 S, 3).

    From left to right: source; target; the target carried to the source by the predicted flow,
    where it is predicted matchable; true and predicted flow, colours to one scale; true and
    predicted matchability.
    """
    probability = matchability(outputs.logits)
    carried = _carry(pairs.target, outputs.flow, probability)
    truth = pairs.source, pairs.target, pairs.flow, pairs.matchable
    columns = jax.device_get((*truth, carried, outputs.flow, probability))
    return np.concatenate([_row(*example) for example in zip(*columns, strict=True)])


@jax.jit
@jax.vmap
def _carry(target: Array, flow: Array, probability: Array) -> Array:
    carried = bilinear_sample(target, pixel_grid(*flow.shape[:2]) + flow, fill=0.0)
    return carried * (probability > 0.5)[..., None]


def _row(source, target, flow, matchable, carried, found_flow, probability) -> np.ndarray:
    edge = len(source)
    longest = float(np.linalg.norm(flow * matchable[..., None], axis=-1).max())
    colours = partial(flow_picture, edge=edge, longest=longest)
    images = [np.round(255.0 * image).astype(np.uint8) for image in (source, target, carried)]
    flows = [colours(flow, matchable), colours(found_flow, probability)]
    masks = [mask_picture(mask, edge)[..., None].repeat(3, -1) for mask in (matchable, probability)]
    return np.concatenate([*images, *flows, *masks], axis=1)
