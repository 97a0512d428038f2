"""What the commands share: kinds of arguments, the network's options, checks before it is loaded.

The checks name what is missing or cannot be written in milliseconds; whether a file holds what it
should is found when it is read.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dfc_jax
from dfc_jax.errors import UserError
from dfc_jax.files import escaped, require_segmentation, require_weights
from dfc_jax.inference import (
    DEFAULT_DETECTOR,
    DEFAULT_SEGMENTATION,
    DETECTORS,
    MAX_RECROPS,
    WITH_MODEL,
    YUNET_NEEDED,
)
from dfc_jax.inference.runtimes import DEFAULT_RUNTIME, RUNTIMES, check_runtime

if TYPE_CHECKING:
    from dfc_jax.inference.align import Aligner

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NO_FACE = 0, 1, 2, 3
# As a shell says of what the signals SIGINT and SIGPIPE ended.
EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 130, 141
EXIT_CODES = """\
exit codes: 0 all went well; 1 something given could not be used or done, the rest is
done; 2 the command could not start, nothing is done; 3 (align, video, composite) all went well,
but a photograph, or the video, shows no face; 130 interrupted; 141 nobody reads the output any
more"""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def ending(*examples: str) -> str:
    """What the help of a command ends with."""
    lines = "\n".join(f"  {example}" for example in examples)
    return f"examples:\n{lines}\n\n{EXIT_CODES}"


class UsageError(UserError):
    """The command cannot start; the message is one sentence."""


def finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def between(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = finite(text)
        if not low <= value <= high:
            limits = f"from {low:g} on" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {limits}")
        return value

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return value

    return parse


def box(text: str) -> tuple[float, ...]:
    try:
        values = tuple(finite(part) for part in text.split(","))
    except argparse.ArgumentTypeError:
        values = ()
    if len(values) != 4 or values[2] <= 0 or values[3] <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,width,height in pixels")
    return values


def coefficient(low: float, high: float) -> Callable[[str], tuple[str, float]]:
    def parse(text: str) -> tuple[str, float]:
        name, _, number = text.partition("=")
        try:
            value = finite(number)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER") from error
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: the number lies in [{low:g}, {high:g}]")
        return name, value

    return parse


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the name of a picture; end it in {', '.join(PICTURE_SUFFIXES)}"
        )
    return path


def complain(sentence: object, write: Callable[..., Any] = print) -> None:
    """One sentence on standard error; `write` is a progress bar's, where there is one."""
    write(f"dfc: {escaped(sentence)}", file=sys.stderr)


def sentence(path: str | Path, error: Exception) -> str:
    """What went wrong with a file, in one line that names it."""
    if os.environ.get("DFC_DEBUG"):
        raise error
    if not isinstance(error, ValueError):
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return f"{path}: failed unexpectedly ({text}); please report it"
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _segmentation(text: str) -> str | None:
    return None if text == "none" else text


def add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detector",
        choices=DETECTORS,
        default=DEFAULT_DETECTOR,
        help="what finds the faces (dfc, our own); haar is OpenCV's cascades, yunet needs a file, "
        "none takes the whole picture for a face",
    )
    parser.add_argument(
        "--detector-model",
        type=Path,
        metavar="FILE",
        help="ONNX file of YuNet, or other weights for dfc",
    )
    parser.add_argument(
        "--min-face",
        type=between(1.0, math.inf),
        metavar="PX",
        help="the smallest faces to look for, by the longer edge of the box of their landmarks "
        "(20 in pictures of 640 pixels, 42 in those of 6000); needs dfc",
    )
    parser.add_argument(
        "--max-faces",
        type=whole(1, 1_000_000),
        metavar="N",
        help="the most faces of a picture, the surest ones; needs dfc",
    )
    parser.add_argument(
        "--min-score",
        type=between(0.01, 0.99),
        metavar="P",
        help="probability below which a face is none; needs dfc or yunet",
    )
    parser.add_argument(
        "--weights", metavar="NAME|FILE", help="the network's weights, by name or file (lite)"
    )
    parser.add_argument(
        "--segmentation",
        type=_segmentation,
        default=DEFAULT_SEGMENTATION,
        metavar="NAME|FILE|none",
        help="weights of a network that says which pixels show the face, by name or file; faces "
        f"are fitted to these, and what covers them is said ({DEFAULT_SEGMENTATION or 'none'})",
    )
    add_face_model(parser)
    parser.add_argument(
        "--recrop",
        type=whole(0, MAX_RECROPS),
        default=1,
        metavar="N",
        help="how often to crop again, at most, around a face that is tilted or off centre (1)",
    )
    parser.add_argument(
        "--flip-test",
        action="store_true",
        help="average with the mirror image: more exact, twice the time in the network",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default=DEFAULT_RUNTIME,
        help="what runs the network (jax); onnx, of the extra of that name, is faster on a CPU",
    )


