"""The folder of a run: who owns it, its ``config.json``, its curves and its pictures."""

import contextlib
import dataclasses
import json
import logging
import math
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from dfc_jax.errors import ConfigError
from dfc_jax.files import write_json

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A folder that `open_workdir` has looked at, and what runs in it.

    Attributes:
      path: the folder.
      config: all settings as the user gave them, nested, of JSON's types.
      metadata: what a run must share with the one that it resumes, by name, such as the network;
        it also goes into the weight file.
    """

    path: Path
    config: dict[str, Any]
    metadata: dict[str, Any]

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"


def open_workdir(path: Path, config: dict[str, Any], metadata: dict[str, Any]) -> Workdir:
    """Make the folder of a run, or take up the one that is there; nothing in it changes.

    Settings that differ from those of a run that is resumed are reported in the log.

    Raises:
      ConfigError: nothing can be written there, or it holds the checkpoints of a run with other
        `metadata`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); choose another --workdir"
        ) from error
    workdir = Workdir(path, config, metadata)
    if not any(workdir.checkpoints.glob("[0-9]*")):
        return workdir
    written = _read_config(path)
    for name, value in metadata.items():
        if name in written and written[name] != value:
            raise ConfigError(
                f"{path}: holds a run with {name} {written[name]!r}, this one has {value!r}; "
                "choose another --workdir"
            )
    # As JSON keeps it: tuples become lists.
    before, now = _flat(written.get("config", {})), _flat(json.loads(json.dumps(config)))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            _log.warning(
                "this run continues with config.%s %s; until now it was %s",
                name,
                now.get(name, "absent"),
                before.get(name, "absent"),
            )
    return workdir


def write_config(workdir: Workdir) -> None:
    """Write down what runs in a folder, as ``config.json``."""
    values = {"config": workdir.config, "git": git_state(), **workdir.metadata}
    write_json(workdir.path / "config.json", values)


def git_state() -> str:
    """Commit of the source tree, with a + for local changes; "unknown" outside a checkout."""
    # An installed package may lie inside the checkout of something else.
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return "unknown"
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def _read_config(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((path / "config.json").read_text())
        if isinstance(found, dict):
            return found
    raise ConfigError(
        f"{path}: has checkpoints but no readable config.json to say whose they are; "
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


def writer_of(workdir: Workdir) -> SummaryWriter:
    """TensorBoard's writer; only process 0 writes."""
    return SummaryWriter(
        str(workdir.path),
        # Runs that start within one second would overwrite each other's file.
        filename_suffix=f".{time.time_ns()}",
        # What a killed run may lose of its curves; `flush` does not wait for them.
        flush_secs=1,
        write_to_disk=jax.process_index() == 0,
    )


def show(writer: SummaryWriter, workdir: Workdir, picture: np.ndarray, step: int) -> None:
    """A picture (H, W, 3) uint8 for TensorBoard; ``panels.png`` always holds the latest."""
    # Here, since a machine for plain runs may have no OpenCV.
    from dfc_jax.photo import write_png

    writer.add_image("panels", picture, step, dataformats="HWC")
    write_png(workdir.path / "panels.png", picture)


class Progress:
    """A log function for `train_loop`: TensorBoard's curves, lines in the log, and a tally.

    It adds how many examples a second the steps make, as "<unit>_per_second", and says how long the
    rest of the steps takes at this rate.

    Attributes:
      steps: those logged since `start`.
      seconds: what they took, without compilation, evaluation and saving.
    """

    def __init__(
        self,
        writer: SummaryWriter,
        unit: str,
        batch: int,
        total: int,
        start: int = 0,
        end: float = math.inf,
    ) -> None:
        """Log to `writer` a run of `total` steps of `batch` examples ("pairs", say, as `unit`)
        that goes on from step `start`, until ``time.monotonic()`` is `end`."""
        self.unit, self.batch, self.total = unit, batch, total
        self.steps, self.seconds = 0, 0.0
        self._timed, self._writer, self._start, self._end = 0, writer, start, end

    @property
    def per_second(self) -> float:
        """Examples a second, over all steps whose time is known; 0 without any."""
        return self.batch * self._timed / self.seconds if self.seconds else 0.0

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of a step."""
        since, self.steps = self.steps, step - self._start
        left = ""
        if "seconds_per_step" in metrics:
            seconds = metrics["seconds_per_step"]
            self._timed += self.steps - since
            self.seconds += (self.steps - since) * seconds
            metrics = {**metrics, f"{self.unit}_per_second": self.batch / seconds}
            rest = min((self.total - step) * seconds, self._end - time.monotonic())
            left = f"  {time_of(max(rest, 0.0))} left"
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        values = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        _log.info("step %d of %d  %s%s", step, self.total, values, left)


def write_summary(
    workdir: Workdir, progress: Progress, seconds: float, scores: dict[str, float]
) -> None:
    """Write ``summary.json`` about a run that ended (process 0 alone): its unit and batch, steps
    since it was started or resumed, examples a second, the seconds of these steps and in all, and
    the scores."""
    if jax.process_index() == 0:
        summary = {
            "unit": progress.unit,
            "batch": progress.batch,
            "steps": progress.steps,
            "examples_per_second": progress.per_second,
            "seconds_of_steps": progress.seconds,
            "seconds": seconds,
            "scores": scores,
        }
        write_json(workdir.path / "summary.json", summary)


def time_of(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
