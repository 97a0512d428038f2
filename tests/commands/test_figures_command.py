"""`dfc figures`: pictures and the JSON behind them."""

import json

import numpy as np
import pytest
from command_line import names_in, photo, run
from evaluation_results import two_results
from PIL import Image


@pytest.fixture
def results(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, result in zip(paths, two_results(), strict=True):
        path.write_text(json.dumps(result))
    return paths


def test_panels_of_photographs(tmp_path, fake, capsys) -> None:
    photos = [photo(tmp_path / f"{name}.jpg") for name in ("a", "b")]
    out_file = tmp_path / "panels.png"
    code, out, err = run(capsys, "figures", "--panels", *photos, "--out", out_file)
    assert (code, err) == (0, "") and "panels.png.json" in out
    assert np.asarray(Image.open(out_file)).std() > 10
    record = json.loads((tmp_path / "panels.png.json").read_text())
    assert [face["photo"] for face in record["faces"]] == [str(path) for path in photos]
    assert record["versions"]["weights"] == "fake"
    assert set(record["faces"][0]["angles_deg"]) == {"yaw", "pitch", "roll"}
    # A flow that turns by a quarter of the distance from the middle, which is 40 at most.
    assert record["longest_flow_px"] == pytest.approx(10.0, abs=0.3)


def test_photographs_that_cannot_be_used_are_named(tmp_path, fake, capsys) -> None:
    good, bad = photo(tmp_path / "a.jpg"), tmp_path / "none.jpg"
    small = photo(tmp_path / "small.png", (8, 8))
    out_file = tmp_path / "panels.png"
    code, _, err = run(capsys, "figures", "--panels", bad, small, good, "--out", out_file)
    assert code == 1 and len(err.splitlines()) == 2 and out_file.exists()
    assert "none.jpg" in err and "small.png: no face is found" in err
    out_file.unlink()
    code, out, err = run(capsys, "figures", "--panels", bad, "--out", out_file)
    assert (code, out) == (2, "") and "nothing is drawn" in err and not out_file.exists()


def test_systems_side_by_side(tmp_path, results, capsys) -> None:
    out_file = tmp_path / "faces.png"
    given = ("figures", "--compare", "cfp/validation", *results, "--out", out_file)
    code, _, err = run(capsys, *given, "--photos", tmp_path)
    assert code == 1 and f"{tmp_path}: holds no photograph of cfp/validation" in err
    Image.new("RGB", (200, 180)).save(tmp_path / "face6.png")
    assert run(capsys, *given, "--photos", tmp_path, "--count", "2")[0] == 0
    record = json.loads((tmp_path / "faces.png.json").read_text())
    assert list(record["errors_percent"]["dfc_jax lite"]) == ["face0", "unfound"]
    assert run(capsys, *given, "--face", "face2")[0] == 0
    record = json.loads((tmp_path / "faces.png.json").read_text())
    assert list(record["errors_percent"]["dfc_jax lite"]) == ["face2"]


def test_what_cannot_be_drawn_is_one_sentence(tmp_path, results, capsys) -> None:
    compare = ("figures", "--out", tmp_path / "f.png", "--compare")
    for given, said in (
        ((*compare, "cfp/validation"), "needs the name of a set and results"),
        ((*compare, "other", *results), "not every result has this set"),
        ((*compare, "cfp/validation", *results, "--photos", tmp_path / "x"), "no such folder"),
        ((*compare, "cfp/validation", *results, "--face", "me"), "have a face me"),
        (("figures", "--out", tmp_path / "f.png"), "is required"),
        (("figures", "--panels", tmp_path / "f.png", "--out", tmp_path / "f.png"), "is read and"),
        (("figures", "--panels", "a", "--out", tmp_path / "f.txt"), "not the name of a picture"),
    ):
        code, _, err = run(capsys, *given)
        assert code == 2 and said in err and err.count("\n") == 1, err
    assert names_in(tmp_path) == {"a.json", "b.json"}
