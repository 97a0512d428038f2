"""The loop around the steps: logging, checkpoints, stopping early, and a clear stop when the loss
or its gradient diverges."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from dfc_jax.training.sharding import everywhere, put_batches
from dfc_jax.training.state import TrainState
from dfc_jax.training.step import Batch, Metrics, StepFn
from dfc_jax.training.store import Store
from dfc_jax.types import Array

LogFn = Callable[[int, dict[str, float]], None]
EvaluateFn = Callable[[TrainState], dict[str, float]]


class TrainingDiverged(RuntimeError):
    """The loss or its gradient is no longer finite; the message names the step and the checkpoint
    to go back to."""


def train_loop(
    state: TrainState,
    batches: Iterator[Any],
    step_fn: StepFn,
    *,
    steps: int,
    key: Array,
    mesh: Mesh,
    log: LogFn,
    steps_per_call: int = 1,
    log_every: int = 100,
    evaluate: EvaluateFn | None = None,
    checkpoints: Store | None = None,
    save_every: int = 1000,
    save_seconds: float = math.inf,
    stop: Callable[[], bool] = lambda: False,
    rate: Callable[[], float] = lambda: 1.0,
) -> TrainState:
    """Train from ``state.step`` to `steps`, or until `rate` is 0.

    A run that resumes from a checkpoint repeats the losses of the one it continues if `batches`
    starts with the batch of step ``state.step``: step n takes its key from n alone. Calls end at
    multiples of `steps_per_call`; a run that resumes between two of them makes one shorter call
    first.

    The devices always have the next call waiting: while they work, the host reads the metrics of
    the call before and prepares the call after. At most two calls are under way at a time.

    Args:
      state: of `create_state` or `Store.restore_latest`; its memory is given away.
      batches: NumPy trees with leaves (B, ...), this process's part of each batch.
      step_fn: of `make_train_step`.
      steps: the step to stop at; with `state.step` already there nothing happens.
      key: root key of the run.
      log: called with a step and the means of its metrics since the last call, among them
        "seconds_per_step", which leaves out compilation, evaluation and saving.
      steps_per_call: steps in one call of `step_fn`.
      evaluate: called on the state before each save; its scores are logged and choose the best.
      checkpoints: where to save, every `save_every` steps and at the end.
      save_seconds: save also, without an evaluation, when the last save is so long ago.
      stop: asked after each call whether to end early, with a checkpoint. Several processes ask
        each other at the steps that are logged or saved, so that they stop at the same one.
      rate: asked before each call for a factor of the learning rate; once it is 0 the run is over,
        as if its last step were made. Of several processes the first one is asked.

    Returns:
      The last state; its step is below `steps` if `stop` or `rate` said so.

    Raises:
      TrainingDiverged: a loss or the norm of a gradient was not finite (found one call later, and
        before any save).
      CheckpointError: of `Store.save`.
      ValueError: `batches` ran out, or `steps`, `log_every` or `save_every` is not a multiple of
        `steps_per_call`.
    """
    for name, number in (("steps", steps), ("log_every", log_every), ("save_every", save_every)):
        if number % steps_per_call:
            raise ValueError(f"{name} is {number}, not a multiple of {steps_per_call} in a call")
    key = everywhere(key, mesh)
    recent = _Recent(int(state.step), checkpoints)
    calls = _calls(batches, int(state.step), steps, steps_per_call, mesh)
    call, factor = next(calls, None), _firsts(rate)
    save_at = time.perf_counter() + save_seconds
    while call is not None and factor > 0.0:
        step, batch = call
        if batch is None:
            raise ValueError(f"the data ended before step {step} of {steps}")
        state, metrics = step_fn(state, batch, key, factor)
        call = next(calls, None)
        recent.add(step, metrics)
        factor = _firsts(rate)
        last = step == steps or factor <= 0.0
        evaluating = last or step % save_every == 0
        boundary = evaluating or step % log_every == 0
        stopping = not last and _any_process(stop(), boundary)
        saving = evaluating or stopping or _any_process(time.perf_counter() >= save_at, boundary)
        if boundary or saving:
            log(step, recent.means())
        if saving:
            scores = evaluate(state) if evaluate and evaluating and not stopping else None
            if scores:
                log(step, scores)
            if checkpoints is not None:
                checkpoints.save(state, scores or None)
            recent.restart_clock()
            save_at = time.perf_counter() + save_seconds
        if stopping:
            break
    if checkpoints is not None:
        checkpoints.wait()
    return state


def _calls(
    batches: Iterator[Any], step: int, steps: int, steps_per_call: int, mesh: Mesh
) -> Iterator[tuple[int, Batch | None]]:
    """The last step and the batches of each call; None and the missing step where data end."""
    while step < steps:
        several = []
        for _ in range(steps_per_call - step % steps_per_call):
            step += 1
            batch = next(batches, None)
            if batch is None:
                yield step, None
                return
            several.append(batch)
        yield step, put_batches(several, mesh)


def _any_process(answer: bool, boundary: bool) -> bool:
    """Whether the answer is yes in one of the processes, the same in all of them.

    They ask each other only at boundaries, where the host waits for the devices anyhow.
    """
    if jax.process_count() == 1:
        return answer
    return boundary and bool(multihost_utils.process_allgather(np.array(answer)).any())


def _firsts(rate: Callable[[], float]) -> float:
    """The answer of the first process."""
    if jax.process_count() == 1:
        return rate()
    return float(multihost_utils.broadcast_one_to_all(np.float32(rate())))


class _Recent:
    """The calls since the last log: their metrics and their time."""

    def __init__(self, step: int, checkpoints: Store | None) -> None:
        self._step = step
        self._checkpoints = checkpoints
        self._under_way: Metrics | None = None
        self._values: list[dict[str, np.ndarray]] = []
        self._compiled = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave the time until now out of "seconds_per_step"."""
        self._clock = (self._step, time.perf_counter())

    def add(self, step: int, metrics: Metrics) -> None:
        """Note a call that ends at `step`; wait for the one before it.

        Raises:
          TrainingDiverged: a loss or a gradient of the call before is not finite.
        """
        self._read()
        count = step - self._step
        self._under_way, self._step = metrics, step
        if count != self._compiled:
            jax.block_until_ready(metrics)
            self._compiled = count
            self.restart_clock()

    def means(self) -> dict[str, float]:
        """Means of the metrics of each step, and the time that a step took.

        Raises:
          TrainingDiverged: a loss or a gradient of the last call is not finite.
        """
        self._read()
        means = {
            name: float(np.mean(np.concatenate([values[name] for values in self._values])))
            for name in self._values[0]
        }
        since, start = self._clock
        if self._step > since:
            means["seconds_per_step"] = (time.perf_counter() - start) / (self._step - since)
            self.restart_clock()
        self._values = []
        return means

    def _read(self) -> None:
        """Wait for the last call and take its metrics from the devices."""
        if self._under_way is not None:
            self._values.append(jax.device_get(self._under_way))
            self._under_way = None
            self._check(self._step, "loss", self._values[-1]["loss"])
            # A finite loss can have a gradient that is not, which ruins the state all the same.
            self._check(self._step, "gradient's norm", self._values[-1]["grad_norm"])

    def _check(self, last: int, name: str, values: np.ndarray) -> None:
        """Values (K,) of the steps up to `last`."""
        broken = np.flatnonzero(~np.isfinite(values))
        if not len(broken):
            return
        where = "none"
        if self._checkpoints is not None and (step := self._checkpoints.latest_step()) is not None:
            where = f"step {step} in {self._checkpoints.folder}"
        raise TrainingDiverged(
            f"the {name} of step {last - len(values) + 1 + broken[0]} is {values[broken[0]]}; last "
            f"checkpoint: {where}. Lower the learning rate or clip the gradient's norm, and resume"
        )
