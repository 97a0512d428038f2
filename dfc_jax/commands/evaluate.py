"""`dfc evaluate`: scores of landmarks, head poses, eyes and mouths on annotated photographs."""

import argparse
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_FAILED,
    EXIT_OK,
    UsageError,
    add_network,
    check_apart,
    check_network,
    check_output,
    complain,
    ending,
    load_aligner,
    whole,
)
from dfc_jax.commands.logs import LOG, add_verbosity
from dfc_jax.commands.scored import FaceFolder, read_faces, score_faces
from dfc_jax.errors import UserError
from dfc_jax.files import escaped, path_text, print_or_write_json

if TYPE_CHECKING:
    from dfc_jax.inference.align import Aligner


class Layouts(tuple[str, ...]):
    """Names of layouts; those of `dfc_jax.data.layouts.all_readers` are in it, too."""

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        from dfc_jax.data.layouts import all_readers

        return name in all_readers()


# The names in `dfc_jax.data.layouts.READERS`, which would take JAX to import.
LAYOUTS = Layouts(
    (
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
)
# Those of `dfc_jax.evaluation.trials` and `metrics`, for the same reason.
PROTOCOLS = ("all68", "inner", "visible-inner", "points21", "visible21")
NORMALISERS = ("box", "box-diagonal", "inter-ocular")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score landmarks and poses on annotated photographs",
        epilog=ending(
            "dfc evaluate --layout ibug --data 300w/helen/testset --json -",
            "dfc evaluate --set cfp=cfp/test --set fasseg=multipose --json scores.json",
            "dfc evaluate --layout ibug --data 300w/helen/testset --predictions dlib.csv --json -",
        ),
    )
    _add_sets(parser)
    _add_scores(parser)
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
        "--without-faces",
        action="store_true",
        help="leave single faces out of the scores, to publish them where a set's names and points "
        "may not be passed on; dfc compare needs them",
    )
    parser.add_argument(
        "--predictions-out",
        type=Path,
        metavar="FILE",
        help="what was found in the faces of one set, as .npz or .csv that --predictions reads",
    )
    add_network(parser)
    add_verbosity(parser)
    parser.set_defaults(run=run)


def _add_sets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="of --data: ibug has .jpg beside .pts, the others are data sets of these names",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="annotated photographs")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="sets",
        metavar="LAYOUT=DIR",
        help="a set, as --layout and --data name one; give it as often as there are sets",
    )
    parser.add_argument(
        "--predictions",
        action="append",
        default=[],
        metavar="[SET=]FILE",
        help="score another system's points, of a .npz or .csv as docs/EVALUATE.md describes; "
        "with several sets one file for each, by the set's name, as cfp/test=FILE",
    )
    parser.add_argument(
        "--system",
        metavar="NAME",
        help="what the scores call the system, and which of those in --predictions it is",
    )


def _add_scores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol",
        action="append",
        choices=PROTOCOLS,
        help="score these points alone; give it as often as there are (all that a set allows)",
    )
    parser.add_argument(
        "--normalise",
        choices=NORMALISERS,
        default="box",
        help="what errors are divided by: sqrt(width * height) of the tight box of the true "
        "points, its diagonal, or the distance of the outer eye corners (box)",
    )
    parser.add_argument(
        "--balanced",
        action="store_true",
        help="score as many faces of each range of the true yaw, 0-30, 30-60, 60-90 degrees",
    )
    parser.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="of the intervals and of --balanced (0)",
    )
    parser.add_argument(
        "--basel",
        type=Path,
        metavar="DIR",
        help="folder of the Basel model of 300W-LP, whose meshes say which points are visible; "
        "without it, those of our model fitted to the points",
    )


def run(arguments: argparse.Namespace) -> int:
    folders = face_folders(arguments)
    files = prediction_files(arguments.predictions, [folder.name for folder in folders])
    _check(arguments, folders, files)

    from dfc_jax.cache import compiled_programs
    from dfc_jax.evaluation.scores import ScoreSettings, evaluation

    settings = ScoreSettings(
        arguments.protocol or PROTOCOLS, arguments.normalise, arguments.balanced, arguments.seed
    )
    aligner, records, systems, failed = None, [], [], False
    # Predictions compile nothing.
    with nullcontext() if files else compiled_programs():
        for folder in folders:
            try:
                faces, problems = read_faces(folder)
                if not files and aligner is None:
                    aligner = _load(arguments)
                source = aligner or files[folder.name]
                record, system = score_faces(folder, faces, problems, source, arguments, settings)
            except UserError as error:
                if len(folders) == 1:
                    raise
                complain(f"{folder.name}: {error}")
                failed = True
                continue
            records.append(record | {"faces": []} if arguments.without_faces else record)
            systems.append(system)
    if not records:
        raise UsageError(f"none of the {len(folders)} sets could be scored")
    system = arguments.system or ", ".join(dict.fromkeys(systems))
    versions = None if aligner is None else aligner.versions
    boxes = None if files else arguments.boxes
    scores = evaluation(system, records, arguments.seed, versions, boxes)
    print_or_write_json(arguments.json, scores)
    if arguments.json != "-" and arguments.verbosity >= 0:
        _print_tables(scores)
    return EXIT_FAILED if failed or any(r["unusable"] for r in records) else EXIT_OK


