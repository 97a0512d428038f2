"""Several evaluations of the same faces side by side, each against the first (NumPy)."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfc_jax.errors import EvaluationError
from dfc_jax.evaluation.bootstrap import paired
from dfc_jax.evaluation.page.results import check_result, told_apart
from dfc_jax.evaluation.scores import SCHEMA
from dfc_jax.evaluation.tables import (
    NOTHING,
    SCORE_HEADS,
    Rows,
    number,
    score_cells,
    with_interval,
)

COMPARISON_SCHEMA = "dfc-comparison/1.0"
# So many faces are named on which two systems differ most.
MOST_DIFFERENT = 5
# What of a set, and of a protocol's scores, has to be the same in all evaluations.
_SAME_SET = ("layout", "labels")
_SAME_PROTOCOL = ("visible", "normalised_by", "balanced")
_SCORES = (
    *("points", "n", "no_output", "mean", "ci95", "median", "median_ci95"),
    *("failure_8", "auc_8"),
)


# Scores that are never null, and those of two ends.
_COUNTS = ("n", "no_output", "failure_8")
_INTERVALS = ("ci95", "median_ci95")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one file says: of which system, the record of each set by its name, and from which boxes
    the system started."""

    path: Path
    system: str
    sets: Mapping[str, Any]
    boxes: str | None = None


