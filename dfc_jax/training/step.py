"""Steps of gradient descent, several in one call, compiled over all devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from jax.tree_util import Partial

from dfc_jax.training.sharding import replicated, split_batches
from dfc_jax.training.state import TrainState, Variables, update_ema
from dfc_jax.types import Array

Batch = Any
Metrics = dict[str, Array]
# (variables, batch, key) to (loss, (every collection but "params" after the step, metrics)).
LossFn = Callable[[Variables, Batch, Array], tuple[Array, tuple[Variables, Metrics]]]
StepFn = Callable[[TrainState, Batch, Array, float], tuple[TrainState, Metrics]]
# For `jax.jit` of programs that render faces. On NVIDIA's devices XLA makes whatever is divided by
# its own sum or norm a kernel of Triton, and then weighs how to tile all that could be joined with
# it: two thirds of the time that such a program takes to compile, for a handful of small arrays.
COMPILER_OPTIONS = {"xla_disable_hlo_passes": "triton-softmax-rewriter"}


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    ema_decay: float = 0.999,
) -> StepFn:
    """Compile ``call(state, batches, root_key, rate_factor) -> (state, metrics)`` over the devices
    of `mesh`.

    `batches` are K stacked ones, leaves (K, B, ...): the call makes K steps, one after the other,
    and returns the metrics of each, (K,). Another K compiles another program. Several steps in a
    call save an accelerator the way through Python; on a CPU XLA works loops off by one core, so
    that K = 1, which needs none, is ten times faster.

    The loss is a function of the whole batch: means over it, batch statistics included, are those
    of one big device. Step n draws its randomness from ``fold_in(root_key, n)``, so that a resumed
    run repeats itself. The input state's memory is given away (donated). `ema_decay` matters only
    if the state has an `ema`. The learning rate of the optimizer is multiplied by `rate_factor`.

    The metrics are those of `loss_fn` and "loss" and "grad_norm" (before clipping).

    Large arrays that every loss reads belong into a ``jax.tree_util.Partial``: what it binds is
    handed to the program, while what a function closes over is compiled into it.
    """
    everywhere = replicated(mesh)
    # A Partial of a Partial has no leaves: what the inner one binds would become constants.
    if not isinstance(loss_fn, Partial):
        loss_fn = Partial(loss_fn)
    loss_fn = jax.device_put(loss_fn, everywhere)

    def step(
        loss_fn: LossFn, state: TrainState, batch: Batch, root_key: Array, rate_factor: Array
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root_key, state.step)
        params = state.variables["params"]

        def loss_of(params: optax.Params) -> tuple[Array, tuple[Variables, Metrics]]:
            return loss_fn({**state.variables, "params": params}, batch, key)

        (loss, (model_state, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        updates = optax.tree.scale(rate_factor, updates)
        variables = {**model_state, "params": optax.apply_updates(params, updates)}
        ema = state.ema
        if ema is not None:
            ema = update_ema(ema, variables, state.step, ema_decay)
        metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, variables, opt_state, ema), metrics

    def call(
        loss_fn: LossFn, state: TrainState, batches: Batch, root_key: Array, rate_factor: Array
    ) -> tuple[TrainState, Metrics]:
        def one(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            return step(loss_fn, state, batch, root_key, rate_factor)

        if len(jax.tree.leaves(batches)[0]) == 1:
            state, metrics = one(state, jax.tree.map(lambda leaf: leaf[0], batches))
            return state, jax.tree.map(lambda value: value[None], metrics)
        return jax.lax.scan(one, state, batches)

    compiled = jax.jit(
        call,
        in_shardings=(everywhere, everywhere, split_batches(mesh), everywhere, everywhere),
        out_shardings=everywhere,
        donate_argnums=1,
        compiler_options=COMPILER_OPTIONS,
    )
    return functools.partial(compiled, loss_fn)


def compiled_step(step_fn: StepFn, *args: Any) -> jax.stages.Compiled:
    """The program of a call of a `make_train_step`, which is not made; it takes ``step_fn.args``,
    which is the loss, and then `args`."""
    # The jitted function, with the loss on the devices as its first argument.
    step: Any = step_fn
    compiled: jax.stages.Compiled = step.func.lower(*step.args, *args).compile()
    return compiled
