"""Put all that a training needs into one folder, for a machine with JAX and nothing else.

    python -m experiments.bundle --config experiments/configs/dfc/finetune_fast.py \
        --pretrain experiments/configs/dfc/pretrain_fast.py \
        --photos 300w/helen/trainset --photos 300w/afw --photos cfp=cfp/train \
        --backgrounds FOLDER --minutes 9 --out bundle

The folder holds this code, the Python packages that it needs beside JAX (`experiments.packages`
lists them), the photographs as packed squares, backgrounds, the weights of --init, and ``run.sh``.
Copied to the other machine, ``sh bundle/run.sh`` trains there, without a network, for as many
minutes as it is told: at a constant rate, which then falls so that the end is in time. See
`experiments.bundled`.

With --photos, --config is that of a refinement, before which --pretrain may train; without, it is
that of a pretraining. Fields of both can be changed: --config.batch=256, --pretrain.batch=512.
"""

import dataclasses
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from data_pipelines.faces.backgrounds import load_backgrounds, save_backgrounds
from data_pipelines.faces.light import load_light_prior
from data_pipelines.faces.textures import load_texture_bank
from data_pipelines.photos.sets import open_sets
from data_pipelines.photos.squares import packable, read_square
from data_pipelines.sources.layouts import LAYOUTS
from data_pipelines.sources.packed import write_packed
from dfc_jax.data.faces import collect
from dfc_jax.errors import ConfigError, DatasetError
from dfc_jax.files import write_json
from dfc_jax.nets import weights
from dfc_jax.systems.dfc.networks import NetSpec
from dfc_jax.systems.dfc.task import check_start
from experiments import finetune, launch, pretrain
from experiments.packages import copy_code, copy_packages

EXAMPLE_CONFIG = "experiments/configs/dfc/finetune_fast.py"
# Of a stage, the part in which the rate falls, where its config has none.
DECAY_SHARE = 0.4
# Of what rendered faces are made of; each raises DatasetError for a file that cannot be used.
READERS: dict[str, Callable[[str], Any]] = {
    "backgrounds": load_backgrounds,
    "textures": load_texture_bank,
    "light": load_light_prior,
}
RUN = """#!/bin/sh
# Trains for the minutes that are given, on the devices that JAX finds:
#     sh run.sh [--minutes {minutes:g}] [--out FOLDER]
# Started again, it goes on from what it saved. It ends with a table and weights.safetensors.
# Needs Python 3.11 or newer with JAX 0.10 or newer; PYTHON names another one than python3.
set -eu
cd "$(dirname "$0")"
export PYTHONPATH="$PWD/source:$PWD/packages${{PYTHONPATH:+:$PYTHONPATH}}"
export JAX_COMPILATION_CACHE_DIR="${{JAX_COMPILATION_CACHE_DIR:-$PWD/compiled}}"
PYTHON="${{PYTHON:-python3}}"
if ! "$PYTHON" -P -c 'import jax; assert jax.__version_info__ >= (0, 10)' 2>/dev/null; then
    echo "run.sh: $PYTHON is no Python 3.11 or newer with JAX 0.10 or newer; name another one," \
        "as in PYTHON=/path/to/python3 sh run.sh" >&2
    exit 1
fi
exec "$PYTHON" -P -m experiments.bundled "$@"
"""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A training of a bundle.

    Attributes:
      name: "pretrain" or "refine".
      config: of it, as the other machine shall have it.
      share: of the minutes.
    """

    name: str
    config: ml_collections.ConfigDict
    share: float


def stages_of(
    config: ml_collections.ConfigDict,
    first: ml_collections.ConfigDict | None,
    photos: bool,
    pretrain_share: float,
) -> list[Stage]:
    """What is trained, in order.

    Args:
      config: of the last stage.
      first: of the pretraining before it.
      photos: whether there are photographs, and `config` is of a refinement.
      pretrain_share: what the pretraining before it takes of the minutes.

    Raises:
      ConfigError: a config is of another program, its fields make no sense, or the second stage
        cannot start from the network of the first.
    """
    if not photos:
        if first is not None:
            raise ConfigError("--pretrain comes before a refinement; add --photos for --config")
        pretrain.settings_of(config)
        return [Stage("pretrain", by_clock(config), 1.0)]
    spec = finetune.settings_of(config).spec
    if first is None:
        return [Stage("refine", by_clock(config), 1.0)]
    check_start(pretrain.settings_of(first).spec, spec, "--pretrain", config.network)
    if not 0.0 < pretrain_share < 1.0:
        raise ConfigError(f"--pretrain_share is {pretrain_share:g}; it must be between 0 and 1")
    return [
        Stage("pretrain", by_clock(first), pretrain_share),
        Stage("refine", by_clock(config), 1.0),
    ]


def by_clock(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config of a plain run that ends by the clock, not by its steps; its `minutes` are 1 and
    its `decay_minutes` a share of them."""
    config = config.copy_and_resolve_references().unlock()
    config.decay_minutes = config.decay_minutes / config.minutes if config.minutes else DECAY_SHARE
    config.minutes = 1.0
    config.schedule, config.decay_steps, config.boundaries = "constant", 0, ()
    config.steps = 1_000_000 * config.steps_per_call
    config.save_minutes, config.plain = 1.0, True
    return config.lock()


def pack_photos(file: Path, folders: Sequence[str], layout: str) -> None:
    """Write the squares of annotated photographs; what cannot be used is logged and left out.

    Raises:
      DatasetError: a folder is not of its layout, or no face can be used.
    """
    squares, problems = collect(open_sets(folders, layout), read_square)
    for problem in problems:
        logging.warning("left out: %s", problem)
    if not squares:
        raise DatasetError(f"{', '.join(folders)}: no face can be used; {problems[0]}")
    write_packed(file, [packable(square) for square in squares])
    logging.info("%d faces, %.1f MB", len(squares), file.stat().st_size / 1e6)