def read_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """The evaluation that `dfc evaluate` wrote to a file.

    Raises:
      EvaluationError: there is no such file, or it is not of the schema.
      DatasetError: something in it is not what it has to be.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError(
            f"{path}: cannot be read ({error.strerror}); check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path}: is no JSON; evaluate again") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise EvaluationError(
            f"{path}: its schema is {schema or 'unknown'}, not {SCHEMA}; evaluate again"
        )
    check_result(record, path)
    try:
        sets = {each["name"]: each for each in record["sets"]}
        for each in sets.values():
            for name, scores in each["protocols"].items():
                _ = [scores[field] for field in (*_SCORES, *_SAME_PROTOCOL)]
                _ = [len(scores["points"]), *(float(scores[field]) for field in _COUNTS)]
                for low, high in (scores[field] or (0.0, 0.0) for field in _INTERVALS):
                    _ = float(low), float(high)
                _ = [float(face["errors"].get(name) or 0.0) for face in each["faces"]]
            _ = [each[field] for field in _SAME_SET], [face["name"] for face in each["faces"]]
        boxes = record["system"].get("boxes")
        evaluation = Evaluation(path, str(record["system"]["name"]), sets, boxes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvaluationError(f"{path}: is damaged or incomplete; evaluate again") from error
    if not all(each["faces"] for each in sets.values()):
        raise EvaluationError(f"{path}: has no single faces; evaluate without --without-faces")
    return evaluation


def compare(evaluations: Sequence[Evaluation], seed: int = 0) -> dict[str, Any]:
    """A record of the sets and protocols that two or more evaluations share, of the
    `COMPARISON_SCHEMA`; `docs/EVALUATE.md` describes it.

    Raises:
      EvaluationError: they have other faces, labels or ways to normalise, or no set or no protocol
        in common.
    """
    names = told_apart([each.system for each in evaluations], [each.boxes for each in evaluations])
    evaluations = [
        dataclasses.replace(each, system=name)
        for each, name in zip(evaluations, names, strict=True)
    ]
    first = evaluations[0]
    shared_sets = [name for name in first.sets if all(name in each.sets for each in evaluations)]
    if not shared_sets:
        raise EvaluationError(
            f"{first.path} has no set that all others have; evaluate the same ones"
        )
    for other in evaluations[1:]:
        _check_same_faces(first, other, shared_sets)
    sets = []
    for name in shared_sets:
        record = first.sets[name]
        records = [each.sets[name] for each in evaluations]
        shared = [key for key in record["protocols"] if all(key in r["protocols"] for r in records)]
        protocols = {key: _compared(key, records, evaluations, seed) for key in shared}
        sets.append({"name": name, **{k: record[k] for k in _SAME_SET}, "protocols": protocols})
    if not any(each["protocols"] for each in sets):
        raise EvaluationError(
            f"{first.path} has no protocol that all others have; evaluate with the same --protocol"
        )
    return {
        "schema": COMPARISON_SCHEMA,
        "systems": names,
        "seed": seed,
        "sets": sets,
        "left_out": sorted({name for each in evaluations for name in each.sets} - {*shared_sets}),
    }


def _check_same_faces(first: Evaluation, other: Evaluation, names: Sequence[str]) -> None:
    def refuse(what: str) -> None:
        raise EvaluationError(f"{other.path}: {what}, unlike {first.path}; evaluate both alike")

    for name in names:
        record, mine = first.sets[name], other.sets[name]
        for field in _SAME_SET:
            if mine[field] != record[field]:
                refuse(f"the {field} of {name} is {mine[field]}")
        known, own = ({face["name"] for face in r["faces"]} for r in (record, mine))
        if known != own:
            refuse(f"{name} has other faces ({len(own - known)} more, {len(known - own)} fewer)")
        for protocol in record["protocols"].keys() & mine["protocols"].keys():
            scores, theirs = mine["protocols"][protocol], record["protocols"][protocol]
            for field in _SAME_PROTOCOL:
                if scores[field] != theirs[field]:
                    refuse(f"{protocol} of {name} has {field} {json.dumps(scores[field])}")


def _compared(
    protocol: str, records: Sequence[Any], evaluations: Sequence[Evaluation], seed: int
) -> dict[str, Any]:
    names = [face["name"] for face in records[0]["faces"]]
    errors = _errors(protocol, records, names)
    # What none of them has does not count in the protocol, or all miss it.
    counted = np.isfinite(errors).any(axis=0)
    against = [
        {
            "system": each.system,
            **paired(own[counted], errors[0][counted], seed),
            "most_different": _most_different(own, errors[0], names),
        }
        for each, own in zip(evaluations[1:], errors[1:], strict=True)
    ]
    scores = [
        {"system": each.system, **{key: record["protocols"][protocol][key] for key in _SCORES}}
        for each, record in zip(evaluations, records, strict=True)
    ]
    same = {key: records[0]["protocols"][protocol][key] for key in _SAME_PROTOCOL}
    return {**same, "systems": scores, "against_first": against}


def _errors(protocol: str, records: Sequence[Any], names: Sequence[str]) -> np.ndarray:
    """(systems, faces), infinite where a system has none."""
    rows = []
    for record in records:
        own = {face["name"]: face["errors"].get(protocol) for face in record["faces"]}
        rows.append([np.inf if own[name] is None else own[name] for name in names])
    return np.array(rows, float)


def _most_different(
    errors: np.ndarray, reference: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The faces that differ most, those first that one of the two alone found."""
    differ = np.flatnonzero(errors != reference)
    gaps = np.abs(errors[differ] - reference[differ])
    order = differ[np.argsort(-gaps, kind="stable")][:MOST_DIFFERENT]

    def percent(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return [
        {"name": names[k], "error": percent(errors[k]), "first": percent(reference[k])}
        for k in order
    ]


def tables(comparison: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    """The comparison as tables of text, each with its title."""
    found: list[tuple[str, Rows]] = []
    for record in comparison["sets"]:
        for name, protocol in record["protocols"].items():
            seen = f", visible by {protocol['visible']}" if protocol["visible"] else ""
            balance = ", balanced" if protocol["balanced"] else ""
            title = f"{record['name']}, {record['labels']} labels: {name}{seen}, normalised by "
            title += protocol["normalised_by"] + balance
            found.append((title, _score_rows(protocol)))
            for against in protocol["against_first"]:
                rows = [["face", against["system"], comparison["systems"][0]]]
                rows += [
                    [face["name"], _error(face["error"]), _error(face["first"])]
                    for face in against["most_different"]
                ]
                if len(rows) > 1:
                    found.append(("faces that differ most, error in %", rows))
    return found


def _score_rows(protocol: Mapping[str, Any]) -> Rows:
    rows = [["system", "points", *SCORE_HEADS, "difference [95 %]", "Wilcoxon p", "won/lost/tied"]]
    for k, scores in enumerate(protocol["systems"]):
        cells = [NOTHING] * 3
        if k > 0:
            pair = protocol["against_first"][k - 1]
            p = pair["p_wilcoxon"]
            cells = [
                with_interval(pair["mean_difference"], pair["ci95"]),
                NOTHING if p is None else f"{p:.2g}",
                f"{pair['wins']}/{pair['losses']}/{pair['ties']}",
            ]
        rows.append([scores["system"], scores["points"], *score_cells(scores), *cells])
    return rows


def _error(value: float | None) -> str:
    return "no output" if value is None else number(value)
