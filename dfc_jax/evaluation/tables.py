"""Rows of text as aligned columns or Markdown, and those of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from dfc_jax.evaluation.pose import ANGLES

Rows = Sequence[Sequence[str]]
NOTHING = "-"


def aligned(rows: Rows) -> str:
    """Rows of cells as lines of aligned columns, the first row as their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def markdown(rows: Rows) -> str:
    """The same as a Markdown table."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [escaped[0], ["---"] * len(rows[0]), *escaped[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A number as text; a dash for None."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def with_interval(value: float | None, ends: Sequence[float] | None, digits: int = 2) -> str:
    """A number with its interval: ``1.61 [1.53, 1.70]``."""
    if value is None or ends is None:
        return number(value, digits)
    return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def share(value: float) -> str:
    """A share in percent."""
    return f"{100.0 * value:.1f} %"


def score_cells(scores: Mapping[str, Any]) -> list[str]:
    """The cells of a protocol's scores under `SCORE_HEADS`."""
    return [
        str(scores["n"]),
        str(scores["no_output"]),
        with_interval(scores["mean"], scores["ci95"]),
        with_interval(scores["median"], scores["median_ci95"]),
        share(scores["failure_8"]),
        number(scores["auc_8"], 3),
    ]


SCORE_HEADS = ["faces", "no output", "mean % [95 %]", "median % [95 %]", "over 8 %", "AUC 8 %"]


def set_text(record: Mapping[str, Any]) -> str:
    """What a reader wants to know first of a set's scores."""
    title = f"{record['name']} ({record['layout']}, {record['labels']} labels)"
    lines = [f"{title}: {record['n']} faces, {record['no_output']} without output"]
    rows = [["protocol", "points", "visible", "normalised by", *SCORE_HEADS]]
    for name, scores in record["protocols"].items():
        by = scores["normalised_by"] + (", balanced" if scores["balanced"] else "")
        visible = scores["visible"] or NOTHING
        rows.append([name, scores["points"], visible, by, *score_cells(scores)])
        for yaw, each in (scores["bins"] or {}).items():
            mean = with_interval(each["mean"], each["ci95"])
            cells = [str(each["n"]), str(each["no_output"]), mean, "", "", ""]
            rows.append([f"  yaw {yaw}", "", "", "", *cells])
    if len(rows) > 1:
        lines.append(aligned(rows))
    if record["pose"] is not None:
        errors = (f"{name} {number(record['pose'][name]['mean'])}" for name in ANGLES)
        lines.append(f"mean absolute error of the pose, degrees: {', '.join(errors)}")
    if record["mask_iou"] is not None:
        lines.append(f"mean intersection over union: {number(record['mask_iou']['mean'], 3)}")
    return "\n".join(lines)
