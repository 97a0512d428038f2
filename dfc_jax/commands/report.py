"""`dfc report`: a page and a table of what `dfc evaluate` found."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfc_jax.commands.arguments import (
    EXIT_FAILED,
    EXIT_OK,
    UsageError,
    check_apart,
    check_folder,
    check_output,
    complain,
    ending,
)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="a page and a table of what dfc evaluate found",
        epilog=ending(
            "dfc report lite.json --out page.html",
            "dfc report lite.json other.json --out page.html --markdown table.md "
            "--photos cfp/validation=cfp/validation",
        ),
    )
    parser.add_argument(
        "results", nargs="+", metavar="RESULT.json", help="of dfc evaluate --json; one a system"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="the page: one file that needs no other"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE.md", help="the summary as a Markdown table"
    )
    parser.add_argument(
        "--photos",
        type=set_folder,
        action="append",
        metavar="SET=DIR",
        help="folder of the photographs of a set, to draw its worst faces on them; may be repeated",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.out is None and arguments.markdown is None:
        raise UsageError("nothing is asked for; give --out PAGE.html or --markdown TABLE.md")
    for path in (arguments.out, arguments.markdown):
        if path is not None:
            check_output(path)
    check_apart((arguments.out, arguments.markdown), arguments.results)
    photos = dict(arguments.photos or ())
    for folder in photos.values():
        check_folder(folder)

    from dfc_jax.evaluation.page import markdown, page
    from dfc_jax.files import write_text

    results = read_results(arguments.results)
    names = {each["name"] for result in results for each in result["sets"]}
    for name in photos.keys() - names:
        raise UsageError(f"--photos {name}: no result has such a set; they have {_listed(names)}")
    found = [check_photos(results, name, folder) for name, folder in photos.items()]
    if arguments.out is not None:
        write_text(arguments.out, page(results, photos))
    if arguments.markdown is not None:
        write_text(arguments.markdown, markdown(results))
    return EXIT_OK if len(results) == len(arguments.results) and all(found) else EXIT_FAILED


def read_results(paths: list[str]) -> list[dict[str, Any]]:
    """Those of the results that can be read; the others are named on standard error.

    Raises:
      UsageError: none can be read.
    """
    from dfc_jax.errors import DatasetError
    from dfc_jax.evaluation.page import read_result

    results = []
    for path in paths:
        try:
            results.append(read_result(path))
        except DatasetError as error:
            complain(error)
    if not results:
        raise UsageError("none of the results can be used; make them with dfc evaluate --json")
    return results


def check_photos(results: Sequence[Mapping[str, Any]], set_name: str, folder: Path) -> bool:
    """Whether a folder holds photographs of a set, which is complained of where it does not."""
    from dfc_jax.evaluation.page.worst import holds_photos

    sets = (each for result in results for each in result["sets"] if each["name"] == set_name)
    faces = [face for each in sets for face in each.get("faces") or []]
    if not faces or holds_photos(folder, faces):
        return True
    complain(
        f"{folder}: holds no photograph of {set_name}, whose faces are drawn on plain ground; "
        "give the folder that was evaluated"
    )
    return False


def set_folder(text: str) -> tuple[str, Path]:
    """The parts of SET=DIR."""
    name, given, folder = text.partition("=")
    if not (name and given and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not SET=DIR")
    return name, Path(folder)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
