"""The `dfc` command: align photographs, evaluate on annotated ones, look into a face model and at
synthetic training pairs.

JAX and everything on it are imported inside the commands, so that ``dfc --help`` and wrong flags
answer at once.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import dfc_jax

if TYPE_CHECKING:
    import numpy as np

    from dfc_jax.inference.align import Aligner

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class UsageError(ValueError):
    """The command cannot start; the message is one sentence."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.

    0 if all went well, 1 if a photograph failed (the others are done), 2 if the command could
    not start.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except ValueError as error:
        # Every error that a user can cause is a ValueError of one sentence; anything else would
        # be a defect, which `DFC_DEBUG` shows in full.
        if os.environ.get("DFC_DEBUG"):
            raise
        print(f"dfc: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("dfc: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dfc", description="Dense 3D face alignment.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_align(commands)
    _add_evaluate(commands)
    _add_model(commands)
    _add_synth(commands)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _add_align(commands: Any) -> None:
    parser = commands.add_parser("align", help="fit a 3D face to every face of photographs")
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results go here")
    parser.add_argument(
        "--box",
        type=_box,
        action="append",
        metavar="X,Y,W,H",
        help="landmark box in photo pixels instead of a detector; may be repeated",
    )
    _add_network(parser)
    parser.set_defaults(run=_align)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="score landmarks on annotated photographs")
    parser.add_argument("--layout", choices=["ibug"], required=True, help=".jpg beside .pts")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--boxes", choices=["gt", "detector"], default="gt")
    parser.add_argument("--json", required=True, metavar="FILE|-", help="scores go here")
    parser.add_argument("--predictions-out", type=Path, metavar="FILE.npz")
    _add_network(parser)
    parser.set_defaults(run=_evaluate)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detector",
        choices=["haar", "yunet", "none"],
        default="haar",
        help="haar misses faces under 40 of 640 pixels, tight crops and tilted faces in groups; "
        "none takes the picture for a face",
    )
    parser.add_argument("--detector-model", type=Path, metavar="FILE", help="ONNX file of YuNet")
    parser.add_argument("--weights", metavar="NAME|FILE", help="the network's weights")
    parser.add_argument("--face-model", type=Path, metavar="FILE", help="instead of the embedded")
    parser.add_argument(
        "--recrop",
        type=int,
        choices=range(4),
        default=1,
        help="how often to crop again, at most, around a face that is tilted or off centre",
    )
    parser.add_argument(
        "--flip-test",
        action="store_true",
        help="average with the mirror image: more exact, twice the time in the network",
    )


def _add_model(commands: Any) -> None:
    parser = commands.add_parser("model", help="look into a face model")
    actions = parser.add_subparsers(dest="action", required=True, metavar="info|render")
    info = actions.add_parser("info", help="sizes and names")
    info.add_argument("file", nargs="?", type=Path, help="the embedded model if left out")
    info.set_defaults(run=_model_info)
    render = actions.add_parser("render", help="a picture of a face of the model")
    render.add_argument("file", nargs="?", type=Path, help="the embedded model if left out")
    render.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    for angle in ("yaw", "pitch", "roll"):
        render.add_argument(f"--{angle}", type=_finite, default=0.0, metavar="DEGREES")
    render.add_argument("--expression", type=_weight, action="append", metavar="NAME=WEIGHT")
    render.add_argument("--identity", type=_weight, action="append", metavar="INDEX=DEVIATIONS")
    render.add_argument("--size", type=_size, default=512, metavar="PIXELS")
    render.set_defaults(run=_model_render)


