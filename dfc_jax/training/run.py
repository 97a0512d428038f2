"""A whole training run, of any task."""

import itertools
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dfc_jax.errors import ConfigError
from dfc_jax.training.loop import train_loop
from dfc_jax.training.optim import make_optimizer
from dfc_jax.training.plain import PlainCheckpoints
from dfc_jax.training.settings import TrainSettings
from dfc_jax.training.sharding import everywhere, make_mesh, own_copy, put_batches
from dfc_jax.training.signals import stop_on_signal
from dfc_jax.training.state import TrainState, averaged, create_state
from dfc_jax.training.step import StepFn, compiled_step, make_train_step
from dfc_jax.training.store import Store
from dfc_jax.training.task import Task
from dfc_jax.training.workdir import (
    Progress,
    Workdir,
    show,
    write_config,
    write_summary,
    writer_of,
)

_log = logging.getLogger(__name__)


def run(
    task: Task, workdir: Workdir, settings: TrainSettings, started: float | None = None
) -> TrainState:
    """Train, save checkpoints, and write the last averaged weights to ``weights.safetensors``.

    A workdir that holds checkpoints is resumed, with the losses of a run that was not cut off.
    SIGTERM or SIGINT ends the run early, with a checkpoint and without weights. With several
    processes, all save checkpoints and all evaluate, and process 0 writes the rest:
    ``config.json``, TensorBoard's curves, ``panels.png`` and, at the end, the weights and
    ``summary.json`` (see `write_summary`).

    Args:
      task: what is trained.
      workdir: of `open_workdir`.
      settings: how long, how fast, and what is kept.
      started: the ``time.monotonic()`` from which `settings.minutes` count; None for now.

    Returns:
      The last state; its step is below `settings.steps` if a signal came or `settings.minutes`
      were over. The checkpoints that stay are the latest `settings.keep_last` and the one with the
      lowest `settings.best_metric` (a score of `task.evaluate`).

    Raises:
      TrainingDiverged: a loss or the norm of a gradient was not finite.
      CheckpointError: the checkpoints there are of another network, or all are damaged.
      BatchError: a part of a batch does not split over the devices.
      ConfigError: `settings.minutes` were over before the first step.
    """
    mesh = make_mesh()
    state, step_fn = _begin(task, settings, mesh)
    scores: dict[str, float] = {}
    started = time.monotonic() if started is None else started
    end = started + 60.0 * settings.minutes if settings.minutes else math.inf
    rate = rate_by_clock(settings, end)

    def evaluate(state: TrainState) -> dict[str, float]:
        if evaluated is not None:
            evaluated.result()
        variables = own_copy(averaged(state))
        scores.update(task.evaluate(variables) if task.evaluate else {})
        if task.draw and not settings.plain and jax.process_index() == 0:
            show(writer, workdir, task.draw(variables), int(state.step))
        return dict(scores)

    with (
        _store(workdir, settings, scored=task.evaluate is not None) as checkpoints,
        writer_of(workdir) as writer,
        stop_on_signal() as stop,
        ThreadPoolExecutor(1) as background,
    ):
        state = _resumed(state, checkpoints)
        evaluated = None
        if task.evaluate and int(state.step) < settings.steps:
            # What is held out is made, and the scores' programs compile, while the step's does. A
            # copy, since the first step gives the state's memory away.
            variables = jax.tree.map(jnp.copy, own_copy(averaged(state)))
            evaluated = background.submit(task.evaluate, variables)
        if jax.process_index() == 0:
            write_config(workdir)
        _say_what_compiles(int(state.step), settings)
        progress = Progress(writer, task.unit, settings.batch, settings.steps, int(state.step), end)
        state = train_loop(
            state,
            task.batches(int(state.step)),
            step_fn,
            steps=settings.steps,
            key=jax.random.key(settings.seed),
            mesh=mesh,
            log=progress,
            steps_per_call=settings.steps_per_call,
            log_every=settings.log_every,
            evaluate=evaluate,
            checkpoints=checkpoints,
            save_every=settings.save_every,
            save_seconds=60.0 * settings.save_minutes or math.inf,
            stop=stop,
            rate=rate,
        )
        if not int(state.step):
            raise ConfigError(
                f"config.minutes ({settings.minutes:g}) were over before the first step; labels "
                "and compilation count too, so raise it (what is made already is kept)"
            )
        finished = int(state.step) == settings.steps or rate() <= 0.0
        if finished and not scores:
            evaluate(state)
    if finished:
        _save_weights(task, workdir, settings, state, scores)
        if progress.steps:
            write_summary(workdir, progress, time.monotonic() - started, scores)
    else:
        _log.info(
            "stopped by a signal after step %d of %d; its checkpoint is saved, and the same "
            "command continues from there",
            int(state.step),
            settings.steps,
        )
    return state


