"""The networks as pure functions: `init`, `apply`, and a code of the template that can be kept.

Variables are a dict of arrays: "params", and "batch_stats" for networks with normalisation.
Crops are (B, S, S, 3) RGB in [0, 1], S a multiple of 16 (128 in practice). The target may have
batch 1: it is then encoded once and serves every source. The functions are compiled once per spec
and shape; inside a larger jit they become a part of it.
"""

import dataclasses
import functools
from typing import cast

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

from dfc_jax.nets.registry import Variables
from dfc_jax.systems.dfc.lite import LiteSpec
from dfc_jax.systems.dfc.paper import PaperSpec
from dfc_jax.systems.dfc.two_branch import NetSpec, Outputs
from dfc_jax.types import Array

__all__ = [
    "SPECS",
    "LiteSpec",
    "NetSpec",
    "Outputs",
    "PaperSpec",
    "Variables",
    "apply",
    "apply_train",
    "apply_with_code",
    "encode_target",
    "extend",
    "init",
    "matchability",
    "param_count",
    "untie",
]

# The tail of the paper's flow decoder has two channels in every layer; this one has more.
_WIDE = PaperSpec(tail=(16, 16, 2))
_LITE = LiteSpec(
    widths=(16, 32, 64, 128),
    depths=(0, 1, 2, 2),
    decoder_depths=(0, 0, 1, 2),
    descriptors=32,
    details=16,
    refinements=1,
    edges=24,
)
# Three and a half times the arithmetic of `lite`, most of it at 1/4 and 1/8 size.
_BASE = LiteSpec(
    widths=(24, 48, 96, 192),
    depths=(0, 2, 2, 2),
    decoder_depths=(0, 1, 2, 2),
    descriptors=32,
    details=32,
    refinements=2,
)

SPECS: dict[str, NetSpec] = {
    "paper": PaperSpec(),
    "paper-tied": PaperSpec(tied=True),
    "paper-strict": PaperSpec(strict=True),
    "paper-strict-tied": PaperSpec(tied=True, strict=True),
    "paper-wide": _WIDE,
    "paper-wide-tied": dataclasses.replace(_WIDE, tied=True),
    "lite": _LITE,
    "lite-tied": dataclasses.replace(_LITE, tied=True),
    "base": _BASE,
    "base-tied": dataclasses.replace(_BASE, tied=True),
}


@functools.partial(jax.jit, static_argnames="spec")
def init(key: Array, spec: NetSpec) -> Variables:
    """Fresh variables (float32) of a network; each layer says how its own values start."""
    return spec.init(key)


@functools.partial(jax.jit, static_argnames="spec")
def apply(variables: Variables, source: Array, target: Array, spec: NetSpec) -> Outputs:
    """Flow and matchability of sources (B, S, S, 3) against targets (B or 1, S, S, 3)."""
    return cast(Outputs, spec.module().apply(variables, source, target))


@functools.partial(jax.jit, static_argnames="spec")
def apply_train(
    variables: Variables, source: Array, target: Array, spec: NetSpec
) -> tuple[Outputs, Variables]:
    """`apply` with the batch's own statistics, and the updated state.

    Images of type bfloat16 make the network compute in it; outputs, parameters and state are
    float32 all the same. The state holds every collection of `variables` but "params":
    {"batch_stats": ...}, or {} for a network without normalisation.
    """
    outputs, state = spec.module().apply(
        variables, source, target, train=True, mutable=["batch_stats"]
    )
    return outputs, dict(state)


@functools.partial(jax.jit, static_argnames="spec")
def encode_target(variables: Variables, target: Array, spec: NetSpec) -> Array:
    """Code (B, S/16, S/16, C) of targets (B, S, S, 3), for `apply_with_code`."""
    return cast(Array, spec.module().apply(variables, target, method="encode_target"))


@functools.partial(jax.jit, static_argnames="spec")
def apply_with_code(variables: Variables, source: Array, code: Array, spec: NetSpec) -> Outputs:
    """`apply` with the target's code from `encode_target` (batch B or 1)."""
    return cast(Outputs, spec.module().apply(variables, source, code, method="with_code"))


def untie(variables: Variables, spec: NetSpec) -> tuple[Variables, NetSpec]:
    """The same network with two encoders, each a copy of the tied one.

    Raises:
      ValueError: the network's encoders are not tied.
    """
    if not spec.tied:
        raise ValueError("the encoders of this network are already untied")
    untied = {
        name: {**tree, "target_encoder": tree["encoder"]} if "encoder" in tree else tree
        for name, tree in variables.items()
    }
    return untied, dataclasses.replace(spec, tied=False)


def extend(variables: Variables, spec: NetSpec, wanted: NetSpec) -> Variables:
    """Variables of the network `wanted`: `spec`, or `spec` with later steps of the decoder.

    What they add starts at zero, so the outputs stay the same.

    Raises:
      ValueError: `wanted` is another network.
    """
    if wanted == spec:
        return variables
    if spec not in wanted.extends():
        raise ValueError("a trained network can be extended by refinement and edges only")
    fresh, known = flatten_dict(init(jax.random.key(0), wanted)), flatten_dict(variables)
    return unflatten_dict({path: known.get(path, leaf) for path, leaf in fresh.items()})


def param_count(variables: Variables) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def matchability(logits: Array) -> Array:
    """Logits (..., 2) to the probability (...) that a pixel is matchable."""
    return lax.index_in_dim(jax.nn.softmax(logits, axis=-1), 1, axis=-1, keepdims=False)
