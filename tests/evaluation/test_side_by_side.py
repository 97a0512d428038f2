"""Faces with the points of several systems: which ones, in which order, drawn where."""

import copy

import numpy as np
import pytest
from evaluation_results import HOSTILE, two_results
from PIL import Image

from dfc_jax.errors import DatasetError
from dfc_jax.evaluation.grid import GAP, LINE_PX, SIDE_PX, dots, grid
from dfc_jax.evaluation.side_by_side import EDGE, FOUND, GROUND, TRUE, side_by_side

SET = "cfp/validation"


def tile(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = GAP + row * (EDGE + GAP + LINE_PX), SIDE_PX + GAP + column * (EDGE + GAP)
    return picture[top : top + EDGE, left : left + EDGE]


def test_pictures_lie_in_rows_and_columns_on_white() -> None:
    colours = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250)]]
    rows = [[np.full((20, 20, 3), colour, np.uint8) for colour in row] for row in colours]
    plain = grid(rows)
    assert plain.shape == (GAP + 2 * (20 + GAP), GAP + 2 * (20 + GAP), 3)
    for i, row in enumerate(colours):
        for k, colour in enumerate(row):
            at = GAP + 20 * i + GAP * i, GAP + 20 * k + GAP * k
            np.testing.assert_array_equal(
                plain[at[0] : at[0] + 20, at[1] : at[1] + 20][0, 0], colour
            )
    assert (plain[GAP + 20 + GAP :, GAP + 20 + GAP :] == 255).all()
    named = grid(rows, heads=["a", "b"], sides=["c", "d"], captions=[["e", "f"], ["g"]])
    assert named.shape == (plain.shape[0] + 3 * LINE_PX, plain.shape[1] + SIDE_PX, 3)
    for part in (named[:LINE_PX], named[:, :SIDE_PX], named[LINE_PX + GAP + 20 :][:LINE_PX]):
        assert part.min() < 200, "nothing is written there"


def test_a_long_name_stays_in_its_column() -> None:
    black = [[np.zeros((60, 60, 3), np.uint8)] * 2]
    one = grid(black, heads=["a name that is much too long for this column " * 3, ""])
    assert (one[:LINE_PX, GAP + 60 + GAP :] == 255).all() and one[:LINE_PX].min() < 200


def test_dots_are_where_points_are_and_hidden_ones_are_left_out() -> None:
    canvas = np.zeros((40, 40, 3), np.uint8)
    dots(canvas, np.array([[10.0, 30.0], [np.nan, 5.0], [1e12, -1e12]]), (250, 0, 0))
    y, x = np.nonzero(canvas[..., 0] > 200)
    assert (x.mean(), y.mean()) == (10.0, 30.0) and np.ptp(x) <= 4


def test_dots_are_round_and_leave_the_rest_as_it_is() -> None:
    canvas = np.full((40, 40, 3), 7, np.uint8)
    dots(canvas, np.array([[20.0, 15.0]]), (250, 0, 0), radius=3.0)
    rows, columns = np.indices((40, 40))
    apart = np.hypot(columns - 20, rows - 15)
    assert (canvas[apart < 2.4] == (250, 0, 0)).all()
    assert (canvas[apart < 4.0] != 7).any(axis=-1).all()
    assert (canvas[apart > 4.8] == 7).all()


def test_names_beside_rows_are_broken_between_words_and_cut_off_where_they_have_no_room() -> None:
    black = [[np.zeros((80, 80, 3), np.uint8)]]

    def written(name: str) -> np.ndarray:
        """The lines of pixels that the name reaches."""
        return np.flatnonzero(grid(black, sides=[name])[:, :SIDE_PX].min(axis=(1, 2)) < 200)

    assert np.ptp(written("MediaPipe")) < LINE_PX < np.ptp(written("MediaPipe 0.10.21"))
    assert np.ptp(written("a long name " * 20)) < 3 * LINE_PX


