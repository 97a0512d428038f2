"""`dfc time`: how long the stages of aligning faces take on this machine."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_OK,
    add_network,
    check_apart,
    check_network,
    check_output,
    ending,
    load_aligner,
    whole,
)
from dfc_jax.files import escaped

if TYPE_CHECKING:
    import numpy as np

    from dfc_jax.inference.align import Aligner

# JAX's setting: whether programs that were compiled before are read from a folder.
CACHE_SETTING = "jax_enable_compilation_cache"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "time",
        help="how long the stages of aligning faces take here",
        epilog=ending(
            "dfc time me.jpg --json -", "dfc time photos/*.jpg --batch 64 --into lite.json"
        ),
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photographs of faces")
    parser.add_argument("--json", metavar="FILE|-", help="times go here; - prints them as JSON")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="RESULT.json",
        help="a result of dfc evaluate, which gets the times, for dfc report to show",
    )
    parser.add_argument(
        "--batch", type=whole(1, 1024), default=16, metavar="N", help="crops at once (16)"
    )
    parser.add_argument(
        "--repeats", type=whole(3, 10_000), default=50, metavar="N", help="calls of a stage (50)"
    )
    add_network(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    check_network(arguments)
    for path in (arguments.json, arguments.into):
        if path not in (None, "-"):
            check_output(Path(path))
    check_apart((arguments.json, arguments.into), arguments.photos)

    from dfc_jax.evaluation.page import read_result
    from dfc_jax.files import print_or_write_json, write_json
    from dfc_jax.photo import read_photo

    # Before anything is measured, which takes a minute.
    into = None if arguments.into is None else read_result(arguments.into)
    photos = [read_photo(photo) for photo in arguments.photos]
    aligner, runtime = measure(arguments, photos)
    if into is not None:
        write_json(arguments.into, into | {"runtime": runtime})
    if arguments.json is not None:
        print_or_write_json(arguments.json, {"versions": aligner.versions, "runtime": runtime})
    if arguments.json != "-":
        print_times(runtime)
    return EXIT_OK


def measure(
    arguments: argparse.Namespace, photos: "list[np.ndarray]"
) -> "tuple[Aligner, dict[str, Any]]":
    """The aligner that was timed, and the block ``runtime``."""
    import jax

    from dfc_jax.commands.stages import stage_times
    from dfc_jax.evaluation.runtime import machine_facts

    # Programs that a cache holds would not be compiled.
    cached = getattr(jax.config, CACHE_SETTING)
    jax.config.update(CACHE_SETTING, False)
    try:
        start = time.perf_counter()
        aligner = load_aligner(arguments)
        loaded = time.perf_counter()
        aligner(photos[0])
        first = time.perf_counter()
    finally:
        jax.config.update(CACHE_SETTING, cached)
    stages, faces = stage_times(aligner, photos, arguments.batch, arguments.repeats)
    return aligner, {
        **machine_facts(),
        "network": arguments.runtime,
        "photographs": len(photos),
        "faces": faces,
        "megapixels": [round(image.shape[0] * image.shape[1] / 1e6, 2) for image in photos],
        "load_s": round(loaded - start, 2),
        "first_s": round(first - loaded, 2),
        "stages": stages,
    }


def print_times(runtime: dict[str, Any]) -> None:
    """The stages as lines of a table."""
    from dfc_jax.evaluation.page.tables import STAGE_COLUMNS, machine, stage_rows

    rows = [STAGE_COLUMNS, *stage_rows(runtime["stages"])]
    widths = [max(len(row[k]) for row in rows) for k in range(len(STAGE_COLUMNS))]
    print(escaped(machine(runtime)))
    for row in rows:
        cells = (
            f"{text:<{width}}" if k < 2 else f"{text:>{width}}"
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print(escaped("  ".join(cells).rstrip()))
