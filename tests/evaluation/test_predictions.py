"""Predictions survive their files, and a broken file is one clear sentence."""

import pickle

import numpy as np
import pytest

from dfc_jax.errors import EvaluationError
from dfc_jax.evaluation.predictions import (
    Predictions,
    match,
    read_predictions,
    write_predictions,
)

NAMES = ("a", "b/c", "d, e", "é")


def made(**fields) -> Predictions:
    points = np.random.default_rng(0).uniform(-5.0, 300.0, (len(NAMES), 68, 2))
    points[1] = np.nan
    points[2, 7] = np.nan
    return Predictions("mine", NAMES, points, **fields)


@pytest.mark.parametrize("name", ["p.npz", "p.csv", "p.dat"])
def test_what_is_written_is_read_again(tmp_path, name):
    angles = np.arange(12.0).reshape(4, 3)
    angles[3] = np.nan
    given = made(angles_deg=angles)
    write_predictions(tmp_path / name, given)
    system = "mine" if name.endswith(".csv") else None
    assert read_predictions(tmp_path / name, system) == given
    assert read_predictions(tmp_path / name, "other").system == "other"
    write_predictions(tmp_path / name, made())
    assert read_predictions(tmp_path / name, "mine") == made()


def test_an_archive_keeps_21_points_and_a_csv_takes_its_systems_name_from_the_file(tmp_path):
    given = made(points21=np.ones((4, 21, 2)))
    write_predictions(tmp_path / "p.npz", given)
    assert read_predictions(tmp_path / "p.npz") == given
    write_predictions(tmp_path / "dlib.csv", given)
    found = read_predictions(tmp_path / "dlib.csv")
    assert found.system == "dlib" and found.points21 is None


def test_half_a_point_is_no_point_and_infinity_is_none(tmp_path):
    points = np.zeros((2, 68, 2), np.float32)
    points[0, 3, 0], points[1, 4, 1] = np.nan, np.inf
    np.savez(tmp_path / "p.npz", names=["a", "b"], points=points)
    found = read_predictions(tmp_path / "p.npz")
    assert np.isnan(found.points[0, 3]).all() and np.isnan(found.points[1, 4]).all()
    assert np.isfinite(found.points).sum() == 2 * 67 * 2


def test_of_several_systems_in_a_file_one_is_picked(tmp_path):
    points = np.ones((1, 68, 2))
    np.savez(tmp_path / "p.npz", names=["a"], one=points, two=2.0 * points)
    found = read_predictions(tmp_path / "p.npz", "two")
    assert found.system == "two" and (found.points == 2.0).all()
    for system, said in ((None, "holds no points;"), ("three", "holds no points of three;")):
        with pytest.raises(EvaluationError, match=f"{said} .* with --system: one, two$"):
            read_predictions(tmp_path / "p.npz", system)


def test_a_face_has_output_where_anything_is_given():
    angles = np.full((4, 3), np.nan)
    assert made(angles_deg=angles).output.tolist() == [True, False, True, True]
    angles[1, 0] = 3.0
    assert made(angles_deg=angles).output.all()


def test_predictions_are_put_in_the_order_of_the_set_and_missing_faces_are_nan():
    given = made(angles_deg=np.arange(12.0).reshape(4, 3))
    found, missing = match(given, ["é", "new", "a"], unusable=("b/c", "d, e"))
    assert missing == ["new"] and found.names == ("é", "new", "a")
    np.testing.assert_array_equal(found.points[[0, 2]], given.points[[3, 0]])
    assert np.isnan(found.points[1]).all() and np.isnan(found.angles_deg[1]).all()
    np.testing.assert_array_equal(found.angles_deg[2], [0.0, 1.0, 2.0])
    assert found.points21 is None
    with pytest.raises(EvaluationError, match=r"2 of 4 predictions .*not have \(d, e, é\)"):
        match(given, ["a", "b/c"])


HEADER = ",".join(["name"] + [f"{axis}{k}" for k in range(68) for axis in "xy"])
ROW = ",".join(["a"] + ["1.5"] * 136)
BROKEN_CSV = {
    "its first line is not name,x0": HEADER.replace("x3", "x_3"),
    r"line 3 has 136 cells, not 137": f"{HEADER}\n{ROW}\n{ROW.removesuffix(',1.5')}",
    r"line 2 holds a cell that is no number": f"{HEADER}\n{ROW.replace('1.5', 'x', 1)}",
    r"some names more than once \(a\)": f"{HEADER}\n{ROW}\n{ROW}",
    "holds no faces": HEADER,
    "is no readable CSV": b"\xff\xfe" + HEADER.encode("utf-16-le"),
}


@pytest.mark.parametrize("words", BROKEN_CSV)
def test_a_broken_csv_is_one_sentence(tmp_path, words):
    text = BROKEN_CSV[words]
    (tmp_path / "p.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(tmp_path / "p.csv", words)


def refused(path, words):
    with pytest.raises(EvaluationError, match=words) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


POINTS = np.zeros((2, 68, 2))
BROKEN_NPZ = {
    "some names more than once": {"names": ["a", "a"], "points": POINTS},
    r"its names are int64 \(2,\)": {"names": [1, 2], "points": POINTS},
    r"its points are float64 \(2, 68, 2\), not numbers \(3, 68, 2\)": {
        "names": ["a", "b", "c"],
        "points": POINTS,
    },
    r"its points are <U3": {"names": ["a", "b"], "points": POINTS.astype("U3")},
    r"its angles_deg are float64 \(2, 2\)": {
        "names": ["a", "b"],
        "points": POINTS,
        "angles_deg": np.zeros((2, 2)),
    },
    r"holds no names; save names \(n,\) and points \(n, 68, 2\) in it": {"points": POINTS},
    r"holds no points; save names": {"names": ["a", "b"]},
    r"holds no names and no points; save names": {"one": POINTS},
    "holds no faces": {"names": np.array([], str), "points": POINTS[:0]},
}


@pytest.mark.parametrize("words", BROKEN_NPZ)
def test_a_broken_archive_is_one_sentence(tmp_path, words):
    np.savez(tmp_path / "p.npz", **BROKEN_NPZ[words])
    refused(tmp_path / "p.npz", words)


def test_a_missing_and_a_truncated_archive_are_one_sentence(tmp_path):
    path = tmp_path / "p.npz"
    refused(path, "there is no such file of predictions")
    np.savez(path, names=["a", "b"], points=np.random.default_rng(0).normal(size=(2, 68, 2)))
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        refused(path, "is no readable .npz of predictions")


class Trap:
    """Says when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_what_is_pickled_is_never_read(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, names=np.array(["a", "b"], object), points=POINTS)
    refused(path, "holds pickled objects, which are never read")
    trap = np.empty(2, object)
    trap[:] = [Trap(), Trap()]
    np.savez(path, names=trap, points=POINTS)
    refused(path, "holds pickled objects")
    path.write_bytes(pickle.dumps(Trap()))
    refused(path, "is no readable .npz")
