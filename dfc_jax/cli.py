"""The `dfc` command: finds out which sub-command is asked for, and answers mistakes."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any, NoReturn

import dfc_jax
from dfc_jax.commands import (
    align,
    compare,
    completion,
    composite,
    evaluate,
    export,
    figures,
    info,
    model,
    report,
    timing,
    video,
    webcam,
)
from dfc_jax.commands.arguments import (
    EXIT_INTERRUPTED,
    EXIT_PIPE_CLOSED,
    EXIT_USAGE,
    complain,
    ending,
)
from dfc_jax.commands.interrupt import end_now, end_on_interrupt
from dfc_jax.commands.logs import logging_to_terminal
from dfc_jax.files import escaped


class _Parser(argparse.ArgumentParser):
    def __init__(self, **keywords: Any) -> None:
        # Examples keep their lines.
        keywords.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**keywords)

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {escaped(message)}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see `EXIT_CODES`.

    Without `argv`, the command is the process, which Ctrl-C then ends.
    """
    if argv is None:
        end_on_interrupt()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error does with what the terminal's encoding has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    verbosity = getattr(arguments, "verbosity", 0)
    try:
        with logging_to_terminal(verbosity, whole_process=argv is None):
            code = arguments.run(arguments)
        # Not when Python ends, where an error could not be caught.
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Who read the output has seen enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except ValueError as error:
        # Every error that a user can cause is a ValueError of one sentence; anything else would
        # be a defect, which `DFC_DEBUG` shows in full.
        if os.environ.get("DFC_DEBUG"):
            raise
        complain(error)
        return EXIT_USAGE
    except KeyboardInterrupt:
        if argv is None:
            end_now()
        complain("interrupted")
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dfc",
        description="Dense 3D face alignment.",
        epilog=ending(
            "dfc align me.jpg --out out", "dfc align --help", "dfc info", "dfc model info"
        ),
    )
    parser.add_argument("--version", action="version", version=f"dfc {dfc_jax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    own = align, video, webcam, composite, evaluate, compare, report, figures, timing, export, model
    for module in (*own, *_from_above(), info):
        module.add(commands)
    completion.add(commands, _parser)
    version = commands.add_parser(
        "version", help="print the version", epilog=ending("dfc version", "dfc --version")
    )
    version.set_defaults(run=_version)
    return parser


def _from_above() -> list[Any]:
    """Commands of packages that stand on this one, which name them when they are installed."""
    found = entry_points(group="dfc_jax.commands")
    return [entry.load() for entry in sorted(found, key=lambda entry: entry.name)]


def _version(_: argparse.Namespace) -> int:
    print(dfc_jax.__version__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
