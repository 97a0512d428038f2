"""What a system finds in the faces of a set, in a file of its own: ``.npz`` or ``.csv`` (NumPy).

An ``.npz`` holds `names` (n,), text, `points` (n, 68, 2), and, where there are such, `angles_deg`
(n, 3), `points21` (n, 21, 2) and `system`, text: the fields of `Predictions`. One of several
systems holds, in place of `points`, an array (n, 68, 2) for each system, by its name.

A ``.csv`` (UTF-8, commas) starts with the header ``name,x0,y0,x1,y1,...,x67,y67``, which may go on
with ``yaw,pitch,roll``, and has a row for each face; an empty cell is a point that is not given.
"""

import csv
import dataclasses
import os
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from dfc_jax.errors import EvaluationError
from dfc_jax.files import MAX_NPZ_BYTES, load_arrays, write_npz, written_aside
from dfc_jax.landmarks21 import N_LANDMARKS21
from dfc_jax.landmarks68 import N_LANDMARKS
from dfc_jax.types import ByValue

_SHAPES = {"points": (N_LANDMARKS, 2), "angles_deg": (3,), "points21": (N_LANDMARKS21, 2)}
_POINT_COLUMNS = [f"{axis}{k}" for k in range(N_LANDMARKS) for axis in "xy"]
_ANGLE_COLUMNS = ["yaw", "pitch", "roll"]
# So many names are said in a message.
_NAMED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions(ByValue):
    """What a system gives for n faces, NaN where it gives nothing.

    Attributes:
      system: its name.
      names: of the faces, as `dfc_jax.data.faces.AnnotatedFace` has them; each once.
      points: (n, 68, 2) float64, photo pixels (x, y), integers at pixel centres, iBUG order.
      angles_deg: (n, 3) yaw, pitch and roll as in `dfc_jax.types`.
      points21: (n, 21, 2) photo pixels, in AFLW's order.
    """

    system: str
    names: tuple[str, ...]
    points: np.ndarray
    angles_deg: np.ndarray | None = None
    points21: np.ndarray | None = None

    @property
    def output(self) -> np.ndarray:
        """(n,) bool: whether it gives anything."""
        output = np.zeros(len(self.names), bool)
        for array in (self.points, self.angles_deg, self.points21):
            if array is not None:
                output |= np.isfinite(_rows(array)).any(axis=1)
        return output

    def of(self, names: Sequence[str]) -> "Predictions":
        """Those of other faces, in their order; NaN for a face that has none."""
        row = {name: k for k, name in enumerate(self.names)}
        at = np.array([row.get(name, -1) for name in names], int)

        def pick(array: np.ndarray) -> np.ndarray:
            missing = (at < 0).reshape(-1, *[1] * (array.ndim - 1))
            return np.where(missing, np.nan, array[np.maximum(at, 0)])

        return Predictions(
            self.system,
            tuple(names),
            pick(self.points),
            None if self.angles_deg is None else pick(self.angles_deg),
            None if self.points21 is None else pick(self.points21),
        )


def read_predictions(path: str | os.PathLike[str], system: str | None = None) -> Predictions:
    """Predictions of a file as in the module; what is pickled is never read.

    Args:
      path: CSV if it ends in ``.csv``, else ``.npz``.
      system: its name; by default what the file says, or else the file's name. Of a file of several
        systems, the one that is read.

    Raises:
      EvaluationError: no such file, or not one as in the module.
    """
    path = Path(path)
    if not path.is_file():
        raise EvaluationError(f"{path}: there is no such file of predictions; check the path")
    try:
        if path.suffix.lower() == ".csv":
            return _checked(path, system, _read_csv(path))
        return _checked(path, system, _read_npz(path, system))
    except _WrongError as error:
        raise EvaluationError(f"{path}: {error}") from error


def write_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write a file that `read_predictions` reads, CSV if it ends in ``.csv``, else ``.npz``.

    A ``.csv`` keeps neither the system's name nor the 21 points.

    Raises:
      ExportError: it cannot be written.
    """
    if Path(path).suffix.lower() != ".csv":
        arrays = {name: getattr(predictions, name) for name in _SHAPES}
        given = {name: array for name, array in arrays.items() if array is not None}
        named = {"names": np.array(predictions.names, str), "system": np.array(predictions.system)}
        write_npz(path, **named, **given)
        return
    columns, numbers = [*_POINT_COLUMNS], _rows(predictions.points)
    if predictions.angles_deg is not None:
        columns += _ANGLE_COLUMNS
        numbers = np.concatenate([numbers, predictions.angles_deg], axis=1)
    with written_aside(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *columns])
        for name, row in zip(predictions.names, numbers.tolist(), strict=True):
            writer.writerow([name, *("" if value != value else repr(value) for value in row)])


def match(
    predictions: Predictions, names: Sequence[str], unusable: Collection[str] = ()
) -> tuple[Predictions, list[str]]:
    """The predictions of the faces of a set, in its order, and the names without any.

    Args:
      predictions: of faces of the set.
      names: of its faces.
      unusable: names of faces that it has besides; what is predicted of them is left out.

    Raises:
      EvaluationError: it predicts faces that the set does not have.
    """
    unknown = sorted(set(predictions.names) - set(names) - set(unusable))
    if unknown:
        raise EvaluationError(
            f"{len(unknown)} of {len(predictions.names)} predictions are of faces that the set "
            f"does not have ({listed(unknown)}); take those of this set, by the names of its faces"
        )
    there = set(predictions.names)
    return predictions.of(names), [name for name in names if name not in there]


def listed(names: Sequence[str]) -> str:
    """The first of some names, as the part of a sentence."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