def add_face_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--face-model", type=Path, metavar="FILE", help="a face model instead of the embedded one"
    )


def check_network(arguments: argparse.Namespace) -> None:
    """
    Raises:
      OptionError, UsageError, WeightsError: what `load_aligner` needs is missing.
    """
    name, model = arguments.detector, arguments.detector_model
    if name == "yunet" and model is None:
        raise UsageError(YUNET_NEEDED)
    if name not in WITH_MODEL and model is not None:
        raise UsageError(f"the detector {name} takes no model file; use dfc or yunet with it")
    if model is not None and not os.path.isfile(model):
        raise UsageError(f"{model}: there is no such detector model; check the path")
    for option, takers in {"min_face": "dfc", "max_faces": "dfc", "min_score": "dfc yunet"}.items():
        if getattr(arguments, option) is not None and name not in takers.split():
            flag, others = option.replace("_", "-"), takers.replace(" ", " or ")
            raise UsageError(f"the detector {name} has no --{flag}; use {others} with it")
    check_runtime(arguments.runtime)
    check_face_model(arguments.face_model)
    if arguments.weights is not None:
        require_weights(arguments.weights)
    if arguments.segmentation is not None:
        require_segmentation(arguments.segmentation)


def check_face_model(path: Path | None) -> None:
    """
    Raises:
      UsageError: there is no such file.
    """
    if path is not None and not os.path.isfile(path):
        raise UsageError(f"{path}: no such face model; leave it out for the embedded one")


def check_folder(folder: Path | None) -> None:
    """
    Raises:
      UsageError: there is no such folder to read from.
    """
    if folder is not None and not os.path.isdir(folder):
        raise UsageError(f"{folder}: there is no such folder; check the path")


def check_output(path: Path) -> None:
    """
    Raises:
      UsageError: no file can be written there.
    """
    if os.path.isdir(path):
        raise UsageError(f"{path}: this is a folder; give the name of a file")
    _check_writable(path.parent)


def check_apart(outputs: Sequence[str | Path | None], inputs: Iterable[str | Path] = ()) -> None:
    """Outputs that are None or ``-`` are no files.

    Raises:
      UsageError: a file would be written twice, or over one that is read.
    """
    given = [Path(path) for path in outputs if path not in (None, "-")]
    read = [Path(path) for path in inputs]
    for k, path in enumerate(given):
        if any(_same(path, other) for other in read):
            raise UsageError(f"{path}: this file is read and would be lost; give another name")
        if any(_same(path, other) for other in given[:k]):
            raise UsageError(f"{path}: two results would go there; give one of them another name")


def _same(one: Path, other: Path) -> bool:
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.abspath(one) == os.path.abspath(other)


def _check_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: there is no such folder; make it first") from error
    except OSError as error:
        raise UsageError(
            f"{folder}: files cannot be written there ({error.strerror}); give another folder"
        ) from error


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make `folder`, and take it back if what follows fails before anything is in it.

    Raises:
      UsageError: it cannot be made or written to.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: this folder cannot be made ({error.strerror}); give another one"
        ) from error
    try:
        _check_writable(folder)
        yield
    except BaseException:
        with suppress(OSError):
            for path in missing:
                path.rmdir()
        raise


def load_aligner(arguments: argparse.Namespace, background: bool = False) -> "Aligner":
    detector = dfc_jax.make_detector(
        arguments.detector,
        arguments.detector_model,
        arguments.min_face,
        arguments.max_faces,
        arguments.min_score,
    )
    return dfc_jax.load(
        weights=arguments.weights,
        detector=detector,
        face_model=arguments.face_model,
        recrop=arguments.recrop,
        flip_test=arguments.flip_test,
        background=background,
        runtime=arguments.runtime,
        segmentation=arguments.segmentation,
    )
