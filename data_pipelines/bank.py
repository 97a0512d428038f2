"""Examples in groups, of which some are drawn more often than others."""

from collections.abc import Sequence
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.types import AnyArray, Array, ByValue

Items = TypeVar("Items")


@struct.dataclass(eq=False)
class Bank(ByValue, Generic[Items]):
    """Examples in G groups.

    Attributes:
      items: those of all groups, group after group; their arrays have one leading axis.
      starts, counts: (G,) int32, first example and number of examples of each group.
      shares: (G,) how often each group is drawn, 1 in all.
    """

    items: Items
    starts: AnyArray
    counts: AnyArray
    shares: AnyArray

    def draw(self, group: Array, within: Array) -> Items:
        """The example at a place in [0, 1) `within` a group chosen by a number in [0, 1)."""
        which = jnp.searchsorted(jnp.cumsum(jnp.asarray(self.shares))[:-1], group, side="right")
        place = (within * jnp.asarray(self.counts)[which]).astype(jnp.int32)
        index = jnp.asarray(self.starts)[which] + place
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], self.items)


def bank_of(groups: Sequence[Items], shares: Sequence[float]) -> Bank[Items]:
    """Groups that are drawn in these proportions; those without examples never."""
    counts = np.array([len(jax.tree.leaves(group)[0]) for group in groups], np.int32)
    weights = np.where(counts > 0, shares, 0.0)
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    items = jax.tree.map(lambda *leaves: np.concatenate(leaves), *groups)
    return Bank(items, starts, counts, (weights / weights.sum()).astype(np.float32))
