"""How a batch is worked through: one after the other, or side by side."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

T = TypeVar("T")


def each(function: Callable[..., T], *batches: Any) -> T:
    """`function` of every example of a batch: on a CPU one after the other, else side by side.

    On a CPU, a loop that runs as long as the slowest example needs costs more than it saves.
    """
    if jax.tree.leaves(batches)[0].shape[0] == 1:
        result = function(*jax.tree.map(lambda a: a[0], batches))
        return jax.tree.map(lambda a: a[None], result)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda batch: function(*batch), batches)
    return jax.vmap(function)(*batches)