def _add_synth(commands: Any) -> None:
    parser = commands.add_parser(
        "synth", help="write synthetic training pairs, and pictures of them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=_positive, default=24, metavar="N", help="pairs (24)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other pairs")
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="folder of pictures")
    parser.add_argument(
        "--textures", type=Path, metavar="FILE.npz", help="of experiments.build_texture_bank"
    )
    parser.add_argument(
        "--light", type=Path, metavar="FILE.npz", help="a prior of lights, from the same program"
    )
    parser.add_argument("--face-model", type=Path, metavar="FILE", help="instead of the embedded")
    parser.set_defaults(run=_synth)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _size(text: str) -> int:
    if not text.isdigit() or not 16 <= int(text) <= 2048:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 16 to 2048")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 upwards")
    return int(text)


def _box(text: str) -> tuple[float, ...]:
    try:
        box = tuple(_finite(part) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        box = ()
    if len(box) != 4 or box[2] <= 0 or box[3] <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,width,height in pixels")
    return box


def _weight(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, _finite(value)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER") from error


def _version(_: argparse.Namespace) -> int:
    print(dfc_jax.__version__)
    return 0


def _load(arguments: argparse.Namespace) -> "Aligner":
    return dfc_jax.load(
        weights=arguments.weights,
        detector=arguments.detector,
        detector_model=arguments.detector_model,
        face_model=arguments.face_model,
        recrop=arguments.recrop,
        flip_test=arguments.flip_test,
    )


def _align(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dfc_jax.inference.export import output_names

    if arguments.box and len(arguments.photos) > 1:
        raise UsageError("--box goes with one photograph; run dfc align once per photograph")
    photos = list(dict.fromkeys(arguments.photos))
    names = output_names(photos)
    with _made_folder(arguments.out):
        aligner = _load(arguments)
    n_faces, failures = 0, 0
    with tqdm(total=len(photos), unit="photo", disable=None) as bar:
        for photo, name in zip(photos, names, strict=True):
            try:
                n_faces += _align_photo(aligner, photo, arguments.out, name, arguments.box)
            except Exception as error:
                failures += 1
                bar.write(f"dfc: {_sentence(photo, error)}", file=sys.stderr)
            bar.update()
    print(
        f"{n_faces} faces in {len(photos) - failures} of {len(photos)} photographs: {arguments.out}"
    )
    return EXIT_FAILED if failures else 0


def _align_photo(
    aligner: "Aligner", photo: Path, folder: Path, name: str, boxes: Sequence[Any] | None
) -> int:
    """Write all results of one photograph, its JSON last; returns the number of faces."""
    import numpy as np

    from dfc_jax.inference import draw, export
    from dfc_jax.inference.photo import PhotoError, read_photo
    from dfc_jax.morphable.core import PARTS

    image = read_photo(photo)
    faces = aligner(image, boxes=boxes)
    triangles, uv = np.asarray(aligner.model.triangles), np.asarray(aligner.model.uv)
    records = []
    for number, face in enumerate(faces, start=1):
        files = export.write_face(folder, f"{name}_face{number}", face, triangles, uv)
        records.append(export.face_record(face, files))
    if faces:
        # The neck is there for renders; over a photograph it would hide collars and hair.
        shown = triangles[np.asarray(aligner.model.triangle_part) != PARTS.index("neck")]
        export.write_png(folder / f"{name}_overlay.png", draw.overlay(image, faces, shown))
    size = (image.shape[1], image.shape[0])
    record = export.photo_record(str(photo), size, records, aligner.versions)
    export.write_json(folder / f"{name}.json", record)
    if not faces:
        raise PhotoError(f"{photo}: no face was found; give its box with --box x,y,w,h")
    return len(faces)


def _sentence(photo: Path, error: Exception) -> str:
    """What went wrong with a photograph, in one line that names it."""
    if os.environ.get("DFC_DEBUG"):
        raise error
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, ValueError):
        return f"{photo}: failed unexpectedly ({type(error).__name__}: {text}); please report it"
    return text if str(photo) in text else f"{photo}: {text}"


@contextmanager
def _made_folder(folder: Path) -> Iterator[None]:
    """Make `folder`, and take it back if what follows fails before anything is in it."""
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: this folder cannot be made ({error.strerror})") from error
    try:
        yield
    except BaseException:
        if not existed:
            folder.rmdir()
        raise


def _evaluate(arguments: argparse.Namespace) -> int:
    import numpy as np
    from tqdm import tqdm

    from dfc_jax.inference import evaluate, export

    examples = evaluate.read_ibug(arguments.data)
    aligner = _load(arguments)
    detector = aligner.detector if arguments.boxes == "detector" else None
    readings = {
        "mesh": lambda face: face.landmarks,
        "flow": lambda face: aligner.flow_landmarks(face)[0],
        "blend": aligner.blended_landmarks,
    }
    predictions = evaluate.predict(
        aligner,
        examples,
        detector,
        lambda items: tqdm(items, unit="photo", disable=None),
        list(readings.values()),
    )
    true = np.stack([example.points for example in examples])
    found = [evaluate.summarise(points, true) for points in predictions]
    scores = found[0]
    for name, other in zip(list(readings)[1:], found[1:], strict=True):
        scores[name] = {part: other[part] for part in ("inner", "all68")}
    scores["weights"] = aligner.versions["weights"]
    scores["boxes"] = arguments.boxes
    if arguments.predictions_out is not None:
        names = np.array([example.photo.name for example in examples])
        export.write_npz(arguments.predictions_out, names=names, points=predictions[0])
    if arguments.json == "-":
        print(json.dumps(scores))
    else:
        export.write_json(arguments.json, scores)
    return 0


def _model_info(arguments: argparse.Namespace) -> int:
    from dfc_jax.morphable.model import load_face_model

    model = load_face_model(arguments.file)
    parts = dict(zip(*_part_counts(model), strict=True))
    rows = {
        "version": model.version,
        "vertices": len(model.mean_mm),
        "triangles": len(model.triangles),
        "parts": ", ".join(f"{name} {count}" for name, count in parts.items()),
        "size_mm": " x ".join(
            f"{edge:.0f}" for edge in (model.mean_mm.max(0) - model.mean_mm.min(0))
        ),
        "identity": f"{model.n_identity} directions",
        "expression": f"{model.n_expression} shapes",
        "names": ", ".join(model.expression_names),
    }
    for name, value in rows.items():
        print(f"{name:<11} {value}")
    return 0


def _part_counts(model: Any) -> tuple[Sequence[str], Sequence[int]]:
    import numpy as np

    from dfc_jax.morphable.core import PARTS

    return PARTS, np.bincount(np.asarray(model.triangle_part), minlength=len(PARTS)).tolist()


def _model_render(arguments: argparse.Namespace) -> int:
    import jax.numpy as jnp
    import numpy as np

    from dfc_jax.inference import draw, export
    from dfc_jax.morphable.core import shape
    from dfc_jax.morphable.model import load_face_model

    model = load_face_model(arguments.file)
    identity = _coefficients(
        arguments.identity, [str(i) for i in range(model.n_identity)], "identity"
    )
    expression = _coefficients(arguments.expression, model.expression_names, "expression")
    vertices = np.asarray(shape(model, jnp.asarray(identity), jnp.asarray(expression)))
    angles = [arguments.yaw, arguments.pitch, arguments.roll]
    export.write_png(arguments.out, draw.model_picture(model, vertices, angles, arguments.size))
    return 0


def _synth(arguments: argparse.Namespace) -> int:
    # The pipelines stand on this package; only the command reaches up to them.
    from data_pipelines.export import export_pairs
    from data_pipelines.synthetic import SyntheticSettings, load_assets
    from dfc_jax.morphable.model import load_face_model

    with _made_folder(arguments.out):
        model = load_face_model(arguments.face_model)
        assets = load_assets(model, arguments.backgrounds, arguments.textures, arguments.light)
    export_pairs(arguments.out, assets, SyntheticSettings(), arguments.count, arguments.seed)
    print(f"{arguments.count} pairs in {arguments.out}")
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
