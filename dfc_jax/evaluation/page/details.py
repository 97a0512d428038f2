"""Tables of the page beside the landmarks' errors: poses, other figures, runtimes, versions."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from dfc_jax.evaluation.page.nodes import extend, node, table
from dfc_jax.evaluation.page.results import Entry, Result, by_set, system_names
from dfc_jax.evaluation.page.tables import NOTHING, STAGE_COLUMNS, machine, number, stage_rows

ANGLES = ("yaw", "pitch", "roll", "rotation")
# What is told of a set beside errors and poses: how it is called, where it stands, its digits.
OTHERS = (
    ("profiles: faces with a yaw", ("profiles", "n"), 0),
    ("profiles: median |yaw| found, degrees", ("profiles", "median_abs_yaw"), 1),
    ("inner error of the flow, mean, %", ("flow", "inner", "mean"), 2),
    ("inner error of the blend, mean, %", ("blend", "inner", "mean"), 2),
    ("eyes: correlation of openings", ("openings", "eyes", "correlation"), 2),
    ("eyes: slope of openings", ("openings", "eyes", "slope"), 2),
    ("eyes: correlation of eyeBlink", ("openings", "eyes", "blink_correlation"), 2),
    ("mouth: correlation of openings", ("openings", "mouth", "correlation"), 2),
    ("mouth: slope of openings", ("openings", "mouth", "slope"), 2),
    ("mouth: correlation of jawOpen", ("openings", "mouth", "jaw_open_correlation"), 2),
    ("mask: faces", ("mask_iou", "n"), 0),
    ("mask: intersection over union, mean", ("mask_iou", "mean"), 3),
    ("mask: intersection over union, median", ("mask_iou", "median"), 3),
    ("dense: faces", ("dense", "n"), 0),
    ("dense: faces without output", ("dense", "no_output"), 0),
    ("dense: end-point error of the flow, template pixels", ("dense", "epe"), 2),
    ("dense: error of the mesh, %", ("dense", "nme"), 2),
)


def pose_table(entries: Sequence[Entry]) -> Element | None:
    """Slope, bias and errors of the angles that are known and found; None without any."""
    head = ["System", "Angle", "n", "Slope", "Bias, °", "Mean error, °", "Median error, °"]
    rows = []
    for entry in entries:
        pose = entry.scores.get("pose") or {}
        for angle in ANGLES:
            scores = pose.get(angle)
            if scores and scores.get("n") != 0:
                values = [number(scores.get(key)) for key in ("slope", "bias", "mean", "median")]
                n = number(scores.get("n"), 0)
                rows.append([entry.system, angle, n, *values])
    if not rows:
        return None
    return node("div", node("h3", "Head poses"), table(head, rows, texts=2))


def other_figures(entries: Sequence[Entry]) -> Element | None:
    """A line for each further figure that any of the systems has; None where none has any."""
    rows = []
    for name, place, digits in OTHERS:
        values = [_at(entry.scores, place) for entry in entries]
        if any(value is not None for value in values):
            rows.append([name, *(number(value, digits) for value in values)])
    if not rows:
        return None
    head = ["Figure", *(entry.system for entry in entries)]
    return node("div", node("h3", "Other figures"), table(head, rows))


def runtimes(results: Sequence[Result]) -> Element | None:
    """A table of the stages of each system whose runtime is known; None where it is of none."""
    section = node("section", node("h2", "Runtime"))
    for name, result in zip(system_names(results), results, strict=True):
        runtime = result.get("runtime")
        if runtime:
            extend(section, node("h3", name), node("p", f"{machine(runtime)}.", class_="soft"))
            rows = stage_rows(runtime.get("stages") or {})
            extend(section, table(STAGE_COLUMNS, rows, texts=2))
    return section if len(section) > 1 else None


def versions(results: Sequence[Result]) -> Element:
    """What made the numbers, and what could not be used."""
    rows = []
    for name, result in zip(system_names(results), results, strict=True):
        system = result["system"]
        told = ", ".join(f"{key} {value}" for key, value in (system.get("versions") or {}).items())
        seed = result.get("seed")
        texts = name, system.get("boxes") or NOTHING, told or NOTHING
        rows.append([*texts, NOTHING if seed is None else str(seed)])
    footer = node("footer", node("h3", "Versions"))
    extend(footer, table(["System", "Boxes", "Versions", "Seed"], rows, texts=3))
    for (name, _), entries in by_set(results).items():
        unusable = [path for entry in entries for path in entry.scores.get("unusable") or []]
        if unusable:
            told = ", ".join(dict.fromkeys(map(str, unusable)))
            extend(footer, node("p", f"Unusable in {name}: {told}.", class_="soft"))
    return footer


def _at(record: Mapping[str, Any], place: Sequence[str]) -> float | None:
    """The number at a place in a record, None where there is none."""
    value: Any = record
    for key in place:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None
