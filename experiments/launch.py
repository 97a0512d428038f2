"""How a training program starts and ends: flags, processes, and mistakes as one sentence."""

import difflib
import logging as std_logging
import os
import re
import runpy
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags as config_files

from data_pipelines.sources.layouts import LAYOUTS
from dfc_jax.errors import ConfigError, UserError
from dfc_jax.files import escaped
from dfc_jax.training import TrainingDiverged

# Those defined here count as the program's own: --help shows them.
flags.disclaim_key_flags()


# What a user can put right; anything else is ours and keeps its traceback.
EXPECTED = (UserError, TrainingDiverged)

# Of flags that have to be given; a program may name another config.
EXAMPLES = {"workdir": "runs/first", "photos": "300w/helen/trainset", "out": "bundle"}
EXAMPLE_CONFIG = "experiments/configs/dfc/tiny.py"


def define_flags() -> None:
    """The flags that all training programs have."""
    config_files.DEFINE_config_file("config", lock_config=True)
    flags.mark_flag_as_required("config")
    flags.DEFINE_string(
        "workdir", None, "folder for checkpoints, metrics and weights", required=True
    )
    flags.DEFINE_string("coordinator", None, "host:port of process 0, for several processes")
    flags.DEFINE_integer("num_processes", None, "how many processes train together")
    flags.DEFINE_integer("process_id", None, "which of the processes this is, from 0")
    flags.DEFINE_bool(
        "distributed", False, "let JAX find the other processes (TPU pods, jax[k8s], Open MPI)"
    )


def define_source_flags() -> None:
    """The flags of programs that render faces; see `sources`."""
    flags.DEFINE_string("backgrounds", None, "folder of background pictures for rendered faces")
    flags.DEFINE_string(
        "textures", None, "texture bank for rendered faces, made by build_texture_bank"
    )
    flags.DEFINE_string(
        "light", None, "prior of lights for rendered faces, made by build_texture_bank"
    )


def define_photograph_flags() -> None:
    """The flags of programs that learn from annotated photographs."""
    flags.DEFINE_multi_string(
        "photos", None, "folder of annotated photographs, or LAYOUT=FOLDER", required=True
    )
    flags.DEFINE_enum("layout", "ibug", LAYOUTS, "how folders without LAYOUT= are laid out")


def sources(values: flags.FlagValues) -> dict[str, str | None]:
    """What `load_assets` shall read."""
    return {name: values[name].value for name in ("backgrounds", "textures", "light")}


def main(train: Callable[[flags.FlagValues], Any], example: str = EXAMPLE_CONFIG) -> None:
    """Read the command line, join the other processes and call `train` with the flags.

    Args:
      train: the program.
      example: a config of it, for messages.
    """

    def start(_) -> None:
        keep_to_ourselves()
        values = flags.FLAGS
        connect(values.coordinator, values.num_processes, values.process_id, values.distributed)
        train(values)

    parse = partial(parse_flags, example=example)
    app.run(lambda argv: run_program(lambda: start(argv)), flags_parser=parse)


def keep_to_ourselves() -> None:
    """Leave out what the libraries would report beside our own lines, and nobody can act on."""
    logging.get_absl_logger().addFilter(_of_interest)
    std_logging.getLogger("jax").setLevel(std_logging.WARNING)
    # When one of Orbax's reads of a damaged checkpoint fails, it abandons the others.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.unraisablehook = _report_unraisable


def _of_interest(record: std_logging.LogRecord) -> bool:
    """Orbax reports every save in 30 lines, which would bury our own, and warns of a checkpoint
    that a signal made, which has no scores."""
    ours = "orbax" not in record.pathname
    return ours or (record.levelno > std_logging.INFO and "tracked_metric" not in record.msg)


