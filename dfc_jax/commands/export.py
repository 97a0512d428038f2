"""`dfc export`: the network, or the network and the fit, as one file for other programs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dfc_jax
from dfc_jax.commands.arguments import (
    EXIT_OK,
    UsageError,
    add_face_model,
    check_face_model,
    check_output,
    ending,
)
from dfc_jax.files import escaped, require_weights
from dfc_jax.inference.runtimes import check_extra

if TYPE_CHECKING:
    from dfc_jax.nets.registry import Variables
    from dfc_jax.systems.dfc.networks import NetSpec
    from dfc_jax.systems.dfc.template import Template

# Format -> the extra that it needs.
FORMATS = {"onnx": "onnx", "jax": "export"}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write the network for other programs, as ONNX or jax.export",
        epilog=ending(
            "dfc export --format onnx --out lite.onnx",
            "dfc export --format jax --part face --weights paper --out paper.bin",
        ),
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="onnx, checked by ONNX Runtime; or jax, for jax.export.deserialize",
    )
    parser.add_argument(
        "--part",
        choices=["network", "face"],
        default="network",
        help="crops to flow and matchability (network), or to fitted faces too (face; jax only)",
    )
    parser.add_argument(
        "--weights", default="lite", metavar="NAME|FILE", help="the network's weights (lite)"
    )
    add_face_model(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    kind, part = arguments.format, arguments.part
    if (kind, part) == ("onnx", "face"):
        raise UsageError("--part face has no form in ONNX; use --format jax with it")
    check_extra(FORMATS[kind], f"--format {kind}")
    check_face_model(arguments.face_model)
    path = require_weights(arguments.weights)
    check_output(arguments.out)

    from dfc_jax.cache import compiled_programs
    from dfc_jax.files import file_version, written_aside
    from dfc_jax.inference.align import load_network
    from dfc_jax.morphable.file import load_face_model
    from dfc_jax.systems.dfc.template import make_template

    with compiled_programs():
        model = load_face_model(arguments.face_model)
        variables, spec = load_network(path, model)
        template = make_template(model)
        metadata = {
            "dfc_jax": dfc_jax.__version__,
            "weights": file_version(path),
            "face_model": model.version,
        }
        if kind == "onnx":
            made, said = _onnx(variables, spec, template, metadata)
        else:
            from dfc_jax.export.programs import face_program, network_program, serialized

            program = (
                face_program(variables, spec, model, template)
                if part == "face"
                else network_program(variables, spec, template)
            )
            made, said = serialized(program, template.size, metadata), "for cpu and cuda"
    with written_aside(arguments.out) as aside:
        aside.write_bytes(made)
    print(escaped(f"{arguments.out}: {part} of {metadata['weights']}, {said}"))
    return EXIT_OK


def _onnx(
    variables: "Variables", spec: "NetSpec", template: "Template", metadata: dict[str, str]
) -> tuple[bytes, str]:
    """The file, and how far ONNX Runtime's numbers are from JAX's."""
    import numpy as np

    from dfc_jax.inference.onnx_network import differences
    from dfc_jax.systems.dfc.onnx_model import network_model

    image = np.asarray(template.image)
    made = network_model(variables, spec, image, metadata).SerializeToString()
    flow, matchability = differences(made, variables, spec, image)
    said = f"flow within {flow:.1g} px and matchability within {matchability:.1g} of JAX"
    return made, f"{said} on a random crop"
