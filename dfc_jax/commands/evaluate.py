"""`dfc evaluate`: scores of landmarks, head poses, eyes and mouths on annotated photographs."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_FAILED,
    EXIT_OK,
    UsageError,
    add_network,
    check_network,
    check_output,
    complain,
    ending,
    load_aligner,
    sentence,
)
from dfc_jax.commands.logs import LOG, add_verbosity
from dfc_jax.files import path_text

if TYPE_CHECKING:
    import numpy as np

    from dfc_jax.data.faces import AnnotatedFace
    from dfc_jax.inference.align import Aligner

# The names in `dfc_jax.data.layouts.READERS`, which would take JAX to import.
LAYOUTS = (
    "ibug",
    "300w-lp",
    "aflw2000",
    "cfp",
    "fasseg",
    "facesynthetics",
    "300w",
    "aflw2000-reannotated",
    "aflw",
    "aflw-pifa",
    "pointing04",
    "frames",
    "synth",
)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score landmarks and poses on annotated photographs",
        epilog=ending(
            "dfc evaluate --layout ibug --data 300w/helen/testset --json -",
            "dfc evaluate --layout cfp --data cfp/test --boxes detector --json scores.json",
        ),
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        required=True,
        help="of the folder: ibug has .jpg beside .pts, the others are data sets of these names",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="annotated photographs"
    )
    parser.add_argument(
        "--boxes",
        choices=["gt", "detector"],
        default="gt",
        help="start from the boxes of the annotations, or from the detector's (gt)",
    )
    parser.add_argument(
        "--json", required=True, metavar="FILE|-", help="scores go here; - prints them"
    )
    parser.add_argument(
        "--predictions-out",
        type=Path,
        metavar="FILE.npz",
        help="names of the photographs, the landmarks and the yaw, pitch, roll found in them",
    )
    add_network(parser)
    add_verbosity(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    check_network(arguments)
    if not arguments.data.is_dir():
        raise UsageError(
            f"{arguments.data}: there is no such folder; give the one with the photographs"
        )
    for path in (arguments.json, arguments.predictions_out):
        if path not in (None, "-"):
            check_output(Path(path))

    import numpy as np

    from dfc_jax.cache import compiled_programs
    from dfc_jax.data.faces import read_usable
    from dfc_jax.data.layouts import open_faces
    from dfc_jax.evaluation.report import report
    from dfc_jax.files import write_json, write_npz

    faces, problems = read_usable(open_faces(arguments.layout, arguments.data))
    for problem in problems.values():
        complain(problem)
    with compiled_programs():
        aligner = load_aligner(arguments)
        for what, version in aligner.versions.items():
            LOG.info("%s: %s", what, version)
        quiet = arguments.verbosity < 0
        scored, readings, unreadable = _align(aligner, faces, arguments.boxes, quiet)
    if not scored:
        raise UsageError(f"{arguments.data}: no photograph in it could be scored")
    scores = report(scored, readings)
    scores["unusable"] = [path_text(Path(key).name) for key in (*problems, *unreadable)]
    scores["weights"] = aligner.versions["weights"]
    scores["boxes"] = arguments.boxes
    if arguments.predictions_out is not None:
        names = np.array([path_text(face.photo.name) for face in scored])
        points, angles = (np.stack([each[k] for each in readings]) for k in ("mesh", "angles_deg"))
        write_npz(arguments.predictions_out, names=names, points=points, angles_deg=angles)
    if arguments.json == "-":
        print(json.dumps(scores))
    else:
        write_json(arguments.json, scores)
    return EXIT_FAILED if scores["unusable"] else EXIT_OK


def _align(
    aligner: "Aligner", faces: "list[AnnotatedFace]", boxes: str, quiet: bool
) -> "tuple[list[AnnotatedFace], list[dict[str, np.ndarray]], list[Path]]":
    """The faces whose photographs can be used, what is read of each, and the photographs that
    cannot be used, which are named on standard error."""
    from tqdm import tqdm

    from dfc_jax.evaluation.protocols import align_examples
    from dfc_jax.evaluation.report import read

    detector = aligner.detector if boxes == "detector" else None
    scored, readings, unusable = [], [], []
    with tqdm(total=len(faces), unit="photo", disable=quiet or None) as bar:
        results = align_examples(aligner, faces, detector)
        for face, found in zip(faces, results, strict=True):
            if isinstance(found, Exception):
                unusable.append(face.photo)
                complain(sentence(face.photo, found), bar.write)
            else:
                scored.append(face)
                readings.append(read(aligner, found))
            bar.update()
    return scored, readings, unusable
