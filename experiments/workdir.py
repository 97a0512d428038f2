"""The folder of a run: who owns it, its ``config.json`` and its curves."""

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from tensorboardX import SummaryWriter

from dfc_jax.files import write_json
from dfc_jax.photo import write_png
from experiments.launch import ConfigError

CHECKPOINTS = "checkpoints"


def git_state() -> str:
    """Commit of the source tree, with a + for local changes; "unknown" outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def open_workdir(
    workdir: Path, config: ml_collections.ConfigDict, metadata: dict[str, Any]
) -> None:
    """Make the folder of a run, or take up the one that is there; nothing in it changes.

    Raises:
      ConfigError: nothing can be written there, or it holds the checkpoints of another network,
        stage or face model.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise ConfigError(
            f"{workdir}: cannot be written ({error.strerror}); choose another --workdir"
        ) from error
    if not any((workdir / CHECKPOINTS).glob("[0-9]*")):
        return
    written = _read_config(workdir)
    for name, value in metadata.items():
        if name in written and written[name] != value:
            raise ConfigError(
                f"{workdir}: holds a run with {name} {written[name]!r}, this one has {value!r}; "
                "choose another --workdir"
            )
    before, now = _flat(written.get("config", {})), _flat(json.loads(config.to_json()))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            logging.warning(
                "this run continues with config.%s %s; until now it was %s",
                name,
                now.get(name, "absent"),
                before.get(name, "absent"),
            )


def write_config(
    workdir: Path, config: ml_collections.ConfigDict, metadata: dict[str, Any]
) -> None:
    """Write down what runs in a folder, as ``config.json``."""
    values = {"config": config.to_dict(), "git": git_state(), **metadata}
    write_json(workdir / "config.json", values)


def _read_config(workdir: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((workdir / "config.json").read_text())
        if isinstance(found, dict):
            return found
    raise ConfigError(
        f"{workdir}: has checkpoints but no readable config.json to say whose they are; "
        "choose another --workdir"
    )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"synthetic.yaw_deg": value}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def writer_of(workdir: Path) -> SummaryWriter:
    """TensorBoard's writer; only process 0 writes."""
    return SummaryWriter(
        str(workdir),
        # Runs that start within one second would overwrite each other's file.
        filename_suffix=f".{time.time_ns()}",
        # What a killed run may lose of its curves; `flush` does not wait for them.
        flush_secs=1,
        write_to_disk=jax.process_index() == 0,
    )


def show(writer: SummaryWriter, workdir: Path, picture: np.ndarray, step: int) -> None:
    """A picture (H, W, 3) uint8 for TensorBoard; ``panels.png`` always holds the latest."""
    writer.add_image("panels", picture, step, dataformats="HWC")
    write_png(workdir / "panels.png", picture)


def logger(
    writer: SummaryWriter, batch: int, steps: int
) -> Callable[[int, dict[str, float]], None]:
    """A log function for `fit` that adds how many examples a second its steps of `batch` make, and
    says how long the rest of the `steps` takes at this rate."""

    def log(step: int, metrics: dict[str, float]) -> None:
        left = ""
        if "seconds_per_step" in metrics:
            seconds = metrics["seconds_per_step"]
            metrics = {**metrics, "pairs_per_second": batch / seconds}
            left = f"  {time_of((steps - step) * seconds)} left"
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        values = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        logging.info("step %d of %d  %s%s", step, steps, values, left)

    return log


def time_of(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
