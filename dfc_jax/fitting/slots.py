"""Many loops of different lengths, some at a time: one that has stopped makes room for the next."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dfc_jax.types import Array

State = TypeVar("State")


def in_slots(
    start: Callable[[Any], State],
    running: Callable[[State], Array],
    step: Callable[[State, Any], State],
    problems: Any,
    slots: int,
) -> State:
    """The last state of each of B problems: ``while running(state): state = step(state, problem)``
    from ``start(problem)``.

    Args:
      start, running, step: of one problem.
      problems: leaves (B, ...).
      slots: how many are worked on side by side, at most B.
    """
    count = len(jax.tree.leaves(problems)[0])

    def load(index: Array) -> tuple[Any, State]:
        """The problems with these numbers; of those beyond the last, that one."""
        own = jax.tree.map(lambda leaf: leaf[jnp.minimum(index, count - 1)], problems)
        return own, jax.vmap(start)(own)

    def refilled(done: Array, index: Array, own: Any, state: State) -> tuple[Any, State]:
        return _chosen(done, load(index), (own, state))

    def step_if_running(state: State, own: Any) -> State:
        return _chosen(running(state), step(state, own), state)

    def body(carry: tuple) -> tuple:
        index, following, own, state, finals = carry
        state = jax.vmap(step_if_running)(state, own)
        done = ~jax.vmap(running)(state)
        place = jnp.where(done, index, count)
        finals = jax.tree.map(lambda a, b: a.at[place].set(b, mode="drop"), finals, state)
        index = jnp.where(done, following + jnp.cumsum(done) - 1, index)
        own, state = jax.lax.cond(
            jnp.any(done), refilled, lambda *same: same[2:], done, index, own, state
        )
        return index, following + jnp.sum(done), own, state, finals

    index = jnp.arange(slots)
    own, state = load(index)
    finals = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), state)
    carry = index, jnp.int32(slots), own, state, finals
    return jax.lax.while_loop(lambda carry: jnp.any(carry[0] < count), body, carry)[-1]


def _chosen(first: Array, these: Any, those: Any) -> Any:
    """`these` where `first` holds, along the leading axes that it has, else `those`."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(first.reshape(first.shape + (1,) * (a.ndim - first.ndim)), a, b)

    return jax.tree.map(choose, these, those)
