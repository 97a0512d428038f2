"""The seam between training and what is trained."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dfc_jax.training.state import Variables
from dfc_jax.training.step import Batch, LossFn
from dfc_jax.types import Array, ByValue


@dataclasses.dataclass(frozen=True, eq=False)
class Task(ByValue):
    """What one system brings to `run`: how to start, what to learn from, and what to look at.

    `run` knows nothing of a system but these functions; a system knows nothing of devices, steps,
    checkpoints and folders.

    Attributes:
      init: ``init(key) -> variables``. Pure. A dict of float arrays with "params", which the
        optimizer changes, and any other collections, which the loss does. Called once, before a
        checkpoint is looked for. It may ignore the key and start from a weight file.
      batches: ``batches(step) -> iterator``, which starts with the batch of `step` and never ends.
        Not pure, but repeatable: the batch of a step depends on its number alone, so that a
        resumed run sees what the whole one saw. A batch is a tree of NumPy arrays (B, ...), this
        process's part of it (see `own_part`).
      loss: ``loss(variables, batch, key) -> (loss, (state, parts))``. Pure, and compiled into the
        step. The batch is whole, leaves (B_all, ...) split over the devices; the key is the
        step's own. `loss` is () and differentiated; `state` is every collection but "params" after
        the step, {} if there is none; `parts` are () metrics by name, for the log. Large constants
        belong into a ``jax.tree_util.Partial`` (see `make_train_step`).
      save: ``save(file, variables, metadata)``. Writes the weights, in process 0 alone; `metadata`
        are those of the run with its "scores", "steps" and "batch", of JSON's types.
      evaluate: ``evaluate(variables) -> {name: score}``, on one device and in every process, before
        each checkpoint; None for no scores.
      draw: ``draw(variables) -> picture`` (H, W, 3) uint8 of what the variables predict, in
        process 0, after `evaluate`; None for no pictures.
      unit: what a batch holds, in the name of the curve "<unit>_per_second".
    """

    init: Callable[[Array], Variables]
    batches: Callable[[int], Iterator[Batch]]
    loss: LossFn
    save: Callable[[Path, Variables, dict[str, Any]], None]
    evaluate: Callable[[Variables], dict[str, float]] | None = None
    draw: Callable[[Variables], np.ndarray] | None = None
    unit: str = "examples"
