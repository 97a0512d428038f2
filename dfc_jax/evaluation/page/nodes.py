"""Elements of HTML and SVG, which escape all text that they are given."""

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from dfc_jax.files import escaped

Child = Element | str | None


def node(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """An element with its children: text, elements, or None for nothing.

    In names of attributes ``_`` stands for ``-``, except at the end: ``class_``, ``stroke_width``.
    An attribute that is None is left out.
    """
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else escaped(value)
            element.set(name.rstrip("_").replace("_", "-"), text)
    extend(element, *children)
    return element


def extend(element: Element, *children: Child) -> None:
    """Add children to an element."""
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif child is not None:
            last = element[-1] if len(element) else None
            if last is None:
                element.text = (element.text or "") + escaped(child)
            else:
                last.tail = (last.tail or "") + escaped(child)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> Element:
    """A table that scrolls by itself where it is too wide; the first columns are `texts`, the
    others numbers."""

    def cells(tag: str, row: Sequence[str], **given: str) -> list[Element]:
        return [
            node(tag, text, class_="text" if i < texts else None, **given)
            for i, text in enumerate(row)
        ]

    header = node("thead", node("tr", *cells("th", head, scope="col")))
    body = node("tbody", *(node("tr", *cells("td", row)) for row in rows))
    return node("div", node("table", header, body, class_="plain"), class_="wide")


def html_text(root: Element) -> str:
    """A whole document."""
    return f"<!DOCTYPE html>\n{ElementTree.tostring(root, encoding='unicode', method='html')}\n"
