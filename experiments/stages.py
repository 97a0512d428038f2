"""The stages that pretraining and refinement share."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import jax
import ml_collections
import numpy as np
from absl import logging

from dfc_jax.nets import weights
from dfc_jax.systems.dfc.loss import Norm, Reduction, correspondence_loss
from dfc_jax.systems.dfc.networks import (
    SPECS,
    NetSpec,
    Outputs,
    Variables,
    apply_train,
    extend,
    init,
    untie,
)
from dfc_jax.training import (
    Checkpoints,
    OptimConfig,
    TrainState,
    create_state,
    fit,
    make_mesh,
    make_optimizer,
    make_train_step,
    own_copy,
)
from experiments.launch import ConfigError, stop_on_signal
from experiments.workdir import CHECKPOINTS, logger, show, write_config, writer_of


def optim_config(config: ml_collections.ConfigDict) -> OptimConfig:
    """Optimizer settings of a config.

    Raises:
      ConfigError: they make no sense.
    """
    try:
        return OptimConfig(
            learning_rate=config.learning_rate,
            steps=config.steps,
            name="adamw" if config.weight_decay else "adam",
            schedule=config.schedule,
            boundaries=tuple(tuple(pair) for pair in config.boundaries),
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_config(config: ml_collections.ConfigDict, needs: Sequence[str] = ()) -> None:
    """Look at the numbers that must fit together, before anything is made of them.

    Args:
      needs: fields that this stage reads and the other one's configs lack.

    Raises:
      ConfigError: they do not.
    """
    for name in needs:
        if name not in config:
            raise ConfigError(f"--config has no {name}; it is a config of the other stage")
    optim_config(config)
    choices = {
        "compute": ("float32", "bfloat16"),
        "norm": get_args(Norm),
        "reduction": get_args(Reduction),
    }
    for name, known in choices.items():
        if config[name] not in known:
            raise ConfigError(
                f"config.{name} is {config[name]!r}; choose {' or '.join(map(repr, known))}"
            )
    per_call = config.steps_per_call
    for name in ("steps", "log_every", "save_every", "steps_per_call", "batch", "keep_last"):
        if config[name] < 1:
            raise ConfigError(f"config.{name} is {config[name]}; it must be at least 1")
    for name in ("steps", "log_every", "save_every"):
        if config[name] % per_call:
            raise ConfigError(
                f"config.{name} is {config[name]}, which is not a multiple of "
                f"config.steps_per_call ({per_call})"
            )
    _check_batch(config)


def _check_batch(config: ml_collections.ConfigDict) -> None:
    """Each part of a batch is an array of its own, and is split over all devices."""
    devices = jax.device_count()
    if config.batch % devices:
        raise ConfigError(
            f"config.batch is {config.batch}, which does not split evenly over {devices} devices"
        )
    targets = config.get("template_targets", 0)
    if not 0 <= targets <= config.batch:
        raise ConfigError(
            f"config.template_targets is {targets}; it must be between 0 and config.batch "
            f"({config.batch})"
        )
    if targets % devices:
        raise ConfigError(
            f"config.template_targets is {targets}, which does not split evenly over {devices} "
            "devices"
        )


def spec_of(config: ml_collections.ConfigDict) -> NetSpec:
    """The network that a config names.

    Raises:
      ConfigError: there is none of that name.
    """
    if config.network not in SPECS:
        raise ConfigError(f"there is no network {config.network!r}; choose from {sorted(SPECS)}")
    return SPECS[config.network]


def batch_loss(
    config: ml_collections.ConfigDict, outputs: Outputs, flow, matchable, importance=None
):
    """Mean loss of a batch and its parts."""
    parts = correspondence_loss(
        outputs.flow,
        outputs.logits,
        flow,
        matchable,
        importance,
        matchability_weight=config.matchability_weight,
        norm=config.norm,
        reduction=config.reduction,
    )
    means = jax.tree.map(lambda a: a.mean(), parts)
    return means.pop("loss"), means


def forward(
    config: ml_collections.ConfigDict, variables: Variables, source, target, spec: NetSpec
) -> tuple[Outputs, Variables]:
    """`apply_train` in the type of `config.compute`; leaves a network without normalisation
    stateless."""
    images = (image.astype(config.compute) for image in (source, target))
    outputs, state = apply_train(variables, *images, spec)
    return outputs, {**{k: v for k, v in variables.items() if k != "params"}, **state}


def initial_variables(
    config: ml_collections.ConfigDict, spec: NetSpec, init_from: str | None
) -> Variables:
    """Fresh variables, or those of a weight file; tied ones are untied where `spec` is, and a
    refinement that only `spec` has is added.

    Raises:
      WeightsError: the file cannot be read.
      ConfigError: it holds another network.
    """
    if init_from is None:
        return init(jax.random.key(config.seed + 1), spec)
    variables, found, _ = weights.load(init_from)
    if found.tied and not spec.tied:
        variables, found = untie(variables, found)
    try:
        return extend(variables, found, spec)
    except ValueError as error:
        raise ConfigError(
            f"{init_from}: holds another network than --config asks for ({config.network}); "
            "train that one first, or leave --init out"
        ) from error


def run(
    config: ml_collections.ConfigDict,
    workdir: Path,
    spec: NetSpec,
    variables: Variables,
    batches: Callable[[int], Any],
    loss_fn: Callable[..., Any],
    evaluate: Callable[[Variables], dict[str, float]] | None,
    draw: Callable[[Variables], np.ndarray] | None,
    metadata: dict[str, Any],
) -> TrainState:
    """Train, save checkpoints, and write the last averaged weights to ``weights.safetensors``.

    A workdir that holds checkpoints is resumed. SIGTERM or SIGINT ends the run early, with a
    checkpoint and without weights. With several processes, all save checkpoints and all evaluate,
    and process 0 writes the rest.

    Args:
      batches: `batches(step)` is an iterator that starts with the batch of that step; each process
        makes its own part.
      evaluate: scores of variables on one device; None to go without.
      draw: a picture of what they predict, for TensorBoard and ``panels.png``; None for none.

    Returns:
      The last state. The checkpoints that stay are the latest `config.keep_last` and the one with
      the lowest `config.best_metric` (a score of `evaluate`).
    """
    mesh, optimizer = make_mesh(), make_optimizer(optim_config(config))
    state = create_state(variables, optimizer, mesh, ema=config.ema_decay > 0)
    step_fn = make_train_step(loss_fn, optimizer, mesh, ema_decay=config.ema_decay)
    scores: dict[str, float] = {}

    def evaluate_state(state: TrainState) -> dict[str, float]:
        variables = own_copy(averaged(state))
        scores.update(evaluate(variables) if evaluate else {})
        if draw and jax.process_index() == 0:
            show(writer, workdir, draw(variables), int(state.step))
        return dict(scores)

    with (
        Checkpoints(
            workdir / CHECKPOINTS,
            keep_last=config.keep_last,
            best_metric=config.best_metric or None if evaluate else None,
        ) as checkpoints,
        writer_of(workdir) as writer,
        stop_on_signal() as stop,
    ):
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore_latest(state)
            logging.info("resumed from step %d", int(state.step))
        if jax.process_index() == 0:
            write_config(workdir, config, metadata)
        if int(state.step) < config.steps:
            logging.info(
                "compiling the training step for %d %s; the first log (step %d) comes after that, "
                "on a CPU in some minutes",
                jax.device_count(),
                jax.devices()[0].device_kind,
                min(config.steps, (int(state.step) // config.log_every + 1) * config.log_every),
            )
        state = fit(
            state,
            batches(int(state.step)),
            step_fn,
            steps=config.steps,
            key=jax.random.key(config.seed),
            mesh=mesh,
            log=logger(writer, config.batch, config.steps),
            steps_per_call=config.steps_per_call,
            log_every=config.log_every,
            evaluate=evaluate_state,
            checkpoints=checkpoints,
            save_every=config.save_every,
            stop=stop,
        )
    if int(state.step) < config.steps:
        logging.info(
            "stopped by a signal after step %d of %d; its checkpoint is saved, and the same "
            "command continues from there",
            int(state.step),
            config.steps,
        )
    else:
        metadata = {**metadata, "scores": scores or evaluate_state(state)}
        save_weights(config, workdir, spec, state, metadata)
    return state


def save_weights(
    config: ml_collections.ConfigDict,
    workdir: Path,
    spec: NetSpec,
    state: TrainState,
    metadata: dict[str, Any],
) -> None:
    """The averaged variables as ``weights.safetensors``; process 0 alone writes."""
    if jax.process_index() == 0:
        metadata = {**metadata, "steps": config.steps, "batch": config.batch}
        file = workdir / "weights.safetensors"
        weights.save(file, own_copy(averaged(state)), spec, metadata)
        logging.info("finished; the weights are in %s", file)


def averaged(state: TrainState) -> Variables:
    """The running average of the variables, or the variables where there is none."""
    return state.variables if state.ema is None else state.ema


def settings_from(kind: type, config: ml_collections.ConfigDict):
    """A settings dataclass, and those inside it, with the fields that a config names changed.

    Raises:
      ConfigError: the config names a field that does not exist.
    """
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    unknown = set(config.keys()) - set(known)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ConfigError(f"{kind.__name__} has no {names}; it has {', '.join(sorted(known))}")
    values = {
        name: settings_from(known[name], value)
        if isinstance(value, ml_collections.ConfigDict)
        else value
        for name, value in config.items()
    }
    return kind(**values)
