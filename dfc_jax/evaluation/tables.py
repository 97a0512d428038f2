"""Rows of text as aligned columns or Markdown, and those of an evaluation."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dfc_jax.evaluation.pose import ANGLES
from dfc_jax.files import escaped

Rows = Sequence[Sequence[str]]
NOTHING = "-"
# What Markdown would take for its own; an underscore within a word is none of that.
_MARKDOWN = re.compile(r"[\\`*{}|~#$]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def aligned(rows: Rows) -> str:
    """Rows of cells as lines of aligned columns, the first row as their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def markdown(rows: Rows, texts: int = 1) -> str:
    """The same as a Markdown table, whose first columns are `texts`, the others numbers, which
    stand to the right."""
    rule = ["---"] * texts + ["---:"] * (len(rows[0]) - texts)
    lines = [rule if row is None else map(markdown_text, row) for row in (rows[0], None, *rows[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = _MARKDOWN.sub(r"\\\g<0>", escaped(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


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


def dense_text(scores: Mapping[str, Any]) -> str:
    """The scores of dense correspondences in words."""
    epe, nme = (with_interval(scores[name], scores[f"{name}_ci95"]) for name in ("epe", "nme"))
    missing = f", {scores['no_output']} without output" if scores["no_output"] else ""
    mesh = f"mesh off by {nme} % of the {scores['normalised_by']} length"
    return f"dense: {scores['n']} faces{missing}, flow off by {epe} template pixels, {mesh}"


def set_text(record: Mapping[str, Any]) -> str:
    """What a reader wants to know first of a set's scores."""
    title = f"{record['name']} ({record['layout']}, {record['labels']} labels)"
    faces = "1 face" if record["n"] == 1 else f"{record['n']} faces"
    lines = [f"{title}: {faces}, {record['no_output']} without output"]
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
    if record["pose"] is not None and any(record["pose"][name]["n"] for name in ANGLES):
        errors = (f"{name} {number(record['pose'][name]['mean'])}" for name in ANGLES)
        lines.append(f"mean absolute error of the pose, degrees: {', '.join(errors)}")
    if record["mask_iou"] is not None:
        lines.append(f"mean intersection over union: {number(record['mask_iou']['mean'], 3)}")
    if record["dense"] is not None:
        lines.append(dense_text(record["dense"]))
    return "\n".join(lines)
