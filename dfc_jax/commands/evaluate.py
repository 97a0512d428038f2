"""`dfc evaluate`: scores of the landmarks on annotated photographs."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_OK,
    UsageError,
    add_network,
    check_network,
    check_output,
    complain,
    load_aligner,
    sentence,
)
from dfc_jax.files import path_text

if TYPE_CHECKING:
    import numpy as np

    from dfc_jax.data.faces import Example
    from dfc_jax.inference.align import Aligner


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate", help="score landmarks on annotated photographs", epilog=EXIT_CODES
    )
    parser.add_argument(
        "--layout", choices=["ibug"], required=True, help="of the folder: ibug has .jpg beside .pts"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="annotated photographs"
    )
    parser.add_argument(
        "--boxes",
        choices=["gt", "detector"],
        default="gt",
        help="start from the boxes of the annotated points, or from the detector's (gt)",
    )
    parser.add_argument(
        "--json", required=True, metavar="FILE|-", help="scores go here; - prints them"
    )
    parser.add_argument(
        "--predictions-out",
        type=Path,
        metavar="FILE.npz",
        help="names of the photographs, and the landmarks found in them",
    )
    add_network(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    check_network(arguments)
    if not arguments.data.is_dir():
        raise UsageError(
            f"{arguments.data}: there is no such folder; give the one with the .pts files"
        )
    for path in (arguments.json, arguments.predictions_out):
        if path not in (None, "-"):
            check_output(Path(path))

    import numpy as np

    from dfc_jax.cache import compiled_programs
    from dfc_jax.data.ibug import read_usable
    from dfc_jax.files import write_json, write_npz

    examples, problems = read_usable(arguments.data)
    for problem in problems.values():
        complain(problem)
    with compiled_programs():
        aligner = load_aligner(arguments)
        scored, predictions, unreadable = _predict(aligner, examples, arguments.boxes)
    if not scored:
        raise UsageError(f"{arguments.data}: no photograph in it could be scored")
    scores = _scores(scored, predictions)
    scores["unusable"] = [path_text(path.name) for path in (*problems, *unreadable)]
    scores["weights"] = aligner.versions["weights"]
    scores["boxes"] = arguments.boxes
    if arguments.predictions_out is not None:
        names = np.array([path_text(example.photo.name) for example in scored])
        write_npz(arguments.predictions_out, names=names, points=predictions["mesh"])
    if arguments.json == "-":
        print(json.dumps(scores))
    else:
        write_json(arguments.json, scores)
    return EXIT_FAILED if scores["unusable"] else EXIT_OK


def _predict(
    aligner: "Aligner", examples: "list[Example]", boxes: str
) -> "tuple[list[Example], dict[str, np.ndarray], list[Path]]":
    """The examples whose photographs can be used, landmarks (n, 68, 2) of each way to read them
    off a face, and the photographs that cannot be used, which are named on standard error."""
    import numpy as np
    from tqdm import tqdm

    from dfc_jax.evaluation.protocols import predict

    readings = {
        "mesh": lambda face: face.landmarks,
        "flow": lambda face: aligner.flow_landmarks(face)[0],
        "blend": aligner.blended_landmarks,
    }
    detector = aligner.detector if boxes == "detector" else None
    scored, found, unusable = [], [], []
    predictions = predict(aligner, examples, detector, list(readings.values()))
    with tqdm(total=len(examples), unit="photo", disable=None) as bar:
        for example, points in zip(examples, predictions, strict=True):
            if isinstance(points, Exception):
                unusable.append(example.photo)
                complain(sentence(example.photo, points), bar.write)
            else:
                found.append(points)
                scored.append(example)
            bar.update()
    rows = np.stack(found, axis=1) if found else [()] * len(readings)
    return scored, dict(zip(readings, rows, strict=True)), unusable


def _scores(examples: "list[Example]", predictions: "dict[str, np.ndarray]") -> dict[str, Any]:
    """The mesh's scores, and what differs of the others' below their names."""
    import numpy as np

    from dfc_jax.evaluation.protocols import summarise

    true = np.stack([example.points for example in examples])
    found = {name: summarise(points, true) for name, points in predictions.items()}
    scores = found.pop("mesh")
    for name, other in found.items():
        scores[name] = {part: other[part] for part in ("inner", "all68")}
    return scores
