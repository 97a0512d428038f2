"""The people of a video as a table: a line for each face of each frame (docs/VIDEO.md)."""

import csv
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

import numpy as np

from dfc_jax.errors import ExportError
from dfc_jax.export.records import SCHEMA_VERSION, face_record
from dfc_jax.files import path_text, written_aside
from dfc_jax.landmarks68 import N_LANDMARKS

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face
    from dfc_jax.inference.track import Tracked

TRACK_SUFFIXES = (".csv", ".jsonl")


class TrackWriter:
    """Writes what `Aligner.track` yields; a context, whose file is there when it is left.

    A ``.csv`` has a row for each face of each frame, a ``.jsonl`` a line for each frame, with the
    record of each face as in docs/ALIGN_SCHEMA.md, after a first line that says what it is of.

    Args:
      path: ends in one of `TRACK_SUFFIXES`.
      expressions: the names of the expression shapes.
      video: the video's name, for the record.
      versions: of the aligner, for the record.

    Raises:
      ExportError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        expressions: Sequence[str],
        video: str | os.PathLike[str],
        versions: dict[str, str],
    ) -> None:
        self.path = Path(path)
        self._as_table = self.path.suffix.lower() == ".csv"
        if self.path.suffix.lower() not in TRACK_SUFFIXES:
            raise ExportError(f"{self.path}: end its name in one of {', '.join(TRACK_SUFFIXES)}")
        self._expressions = expressions
        self._head = {"schema_version": SCHEMA_VERSION, "video": path_text(video)}
        self._versions = versions
        self._stack = ExitStack()
        self._number = 0

    def __enter__(self) -> Self:
        aside = self._stack.enter_context(written_aside(self.path))
        self._file: TextIO = self._stack.enter_context(
            aside.open("w", encoding="utf-8", newline="")
        )
        if self._as_table:
            self._csv = csv.writer(self._file)
            self._csv.writerow(columns(self._expressions))
        else:
            self._line({**self._head, "versions": self._versions})
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, tracked: "Tracked") -> None:
        """Add a frame."""
        if self._as_table:
            for person, face in tracked.faces.items():
                first = [self._number, f"{tracked.time_s:.4f}", person]
                self._csv.writerow([*first, *_row(face)])
        else:
            people = [{"person": n, **face_record(face)} for n, face in tracked.faces.items()]
            frame = {"frame": self._number, "time_s": round(tracked.time_s, 4), "cut": tracked.cut}
            self._line({**frame, "people": people})
        self._number += 1

    def _line(self, record: dict[str, Any]) -> None:
        text = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        self._file.write(text + "\n")


def columns(expressions: Sequence[str]) -> list[str]:
    """The names of a table's columns."""
    points = [f"{axis}{i}_px" for i in range(N_LANDMARKS) for axis in "xy"]
    return [
        *("frame", "time_s", "person", "status", "confidence", "residual_px"),
        *("yaw_deg", "pitch_deg", "roll_deg", "x_mm", "y_mm", "z_mm", "focal_px"),
        *expressions,
        *points,
    ]


def _row(face: "Face") -> list[str]:
    """A face's part of a row, from its status on."""
    pose = [*face.angles_deg.values(), *face.translation_mm, face.focal_px]
    weights, points = face.expression.values(), face.landmarks.ravel()
    if not np.isfinite([*pose, *weights, *points]).all():
        raise ExportError("a result is not finite and was not written; please report the video")
    return [
        face.status,
        f"{face.confidence:.4f}",
        f"{face.residual_px:.3f}",
        *(f"{number:.3f}" for number in pose),
        *(f"{number:.4f}" for number in weights),
        *(f"{number:.2f}" for number in points),
    ]
