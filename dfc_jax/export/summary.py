"""A table of many photographs: one row a face, as CSV or Parquet.

The rows are made of the photographs' records (`dfc_jax.export.journal`), so that they say what the
JSON says, and what earlier runs found is in the table as well.
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from dfc_jax.errors import OptionError
from dfc_jax.files import written_aside, written_for

SUFFIXES = (".csv", ".parquet")
# Name and type of each column; where there is nothing to say, it is empty (null).
COLUMNS: dict[str, type] = {
    "file": str,
    "name": str,
    "photo_status": str,
    "width": int,
    "height": int,
    "face": int,
    "status": str,
    "reasons": str,
    "detector": str,
    "score": float,
    "box_x": float,
    "box_y": float,
    "box_width": float,
    "box_height": float,
    "yaw_deg": float,
    "pitch_deg": float,
    "roll_deg": float,
    "translation_x_mm": float,
    "translation_y_mm": float,
    "translation_z_mm": float,
    "focal_px": float,
    "residual_px": float,
    "residual_crop_px": float,
    "matchable_share": float,
    "error": str,
}
# Rows of a Parquet file that are held in memory at once.
GROUP = 10_000
Row = dict[str, Any]


def check_summary(path: Path) -> None:
    """
    Raises:
      OptionError: a table of this suffix cannot be written here.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise OptionError(f"{path}: is no name of a table; end it in {' or '.join(SUFFIXES)}")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise OptionError(
            f"{path}: Parquet needs pyarrow, which pip install 'dfc-jax[tables]' brings; or end "
            "the name in .csv"
        )


def rows_of(name: str, record: dict[str, Any]) -> list[Row]:
    """The rows of a photograph, one a face, or a single one without a face.

    Args:
      name: of its results.
      record: as in docs/ALIGN_SCHEMA.md.
    """
    photo = {"file": record["photo"]["file"], "name": name, "photo_status": record["status"]}
    photo |= {"width": record["photo"]["width"], "height": record["photo"]["height"]}
    faces = enumerate(record["faces"], start=1)
    return [photo | {"face": number} | _of_face(face) for number, face in faces] or [photo]


def failed_row(file: str, name: str, error: str) -> Row:
    """The row of a photograph that could not be used, or whose results could not be written."""
    return {"file": file, "name": name, "photo_status": "failed", "error": error}


def _of_face(face: dict[str, Any]) -> Row:
    angles = {f"{angle}_deg": degrees for angle, degrees in face["angles_deg"].items()}
    box = zip(("box_x", "box_y", "box_width", "box_height"), face["box"], strict=True)
    place = zip("xyz", face["translation_mm"], strict=True)
    numbers = ("focal_px", "residual_px", "residual_crop_px", "matchable_share")
    return {
        "status": face["status"],
        "reasons": " ".join(face["reasons"]),
        "detector": face["detector"]["kind"],
        "score": face["detector"]["score"],
        **dict(box),
        **angles,
        **{f"translation_{axis}_mm": value for axis, value in place},
        **{name: face[name] for name in numbers},
    }


def write_summary(path: Path, rows: Iterable[Row]) -> None:
    """Write a table, row by row, aside; what a killed process left of it goes.

    Raises:
      ExportError: it cannot be written.
      OptionError: as of `check_summary`.
    """
    check_summary(path)
    for file in os.listdir(path.parent):
        if written_for(file) == path.name:
            path.with_name(file).unlink(missing_ok=True)
    writers: dict[str, Callable[[Path, Iterable[Row]], None]]
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    with written_aside(path) as aside:
        writers[path.suffix.lower()](aside, rows)


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS), restval="")
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    types = {str: pa.string(), int: pa.int32(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    with ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    waiting = iter(rows)
    while group := list(islice(waiting, GROUP)):
        yield group