def test_faces_run_from_the_easiest_to_the_hardest() -> None:
    picture, record = side_by_side(two_results(), SET, count=3)
    # The mean of both systems' errors grows with the number of the face; that without output in
    # either system is the hardest.
    errors = record["errors_percent"]
    assert list(errors["dfc_jax lite"]) == ["face0", "face4", "unfound"]
    assert errors["dfc_jax lite"]["face4"] == pytest.approx(3.17 + 4)
    assert list(errors["other & <b>"].values()) == [4.06, pytest.approx(8.06), None]
    assert record["protocol"] == "inner" and record["set"] == SET
    assert picture.shape[:2] == (
        GAP + 3 * (EDGE + GAP + LINE_PX),
        SIDE_PX + GAP + 3 * (EDGE + GAP),
    )


def test_true_points_are_green_and_found_ones_red_on_the_photograph(tmp_path) -> None:
    Image.new("RGB", (200, 180), (10, 20, 90)).save(tmp_path / "face4.png")
    given = two_results(), SET, tmp_path, ["face4", "unfound"]
    picture, _ = side_by_side(*given)

    def share(row: int, column: int, colour: tuple[int, int, int]) -> float:
        return float((tile(picture, row, column) == colour).all(axis=-1).mean())

    assert share(0, 0, TRUE) > 0.005 and share(0, 0, FOUND) == 0.0
    assert share(1, 0, FOUND) > 0.005 and share(1, 0, TRUE) == 0.0
    assert share(0, 0, (10, 20, 90)) > 0.5
    # An oval of 80 x 100 photo pixels in the middle of a square of 145.
    y, x = np.nonzero((tile(picture, 0, 0) == TRUE).all(axis=-1))
    for values, edge in ((x, 80.0), (y, 100.0)):
        assert (values.min() + values.max()) / 2.0 == pytest.approx((EDGE - 1) / 2.0, abs=1.5)
        assert np.ptp(values) == pytest.approx(EDGE / 145.0 * edge, abs=6.0)
    # Without its photograph it is on plain ground, and without output there is nothing on it.
    assert share(1, 1, (GROUND,) * 3) == 1.0 and 0.5 < share(0, 1, (GROUND,) * 3) < 1.0


def test_a_face_is_said_to_have_no_output_only_where_it_has_none() -> None:
    one, other = two_results()
    for face in one["sets"][0]["faces"]:
        face["errors"] = {}
    picture, record = side_by_side([one, other], SET, names=["face1", "unfound"])
    assert record["errors_percent"]["dfc_jax lite"] == {"face1": None, "unfound": None}
    below = GAP + 2 * (EDGE + GAP + LINE_PX) - LINE_PX
    line = picture[below : below + LINE_PX - GAP, SIDE_PX + GAP :]
    assert (line[:, : EDGE + GAP] == 255).all() and line[:, EDGE + GAP :].min() < 200


def test_without_a_face_to_show_the_sentence_says_why() -> None:
    one, other = two_results()
    for face in one["sets"][0]["faces"]:
        face |= {"errors": {}, "output": True}
    with pytest.raises(DatasetError, match="no face has an error of landmarks .* --face"):
        side_by_side([one, other], SET)
    one["sets"][0]["faces"] = [{"name": "new", "errors": {"inner": 1.0}}]
    with pytest.raises(DatasetError, match="the results share no face"):
        side_by_side([one, other], SET)
    one["sets"][0]["faces"] = []
    with pytest.raises(DatasetError, match="no single faces; evaluate without --without-faces"):
        side_by_side([one, other], SET)


def test_what_cannot_be_compared_is_one_sentence() -> None:
    results = two_results()
    for name, faces, said in (
        ("none", None, "none: not every result has this set; there are"),
        (SET, ["face0", "nobody"], "not all results have a face nobody"),
        (HOSTILE, None, "a result has no single faces"),
    ):
        with pytest.raises(DatasetError, match=said):
            side_by_side(results, name, names=faces)
    other = copy.deepcopy(results[1])
    other["sets"] = other["sets"][1:]
    with pytest.raises(DatasetError, match="not every result has this set"):
        side_by_side([results[0], other], SET)
