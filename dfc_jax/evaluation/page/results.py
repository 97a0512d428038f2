"""Results of `dfc evaluate`, schema ``dfc-evaluation/1.0``: reading, checking, sorting by set."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from dfc_jax.errors import DatasetError
from dfc_jax.files import escaped

Result = Mapping[str, Any]
# What reads this schema reads all with the same first number.
SCHEMA = "dfc-evaluation/1."

NUMBER, NUMBERS, TEXT, RECORD = "a number", "a list of numbers", "a text", "an object"
# What the values have to be that are there; null may stand for each. A key "*" is any key, a list
# of one entry a list of such.
_SCORES = {"*": {"n": NUMBER, "mean": NUMBER, "median": NUMBER, "slope": NUMBER, "bias": NUMBER}}
_PROTOCOL = {
    **dict.fromkeys(("points", "visible", "normalised_by"), TEXT),
    **dict.fromkeys(("n", "no_output", "mean", "median", "failure_8", "auc_8"), NUMBER),
    **dict.fromkeys(("ci95", "median_ci95"), NUMBERS),
    "curve": {"percent": NUMBERS, "share": NUMBERS},
    "bins": {"*": {"n": NUMBER, "mean": NUMBER, "ci95": NUMBERS}},
}
_FACE = {
    "name": TEXT,
    "photo": TEXT,
    "yaw_deg": NUMBER,
    "errors": {"*": NUMBER},
    "predicted": [NUMBERS],
    "true": [NUMBERS],
}
_SET = {
    **dict.fromkeys(("name", "layout", "labels"), TEXT),
    **dict.fromkeys(("n", "no_output"), NUMBER),
    "unusable": [TEXT],
    "protocols": {"*": _PROTOCOL},
    "pose": _SCORES,
    "yaw": {"*": {"n": NUMBER, "true": NUMBER, "found": NUMBER}},
    "profiles": {"n": NUMBER, "median_abs_yaw": NUMBER},
    "openings": {"*": {"*": NUMBER}},
    "flow": _SCORES,
    "blend": _SCORES,
    "mask_iou": {"n": NUMBER, "mean": NUMBER, "median": NUMBER},
    "dense": dict.fromkeys(("n", "no_output", "epe", "nme"), NUMBER),
    "faces": [_FACE],
}
_RUNTIME = {"stages": {"*": {"median_ms": NUMBER, "p10_ms": NUMBER, "p90_ms": NUMBER}}}
_RESULT = {
    "schema": TEXT,
    "system": {"name": TEXT, "versions": RECORD, "boxes": TEXT},
    "sets": [_SET],
    "runtime": _RUNTIME,
}
_NEEDED = {"": ("schema", "system", "sets"), "system": ("name",), "sets[]": ("name", "protocols")}


class Entry(NamedTuple):
    """What one system has in one set.

    Attributes:
      system: its name, told apart from others of the same name.
      rank: its place among the systems, which gives its colour.
      boxes: from which boxes it started, or None.
      scores: the set of the result.
    """

    system: str
    rank: int
    boxes: str | None
    scores: Mapping[str, Any]


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A result from its file.

    Raises:
      DatasetError: it cannot be read, or is none.
    """
    try:
        result = json.loads(Path(path).read_bytes(), parse_constant=_no_number)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: this is no JSON ({error}); make it again") from error
    return check_result(result, path)


def check_result(result: Any, path: str | os.PathLike[str] = "the result") -> dict[str, Any]:
    """The same result, if the page can be made of it.

    Raises:
      DatasetError: it is of another schema or incomplete; the sentence names the place in it.
    """
    is_record = isinstance(result, dict)
    if not is_record or not str(result.get("schema", "")).startswith(SCHEMA):
        raise DatasetError(f"{path}: this is no result of dfc evaluate; make it with --json")
    problem = _problem(result, _RESULT, "")
    if problem is not None:
        raise DatasetError(f"{path}: {problem}; make it again with dfc evaluate --json")
    return result


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not in it")


def _problem(value: Any, shape: Any, where: str) -> str | None:
    """What is wrong with a value, or None; `where` is its place, as in ``sets[].name``."""
    if value is None:
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is not a list"
        if isinstance(shape[0], dict) and None in value:
            return f"{where}[] is missing"
        problems = (_problem(each, shape[0], f"{where}[]") for each in value)
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where} is not an object"
        for key in _NEEDED.get(where, ()):
            if value.get(key) is None:
                return f"{where}.{key} is missing".lstrip(".")
        shapes = ((key, shape.get(key, shape.get("*"))) for key in value)
        problems = (
            _problem(value[key], each, f"{where}.{key}".lstrip("."))
            for key, each in shapes
            if each is not None
        )
    else:
        return None if _is_kind(value, shape) else f"{escaped(where)} is not {shape}"
    return next((problem for problem in problems if problem is not None), None)


def _is_kind(value: Any, kind: str) -> bool:
    if kind == NUMBERS:
        return isinstance(value, list) and all(v is None or _is_kind(v, NUMBER) for v in value)
    if kind == NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str if kind == TEXT else dict)


def system_names(results: Sequence[Result]) -> list[str]:
    """Names of the systems of results; see `told_apart`."""
    systems = [result["system"] for result in results]
    return told_apart(
        [str(each["name"]) for each in systems], [each.get("boxes") for each in systems]
    )


def told_apart(names: Sequence[str], boxes: Sequence[str | None]) -> list[str]:
    """Names of systems; equal ones are told apart by their boxes, and then by a number."""
    often = Counter(names)
    named = [
        f"{name}, {box} boxes" if often[name] > 1 and box else name
        for name, box in zip(names, boxes, strict=True)
    ]
    seen: Counter[str] = Counter()
    for i, name in enumerate(named):
        seen[name] += 1
        named[i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return named


def by_set(results: Sequence[Result]) -> dict[tuple[str, str | None], list[Entry]]:
    """What each system has in each set, by the set's name and its labels, in the order given."""
    sets: dict[tuple[str, str | None], list[Entry]] = {}
    for rank, (name, result) in enumerate(zip(system_names(results), results, strict=True)):
        for scores in result["sets"]:
            entry = Entry(name, rank, result["system"].get("boxes"), scores)
            sets.setdefault((scores["name"], scores.get("labels")), []).append(entry)
    return sets


def protocols_of(entries: Sequence[Entry]) -> list[str]:
    """Names of the protocols that any of the systems has, in their order."""
    return list(dict.fromkeys(name for entry in entries for name in entry.scores["protocols"]))


def protocol(entry: Entry, name: str) -> Mapping[str, Any]:
    """What a system has by a protocol, empty if it has nothing."""
    return entry.scores["protocols"].get(name) or {}


def points_of(value: Any) -> np.ndarray:
    """Points (n, 2) of a list; NaN for what is null, (0, 2) where there is no list."""
    rows = [[None, None] if row is None or len(row) != 2 else row for row in value or []]
    return np.array(rows, dtype=float).reshape(-1, 2)
