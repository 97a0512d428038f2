"""Charts of results as SVG: cumulative errors, errors by yaw, found over true yaw."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from dfc_jax.evaluation.page.nodes import extend, node
from dfc_jax.evaluation.page.results import Entry, protocol
from dfc_jax.evaluation.page.tables import NOTHING, bounds, interval_text, number

# Systems beyond take the colours again, dashed.
COLOURS = 8
WIDTH, HEIGHT = 330.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 36.0
YAW_TICKS = (-90, -60, -30, 0, 30, 60, 90)


class Axes(NamedTuple):
    """A chart whose axes reach from 0 (or `x_low`, `y_low`) to these values."""

    svg: Element
    x_high: float
    y_high: float
    x_low: float = 0.0
    y_low: float = 0.0

    def x(self, value: float) -> float:
        """Where a value lies across."""
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        """Where a value lies down."""
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 2)


def colour(index: int) -> str:
    """The class of a system's colour."""
    dashed = " dashed" if index // COLOURS % 2 else ""
    return f"s{index % COLOURS}{dashed}"


def legend(entries: Sequence[Entry]) -> Element:
    """Names of the systems beside their colours."""
    items = (
        node("li", node("span", class_=f"key {colour(entry.rank)}"), entry.system)
        for entry in entries
    )
    return node("ul", *items, class_="legend")


def curves(entries: Sequence[Entry], name: str) -> Element | None:
    """The share of faces below an error, over the error; a line for each system."""
    drawn = [(entry, _curve(protocol(entry, name))) for entry in entries]
    drawn = [(entry, points) for entry, points in drawn if points]
    if not drawn:
        return None
    last = max(percent for _, points in drawn for percent, _ in points)
    axes = _axes(f"Cumulative errors, {name}", "error, %", "faces below, %", last, 100.0)
    for entry, points in drawn:
        path = "M" + "L".join(f"{axes.x(percent)},{axes.y(share)}" for percent, share in points)
        style = f"line {colour(entry.rank)}"
        title = node("title", entry.system)
        extend(axes.svg, node("path", title, d=path, class_=style))
    for entry, points in drawn:
        for percent, share in points:
            if abs(percent - round(percent)) < 1e-6 and percent > 0:
                told = f"{entry.system}: {number(share, 1)} % of faces below {percent:g} %"
                extend(axes.svg, _dot(axes.x(percent), axes.y(share), told, "hit", 7.0))
    return axes.svg


def bars(entries: Sequence[Entry], name: str) -> Element | None:
    """The mean error by bin of yaw; a bar with its interval for each system."""
    binned = [(entry, protocol(entry, name).get("bins") or {}) for entry in entries]
    bins = list(dict.fromkeys(label for _, found in binned for label in found))
    if not bins:
        return None
    known = [found for _, each in binned for found in each.values() if found]
    ends = [value for found in known for value in (bounds(found.get("ci95")) or ())]
    means = [found["mean"] for found in known if found.get("mean") is not None]
    top = _ceiling(max([*ends, *means], default=1.0))
    axes = _axes(f"Mean error by yaw, {name}", "|yaw|, degrees", "mean error, %", len(bins), top)
    wide = min(0.8 / len(binned), 0.3)
    for i, label in enumerate(bins):
        extend(axes.svg, _text(axes.x(i + 0.5), HEIGHT - BOTTOM + 14, label, "middle"))
        for k, (entry, found) in enumerate(binned):
            middle = i + 0.5 + wide * (k - (len(binned) - 1) / 2)
            _bar(axes, middle, wide, found.get(label) or {}, f"{entry.system}, {label}", entry)
    return axes.svg


def yaw_lines(entries: Sequence[Entry]) -> Element | None:
    """The median yaw found over the true one; a line for each system."""
    drawn = [(entry, _yaws(entry.scores.get("yaw") or {})) for entry in entries]
    drawn = [(entry, points) for entry, points in drawn if points]
    if not drawn:
        return None
    most = max(abs(value) for _, points in drawn for point in points for value in point[:2])
    reach = max(90.0, 15.0 * math.ceil(most / 15.0))
    names = "Found over true yaw", "true yaw, degrees", "median found, degrees"
    axes = _axes(*names, reach, reach, -reach, -reach)
    ends = f"M{axes.x(-reach)},{axes.y(-reach)}L{axes.x(reach)},{axes.y(reach)}"
    extend(axes.svg, node("path", node("title", "found = true"), d=ends, class_="truth"))
    for entry, points in drawn:
        path = "M" + "L".join(f"{axes.x(true)},{axes.y(found)}" for true, found, _ in points)
        extend(axes.svg, node("path", d=path, class_=f"line {colour(entry.rank)}"))
        for true, found, n in points:
            told = f"{entry.system}: true {number(true, 1)}, found {number(found, 1)} ({n} faces)"
            style = f"dot {colour(entry.rank)}"
            extend(axes.svg, _dot(axes.x(true), axes.y(found), told, style, 3.0))
    return axes.svg


