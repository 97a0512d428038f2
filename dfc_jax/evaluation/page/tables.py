"""The summary of results: sets x protocols x systems, as text, and as a Markdown table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dfc_jax.evaluation.page.results import (
    Result,
    by_set,
    check_result,
    protocol,
    protocols_of,
    system_names,
)
from dfc_jax.evaluation.tables import markdown as markdown_table
from dfc_jax.evaluation.tables import markdown_text
from dfc_jax.evaluation.tables import number as plain_number

NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
COLUMNS = {
    "n": "n",
    "no_output": "No output",
    "mean": "Mean [95 % interval]",
    "median": "Median",
    "failure": "Failure, %",
    "auc": "AUC",
}
STAGE_COLUMNS = ("Stage", "Per", "Median, ms", "10th to 90th percentile", "Samples")


@dataclass(frozen=True)
class Row:
    """One line of the summary.

    Attributes:
      set_name, labels: the set, and which of its annotations.
      protocol: its name.
      convention: points, visibility and normalisation in words.
      system, boxes: whose numbers, and which boxes it started from.
      cells: the numbers as text, by name in `COLUMNS`.
      mean: the mean as a number, None where there is none.
    """

    set_name: str
    labels: str
    protocol: str
    convention: str
    system: str
    boxes: str
    cells: Mapping[str, str]
    mean: float | None


def summary(results: Sequence[Result]) -> list[Row]:
    """Rows of all results, sorted by set, then protocol, then system."""
    rows = []
    for (set_name, labels), entries in by_set(results).items():
        for name in protocols_of(entries):
            for entry in entries:
                scores = protocol(entry, name)
                if scores:
                    rows.append(
                        Row(
                            set_name,
                            labels or NOTHING,
                            name,
                            convention(scores),
                            entry.system,
                            entry.boxes or NOTHING,
                            _cells(scores),
                            scores.get("mean"),
                        )
                    )
    return rows


def convention(scores: Mapping[str, Any]) -> str:
    """Which points a protocol scores, which of them count as visible, and by what it divides."""
    visible = scores.get("visible")
    parts = [
        scores.get("points"),
        f"visible ones ({visible})" if visible else "visible and hidden",
        f"over {scores['normalised_by']}" if scores.get("normalised_by") else None,
        "yaw bins balanced" if scores.get("balanced") else None,
    ]
    return ", ".join(part for part in parts if part)


def _cells(scores: Mapping[str, Any]) -> dict[str, str]:
    interval = interval_text(scores.get("ci95"))
    return {
        "n": number(scores.get("n"), 0),
        "no_output": number(scores.get("no_output"), 0),
        "mean": f"{number(scores.get('mean'))} {interval}".strip(),
        "median": number(scores.get("median")),
        "failure": number(scaled(scores.get("failure_8"), 100.0), 1),
        "auc": number(scores.get("auc_8"), 3),
    }


def number(value: float | None, digits: int = 2) -> str:
    """A number as text, a dash for None; a true minus sign."""
    return NOTHING if value is None else plain_number(value, digits).replace("-", MINUS)


def scaled(value: float | None, factor: float) -> float | None:
    """A number times a factor; None stays."""
    return None if value is None else value * factor


def bounds(interval: Sequence[float | None] | None) -> tuple[float, float] | None:
    """The two ends of an interval, None if it is not known."""
    if interval is None or len(interval) != 2 or interval[0] is None or interval[1] is None:
        return None
    return float(interval[0]), float(interval[1])


def interval_text(interval: Sequence[float | None] | None, digits: int = 2) -> str:
    """An interval as ``[1.20, 1.40]``, nothing if it is not known."""
    ends = bounds(interval)
    return "" if ends is None else f"[{number(ends[0], digits)}, {number(ends[1], digits)}]"


def stage_rows(stages: Mapping[str, Mapping[str, Any] | None]) -> list[tuple[str, ...]]:
    """Lines of a runtime's stages, in the order of `STAGE_COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for name, measured in stages.items():
        stage = measured or {}
        spread = [number(stage.get(key)) for key in ("p10_ms", "p90_ms")]
        samples = number(stage.get("samples"), 0)
        per = str(stage.get("per") or NOTHING)
        rows.append((name, per, number(stage.get("median_ms")), " to ".join(spread), samples))
    return rows


def machine(runtime: Mapping[str, Any]) -> str:
    """Where a runtime was measured, in words."""
    parts = [
        runtime.get("device"),
        runtime.get("processor"),
        f"{runtime['cores']} cores" if runtime.get("cores") else None,
        f"network by {runtime['network']}" if runtime.get("network") else None,
        f"JAX {runtime['jax']}" if runtime.get("jax") else None,
        f"Python {runtime['python']}" if runtime.get("python") else None,
    ]
    if runtime.get("load_s") is not None:
        parts.append(f"{number(runtime['load_s'], 1)} s to load and compile without a cache")
    if runtime.get("first_s") is not None:
        parts.append(f"{number(runtime['first_s'], 1)} s for the first photograph")
    return ", ".join(str(part) for part in parts if part)


def markdown(results: Sequence[Result]) -> str:
    """The summary of results as Markdown tables: scores, and runtimes where they are known.

    Raises:
      DatasetError: one of them is no result.
    """
    for result in results:
        check_result(result)
    head = ["Set", "Labels", "Protocol", "Scored", "System", "Boxes", *COLUMNS.values()]
    rows = [
        (row.set_name, row.labels, row.protocol, row.convention, row.system, row.boxes)
        + tuple(row.cells.values())
        for row in summary(results)
    ]
    parts = [markdown_table([head, *rows], texts=6)]
    for name, result in zip(system_names(results), results, strict=True):
        runtime = result.get("runtime")
        if runtime:
            told = f"Runtime of {markdown_text(name)}: {markdown_text(machine(runtime))}."
            stages = stage_rows(runtime.get("stages") or {})
            parts += [told, markdown_table([STAGE_COLUMNS, *stages], texts=2)]
    return "\n\n".join(parts) + "\n"
