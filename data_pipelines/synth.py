"""`dfc synth`: synthetic training pairs as files, and pictures of them."""

import argparse
from pathlib import Path
from typing import Any

from dfc_jax.commands.arguments import (
    EXIT_OK,
    UsageError,
    add_face_model,
    check_face_model,
    check_folder,
    ending,
    made_folder,
    plural,
    whole,
)
from dfc_jax.commands.logs import LOG, add_verbosity
from dfc_jax.files import escaped


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "synth",
        help="write synthetic training pairs, and pictures of them",
        epilog=ending(
            "dfc synth --out pairs --count 100",
            "dfc synth --out pairs --backgrounds pictures --seed 1",
        ),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="pairs go here")
    parser.add_argument(
        "--count", type=whole(1, 10**6), default=24, metavar="N", help="how many pairs (24)"
    )
    parser.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=0, help="other seeds, other pairs (0)"
    )
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="folder of pictures")
    parser.add_argument(
        "--textures", type=Path, metavar="FILE.npz", help="of experiments.tools.build_texture_bank"
    )
    parser.add_argument(
        "--light", type=Path, metavar="FILE.npz", help="a prior of lights, from the same program"
    )
    add_face_model(parser)
    add_verbosity(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    check_face_model(arguments.face_model)
    check_folder(arguments.backgrounds)
    for path in (arguments.textures, arguments.light):
        if path is not None and not path.is_file():
            raise UsageError(f"{path}: there is no such file; check the path")
    with made_folder(arguments.out):
        from data_pipelines.faces.export import export_pairs
        from data_pipelines.faces.synthetic import SyntheticSettings, load_assets
        from dfc_jax.cache import compiled_programs
        from dfc_jax.morphable.file import load_face_model

        model = load_face_model(arguments.face_model)
        LOG.info("face_model: %s", model.version)
        assets = load_assets(model, arguments.backgrounds, arguments.textures, arguments.light)
    with compiled_programs():
        export_pairs(arguments.out, assets, SyntheticSettings(), arguments.count, arguments.seed)
    if arguments.verbosity >= 0:
        print(escaped(f"{plural(arguments.count, 'pair')} in {arguments.out}"))
    return EXIT_OK