def face_folders(arguments: argparse.Namespace) -> list[FaceFolder]:
    """The sets that the arguments name.

    Raises:
      UsageError: there are none, one twice, or one as no LAYOUT=DIR.
    """
    if (arguments.layout is None) != (arguments.data is None):
        raise UsageError("--layout and --data go together; give both, or --set LAYOUT=DIR")
    given = [] if arguments.data is None else [(arguments.layout, arguments.data)]
    for text in arguments.sets:
        layout, equals, folder = text.partition("=")
        if not equals or layout not in LAYOUTS or not folder:
            raise UsageError(f"--set {text}: give LAYOUT=DIR, of {', '.join(LAYOUTS)}")
        given.append((layout, Path(folder)))
    if not given:
        raise UsageError("no set of faces is given; give --layout and --data, or --set LAYOUT=DIR")
    names = [path_text(Path(*folder.absolute().parts[-2:])) for _, folder in given]
    twice = {name for name, count in Counter(names).items() if count > 1}
    # One folder may hold two sets of labels.
    unique = [
        f"{layout}:{name}" if name in twice else name
        for name, (layout, _) in zip(names, given, strict=True)
    ]
    repeated = [name for name, count in Counter(unique).items() if count > 1]
    if repeated:
        raise UsageError(f"{repeated[0]}: two sets are called so; evaluate them one by one")
    return [FaceFolder(name, *each) for name, each in zip(unique, given, strict=True)]


def prediction_files(given: list[str], names: list[str]) -> dict[str, Path]:
    """The file of predictions of each set by its name; empty without `given`.

    Raises:
      UsageError: not one for each set.
    """
    if not given:
        return {}
    if len(names) == len(given) == 1 and not given[0].startswith(f"{names[0]}="):
        return {names[0]: Path(given[0])}
    files = {}
    for text in given:
        name = next((name for name in names if text.startswith(f"{name}=")), None)
        if name is None or name in files:
            raise UsageError(
                f"--predictions {text}: give SET=FILE, one for each of {', '.join(names)}"
            )
        files[name] = Path(text[len(name) + 1 :])
    missing = [name for name in names if name not in files]
    if missing:
        raise UsageError(f"{missing[0]} has no --predictions; give {missing[0]}=FILE as well")
    return files


def _check(
    arguments: argparse.Namespace, folders: list[FaceFolder], files: Mapping[str, Path]
) -> None:
    if not files:
        check_network(arguments)
    elif arguments.weights is not None or arguments.boxes != "gt":
        raise UsageError("with --predictions no network runs; leave out --weights and --boxes")
    if arguments.basel is not None and not arguments.basel.is_dir():
        raise UsageError(
            f"{arguments.basel}: there is no such folder; give the one with the Basel model"
        )
    if arguments.predictions_out is not None and len(folders) > 1:
        raise UsageError("--predictions-out is of one set; evaluate one, or leave it out")
    for folder in folders:
        if len(folders) == 1 and not folder.folder.is_dir():
            raise UsageError(
                f"{folder.folder}: there is no such folder; give the one with the photographs"
            )
    for path in (arguments.json, arguments.predictions_out):
        if path not in (None, "-"):
            check_output(Path(path))
    check_apart((arguments.json, arguments.predictions_out), files.values())


def _load(arguments: argparse.Namespace) -> "Aligner":
    aligner = load_aligner(arguments)
    for what, version in aligner.versions.items():
        LOG.info("%s: %s", what, version)
    return aligner


def _print_tables(scores: Mapping[str, Any]) -> None:
    from dfc_jax.evaluation.tables import set_text

    boxes = scores["system"]["boxes"]
    print(escaped(scores["system"]["name"]) + (f", boxes: {boxes}" if boxes else ""))
    for record in scores["sets"]:
        print()
        for line in set_text(record).splitlines():
            print(escaped(line))
