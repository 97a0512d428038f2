"""`dfc compare`: evaluations of several systems on the same faces, side by side."""

import argparse
from pathlib import Path
from typing import Any

from dfc_jax.commands.arguments import (
    EXIT_OK,
    UsageError,
    check_apart,
    check_output,
    complain,
    ending,
    whole,
)
from dfc_jax.files import escaped, print_or_write_json, written_aside


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare what dfc evaluate wrote of several systems on the same faces",
        epilog=ending(
            "dfc compare ours.json theirs.json",
            "dfc compare ours.json theirs.json others.json --markdown table.md",
        ),
    )
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE.json",
        help="of dfc evaluate --json; the others are tested against the first",
    )
    parser.add_argument("--json", metavar="FILE|-", help="the comparison as JSON; - prints it")
    parser.add_argument(
        "--markdown", metavar="FILE|-", help="its tables as Markdown; - prints them"
    )
    parser.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="of the intervals of the differences (0)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if len(arguments.files) < 2:
        raise UsageError(f"{arguments.files[0]}: one file alone; give two or more to compare")
    outputs = [path for path in (arguments.json, arguments.markdown) if path is not None]
    if outputs.count("-") == 2:
        raise UsageError("--json and --markdown both print; give one of them a file")
    for path in outputs:
        if path != "-":
            check_output(Path(path))
    check_apart(outputs, arguments.files)

    from dfc_jax.evaluation.comparison import compare, read_evaluation, tables
    from dfc_jax.evaluation.tables import aligned, markdown, markdown_text

    comparison = compare([read_evaluation(path) for path in arguments.files], arguments.seed)
    if comparison["left_out"]:
        complain(f"left out, as not all have them: {', '.join(comparison['left_out'])}")
    titled = tables(comparison)
    text = "\n\n".join(f"**{markdown_text(title)}**\n\n{markdown(rows)}" for title, rows in titled)
    if arguments.json is not None:
        print_or_write_json(arguments.json, comparison)
    if arguments.markdown not in (None, "-"):
        with written_aside(arguments.markdown) as aside:
            aside.write_text(text + "\n", encoding="utf-8")
    if arguments.markdown == "-":
        _print(text)
    elif arguments.json != "-":
        _print("\n\n".join(f"{title}\n{aligned(rows)}" for title, rows in titled))
    return EXIT_OK


def _print(text: str) -> None:
    for line in text.splitlines():
        print(escaped(line))
