"""Which photographs are done: each has a record, which goes before its results and comes last.

The record is the photograph's JSON. Where that is not wanted, a short one is kept in a hidden
folder: a file each, rather than lines of one file, so that several processes and machines can write
into one folder, and nothing is ever half written.

Files count as written when they are renamed. That outlasts a process that is killed at any moment;
of a machine that loses its power, the last seconds may be lost.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dfc_jax.errors import ExportError
from dfc_jax.export.records import SCHEMA_VERSION
from dfc_jax.files import write_json, written_for

HIDDEN = ".dfc-done"
# What a short record keeps of a face: what `dfc_jax.export.summary` says of it, and its files.
SHORT = (
    *("status", "reasons", "box", "detector", "angles_deg", "translation_mm", "focal_px"),
    *("residual_px", "residual_crop_px", "matchable_share", "files"),
)


class Stamp(NamedTuple):
    """What tells one state of a file from another: reading it all would take as long as aligning.

    Attributes:
      bytes: its size.
      modified_us: when it was changed last, microseconds since 1970.
    """

    bytes: int
    modified_us: int


def stamp_of(photo: str | os.PathLike[str]) -> Stamp | None:
    """The stamp of a file; None if it cannot be looked at."""
    try:
        found = os.stat(photo)
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns // 1000)


def is_current(
    record: dict[str, Any],
    file: str,
    stamp: Stamp | None,
    versions: dict[str, str],
    settings: dict[str, Any],
) -> bool:
    """Whether a record is what would be written again, as far as that is known without aligning."""
    photo = record.get("photo")
    if stamp is None or record["schema_version"] != SCHEMA_VERSION or not isinstance(photo, dict):
        return False
    same = (photo.get("file"), *(photo.get(name) for name in Stamp._fields)) == (file, *stamp)
    # As they come back from a file: lists for tuples.
    wanted = json.loads(json.dumps([versions, settings]))
    return same and wanted == [record.get("versions"), record.get("settings")]


class Journal:
    """The records of the photographs whose results are in a folder.

    Args:
      folder: exists.
      shown: whether records are ``NAME.json``, in full; else they are short, and hidden.
    """

    def __init__(self, folder: Path, shown: bool) -> None:
        self._folder, self._shown = folder, shown
        # What killed processes left half written, by the names of records.
        self._left: dict[str, list[Path]] = {}
        with suppress(OSError):
            for file in os.listdir(folder / HIDDEN):
                if meant := written_for(file):
                    self._left.setdefault(meant, []).append(folder / HIDDEN / file)

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a photograph; None if there is none."""
        return _read(self._path(name, self._shown))

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Say that a photograph is done; the last thing that is written of it.

        Raises:
          ExportError: it cannot be written.
        """
        path = self._path(name, self._shown)
        if not self._shown:
            record = record | {"faces": [_short(face) for face in record["faces"]]}
            try:
                path.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise ExportError(f"{path.parent}: cannot be made ({error.strerror})") from error
        write_json(path, record)

    def remove(self, name: str) -> None:
        """Say that a photograph is not done; other files of that name than records stay.

        Raises:
          OSError: it cannot be removed.
        """
        shown, hidden = self._path(name, True), self._path(name, False)
        for path in (shown, hidden):
            if _read(path) is not None:
                path.unlink()
        for path in self._left.pop(hidden.name, ()):
            path.unlink(missing_ok=True)
        if self._shown:
            with suppress(OSError):  # as long as it holds others, or where it never was
                hidden.parent.rmdir()

    def _path(self, name: str, shown: bool) -> Path:
        return self._folder / f"{name}.json" if shown else self._folder / HIDDEN / f"{name}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(record, dict) and "schema_version" in record
    return record if ours else None


def _short(face: dict[str, Any]) -> dict[str, Any]:
    return {name: face[name] for name in SHORT if name in face}
