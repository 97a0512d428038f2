"""`dfc figures`: pictures for papers, of photographs and of what `dfc evaluate` found."""

import argparse
from pathlib import Path
from typing import Any

from dfc_jax.commands.arguments import (
    EXIT_FAILED,
    EXIT_OK,
    UsageError,
    add_network,
    check_apart,
    check_folder,
    check_network,
    check_output,
    complain,
    ending,
    load_aligner,
    picture,
    sentence,
    whole,
)
from dfc_jax.commands.report import check_photos, read_results
from dfc_jax.files import escaped, path_text


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "figures",
        help="pictures for papers: flow and mesh, systems side by side",
        epilog=ending(
            "dfc figures --panels me.jpg you.jpg --out panels.png",
            "dfc figures --compare cfp/validation lite.json other.json --photos cfp/validation "
            "--out faces.png",
        ),
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "--panels",
        nargs="+",
        metavar="PHOTO",
        help="of the largest face of each photograph: the crop, flow, matchability, fitted mesh",
    )
    kind.add_argument(
        "--compare",
        nargs="+",
        metavar="SET RESULT.json",
        help="the points of several systems, of results of dfc evaluate, on faces of a set",
    )
    parser.add_argument(
        "--out",
        type=picture,
        required=True,
        metavar="FILE.png",
        help="the picture; what it shows goes to FILE.png.json",
    )
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="photographs of the set of --compare"
    )
    parser.add_argument(
        "--face",
        action="append",
        metavar="NAME",
        help="a face of --compare; may be repeated (eight, from the easiest to the hardest)",
    )
    parser.add_argument(
        "--count", type=whole(1, 100), default=8, metavar="N", help="faces of --compare (8)"
    )
    add_network(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    check_output(arguments.out)
    check_output(_record_of(arguments.out))
    read = arguments.panels or arguments.compare[1:]
    check_apart((arguments.out, _record_of(arguments.out)), read)
    return _panels(arguments) if arguments.panels else _compare(arguments)


def _panels(arguments: argparse.Namespace) -> int:
    check_network(arguments)

    from dfc_jax.cache import compiled_programs
    from dfc_jax.export.figures import longest_flow, panels

    with compiled_programs():
        aligner = load_aligner(arguments)
        shown = []
        for photo, found in zip(arguments.panels, aligner.many(arguments.panels), strict=True):
            if found.error is not None:
                complain(sentence(photo, found.error))
            elif not found.faces:
                complain(f"{photo}: no face is found; name another photograph")
            else:
                shown.append((photo, found.image, found.faces[0]))
        if not shown:
            raise UsageError("no photograph shows a face; nothing is drawn")
        photos, images, faces = zip(*shown, strict=True)
        drawn = panels(images, faces, aligner.model.triangles)
    record = {
        "versions": aligner.versions,
        "longest_flow_px": longest_flow(faces),
        "faces": [
            {
                "photo": path_text(photo),
                "status": face.status,
                "box": [float(value) for value in face.box],
                "angles_deg": face.angles_deg,
                "residual_px": face.residual_px,
                "matchable_share": face.matchable_share,
            }
            for photo, face in zip(photos, faces, strict=True)
        ],
    }
    _write(arguments.out, drawn, record)
    return EXIT_OK if len(shown) == len(arguments.panels) else EXIT_FAILED


def _compare(arguments: argparse.Namespace) -> int:
    set_name, *paths = arguments.compare
    if not paths:
        raise UsageError("--compare needs the name of a set and results; none is given")
    check_folder(arguments.photos)

    from dfc_jax.evaluation.side_by_side import side_by_side

    results = read_results(paths)
    given = results, set_name, arguments.photos, arguments.face, arguments.count
    drawn, record = side_by_side(*given)
    found = arguments.photos is None or check_photos(results, set_name, arguments.photos)
    _write(arguments.out, drawn, record)
    return EXIT_OK if len(results) == len(paths) and found else EXIT_FAILED


def _write(out: Path, drawn: Any, record: dict[str, Any]) -> None:
    from dfc_jax.files import write_json
    from dfc_jax.photo import write_picture

    write_picture(out, drawn)
    write_json(_record_of(out), record)
    height, width = drawn.shape[:2]
    print(escaped(f"{out}: {width} x {height} pixels; what it shows: {_record_of(out)}"))


def _record_of(out: Path) -> Path:
    # Not the picture's stem alone: `lite.json` may be a result that was compared.
    return out.with_name(f"{out.name}.json")