def _report_unraisable(error: Any) -> None:
    """Print an error that nobody could catch, unless it is that of an abandoned read of Orbax."""
    if str(error.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(error)


def run_program(train: Callable[[], Any]) -> None:
    """Call `train`; an expected error becomes one sentence on stderr and exit code 1."""
    try:
        train()
    except Exception as error:
        if isinstance(error, EXPECTED):
            print(f"{Path(sys.argv[0]).stem}: {escaped(error)}", file=sys.stderr, flush=True)
        elif jax.distributed.is_initialized():
            traceback.print_exc()
        else:
            raise
        if jax.distributed.is_initialized():
            # A normal exit waits minutes for the other processes, which wait for this one.
            os._exit(1)
        sys.exit(1)


def parse_flags(
    argv: list[str],
    example: str = EXAMPLE_CONFIG,
    config_flags: tuple[str, ...] = ("config",),
) -> list[str]:
    """Set absl's flags from a command line; a mistake in it, also in the files and fields of the
    `config_flags`, is one sentence, which may name the `example` of a config, and exit code 1."""

    def parse() -> list[str]:
        line = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        for flag in config_flags:
            check_config_flags(line, example, flag)
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            raise ConfigError(_in_one_sentence(str(error), example)) from error

    rest: list[str] = []
    run_program(lambda: rest.extend(parse()))
    return rest


def _in_one_sentence(message: str, example: str) -> str:
    """Of absl, about flags; those that are missing get an example where there is one."""
    missing = re.findall(r"flag --(\w+)=None: Flag --\1 must have a value", message)
    if not missing:
        return f"{' '.join(message.splitlines())}; see --help"
    examples = {"config": example, **EXAMPLES}
    given = " ".join(f"--{name} {examples[name]}" for name in missing if name in examples)
    names = " and ".join(f"--{name}" for name in missing)
    return f"{names} must be given, for example {given}; see --help"


def check_config_flags(
    argv: list[str], example: str = EXAMPLE_CONFIG, flag: str = "config"
) -> None:
    """Look at ``--config FILE`` and ``--config.field=value`` before they are parsed.

    Args:
      argv: the command line.
      example: a config of the program, for messages.
      flag: the name of the flag, where it is not "config".

    Raises:
      ConfigError: the file does not exist or has no ``get_config()``, or its config has no such
        field.
    """
    line = "\n".join(argv)
    named = re.search(rf"^--?{flag}[=\n](.+)$", line, re.MULTILINE)
    if named is None:
        if re.search(rf"^--?{flag}\.", line, re.MULTILINE):
            raise ConfigError(
                f"--{flag} must be given before its fields can be changed, for example "
                f"--{flag} {example}"
            )
        return
    file, *arguments = named[1].split(":", 1)
    if not Path(file).is_file():
        raise ConfigError(f"--{flag}={file}: no such file")
    get_config = runpy.run_path(file).get("get_config")
    config = get_config(*arguments) if callable(get_config) else None
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"--{flag}={file}: has no get_config() that returns a ConfigDict")
    for field in re.findall(rf"^--?(?:no)?{flag}\.([\w.]+)", line, re.MULTILINE):
        _check_field(config, field, flag)


def _check_field(config: ml_collections.ConfigDict, field: str, flag: str) -> None:
    parent = flag
    for name in field.split("."):
        known = sorted(config) if isinstance(config, ml_collections.ConfigDict) else []
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
            raise ConfigError(
                f"--{flag}.{field}: {parent} has no field {name!r}"
                + (f"; did you mean {', '.join(near)}?" if near else "")
            )
        config, parent = config[name], f"{parent}.{name}"


def connect(
    coordinator: str | None, num_processes: int | None, process_id: int | None, detect: bool
) -> None:
    """Join the other processes of this run, before anything is computed.

    They are those that the first three arguments name, or those that JAX finds: if `detect` asks
    for it, or under SLURM when ``srun`` started several tasks.

    Raises:
      ConfigError: the arguments do not fit together, or the processes do not find each other.
    """
    arguments: dict[str, Any] = {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    if coordinator is None or num_processes is None or process_id is None:
        if any(value is not None for value in arguments.values()):
            raise ConfigError("--coordinator, --num_processes and --process_id go together")
        if not detect and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
            return
        arguments = {}
    elif not re.fullmatch(r".+:\d+", coordinator):
        raise ConfigError(f"--coordinator={coordinator}: must be host:port")
    elif not 0 <= process_id < num_processes:
        raise ConfigError(f"--process_id={process_id} is not one of {num_processes}, from 0")
    else:
        arguments["cluster_detection_method"] = "deactivate"
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the processes did not find each other: {reason}") from error
    if jax.process_index() > 0:
        logging.set_verbosity(logging.WARNING)
    logging.info("%d processes, %d devices", jax.process_count(), jax.device_count())
