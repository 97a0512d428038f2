"""`dfc completion`: a script that lets a shell complete commands, options and files.

The script is made once and holds all that it completes, so that the Tab key starts no Python.
"""

import argparse
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from dfc_jax.commands.arguments import EXIT_OK, UsageError, ending

SHELLS = ("bash", "zsh", "fish")


def add(commands: Any, parser_of_all: Callable[[], argparse.ArgumentParser]) -> None:
    """Unlike other commands', its work needs the parser of all commands."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes dfc in a shell",
        epilog=ending(
            'eval "$(dfc completion bash)"',
            "dfc completion bash > ~/.local/share/bash-completion/completions/dfc",
            "dfc completion zsh > ~/.zfunc/_dfc",
            "dfc completion fish > ~/.config/fish/completions/dfc.fish",
        ),
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to read it")
    parser.set_defaults(run=lambda arguments: _run(arguments, parser_of_all()))


def _run(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if find_spec("shtab") is None:
        raise UsageError("dfc completion needs shtab; pip install 'dfc-jax[completion]' brings it")
    import shtab

    for action in _actions(parser):
        # What an argument is called says whether it is a file.
        names = str(action.metavar or "")
        if "DIR" in names:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif any(word in names for word in ("FILE", "PHOTO", "LIST")):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))
    return EXIT_OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
