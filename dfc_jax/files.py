"""Files: names of any bytes as text, writing aside and renaming, where weights are.

Nothing here imports JAX, nor NumPy before it is needed: commands look at what they were given
before they load anything.
"""

import hashlib
import json
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.errors import ExportError, WeightsError

if TYPE_CHECKING:
    import numpy as np

_ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{8}(\.[^.]*)?", re.DOTALL)
# A few kilobytes of zeros unpack to more than a machine holds.
MAX_NPZ_BYTES = 2**30


def load_arrays(
    path: str | Path, names: Iterable[str], max_bytes: int = MAX_NPZ_BYTES
) -> "dict[str, np.ndarray]":
    """Those of the named arrays that an ``.npz`` file holds; the rest of it is not unpacked.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: unpacked, the arrays take more than `max_bytes`.
      Exception: NumPy and zipfile raise many kinds for a broken file.
    """
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.filelist}
    held = [name for name in names if name in sizes]
    if sum(sizes[name] for name in held) > max_bytes:
        raise ValueError(f"holds more than {max_bytes >> 20} MiB")
    with np.load(path) as file:
        return {name: file[name] for name in held}


ASSETS_DIR = Path(__file__).parent / "assets"
WEIGHTS_DIR = ASSETS_DIR / "weights"
DETECTOR_FILE = ASSETS_DIR / "detector.safetensors"
SEGMENTATION_FILE = ASSETS_DIR / "segmentation.safetensors"
WEIGHTS_SUFFIX = ".safetensors"
# File systems take names of 255 bytes: room for `_face1000_texture.jpg`, and for the dots and
# the 8 digits of a file that is written aside.
MAX_STEM_BYTES = 220
# Categories of what steers a terminal or breaks a line, and of half characters.
_UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
# What Windows takes in no name, and names that are devices there, whatever ending follows.
_NOT_ON_WINDOWS = frozenset('<>:"/\\|?*')
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
_DEVICES |= {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789\u00b9\u00b2\u00b3"
}
# Those that turn the direction of what follows.
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def escaped(text: object) -> str:
    r"""Text for a terminal: control characters, line breaks, bidirectional overrides and bytes that
    are not UTF-8 become ``\x1b``, ``\n``, ``\u202e``, ``\xff``."""
    return "".join(_escape(c) if _is_unsafe(c) else c for c in str(text))


def path_text(path: str | os.PathLike[str]) -> str:
    r"""A path as valid Unicode, bytes that are not UTF-8 as ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def safe_stem(stem: str) -> str:
    """A name for results: itself if file systems and terminals take it with our endings.

    Otherwise characters that are unsafe, or not for Windows, become ``_``, as does what it does not
    take at an end; what is too long is cut, and a hash of the whole keeps names apart that would
    become alike.
    """
    kept = "".join("_" if _is_unsafe(c) or c in _NOT_ON_WINDOWS else c for c in stem)
    if kept.endswith((".", " ")):
        kept = f"{kept[:-1]}_"
    if kept.split(".")[0].rstrip().lower() in _DEVICES:
        kept = f"_{kept}"
    if kept == stem and len(stem.encode()) <= MAX_STEM_BYTES:
        return stem
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    return kept.encode()[: MAX_STEM_BYTES - 9].decode("utf-8", "ignore") + f"-{digest}"


def resolve_weights(path_or_name: str | os.PathLike[str]) -> Path:
    """The path of a weight file: of the package's, for a bare name that it comes with."""
    path = Path(path_or_name)
    named = WEIGHTS_DIR / f"{path}{WEIGHTS_SUFFIX}"
    return named if len(path.parts) == 1 and named.is_file() else path


def require_weights(path_or_name: str | os.PathLike[str]) -> Path:
    """The same, of a file that exists.

    Raises:
      WeightsError: there is no such file and no such name.
    """
    path = resolve_weights(path_or_name)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file; {available_weights()}")
    return path


def require_segmentation(path_or_name: str | os.PathLike[str]) -> Path:
    """The path of a segmentation's weight file; "segmentation" is the one that comes with the
    package, where one does.

    Raises:
      WeightsError: there is no such file.
    """
    bundled = SEGMENTATION_FILE.is_file()
    path = Path(path_or_name)
    if bundled and path == Path(SEGMENTATION_FILE.stem):
        return SEGMENTATION_FILE
    if not path.is_file():
        names = f"the name {SEGMENTATION_FILE.stem}, " if bundled else ""
        raise WeightsError(
            f"{path}: there are no such weights of a segmentation; give {names}a file or none"
        )
    return path


def file_version(path: Path) -> str:
    """A file's name and eight digits of its content."""
    return f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def available_weights() -> str:
    """The part of a sentence that lists the package's weights."""
    names = sorted(path.stem for path in WEIGHTS_DIR.glob(f"*{WEIGHTS_SUFFIX}"))
    return f"the names that come with the package are: {', '.join(names) or 'none'}"


def _is_unsafe(character: str) -> bool:
    return (
        unicodedata.category(character) in _UNSAFE
        or unicodedata.bidirectional(character) in _TURNING
    )


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00  # Python's stand-in for a byte that is not UTF-8
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return character.encode("unicode_escape").decode()


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` on success, removed on failure.

    Several threads, processes and machines may write the same file: each has a path of its own, and
    the file is that of the one which ends last.

    Raises:
      ExportError: the folder cannot be written to.
    """
    path = Path(path)
    # Not by `tempfile`, whose files are readable for their owner alone; `_ASIDE` knows the name.
    aside = path.with_name(f".{path.stem}.{os.urandom(4).hex()}{path.suffix}")
    try:
        try:
            yield aside
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error


def written_for(name: str) -> str | None:
    """The file that a file of this name was written aside for, by `written_aside`; None if it is
    none of those. One that is still there is what a killed process left, or is being written."""
    aside = _ASIDE.fullmatch(name)
    return None if aside is None else aside[1] + (aside[2] or "")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Write a record as strict JSON (no NaN)."""
    write_text(path, json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def print_or_write_json(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """`write_json`, or the same on the standard output where the path is ``-``."""
    if path == "-":
        print(json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False))
    else:
        write_json(path, record)


def write_npz(
    path: str | os.PathLike[str], compress: bool = True, /, **arrays: "np.ndarray"
) -> None:
    """Write arrays to an ``.npz``, compressed or, much faster, not.

    At the lowest level, unlike NumPy: numbers of the real world hardly compress further.
    """
    import numpy as np

    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with (
        written_aside(path) as aside,
        zipfile.ZipFile(aside, "w", method, compresslevel=1) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