def compile_ahead(task: Task, settings: TrainSettings) -> None:
    """Compile the step of a `run` that comes later, for JAX's cache of compiled programs."""
    mesh = make_mesh()
    state, step_fn = _begin(task, settings, mesh)
    batches = list(itertools.islice(task.batches(0), settings.steps_per_call))
    key = everywhere(jax.random.key(settings.seed), mesh)
    compiled_step(step_fn, state, put_batches(batches, mesh), key, 1.0)


def _begin(task: Task, settings: TrainSettings, mesh: Mesh) -> tuple[TrainState, StepFn]:
    """The first state of a run, and its step."""
    optimizer = make_optimizer(settings.optimizer)
    # Another key than that of the steps.
    variables = task.init(jax.random.key(settings.seed + 1))
    state = create_state(variables, optimizer, mesh, ema=settings.ema_decay > 0)
    return state, make_train_step(task.loss, optimizer, mesh, ema_decay=settings.ema_decay)


def rate_by_clock(settings: TrainSettings, end: float) -> Callable[[], float]:
    """What the learning rate is multiplied by, for `train_loop`: 1, then falling in the last
    `settings.decay_minutes` before ``time.monotonic()`` is `end`, then 0."""
    fall = max(60.0 * settings.decay_minutes, 1e-6)
    return lambda: min(max((end - time.monotonic()) / fall, 0.0), 1.0)


def _store(workdir: Workdir, settings: TrainSettings, scored: bool) -> Store:
    if settings.plain:
        return PlainCheckpoints(workdir.checkpoints, keep_last=settings.keep_last)
    # Here, since a machine for plain runs may have no Orbax.
    from dfc_jax.training.checkpoints import Checkpoints

    best = settings.best_metric or None if scored else None
    return Checkpoints(workdir.checkpoints, keep_last=settings.keep_last, best_metric=best)


def _resumed(state: TrainState, checkpoints: Store) -> TrainState:
    """The state of the latest checkpoint, or `state` where there is none."""
    if checkpoints.latest_step() is None:
        return state
    state = checkpoints.restore_latest(state)
    _log.info("resumed from step %d", int(state.step))
    return state


def _say_what_compiles(step: int, settings: TrainSettings) -> None:
    if step < settings.steps:
        _log.info(
            "compiling the training step for %d %s; the first log (step %d) comes after that, "
            "on a CPU in some minutes",
            jax.device_count(),
            jax.devices()[0].device_kind,
            min(settings.steps, (step // settings.log_every + 1) * settings.log_every),
        )


def _save_weights(
    task: Task,
    workdir: Workdir,
    settings: TrainSettings,
    state: TrainState,
    scores: dict[str, float],
) -> None:
    """The averaged variables as ``weights.safetensors``; process 0 alone writes."""
    if jax.process_index() == 0:
        numbers = {"scores": scores, "steps": int(state.step), "batch": settings.batch}
        task.save(workdir.weights, own_copy(averaged(state)), {**workdir.metadata, **numbers})
        _log.info("finished; the weights are in %s", workdir.weights)