def write_bundle(
    out: Path,
    stages: Sequence[Stage],
    *,
    minutes: float,
    photos: Sequence[str] = (),
    layout: str = "ibug",
    sources: dict[str, str | None] | None = None,
    init_from: str | None = None,
    most_mb: float = 60.0,
) -> None:
    """Write the folder of a bundle; it appears whole or not at all.

    Args:
      out: the folder, which must not be there.
      stages: of `stages_of`.
      minutes: in which ``run.sh`` trains if it is not told otherwise.
      photos, layout: folders of annotated photographs, see `experiments.finetune`.
      sources: files that `load_assets` takes.
      init_from: weights that the first stage starts from.
      most_mb: the bundle may take so much.

    Raises:
      ConfigError: the folder is there, the weights are of another network, the minutes make no
        sense, or the bundle is too large.
      DatasetError, WeightsError: a source cannot be used.
    """
    if not minutes > 0.0:
        raise ConfigError(f"--minutes is {minutes:g}; it must be above 0")
    if out.exists():
        raise ConfigError(f"{out}: is there already; remove it or choose another --out")
    aside = out.with_name(f".{out.name}.{os.urandom(4).hex()}")
    try:
        aside.mkdir(parents=True)
        files = copy_sources(aside, sources or {}, init_from, stages[0])
        if photos:
            pack_photos(aside / "photos.npz", photos, layout)
        copy_code(aside / "source")
        copy_packages(aside / "packages")
        record = {
            "made_with": {"jax": jax.__version__, "python": platform.python_version()},
            "machine": [sys.platform, platform.machine()],
            "minutes": minutes,
            "files": files,
            "stages": [
                {"name": stage.name, "share": stage.share, "config": stage.config.to_dict()}
                for stage in stages
            ],
        }
        write_json(aside / "bundle.json", record)
        (aside / "run.sh").write_text(RUN.format(minutes=minutes))
        check_size(aside, most_mb)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def copy_sources(
    folder: Path, sources: dict[str, str | None], init_from: str | None, first: Stage
) -> dict[str, str]:
    """Copy weights and what rendered faces are made of; the names of the files by what they are."""
    files = {}
    if init_from is not None:
        program = pretrain if first.name == "pretrain" else finetune
        spec: NetSpec = program.settings_of(first.config).spec
        check_start(weights.load(init_from, NetSpec)[1], spec, init_from, first.config.network)
        files["init"] = "init.safetensors"
        shutil.copyfile(weights.resolve(init_from), folder / files["init"])
    for name, source in sources.items():
        if source is None:
            continue
        files[name] = f"{name}.npz"
        read = READERS[name](source)
        if name == "backgrounds":
            save_backgrounds(folder / files[name], read)
        else:
            shutil.copyfile(source, folder / files[name])
    return files


def check_size(folder: Path, most_mb: float) -> None:
    """Log what a bundle takes.

    Raises:
      ConfigError: that is more than `most_mb`.
    """
    parts = {
        path.name: sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
        for path in folder.iterdir()
    }
    sizes = {name: size / 1e6 for name, size in sorted(parts.items(), key=lambda item: -item[1])}
    told = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items() if size >= 0.05)
    logging.info("the bundle takes %.1f MB: %s", sum(sizes.values()), told)
    if sum(sizes.values()) > most_mb:
        raise ConfigError(
            f"the bundle would take {sum(sizes.values()):.1f} MB ({told}), and --most_mb is "
            f"{most_mb:g}; raise it, or leave something out"
        )


def define_flags() -> None:
    """Those of this program."""
    config_flags.DEFINE_config_file("config", lock_config=True)
    flags.mark_flag_as_required("config")
    config_flags.DEFINE_config_file(
        "pretrain", lock_config=True, help_string="config of a pretraining before the refinement"
    )
    flags.DEFINE_string("out", None, "folder to write, which is then copied", required=True)
    flags.DEFINE_multi_string("photos", [], "folder of annotated photographs, or LAYOUT=FOLDER")
    flags.DEFINE_enum("layout", "ibug", LAYOUTS, "how folders without LAYOUT= are laid out")
    flags.DEFINE_string("init", None, "weight file that the first stage starts from")
    flags.DEFINE_float("minutes", 9.0, "how long run.sh trains if it is not told otherwise")
    flags.DEFINE_float("pretrain_share", 0.5, "what a pretraining takes of the minutes")
    flags.DEFINE_float("most_mb", 60.0, "refuse to write a larger bundle")
    launch.define_source_flags()


def bundle_as_told(values: flags.FlagValues) -> None:
    """`write_bundle` with what the command line says."""
    stages = stages_of(values.config, values.pretrain, bool(values.photos), values.pretrain_share)
    write_bundle(
        Path(values.out),
        stages,
        minutes=values.minutes,
        photos=values.photos,
        layout=values.layout,
        sources=launch.sources(values),
        init_from=values.init,
        most_mb=values.most_mb,
    )
    print(f"copy {values.out} to the other machine, and start it there with: sh run.sh")


if __name__ == "__main__":
    define_flags()
    app.run(
        lambda _: launch.run_program(lambda: bundle_as_told(flags.FLAGS)),
        flags_parser=partial(
            launch.parse_flags, example=EXAMPLE_CONFIG, config_flags=("config", "pretrain")
        ),
    )
