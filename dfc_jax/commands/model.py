"""`dfc model`: what is in a face model, and pictures of it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_OK,
    UsageError,
    check_face_model,
    check_output,
    coefficient,
    ending,
    finite,
    picture,
    whole,
)
from dfc_jax.files import escaped

if TYPE_CHECKING:
    import numpy as np

# Standard deviations beyond which no face is left.
MAX_IDENTITY = 5.0
_ANGLES = {
    "yaw": "turn the face to the picture's left",
    "pitch": "lift the chin",
    "roll": "turn the head clockwise",
}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "model",
        help="look into a face model",
        epilog=ending("dfc model info", "dfc model render --out face.png"),
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="info|render")
    info = actions.add_parser(
        "info", help="sizes and names", epilog=ending("dfc model info", "dfc model info mine.npz")
    )
    info.set_defaults(run=run_info)
    render = actions.add_parser(
        "render",
        help="a picture of a face of the model",
        epilog=ending(
            "dfc model render --expression jawOpen=0.6 --yaw 30 --out face.png",
            "dfc model render mine.npz --identity 0=2 --identity 1=-1 --out face.webp",
        ),
    )
    render.set_defaults(run=run_render)
    for action in (info, render):
        action.add_argument(
            "file", nargs="?", type=Path, help="a face model; the embedded one if left out"
        )
    render.add_argument(
        "--out",
        type=picture,
        required=True,
        metavar="FILE.png",
        help="the picture; the suffix says the format: .png, .jpg or .webp",
    )
    for angle, meaning in _ANGLES.items():
        render.add_argument(
            f"--{angle}", type=finite, default=0.0, metavar="DEGREES", help=f"{meaning} (0)"
        )
    render.add_argument(
        "--expression",
        type=coefficient(0.0, 1.0),
        action="append",
        metavar="NAME=WEIGHT",
        help="weight in [0, 1] of an expression shape; may be repeated",
    )
    render.add_argument(
        "--identity",
        type=coefficient(-MAX_IDENTITY, MAX_IDENTITY),
        action="append",
        metavar="INDEX=DEVIATIONS",
        help=f"an identity coefficient, at most {MAX_IDENTITY:g} either way; may be repeated",
    )
    render.add_argument(
        "--size", type=whole(16, 2048), default=512, metavar="PIXELS", help="edge (512)"
    )


def run_info(arguments: argparse.Namespace) -> int:
    check_face_model(arguments.file)
    import numpy as np

    from dfc_jax.morphable.file import load_face_model
    from dfc_jax.morphable.linear import PARTS

    model = load_face_model(arguments.file)
    counts = np.bincount(np.asarray(model.triangle_part), minlength=len(PARTS))
    size = model.mean_mm.max(0) - model.mean_mm.min(0)
    rows = {
        "version": model.version,
        "vertices": len(model.mean_mm),
        "triangles": len(model.triangles),
        "parts": ", ".join(f"{part} {n}" for part, n in zip(PARTS, counts, strict=True)),
        "size_mm": " x ".join(f"{edge:.0f}" for edge in size),
        "identity": f"{model.n_identity} directions",
        "expression": f"{model.n_expression} shapes",
        "names": ", ".join(model.expression_names),
    }
    for name, value in rows.items():
        print(escaped(f"{name:<11} {value}"))
    return EXIT_OK


def run_render(arguments: argparse.Namespace) -> int:
    check_face_model(arguments.file)
    check_output(arguments.out)
    import jax.numpy as jnp
    import numpy as np

    from dfc_jax.cache import compiled_programs
    from dfc_jax.inference import draw
    from dfc_jax.morphable.file import load_face_model
    from dfc_jax.morphable.linear import shape
    from dfc_jax.photo import write_picture

    model = load_face_model(arguments.file)
    indices = [str(i) for i in range(model.n_identity)]
    identity = _coefficients(arguments.identity, indices, "identity")
    expression = _coefficients(arguments.expression, model.expression_names, "expression")
    angles = [arguments.yaw, arguments.pitch, arguments.roll]
    with compiled_programs():
        vertices = np.asarray(shape(model, jnp.asarray(identity), jnp.asarray(expression)))
        rendered = draw.model_picture(model, vertices, angles, arguments.size)
    write_picture(arguments.out, rendered)
    return EXIT_OK


def _coefficients(
    given: Sequence[tuple[str, float]] | None, names: Sequence[str], what: str
) -> "np.ndarray":
    import numpy as np

    values = np.zeros(len(names), np.float32)
    for name, value in given or ():
        if name not in names:
            raise UsageError(f"--{what} {name}: no such {what}; dfc model info lists them")
        values[list(names).index(name)] = value
    return values
