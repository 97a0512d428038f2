"""A network with the code of its template as one ONNX model: crops in, correspondences out."""

import functools
from typing import TYPE_CHECKING

import numpy as np

from dfc_jax.nets.registry import Variables, to_json
from dfc_jax.systems.dfc.networks import NetSpec, apply_with_code, encode_target, matchability
from dfc_jax.types import Array

if TYPE_CHECKING:
    import onnx

OUTPUTS = ("flow", "matchability")
# What a file says of its input and its outputs.
CONVENTION = {
    "crops": "(N, {0}, {0}, 3) float32 RGB in [0, 1], cut by dfc_jax.crops.crop_photo",
    "flow": "(N, {0}, {0}, 2) crop pixels (x, y): p shows what p + flow shows in the template",
    "matchability": "(N, {0}, {0}) probability that a pixel shows a part of the template",
}


def correspond_alone(
    crops: Array, variables: Variables, code: Array, spec: NetSpec
) -> tuple[Array, Array]:
    """Flow (N, S, S, 2) in crop pixels and matchability (N, S, S) of crops (N, S, S, 3); `code` is
    the template's, from `encode_target`."""
    outputs = apply_with_code(variables, crops, code, spec)
    return outputs.flow, matchability(outputs.logits)


def network_model(
    variables: Variables, spec: NetSpec, template: np.ndarray, metadata: dict[str, str]
) -> "onnx.ModelProto":
    """The model, of crops of the template's size, for any number of crops.

    Args:
      variables, spec: the network and what it is.
      template: (S, S, 3) its image.
      metadata: kept in the file, with the network's spec and what input and outputs are.
    """
    from dfc_jax.nets.to_onnx import to_onnx

    size = template.shape[0]
    code = encode_target(variables, template[None], spec)
    metadata = {
        **metadata,
        "kind": spec.kind,
        "spec": to_json(spec),
        **{name: text.format(size) for name, text in CONVENTION.items()},
    }
    function = functools.partial(correspond_alone, variables=variables, code=code, spec=spec)
    return to_onnx(function, template.shape, OUTPUTS, metadata)
