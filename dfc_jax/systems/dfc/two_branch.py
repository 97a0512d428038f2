"""What all networks of this system share: two encoders, and a decoder of both codes.

A network is a module of its own, like `paper` and `lite`: a `NetSpec` with its fields, a
`TwoBranch` with its decoder, and its encoder.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from dfc_jax.nets.registry import Spec, flag, whole
from dfc_jax.types import Array, ByValue

# More than any useful network has; a larger one takes minutes only to be described.
MAX_CHANNELS, MAX_LAYERS = 4096, 8
# Fields in the headers of weight files that were written before networks had kinds.
UNTAGGED_FIELDS = {"family", "tail", "strict"}
UNTAGGED_FIELDS |= {"depths", "decoder_depths", "descriptors", "details", "refinements"}


@struct.dataclass(eq=False)
class Outputs(ByValue):
    """What a network says about each pixel of the source.

    Attributes:
      flow: (B, S, S, 2) pixels, from source to target.
      logits: (B, S, S, 2) of (not matchable, matchable).
    """

    flow: Array
    logits: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetSpec(Spec):
    """What the specs of all networks of this system have.

    Attributes:
      tied: one encoder for source and target.
      branches: 2, or 1 for a network that never looks at the target (the paper's ablation); its
        target code has no channels.
    """

    tied: bool = flag(False)
    branches: Literal[1, 2] = whole(2, 1, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.branches == 1 and self.tied:
            raise ValueError("a network of one branch has nothing to tie")

    @abc.abstractmethod
    def encoder(self) -> nn.Module:
        """(B, S, S, 3), train -> code (B, S/16, S/16, C) and skips, a sequence of (B, h, w, c)."""

    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """A source and a target."""
        crop = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        return crop, crop

    def extends(self) -> tuple[Self, ...]:
        """The networks of which this one is an extension, see `networks.extend`; mostly none."""
        return ()


class TwoBranch(nn.Module):
    """Two encoders (one, if tied); a subclass adds the decoder."""

    spec: NetSpec

    def setup(self) -> None:
        self.encoder = self.spec.encoder()
        if self.spec.branches == 2:
            self.target_encoder = self.encoder if self.spec.tied else self.spec.encoder()

    def decode(self, source: Array, target: Array, skips: Sequence[Array], train: bool) -> Outputs:
        """Codes (B, h, w, C) and (B or 1, h, w, D), and the source's skips, to what is found."""
        raise NotImplementedError

    def __call__(self, source: Array, target: Array, train: bool = False) -> Outputs:
        if target.shape[0] != source.shape[0] or not self.spec.tied:
            # Statistics of a single target would be those of one image.
            code = self.encode_target(target, train and target.shape[0] == source.shape[0] > 1)
            return self.with_code(source, code, train)
        # Statistics are taken over both, because inference normalises both with the same ones.
        codes, skips = self.encoder(jnp.concatenate([source, target]), train)
        own, code = jnp.split(codes, 2)
        return self.decode(own, code, [jnp.split(skip, 2)[0] for skip in skips], train)

    def encode_target(self, target: Array, train: bool = False) -> Array:
        """The target's code; without channels where the network never looks at it."""
        if self.spec.branches == 1:
            batch, height, width, _ = target.shape
            return jnp.zeros((batch, height // 16, width // 16, 0), target.dtype)
        code: Array = self.target_encoder(target, train)[0]
        return code

    def with_code(self, source: Array, code: Array, train: bool = False) -> Outputs:
        """The outputs for a source and the code of a target, see `encode_target`."""
        own, skips = self.encoder(source, train)
        return self.decode(own, code, skips, train)


def beside(source: Array, target: Array) -> Array:
    """Codes (B, H, W, C) and (B or 1, H, W, D), concatenated along the channels."""
    target = jnp.broadcast_to(target, (*source.shape[:3], target.shape[-1]))
    return jnp.concatenate([source, target], axis=-1)


def of_untagged(spec: type[Spec], family: str, fields: dict[str, Any]) -> dict[str, Any] | None:
    """The fields of `spec` in the header of an old weight file, None for another `family`.

    Old headers have one set of fields for both networks, each of which ignores some.
    """
    if fields.get("family") != family:
        return None
    ignored = UNTAGGED_FIELDS - {field.name for field in dataclasses.fields(spec)}
    return {name: value for name, value in fields.items() if name not in ignored}