class _WrongError(ValueError):
    """What is wrong with a file, and what to do, without its name."""


def _rows(array: np.ndarray) -> np.ndarray:
    """(n, ...) as (n, k)."""
    return array.reshape(len(array), int(np.prod(array.shape[1:])))


def _read_npz(path: Path, system: str | None) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
        own = [system] if system is not None and "points" not in held else []
        arrays = load_arrays(path, ["names", "system", *_SHAPES, *own])
    except Exception as error:  # a broken file makes NumPy raise almost anything
        if "allow_pickle" in str(error):
            raise _WrongError(
                "holds pickled objects, which are never read; save arrays of text and numbers"
            ) from error
        raise _WrongError("is no readable .npz of predictions; write it again") from error
    if own and system in arrays:
        arrays["points"] = arrays[own[0]]
        arrays["system"] = np.array(system)
    missing = sorted({"names", "points"} - set(arrays))
    systems = [name for name in held if name not in ("names", "system", *_SHAPES)]
    if missing == ["points"] and systems:
        what = "points" if system is None else f"points of {system}"
        raise _WrongError(
            f"holds no {what}; name one of its systems with --system: {listed(systems)}"
        )
    if missing:
        raise _WrongError(
            f"holds no {' and no '.join(missing)}; save names (n,) and points (n, 68, 2) in it"
        )
    return arrays


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    if path.stat().st_size > MAX_NPZ_BYTES:
        raise _WrongError(f"holds more than {MAX_NPZ_BYTES >> 20} MiB; give a smaller one")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [cell.strip().lower() for cell in next(rows, [])]
            columns = ["name", *_POINT_COLUMNS]
            if header not in (columns, columns + _ANGLE_COLUMNS):
                raise _WrongError(
                    "its first line is not name,x0,y0,...,x67,y67, with or without yaw,pitch,roll "
                    "at the end; write it again"
                )
            table = list(_csv_rows(rows, header))
    except (csv.Error, UnicodeDecodeError) as error:
        raise _WrongError("is no readable CSV of UTF-8 text; write it again") from error
    numbers = np.array([row for _, row in table], float).reshape(len(table), len(header) - 1)
    points, angles = np.split(numbers, [len(_POINT_COLUMNS)], axis=1)
    arrays = {
        "names": np.array([name for name, _ in table], str),
        "points": points.reshape(-1, *_SHAPES["points"]),
    }
    return arrays if not angles.size else arrays | {"angles_deg": angles}


def _csv_rows(rows: Iterator[list[str]], header: list[str]) -> Iterator[tuple[str, list[float]]]:
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise _WrongError(f"line {line} has {len(row)} cells, not {len(header)}; mend it")
        try:
            yield row[0], [float(cell) if cell.strip() else np.nan for cell in row[1:]]
        except ValueError as error:
            raise _WrongError(f"line {line} holds a cell that is no number; mend it") from error


def _checked(path: Path, system: str | None, arrays: dict[str, np.ndarray]) -> Predictions:
    names = arrays["names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise _WrongError(f"its names are {names.dtype} {names.shape}, not text (n,); save such")
    if not names.size:
        raise _WrongError("holds no faces; give a file of predictions")
    counts = dict(zip(*np.unique(names, return_counts=True), strict=True))
    twice = sorted(str(name) for name, count in counts.items() if count > 1)
    if twice:
        raise _WrongError(f"has some names more than once ({listed(twice)}); keep one of each")
    numbers = {}
    for name, shape in _SHAPES.items():
        if name not in arrays:
            continue
        array, expected = arrays[name], (len(names), *shape)
        if array.shape != expected or array.dtype.kind not in "fiu":
            raise _WrongError(
                f"its {name} are {array.dtype} {array.shape}, not numbers {expected}; save such"
            )
        known = np.isfinite(array)
        if array.ndim == 3:
            known &= known.all(axis=-1, keepdims=True)
        numbers[name] = np.where(known, array, np.nan).astype(np.float64)
    said = arrays["system"].item() if "system" in arrays and arrays["system"].size == 1 else None
    return Predictions(
        system=system or (said if isinstance(said, str) else path.stem),
        names=tuple(names.tolist()),
        **numbers,
    )