def _axes(
    title: str, across: str, up: str, x_high: float, y_high: float, x_low=0.0, y_low=0.0
) -> Axes:
    """An empty chart with ticks and names; bins across have no ticks."""
    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    svg = node("svg", node("title", title), viewBox=box, role="img", class_="chart")
    axes = Axes(svg, x_high, y_high, x_low, y_low)
    ticks_up = YAW_TICKS if y_low < 0 else _ticks(y_high)
    for value in ticks_up:
        y = axes.y(value)
        line = node("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid")
        extend(svg, line, _text(LEFT - 6, y + 3.5, f"{value:g}".replace("-", "\u2212"), "end"))
    if across.startswith("|"):
        ticks_across: Sequence[float] = ()
    else:
        ticks_across = YAW_TICKS if x_low < 0 else _ticks(x_high)
    for value in ticks_across:
        label = f"{value:g}".replace("-", "\u2212")
        extend(svg, _text(axes.x(value), HEIGHT - BOTTOM + 14, label, "middle"))
    base = HEIGHT - BOTTOM
    extend(svg, node("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    extend(svg, _text(middle, HEIGHT - 5, across, "middle", class_="name"))
    height = (TOP + HEIGHT - BOTTOM) / 2
    turned = f"rotate(-90 9 {height:g})"
    extend(svg, _text(9.0, height, up, "middle", class_="name", transform=turned))
    return axes


def _bar(
    axes: Axes, middle: float, wide: float, found: Mapping[str, Any], what: str, entry: Entry
) -> None:
    mean = found.get("mean")
    if mean is None:
        extend(axes.svg, _text(axes.x(middle), axes.y(0.0) - 4, NOTHING, "middle"))
        return
    left, top, base = axes.x(middle - 0.46 * wide), axes.y(mean), axes.y(0.0)
    n = number(found.get("n"), 0)
    told = f"{what}: {number(mean)} % {interval_text(found.get('ci95'))} of {n} faces"
    width = round(axes.x(middle + 0.46 * wide) - left, 2)
    bar = {"x": left, "y": top, "width": width, "height": round(base - top, 2)}
    style = f"bar {colour(entry.rank)}"
    extend(axes.svg, node("rect", node("title", told), class_=style, **bar))
    ends = bounds(found.get("ci95"))
    if ends is not None:
        x, low, high = axes.x(middle), axes.y(ends[0]), axes.y(ends[1])
        path = f"M{x - 3:g},{low:g}h6M{x:g},{low:g}V{high:g}M{x - 3:g},{high:g}h6"
        extend(axes.svg, node("path", d=path, class_="whisker"))


def _curve(scores: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Errors and the shares below them, both in percent, as far as both are known."""
    curve = scores.get("curve") or {}
    pairs = zip(curve.get("percent") or [], curve.get("share") or [], strict=False)
    return [(x, 100.0 * y) for x, y in pairs if x is not None and y is not None]


def _yaws(found: Mapping[str, Any]) -> list[tuple[float, float, str]]:
    """True and found yaw and the number of faces of each bin, sorted."""
    known = [
        (each["true"], each["found"], number(each.get("n"), 0))
        for each in found.values()
        if each and each.get("true") is not None and each.get("found") is not None
    ]
    return sorted(known)


def _ticks(high: float) -> list[float]:
    """About five round numbers from 0 to `high`."""
    step = _round_up(high / 5.0)
    return [step * i for i in range(int(high / step + 1e-6) + 1)]


def _ceiling(value: float) -> float:
    """The first tick at or above a value."""
    step = _round_up(max(value, 1e-3) / 5.0)
    return step * math.ceil(value / step - 1e-6) or step


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 ..."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value - 1e-9)


def _text(x: float, y: float, text: str, anchor: str, **more: str) -> Element:
    return node("text", text, x=x, y=y, text_anchor=anchor, **more)


def _dot(x: float, y: float, told: str, style: str, radius: float) -> Element:
    return node("circle", node("title", told), cx=x, cy=y, r=radius, class_=style)
