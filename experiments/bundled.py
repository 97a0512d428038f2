"""Train what a bundle holds, on the machine that it was copied to; ``run.sh`` starts this.

Each start trains for its minutes, and goes on from what an earlier one saved: stages that have
their weights are not trained again, but for the last, which goes on. It leaves, in --out,
``weights.safetensors``, ``table.txt`` with the throughput and the scores of each stage, and
``runs/`` with curves and checkpoints, one a minute.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import ml_collections
from absl import app, flags, logging

from dfc_jax.errors import ConfigError
from experiments import finetune, launch, pretrain

# Of the minutes, those kept for the last scores and for writing the weights.
RESERVED_SHARE, MOST_RESERVED = 0.1, 0.5


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What ``bundle.json`` says.

    Attributes:
      folder: of the bundle.
      minutes: in which to train if nobody says otherwise.
      files: names of files by what they are: "init", "backgrounds", "textures", "light".
      stages: name, share of the minutes and config of each.
    """

    folder: Path
    minutes: float
    files: dict[str, str]
    stages: list[tuple[str, float, ml_collections.ConfigDict]]

    def file(self, name: str) -> str | None:
        """The path of one of the `files`, None where the bundle has none."""
        return str(self.folder / self.files[name]) if name in self.files else None

    @property
    def photos(self) -> list[str]:
        """What `finetune.train` takes as folders."""
        return [f"packed={self.folder / 'photos.npz'}"]

    @property
    def sources(self) -> dict[str, str | None]:
        """What `load_assets` shall read."""
        return {name: self.file(name) for name in ("backgrounds", "textures", "light")}


def read_bundle(folder: Path) -> Bundle:
    """Read ``bundle.json``.

    Raises:
      ConfigError: it is missing or damaged.
    """
    file = folder / "bundle.json"
    try:
        record = json.loads(file.read_text())
        stages = [
            (one["name"], one["share"], ml_collections.ConfigDict(_tuples(one["config"])).lock())
            for one in record["stages"]
        ]
        return Bundle(folder, record["minutes"], record["files"], stages)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: cannot be read; copy the bundle again") from error


def _tuples(value: Any) -> Any:
    """JSON's values with tuples for lists, as settings have them."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def train_bundle(bundle: Bundle, out: Path, minutes: float, started: float) -> None:
    """Train all stages, within so many minutes from `started` (``time.monotonic()``).

    Raises:
      ConfigError: there is too little time for a first step.
    """
    if not minutes > 0.0:
        raise ConfigError(f"--minutes is {minutes:g}; it must be above 0")
    end = started + 60.0 * (minutes - min(RESERVED_SHARE * minutes, MOST_RESERVED))
    init, workdirs = bundle.file("init"), [out / "runs" / name for name, _, _ in bundle.stages]
    *_, (last, _, last_config) = bundle.stages
    with ThreadPoolExecutor(1) as background:
        prepared = None
        if len(workdirs) > 1 and not (workdirs[0] / "weights.safetensors").is_file():
            # Beside the pretraining, which leaves the host idle.
            arguments = last_config, workdirs[-1], bundle.photos, bundle.sources
            prepared = background.submit(finetune.prepare, *arguments)
        for (name, share, config), workdir in zip(bundle.stages, workdirs, strict=True):
            weights = workdir / "weights.safetensors"
            if weights.is_file() and name != last:
                logging.info("%s is done: %s", name, weights)
            else:
                if prepared is not None and name == last:
                    prepared.result()
                left = (end - time.monotonic()) / 60.0
                train_stage(bundle, name, within(config, share * left), workdir, init)
                if not weights.is_file():
                    raise ConfigError(f"{name} was stopped; start again to go on")
            init = str(weights)
    shutil.copyfile(weights, out / "weights.safetensors")
    table = table_of(workdirs)
    (out / "table.txt").write_text(table)
    print(table, end="")


def within(config: ml_collections.ConfigDict, minutes: float) -> ml_collections.ConfigDict:
    """A stage's config, whose minutes are 1, for so many."""
    config = config.copy_and_resolve_references().unlock()
    config.minutes, config.decay_minutes = minutes, config.decay_minutes * minutes
    return config.lock()


def train_stage(
    bundle: Bundle, name: str, config: ml_collections.ConfigDict, workdir: Path, init: str | None
) -> None:
    """One stage, in its workdir."""
    if name == "pretrain":
        pretrain.train(config, workdir, bundle.sources, init)
    else:
        finetune.train(config, workdir, bundle.photos, bundle.sources, init)


def table_of(workdirs: Sequence[Path]) -> str:
    """The ``summary.json`` of each workdir as a table: steps and examples a second of its last
    start, seconds of its steps and in all, and below its scores on what was held out."""
    lines = [f"{'stage':<10} {'steps':>8} {'examples/s':>11} {'training':>9} {'in all':>8}"]
    for workdir in workdirs:
        found = json.loads((workdir / "summary.json").read_text())
        lines.append(
            f"{workdir.name:<10} {found['steps']:>8,} {found['examples_per_second']:>11,.1f} "
            f"{found['seconds_of_steps']:>7.0f} s {found['seconds']:>6.0f} s"
        )
        lines += [f"    {name} {value:.4g}" for name, value in sorted(found["scores"].items())]
    return "\n".join(lines) + "\n"


def define_flags() -> None:
    """Those of this program."""
    flags.DEFINE_float("minutes", None, "how long to train; None for what the bundle says")
    flags.DEFINE_string("bundle", ".", "folder of the bundle")
    flags.DEFINE_string("out", None, "folder for runs and weights; None for the bundle's")


def train_as_told(values: flags.FlagValues, started: float) -> None:
    """`train_bundle` with what the command line says."""
    launch.keep_to_ourselves()
    bundle = read_bundle(Path(values.bundle).absolute())
    out = bundle.folder if values.out is None else Path(values.out)
    minutes = bundle.minutes if values.minutes is None else values.minutes
    train_bundle(bundle, out, minutes, started)


if __name__ == "__main__":
    began = time.monotonic()
    define_flags()
    app.run(
        lambda _: launch.run_program(lambda: train_as_told(flags.FLAGS, began)),
        flags_parser=partial(launch.parse_flags, example=""),
    )
