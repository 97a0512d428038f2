"""`dfc align`: a 3D face fitted to every face of photographs, as files."""

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_NO_FACE,
    EXIT_OK,
    EXIT_USAGE,
    UsageError,
    add_network,
    box,
    check_network,
    complain,
    load_aligner,
    made_folder,
    plural,
    sentence,
)
from dfc_jax.files import escaped

if TYPE_CHECKING:
    from dfc_jax.export.results import Results
    from dfc_jax.inference.align import Aligned, Aligner
    from dfc_jax.inference.face import Face

# What is written if nothing else is said; and what can be asked for besides.
OUTPUTS = ("json", "overlay", "flow", "mask", "npz", "obj")
MORE_OUTPUTS = (
    *("glb", "ply", "texture", "depth", "normals", "pncc"),
    *("pts", "mat", "livelink", "camera", "scene"),
)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "align", help="fit a 3D face to every face of photographs", epilog=EXIT_CODES
    )
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="JPEG, PNG, WebP ...")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results go here")
    parser.add_argument(
        "--outputs",
        type=_outputs,
        default=OUTPUTS,
        metavar="KIND,...",
        help=f"which results to write; {','.join(OUTPUTS)} if left out, and of "
        f"{', '.join(MORE_OUTPUTS)} those that you name; all for all of them",
    )
    parser.add_argument(
        "--obj-space",
        choices=["model", "camera"],
        default="model",
        help="the mesh upright and frontal near the origin, as viewers open it (model), or where "
        "it stands before the camera",
    )
    parser.add_argument(
        "--box",
        type=box,
        action="append",
        metavar="X,Y,W,H",
        help="landmark box in photo pixels instead of a detector; may be repeated, and may leave "
        "the picture (its longer edge from 4 pixels to 4 times the picture's)",
    )
    add_network(parser)
    parser.set_defaults(run=run)


def _outputs(text: str) -> tuple[str, ...]:
    kinds = [kind.strip() for kind in text.split(",")]
    if kinds == ["all"]:
        return OUTPUTS + MORE_OUTPUTS
    for kind in kinds:
        if kind not in OUTPUTS + MORE_OUTPUTS:
            raise argparse.ArgumentTypeError(
                f"{kind!r} is none of {', '.join(OUTPUTS + MORE_OUTPUTS)}; separate them by commas"
            )
    return tuple(kinds)


def run(arguments: argparse.Namespace) -> int:
    photos = list(dict.fromkeys(arguments.photos))
    if arguments.box and len(photos) > 1:
        raise UsageError("--box goes with one photograph; run dfc align once per photograph")
    check_network(arguments)
    problems = {photo: _problem(photo) for photo in photos}
    absent = {photo: problem for photo, problem in problems.items() if problem}
    for problem in absent.values():
        complain(problem)
    if len(absent) == len(photos):
        return EXIT_USAGE

    from dfc_jax.export.results import Results, output_names, overwritten

    # Named with all photographs, so that a name does not depend on which of them can be read.
    names = dict(zip(photos, output_names(photos), strict=True))
    for photo in overwritten(arguments.out, photos, names.values()):
        raise UsageError(f"{photo}: a result would overwrite this photograph; give another --out")
    wanted = {photo: name for photo, name in names.items() if photo not in absent}
    with ExitStack() as stack:
        with made_folder(arguments.out):
            from dfc_jax.cache import compiled_programs

            stack.enter_context(compiled_programs())
            aligner = load_aligner(arguments, background=True)
        results = Results(arguments.out, aligner, arguments.outputs, arguments.obj_space)
        code = _align_all(wanted, len(absent), aligner, results, arguments.box)
        # Where no face was looked at: what is compiled is kept, and what failed is said.
        aligner.solver.wait()
        return code


def _problem(photo: Path) -> str | None:
    """Why a photograph cannot be read, as far as can be said without opening it."""
    if os.path.isdir(photo):
        return f"{photo}: this is a folder; name the photographs in it"
    return None if os.path.lexists(photo) else f"{photo}: there is no such file; check the path"


def _align_all(
    names: dict[Path, str],
    n_failed: int,
    aligner: "Aligner",
    results: "Results",
    boxes: Sequence[Any] | None,
) -> int:
    """Align photographs, each under its name; `n_failed` have failed already."""
    from tqdm import tqdm

    from dfc_jax.inference.schedule import ahead

    n_faces, n_uncertain, n_empty, n_photos = 0, 0, 0, len(names) + n_failed
    # Threads write while the next photographs are aligned.
    workers = os.cpu_count() or 1
    found = aligner.many(names, boxes=repeat(boxes, len(names)), workers=workers)
    jobs = zip(names, names.values(), found, strict=True)
    with tqdm(total=len(names), unit="photo", disable=None) as bar:
        for (photo, *_), written in ahead(partial(_write, results), jobs, workers):
            try:
                faces = written.result()
            except Exception as error:
                n_failed += 1
                complain(sentence(photo, error), bar.write)
            else:
                n_faces += len(faces)
                n_uncertain += sum(face.status != "ok" for face in faces)
                if not faces:
                    n_empty += 1
                    words = "no face was found; give its box with --box x,y,w,h"
                    complain(f"{photo}: {words}", bar.write)
            bar.update()
    n_ok = n_photos - n_failed - n_empty
    doubtful = f" ({n_uncertain} uncertain)" if n_uncertain else ""
    counts = f"{plural(n_faces, 'face')}{doubtful} in {n_ok} of {plural(n_photos, 'photograph')}"
    print(escaped(f"{counts}: {results.folder}"))
    if n_failed:
        return EXIT_FAILED
    return EXIT_NO_FACE if n_empty else EXIT_OK


def _write(results: "Results", job: "tuple[Path, str, Aligned]") -> "Sequence[Face]":
    """Write all results of a photograph; returns its faces."""
    photo, name, aligned = job
    if aligned.error is not None:
        raise aligned.error
    results.write(name, photo, aligned.image, aligned.faces)
    return aligned.faces
