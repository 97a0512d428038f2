"""What a training run carries from step to step: arrays only."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from dfc_jax.training.sharding import replicated
from dfc_jax.types import Array, ByValue

Variables = dict[str, Any]


@struct.dataclass(eq=False)
class TrainState(ByValue):
    """State of a run after `step` steps.

    Attributes:
      step: () int32.
      variables: of the network, "params" among them.
      opt_state: of the optimizer.
      ema: running average of `variables`, or None.
    """

    step: Array
    variables: Variables
    opt_state: optax.OptState
    ema: Variables | None = None


def create_state(
    variables: Variables,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    ema: bool = False,
) -> TrainState:
    """State before the first step, on every device of the mesh.

    It owns copies of the variables, since a step gives its input's memory away.
    """

    def copy(tree: Variables) -> Variables:
        # The explicit type drops weak types, for which the second step would compile anew.
        return jax.tree.map(lambda leaf: jnp.array(leaf, leaf.dtype, copy=True), tree)

    variables = copy(variables)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
        ema=copy(variables) if ema else None,
    )
    return jax.device_put(state, replicated(mesh))


def update_ema(ema: Variables, variables: Variables, step: Array, decay: float) -> Variables:
    """ema + (1 - d) (variables - ema), d = min(decay, (1 + step) / (10 + step)).

    The early steps average over a short past, so the average never remembers the initial values.
    """
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda mean, value: mean + rate * (value - mean), ema, variables)


def averaged(state: TrainState) -> Variables:
    """The running average of the variables, or the variables where there is none."""
    return state.variables if state.ema is None else state.ema
