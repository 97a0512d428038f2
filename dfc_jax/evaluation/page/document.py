"""The page: a summary, a section for each set, runtimes, versions; one file without any other."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from xml.etree.ElementTree import Element

from dfc_jax.evaluation.page.charts import bars, curves, legend, yaw_lines
from dfc_jax.evaluation.page.details import other_figures, pose_table, runtimes, versions
from dfc_jax.evaluation.page.nodes import extend, html_text, node
from dfc_jax.evaluation.page.results import (
    Entry,
    Result,
    by_set,
    check_result,
    protocol,
    protocols_of,
)
from dfc_jax.evaluation.page.style import CSS
from dfc_jax.evaluation.page.tables import COLUMNS, NOTHING, Row, convention, number, summary
from dfc_jax.evaluation.page.worst import face_figure, worst

INTRODUCTION = (
    "Errors are means over the points of a face, in percent of what the protocol divides by. A "
    "face without output counts as a failure, and in curves and AUC as an infinite error; mean, "
    "median and the intervals are over the faces with output. Failure is the share of faces over "
    "8 %, AUC the area under the curve up to there, as a part of the whole. Of several systems the "
    "best mean is bold: look at the faces without output beside it."
)


def page(results: Sequence[Result], photos: Mapping[str, str | Path] | None = None) -> str:
    """Results of evaluations as one self-contained page of HTML.

    Args:
      results: of the schema ``dfc-evaluation/1.0``, one for each system.
      photos: for names of sets, the folder that the photographs of its faces lie in; the worst
        faces of other sets are drawn on plain ground.

    Returns:
      the page; it refers to no other file, and all text from the results is escaped.

    Raises:
      DatasetError: one of them is no result.
    """
    for result in results:
        check_result(result)
    folders = {name: Path(folder) for name, folder in (photos or {}).items()}
    sets = by_set(results)
    head = node("head", node("meta", charset="utf-8"), node("title", "Face alignment, evaluated"))
    narrow = "width=device-width, initial-scale=1"
    extend(head, node("meta", name="viewport", content=narrow))
    style = node("style")
    style.text = CSS
    extend(head, style)
    body = node("body", node("h1", "Face alignment, evaluated"))
    counted = f"{_count(len(results), 'result')}, {_count(len(sets), 'set')}."
    rows = summary(results)
    extend(body, node("p", counted, class_="soft"), _summary_table(rows))
    extend(body, _without_rows(sets, rows))
    extend(body, node("p", INTRODUCTION, class_="soft"))
    for (name, labels), entries in sets.items():
        extend(body, _section(name, labels, entries, folders.get(name)))
    extend(body, runtimes(results), versions(results))
    return html_text(node("html", head, body, lang="en"))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _summary_table(rows: Sequence[Row]) -> Element:
    head = ["Protocol", "System", "Boxes", *COLUMNS.values()]
    cells = [
        node("th", text, scope="col", class_="text" if i < 3 else None)
        for i, text in enumerate(head)
    ]
    body = node("tbody")
    for (set_name, labels), group in groupby(rows, lambda row: (row.set_name, row.labels)):
        about = node("small", f"labels: {labels}")
        title = node("th", set_name, about, colspan=len(head), scope="colgroup")
        extend(body, node("tr", title, class_="group"))
        for _, same in groupby(group, lambda row: (row.protocol, row.convention)):
            extend(body, *_protocol_rows(list(same)))
    table = node("table", node("thead", node("tr", *cells)), body)
    return node("div", table, class_="wide")


def _without_rows(
    sets: Mapping[tuple[str, str | None], Sequence[Entry]], rows: Sequence[Row]
) -> Element | None:
    """The sets that the summary leaves out; None where there are none."""
    shown = {(row.set_name, row.labels) for row in rows}
    others = [name for name, labels in sets if (name, labels or NOTHING) not in shown]
    if not others:
        return None
    told = f"Sets without landmark errors, shown further down: {', '.join(others)}."
    return node("p", told)


def _protocol_rows(rows: Sequence[Row]) -> list[Element]:
    """Lines of the systems that are scored alike: the protocol stands before all of them."""
    means = [row.mean for row in rows if row.mean is not None]
    best = min(means) if len(means) > 1 else None
    about = node("small", rows[0].convention)
    name = node("td", rows[0].protocol, about, class_="protocol", rowspan=len(rows))
    lines = []
    for i, row in enumerate(rows):
        line = node("tr", name if i == 0 else None, class_="rule" if i == 0 else None)
        extend(line, node("td", row.system, class_="text"), node("td", row.boxes, class_="boxes"))
        for column, text in row.cells.items():
            bold = column == "mean" and best is not None and row.mean == best
            extend(line, node("td", text, class_="best" if bold else None))
        lines.append(line)
    return lines


def _section(
    name: str, labels: str | None, entries: Sequence[Entry], folder: Path | None
) -> Element:
    section = node("section", node("h2", name))
    extend(section, node("p", _about(labels, entries), class_="soft"))
    names = protocols_of(entries)
    figures = [
        _figure(curves(entries, protocol_name), protocol_name, entries) for protocol_name in names
    ]
    drawn = [figure for figure in figures if figure is not None]
    if drawn:
        extend(section, node("h3", "Cumulative errors"), legend(entries))
        extend(section, node("div", *drawn, class_="charts"))
    binned = [_figure(bars(entries, each), each, entries) for each in names]
    yaws = _captioned(yaw_lines(entries), "Median yaw found over the true yaw.")
    turned = [figure for figure in (*binned, yaws) if figure is not None]
    if turned:
        extend(section, node("h3", "By yaw"), legend(entries))
        extend(section, node("div", *turned, class_="charts"))
    extend(section, pose_table(entries), other_figures(entries))
    extend(section, *_worst(entries, names, folder))
    return section


def _about(labels: str | None, entries: Sequence[Entry]) -> str:
    scores = entries[0].scores
    parts = [
        f"layout {scores['layout']}" if scores.get("layout") else None,
        f"labels: {labels}" if labels else None,
        *(
            f"{entry.system}: {number(entry.scores.get('n'), 0)} faces, "
            f"{number(entry.scores.get('no_output'), 0)} without output"
            for entry in entries
        ),
    ]
    return "; ".join(part for part in parts if part) + "."


def _figure(chart: Element | None, name: str, entries: Sequence[Entry]) -> Element | None:
    systems: dict[str, list[str]] = {}
    for entry in entries:
        if protocol(entry, name):
            systems.setdefault(convention(protocol(entry, name)), []).append(entry.system)
    told = list(systems)
    if len(told) > 1:
        told = [f"{each} ({', '.join(those)})" for each, those in systems.items()]
    return _captioned(chart, f"{name}: {'; '.join(told)}.")


def _captioned(chart: Element | None, caption: str) -> Element | None:
    return None if chart is None else node("figure", chart, node("figcaption", caption))


def _worst(entries: Sequence[Entry], names: Sequence[str], folder: Path | None) -> list[Element]:
    """For each system its worst faces, by the inner points, or else by what it has first."""
    names = sorted(names, key=lambda name: name != "inner")
    parts: list[Element] = []
    for entry in entries:
        faces = entry.scores.get("faces") or []
        by = next((name for name in names if worst(faces, name)), None)
        if by is None:
            continue
        figures = [face_figure(face, by, folder) for face in worst(faces, by)]
        parts.append(node("h3", f"Worst faces of {entry.system}, by {by}"))
        parts.append(node("div", *figures, class_="faces"))
        missing = [str(face.get("name")) for face in faces if face.get("output") is False]
        if missing:
            parts.append(node("p", f"Without output: {_listed(missing)}.", class_="soft"))
    if parts:
        keys = [
            node("li", node("span", class_="point green"), "true points"),
            node("li", node("span", class_="point red"), "predicted points"),
        ]
        parts.insert(1, node("ul", *keys, class_="legend"))
    return parts


def _listed(names: Sequence[str], most: int = 10) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or NOTHING) + rest
