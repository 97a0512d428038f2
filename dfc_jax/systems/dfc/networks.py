"""The networks as pure functions: `init`, `apply`, and a code of the template that can be kept.

Variables are a dict of arrays: "params", and "batch_stats" for networks with normalisation.
Crops are (B, S, S, 3) RGB in [0, 1], S a multiple of 16 (128 in practice). The target may have
batch 1: it is then encoded once and serves every source. The functions are compiled once per spec
and shape; inside a larger jit they become a part of it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from dfc_jax.systems.dfc.lite import LiteDecoder, LiteEncoder, beside
from dfc_jax.systems.dfc.paper import PaperDecoder, PaperEncoder
from dfc_jax.types import Array, ByValue

Variables = dict[str, Any]

TRUNCATED_STD = 0.87962566  # of a standard normal cut off at two standard deviations
HEADS_GAIN = 1e-4  # on the variance
# Far beyond what is of use; a network of more takes minutes to describe, let alone to run.
MAX_CHANNELS, MAX_LAYERS, MAX_REFINEMENTS = 4096, 8, 8


@dataclasses.dataclass(frozen=True)
class NetSpec:
    """Everything that determines a network's function, apart from its variables.

    Attributes:
      family: "paper" (Yu et al. 2017) or "lite" (for a CPU).
      tied: one encoder for source and target.
      tail: channels of the last layers of the paper's flow decoder.
      widths: channels from the largest to the smallest feature map.
      depths: lite only, residual blocks of the encoders at each size.
      decoder_depths: lite only, residual blocks of the decoder at each size.
      descriptors: lite only, channels by which source and target are matched at 1/8 size; 0 for
        no matching.
      details: lite only, channels of the target by which the landing is refined at 1/4 size.
      refinements: lite only, how often it is.
      branches: 2, or 1 for a network that never looks at the target (the paper's ablation); its
        target code has no channels.
      strict: paper only, the plain ReLU also where the flow decoder's tail has two channels.
    """

    family: Literal["paper", "lite"]
    tied: bool = False
    tail: tuple[int, ...] = (2, 2, 2)
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    depths: tuple[int, ...] = ()
    decoder_depths: tuple[int, ...] = ()
    descriptors: int = 0
    details: int = 0
    refinements: int = 0
    branches: Literal[1, 2] = 2
    strict: bool = False

    def __post_init__(self) -> None:
        if self.family not in ("paper", "lite"):
            raise ValueError(f"the family must be 'paper' or 'lite'; got {self.family!r}")
        _check_sizes(self)
        if self.branches == 1 and (self.tied or self.descriptors or self.details):
            raise ValueError("a network of one branch has nothing to tie or to match")
        if bool(self.details) != bool(self.refinements):
            raise ValueError("details and refinements belong together; give both or neither")


def _check_sizes(spec: NetSpec) -> None:
    """Raises ValueError unless every number is of use and the lists belong together."""
    for name in ("tied", "strict"):
        if not isinstance(getattr(spec, name), bool):
            raise ValueError(f"{name} must be true or false")
    ranges = {
        "tail": (1, MAX_CHANNELS),
        "widths": (1, MAX_CHANNELS),
        "depths": (0, MAX_LAYERS),
        "decoder_depths": (0, MAX_LAYERS),
        "descriptors": (0, MAX_CHANNELS),
        "details": (0, MAX_CHANNELS),
        "refinements": (0, MAX_REFINEMENTS),
        "branches": (1, 2),
    }
    for name, (low, high) in ranges.items():
        value = getattr(spec, name)
        is_list = name in ("tail", "widths", "depths", "decoder_depths")
        if isinstance(value, tuple) != is_list:
            raise ValueError(f"{name} must be {'a list' if is_list else 'one number'}")
        for number in value if is_list else (value,):
            if type(number) is not int or not low <= number <= high:
                raise ValueError(f"{name} must hold whole numbers from {low} to {high}")
    if len(spec.tail) not in range(1, MAX_LAYERS + 1) or spec.tail[-1] != 2:
        raise ValueError(f"tail must hold 1 to {MAX_LAYERS} numbers, the last one 2")
    scales = 5 if spec.family == "paper" else 4
    lengths = {"widths": scales}
    if spec.family == "lite":
        lengths |= {"depths": scales, "decoder_depths": scales}
    for name, length in lengths.items():
        if len(getattr(spec, name)) != length:
            raise ValueError(f"{name} must hold {length} numbers in the family {spec.family}")
    # The decoder of matchability halves half of it three times.
    if spec.family == "paper" and spec.widths[-1] < 16:
        raise ValueError("the last of the widths must be 16 or more in the family paper")


# The paper's tail passes everything through two channels; this one is wider.
_WIDE = NetSpec("paper", tail=(16, 16, 2))
_LITE = NetSpec(
    "lite",
    widths=(16, 32, 64, 128),
    depths=(0, 1, 2, 2),
    decoder_depths=(0, 0, 1, 2),
    descriptors=32,
    details=16,
    refinements=1,
)

SPECS: dict[str, NetSpec] = {
    "paper": NetSpec("paper"),
    "paper-tied": NetSpec("paper", tied=True),
    "paper-strict": NetSpec("paper", strict=True),
    "paper-strict-tied": NetSpec("paper", tied=True, strict=True),
    "paper-wide": _WIDE,
    "paper-wide-tied": dataclasses.replace(_WIDE, tied=True),
    "lite": _LITE,
    "lite-tied": dataclasses.replace(_LITE, tied=True),
}


@struct.dataclass(eq=False)
class Outputs(ByValue):
    """What a network says about each pixel of the source.

    Attributes:
      flow: (B, S, S, 2) pixels, from source to target.
      logits: (B, S, S, 2) of (not matchable, matchable).
    """

    flow: Array
    logits: Array


class Network(nn.Module):
    """Two encoders (one, if tied) and the decoders of a spec."""

    spec: NetSpec

    def setup(self) -> None:
        spec = self.spec
        if spec.family == "paper":
            encoder: Callable[[], nn.Module] = functools.partial(PaperEncoder, spec.widths)
            self.flow_decoder = PaperDecoder(spec.widths[-1], spec.tail, spec.strict)
            self.matchability_decoder = PaperDecoder(spec.widths[-1] // 2, (2,))
        else:
            parts = spec.descriptors, spec.details
            encoder = functools.partial(LiteEncoder, spec.widths, spec.depths, *parts)
            self.decoder = LiteDecoder(spec.widths, spec.decoder_depths, *parts, spec.refinements)
        self.encoder = encoder()
        if spec.branches == 2:
            self.target_encoder = self.encoder if spec.tied else encoder()

    def __call__(self, source: Array, target: Array, train: bool = False) -> Outputs:
        if target.shape[0] != source.shape[0] or not self.spec.tied:
            # One target for the whole batch has no batch to take statistics over.
            code = self.encode_target(target, train and target.shape[0] == source.shape[0] > 1)
            return self.with_code(source, code, train)
        # Statistics over both, for they are normalised alike afterwards.
        codes, skips = self.encoder(jnp.concatenate([source, target]), train)
        own, code = jnp.split(codes, 2)
        return self._decode(own, code, [jnp.split(skip, 2)[0] for skip in skips], train)

    def encode_target(self, target: Array, train: bool = False) -> Array:
        if self.spec.branches == 1:
            batch, height, width, _ = target.shape
            return jnp.zeros((batch, height // 16, width // 16, 0), target.dtype)
        return self.target_encoder(target, train)[0]

    def with_code(self, source: Array, code: Array, train: bool = False) -> Outputs:
        own, skips = self.encoder(source, train)
        return self._decode(own, code, skips, train)

    def _decode(self, own: Array, code: Array, skips: Sequence[Array], train: bool) -> Outputs:
        if self.spec.family == "lite":
            return Outputs(*self.decoder(own, code, skips, train))
        both = beside(own, code)
        return Outputs(self.flow_decoder(both), self.matchability_decoder(both))


@functools.partial(jax.jit, static_argnames="spec")
def init(key: Array, spec: NetSpec) -> Variables:
    """Fresh variables (float32) of a network.

    Kernels are truncated normal of variance 2 / fan-in (He et al. 2015), biases 0, normalisation
    is the identity. The lite network's heads start small, hence near the centre of the crop, and
    its corrections at zero.
    """
    crop = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = dict(jax.eval_shape(Network(spec).init, key, crop, crop))
    # One draw for all kernels: a generator for each takes XLA half a minute to compile.
    pool = jax.random.truncated_normal(key, -2.0, 2.0, (param_count(shapes),)) / TRUNCATED_STD
    start = 0

    def initial(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Array:
        nonlocal start
        *parents, name = (str(entry.key) for entry in path)
        if name != "kernel":
            return jnp.full(leaf.shape, float(name in ("scale", "var")), leaf.dtype)
        values = pool[start : start + leaf.size].reshape(leaf.shape)
        start += leaf.size
        return values * math.sqrt(2.0 / _fan_in(parents[-1], leaf.shape))

    return jax.tree_util.tree_map_with_path(initial, shapes)


def _fan_in(layer: str, shape: tuple[int, ...]) -> float:
    taps = math.prod(shape[:-1])
    if layer.startswith("Deconv3x3"):
        return taps / 4.0  # A quarter of the taps meets each output.
    if layer == "correction":
        return math.inf
    return taps / HEADS_GAIN if layer == "heads" else taps


@functools.partial(jax.jit, static_argnames="spec")
def apply(variables: Variables, source: Array, target: Array, spec: NetSpec) -> Outputs:
    """Flow and matchability of sources (B, S, S, 3) against targets (B or 1, S, S, 3)."""
    return cast(Outputs, Network(spec).apply(variables, source, target))


@functools.partial(jax.jit, static_argnames="spec")
def apply_train(
    variables: Variables, source: Array, target: Array, spec: NetSpec
) -> tuple[Outputs, Variables]:
    """`apply` with the batch's own statistics, and the updated state.

    Images of type bfloat16 make the network compute in it; outputs, parameters and state are
    float32 all the same. The state holds every collection of `variables` but "params":
    {"batch_stats": ...}, or {} for a network without normalisation.
    """
    outputs, state = Network(spec).apply(
        variables, source, target, train=True, mutable=["batch_stats"]
    )
    return outputs, dict(state)


@functools.partial(jax.jit, static_argnames="spec")
def encode_target(variables: Variables, target: Array, spec: NetSpec) -> Array:
    """Code (B, S/16, S/16, C) of targets (B, S, S, 3), for `apply_with_code`."""
    return cast(Array, Network(spec).apply(variables, target, method="encode_target"))


@functools.partial(jax.jit, static_argnames="spec")
def apply_with_code(variables: Variables, source: Array, code: Array, spec: NetSpec) -> Outputs:
    """`apply` with the target's code from `encode_target` (batch B or 1)."""
    return cast(Outputs, Network(spec).apply(variables, source, code, method="with_code"))


def untie(variables: Variables, spec: NetSpec) -> tuple[Variables, NetSpec]:
    """The same function with two encoders, both starting from the tied one.

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
    """The same function in the network `wanted`, which may refine the landing beyond what `spec`
    does; it starts by correcting nothing.

    Raises:
      ValueError: `wanted` is another network.
    """
    if wanted == spec:
        return variables
    if dataclasses.replace(wanted, details=0, refinements=0) != spec:
        raise ValueError("a trained network can be extended by a refinement only")
    fresh, known = flatten_dict(init(jax.random.key(0), wanted)), flatten_dict(variables)
    return unflatten_dict({path: known.get(path, leaf) for path, leaf in fresh.items()})


def param_count(variables: Variables) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def matchability(logits: Array) -> Array:
    """Logits (..., 2) to the probability (...) that a pixel is matchable."""
    return jax.nn.softmax(logits, axis=-1)[..., 1]
