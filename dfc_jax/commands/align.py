"""`dfc align`: a 3D face fitted to every face of photographs, as files."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_FAILED,
    EXIT_NO_FACE,
    EXIT_OK,
    EXIT_USAGE,
    UsageError,
    add_network,
    box,
    check_network,
    check_output,
    complain,
    ending,
    load_aligner,
    made_folder,
)
from dfc_jax.commands.inputs import Inputs, add_inputs, find_photos, part_of
from dfc_jax.commands.logs import LOG, add_verbosity
from dfc_jax.files import escaped, file_version, path_text

if TYPE_CHECKING:
    from dfc_jax.commands.batch import Counts
    from dfc_jax.inference.align import Aligner

# What is written if nothing else is said; and what can be asked for besides.
OUTPUTS = ("json", "overlay", "flow", "mask", "npz", "obj")
MORE_OUTPUTS = (
    *("glb", "ply", "texture", "depth", "normals", "pncc"),
    *("pts", "mat", "livelink", "camera", "scene", "occlusion"),
)
_ALL = {*OUTPUTS, *MORE_OUTPUTS}
# What results do not depend on, or what their records say elsewhere. All other arguments are
# settings: where one is another, results are made again.
_NO_SETTINGS = {
    *("command", "run", "photos", "from_file", "shard", "out", "resume", "summary", "verbosity"),
    *("weights", "segmentation", "face_model", "outputs", "obj_space"),
}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "align",
        help="fit a 3D face to every face of photographs",
        epilog=ending(
            "dfc align me.jpg --out out",
            "dfc align photos --out out --outputs json --summary out/faces.csv",
            'dfc align "photos/**/*.jpg" --out out --resume',
            "find photos -name '*.png' -print0 | dfc align - --out out --shard 3/16",
        ),
    )
    add_inputs(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results go here")
    parser.add_argument(
        "--outputs",
        type=_outputs,
        default=OUTPUTS,
        metavar="KIND,...",
        help=f"which results to write; {','.join(OUTPUTS)} if left out, and of "
        f"{', '.join(MORE_OUTPUTS)} those that you name; all for all of them (occlusion only with "
        "--segmentation)",
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
    parser.add_argument(
        "--resume",
        action="store_true",
        help="leave out photographs whose results are there, of the same file, settings, weights "
        "and version; else they are replaced",
    )
    parser.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="a table with a row for each face, also of those done before: .csv, or .parquet",
    )
    add_network(parser)
    add_verbosity(parser)
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
    check_network(arguments)
    if arguments.segmentation is None and "occlusion" in set(arguments.outputs) < _ALL:
        raise UsageError("the output occlusion needs a segmentation; give --segmentation with it")
    inputs = find_photos(arguments.photos, arguments.from_file, _is_result, arguments.out)
    if arguments.box and len(inputs.photos) > 1:
        raise UsageError("--box goes with one photograph; run dfc align once per photograph")
    if arguments.summary is not None:
        from dfc_jax.export.summary import check_summary

        check_summary(arguments.summary)
    for problem in inputs.problems:
        complain(problem)
    if len(inputs.absent) == len(inputs.photos):
        return EXIT_USAGE
    names = _named(inputs, arguments)
    with ExitStack() as stack:
        with made_folder(arguments.out):
            if arguments.summary is not None:
                check_output(arguments.summary)
            from dfc_jax.cache import compiled_programs

            stack.enter_context(compiled_programs())
            aligner = load_aligner(arguments, background=True)
        counts = _align(arguments, names, inputs.absent, aligner)
        # Where no face was looked at: what is compiled is kept, and what failed is said.
        aligner.solver.wait()
    if arguments.verbosity >= 0:
        print(escaped(f"{counts}: {arguments.out}"))
    if counts.errors or inputs.problems:
        return EXIT_FAILED
    return EXIT_NO_FACE if counts.empty else EXIT_OK


def _is_result(file: str) -> bool:
    from dfc_jax.export.results import is_result

    return is_result(file)


def _named(inputs: Inputs, arguments: argparse.Namespace) -> dict[str, str]:
    """The names of the results of each photograph of the shard.

    Raises:
      UsageError: a result would overwrite a photograph.
    """
    from dfc_jax.export.results import output_names, overwritten

    # Named with all photographs, so that a name depends neither on which of them can be read, nor
    # on the shard.
    names = dict(zip(inputs.photos, output_names(inputs.photos), strict=True))
    for photo in overwritten(arguments.out, inputs.photos, names.values()):
        raise UsageError(f"{photo}: a result would overwrite this photograph; give another --out")
    return {photo: names[photo] for photo in part_of(inputs.photos, arguments.shard)}


def _align(
    arguments: argparse.Namespace, names: dict[str, str], absent: dict[str, str], aligner: "Aligner"
) -> "Counts":
    """Align the photographs and write their summary; the absent ones have failed already."""
    from dfc_jax.commands.batch import Batch, Counts, summary_rows
    from dfc_jax.export.results import Results
    from dfc_jax.export.summary import write_summary

    for what, version in aligner.versions.items():
        LOG.info("%s: %s", what, version)
    outputs, space = arguments.outputs, arguments.obj_space
    results = Results(arguments.out, aligner, outputs, space, _settings(arguments))
    counts = Counts(len(names), errors={photo: absent[photo] for photo in names if photo in absent})
    wanted = {photo: name for photo, name in names.items() if photo not in absent}
    quiet = arguments.verbosity < 0
    Batch(wanted, aligner, results, counts, arguments.box, arguments.resume, quiet).run()
    if arguments.summary is not None:
        write_summary(arguments.summary, summary_rows(names, results, counts.errors))
    return counts


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the results depend on besides versions, in words of JSON; a file by its content."""
    settings = {}
    for name in sorted(vars(arguments).keys() - _NO_SETTINGS):
        value = getattr(arguments, name)
        if isinstance(value, Path):
            value = file_version(value) if value.is_file() else path_text(value)
        settings[name] = value
    return settings
