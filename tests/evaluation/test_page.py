"""The page and the table of results: complete, self-contained, and safe with any text."""

import copy
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluation_results import HOSTILE, curve, protocol, two_results
from PIL import Image

from dfc_jax.errors import DatasetError
from dfc_jax.evaluation.page import check_result, markdown, page, read_result
from dfc_jax.evaluation.page.results import points_of, system_names
from dfc_jax.evaluation.page.tables import COLUMNS, summary
from dfc_jax.evaluation.page.worst import crop_of, photo_of, worst

VOID = {"meta", "link", "br", "img"}
NUMBERS = ("200", "3.17 [3.06, 3.29]", "4.06 [3.95, 4.18]", "2.86", "3.75", "8.5", "0.679")
FURTHER = ("0.87", "\u22121.25", "6.54", "4.32", "71.5", "0.912", "2.22", "12.35", "11.10 to 15.55")
WORDS = (
    "original",
    "reannotated",
    "51 inner of 68",
    "visible ones (ground-truth mesh)",
    "over box",
)


class Checker(HTMLParser):
    """Elements are closed in the order in which they are opened; keeps them, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def parsed(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


def of_class(checker: Checker, tag: str, name: str) -> list[dict]:
    found = [attributes for each, attributes in checker.elements if each == tag]
    return [attributes for attributes in found if name in attributes.get("class", "").split()]


def path_points(path: dict) -> np.ndarray:
    pairs = re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", path["d"])
    return np.array(pairs, dtype=float)


def test_the_page_is_well_formed_and_holds_every_number_of_the_summary() -> None:
    checker = parsed(page(two_results()))
    text = " ".join(checker.text)
    for row in summary(two_results()):
        for cell in row.cells.values():
            assert cell in checker.text, cell
        assert row.convention in checker.text
    for words in (*NUMBERS, *FURTHER, *WORDS):
        assert words in text, words
    assert "dfc_jax 0.1.0" in text and "broken.jpg" in text and "unfound" in text


def test_the_page_needs_nothing_else() -> None:
    text = page(two_results())
    assert "http:" not in text and "https:" not in text and "url(" not in text
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in parsed(text).elements}
    for _, attributes in parsed(text).elements:
        assert not any(name.startswith("on") for name in attributes)
        assert str(attributes.get("href", "data:")).startswith("data:")


def test_text_of_the_results_is_escaped() -> None:
    text = page(two_results())
    assert "<script" not in text and "\u202e" not in text
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert shown in parsed(text).text
    table = markdown(two_results())
    assert "<script" not in table and "other &amp; &lt;b&gt;" in table and "\\|x" in table


def test_curves_are_monotone_and_end_where_the_last_share_is() -> None:
    paths = of_class(parsed(page(two_results())), "path", "line")
    curves = [points for points in map(path_points, paths) if len(points) == 101]
    assert len(curves) == 4
    for points in curves:
        assert (np.diff(points[:, 0]) > 0).all()
        assert (np.diff(points[:, 1]) <= 0).all(), "y grows downwards"
    # From 0 at 184 to 100 % at 10: the last share is 1000 / (1000 + 2.86^3) = 97.7 %.
    last = 184.0 - 174.0 * curve(2.86)["share"][-1]
    np.testing.assert_allclose(curves[0][[0, -1]], [[40.0, 184.0], [320.0, last]], atol=0.01)


def test_a_chart_of_unlike_scores_says_whose_are_which() -> None:
    results = two_results()
    alike = "inner: 51 inner of 68, visible and hidden, over box."
    assert parsed(page(results)).text.count(alike) == 2
    results[1]["sets"][0]["protocols"]["inner"]["points"] = "49 inner of 68"
    text = parsed(page(results)).text
    ends = "visible and hidden, over box"
    told = f"inner: 51 inner of 68, {ends} (dfc_jax lite); 49 inner of 68, {ends} (other & <b>)."
    assert text.count(told) == 2 and alike not in text


def test_sets_without_landmarks_are_named_below_the_summary() -> None:
    results = two_results()
    assert "shown further down" not in " ".join(parsed(page(results)).text)
    results[0]["sets"][0]["protocols"] = {}
    results[1]["sets"] = results[1]["sets"][1:]
    told = "Sets without landmark errors, shown further down: cfp/validation."
    assert told in parsed(page(results)).text


def test_angles_of_which_nothing_is_known_have_no_row() -> None:
    results = two_results()[:1]
    text = parsed(page(results)).text
    assert text.count("roll") == 1 and "rotation" not in text
    for angle in ("yaw", "pitch", "roll"):
        results[0]["sets"][0]["pose"][angle]["n"] = 0
    assert "Head poses" not in parsed(page(results)).text


def test_bars_are_as_high_as_means_and_empty_bins_are_dashes() -> None:
    results = two_results()[:1]
    results[0]["sets"][0]["protocols"] = {"inner": protocol(4.1)}
    checker = parsed(page(results))
    heights = [float(bar["height"]) for bar in of_class(checker, "rect", "bar")]
    # Means of 3.4 and 5.0 with intervals up to 5.4: six units on 174 pixels.
    assert heights == pytest.approx([174.0 * 3.4 / 6.0, 174.0 * 5.0 / 6.0], abs=0.02)
    assert len(of_class(checker, "path", "whisker")) == 2


def test_the_best_mean_of_each_protocol_is_bold() -> None:
    bold = re.findall(r'<td class="best">([^<]*)</td>', page(two_results()))
    assert bold == ["3.17 [3.06, 3.29]", "2.97 [2.86, 3.09]"]
    assert len(of_class(parsed(page(two_results()[:1])), "td", "best")) == 0


def test_the_markdown_table_holds_every_cell() -> None:
    table = markdown(two_results())
    lines = table.splitlines()
    n_columns = 6 + len(COLUMNS)
    assert lines[1].count("---") == n_columns
    for line, row in zip(lines[2:], summary(two_results()), strict=False):
        assert len(re.findall(r"(?<!\\)\|", line)) == n_columns + 1
        for cell in row.cells.values():
            assert f"| {cell} |" in line
    assert "| network | face | 12.35 | 11.10 to 15.55 | 50 |" in table
    assert "\n".join(lines[2:4]).count("| inner |") == 2


def test_a_link_in_a_name_stays_text() -> None:
    results = two_results()
    results[0]["system"]["name"] = "[x](javascript:1) _a_ a_b *c*"
    assert r"[x\](javascript:1) \_a\_ a_b \*c\*" in markdown(results)


def test_worst_faces_are_drawn_on_their_photographs(tmp_path) -> None:
    results = two_results()[:1]
    Image.new("RGB", (200, 180), (200, 30, 90)).save(tmp_path / "face6.png")
    (tmp_path / "face4.png").write_bytes(b"no photograph")
    plain, drawn = (
        parsed(page(results, photos)) for photos in (None, {"cfp/validation": tmp_path})
    )
    assert [tag for tag, _ in plain.elements].count("image") == 0
    images = [attributes for tag, attributes in drawn.elements if tag == "image"]
    assert len(images) == 1 and images[0]["href"].startswith("data:image/jpeg;base64,/9j/")
    # Of six faces five have all true points and one has 48; one has no truth.
    assert len(of_class(drawn, "circle", "true")) == 4 * 68 + 48
    assert len(of_class(drawn, "circle", "predicted")) == 6 * 68


def test_worst_faces_are_those_of_the_largest_errors() -> None:
    faces = two_results()[0]["sets"][0]["faces"]
    assert [face["name"] for face in worst(faces, "inner")] == [
        HOSTILE,
        *("face6", "face5", "face4", "face3", "face2"),
    ]
    assert worst(faces, "all68") == []


def test_a_result_shows_no_file_outside_its_folder(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "secret.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "a.png")
    for photo in ("../secret.png", str(tmp_path / "secret.png"), "none.png", "a\0.png", None):
        assert photo_of({"photo": photo}, tmp_path / "in") is None, photo
    shown = photo_of({"photo": "a.png"}, tmp_path / "in")
    assert shown is not None and shown.shape == (20, 20, 3)


def test_points_land_where_they_are_in_the_crop() -> None:
    true = np.array([[10.0, 20.0], [30.0, 60.0]])
    crop = crop_of(true, np.zeros((0, 2)))
    assert crop is not None
    np.testing.assert_allclose(crop.centre, [20.0, 40.0])
    assert crop.side_px == pytest.approx(1.45 * 40.0)
    assert crop_of(np.full((3, 2), np.nan), np.zeros((0, 2))) is None
    nothing = points_of([None, [1.0, 2.0], [None, None]])
    np.testing.assert_array_equal(nothing, [[np.nan] * 2, [1.0, 2.0], [np.nan] * 2])
    assert points_of(None).shape == (0, 2)


def test_systems_of_one_name_are_told_apart() -> None:
    results = [{"system": {"name": "a", "boxes": boxes}} for boxes in ("gt", "detector", "gt")]
    assert system_names(results) == ["a, gt boxes", "a, detector boxes", "a, gt boxes (2)"]


def test_any_value_may_be_null() -> None:
    """Each one in turn, all the way down, but for what a result has to have."""
    needed = {"schema", "system", "sets", "system.name"}
    whole = two_results()[0] | {"runtime": two_results()[1]["runtime"]}
    whole["sets"][0]["faces"] = whole["sets"][0]["faces"][-1:]

    def places(value, where=()):
        yield where
        if isinstance(value, dict | list) and (not isinstance(value, list) or len(value) < 20):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, each in items:
                yield from places(each, (*where, key))

    tried = 0
    for where in itertools.islice(places(whole), 1, None):
        if ".".join(map(str, where)) in needed or where in {("sets", k) for k in (0, 1)}:
            continue
        if len(where) == 3 and where[0] == "sets" and where[2] in ("name", "protocols"):
            continue
        if len(where) == 4 and where[2] == "faces":
            continue
        result = copy.deepcopy(whole)
        holder = result
        for key in where[:-1]:
            holder = holder[key]
        holder[where[-1]] = None
        parsed(page([result]))
        markdown([result])
        tried += 1
    assert tried > 100


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"{", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b'{"schema": NaN}', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no result of dfc evaluate"),
        (b'{"n": 3, "inner": {}}', "no result of dfc evaluate"),
        (b'{"schema": "dfc-evaluation/1.0"}', "system is missing"),
        (b'{"schema": "dfc-evaluation/1.0", "system": {}, "sets": []}', "system.name is missing"),
        (
            b'{"schema": "dfc-evaluation/1.0", "system": {"name": "a"}, "sets": [{"name": "b"}]}',
            r"sets\[\].protocols is missing",
        ),
        (
            b'{"schema": "dfc-evaluation/1.0", "system": {"name": "a"}, "sets": [{"name": "b",'
            b' "protocols": {"inner": {"mean": "1.0"}}}]}',
            r"sets\[\].protocols.inner.mean is not a number",
        ),
        (
            b'{"schema": "dfc-evaluation/1.0", "system": {"name": "a"}, "sets": [{"name": "b",'
            b' "protocols": {}, "faces": [{"true": [[1, "2"]]}]}]}',
            r"sets\[\].faces\[\].true\[\] is not a list of numbers",
        ),
    ],
)
def test_what_is_no_result_is_one_sentence(tmp_path, content, said) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=said) as error:
        read_result(path)
    assert "result.json" in str(error.value) and "\n" not in str(error.value)


def test_results_that_are_made_elsewhere_are_checked_too() -> None:
    for make in (page, markdown):
        with pytest.raises(DatasetError, match="no result of dfc evaluate"):
            make([{}])
    assert check_result(two_results()[0]) == two_results()[0]
