"""`dfc time`: the times of the stages, on their own and in a result."""

import json

import pytest
from command_line import photo, run
from evaluation_results import two_results

from dfc_jax.commands import stages

STAGE = {"per": "face", "median_ms": 12.5, "p10_ms": 11.0, "p90_ms": 14.0, "samples": 7}


@pytest.fixture
def timed(monkeypatch):
    """The stages without measuring; collects what was asked for."""
    asked = {}

    def stage_times(aligner, photos, batch, repeats):
        asked.update(photos=len(photos), batch=batch, repeats=repeats)
        return {"network": STAGE}, 3

    monkeypatch.setattr(stages, "stage_times", stage_times)
    return asked


def test_time_prints_a_table_and_writes_json(tmp_path, fake, timed, capsys) -> None:
    photos = [photo(tmp_path / f"{name}.jpg") for name in ("a", "b")]
    out_file = tmp_path / "t.json"
    given = ("time", *photos, "--batch", "4", "--repeats", "9", "--runtime", "onnx")
    code, out, _ = run(capsys, *given, "--json", out_file)
    assert code == 0
    assert timed == {"photos": 2, "batch": 4, "repeats": 9}
    assert "network" in out and "12.50" in out and "11.00 to 14.00" in out
    found = json.loads(out_file.read_text())
    assert found["versions"]["weights"] == "fake"
    runtime = found["runtime"]
    assert runtime["stages"] == {"network": STAGE} and runtime["network"] == "onnx"
    assert (runtime["photographs"], runtime["faces"], runtime["megapixels"]) == (2, 3, [0.03] * 2)
    assert runtime["load_s"] >= 0.0 and runtime["first_s"] >= 0.0
    code, out, _ = run(capsys, *given, "--json", "-")
    assert json.loads(out)["runtime"]["stages"] == {"network": STAGE}


def test_times_go_into_a_result_which_the_report_shows(tmp_path, fake, timed, capsys) -> None:
    result = tmp_path / "r.json"
    result.write_text(json.dumps(two_results()[0]))
    assert run(capsys, "time", photo(tmp_path / "a.jpg"), "--into", result)[0] == 0
    kept = json.loads(result.read_text())
    assert kept.pop("runtime")["stages"] == {"network": STAGE}
    assert kept == {k: v for k, v in two_results()[0].items() if k != "runtime"}
    assert run(capsys, "report", result, "--markdown", tmp_path / "t.md")[0] == 0
    assert "| network | face | 12.50 | 11.00 to 14.00 | 7 |" in (tmp_path / "t.md").read_text()


def test_what_cannot_be_timed_is_one_sentence(tmp_path, fake, timed, capsys) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    picture = photo(tmp_path / "a.jpg")
    for given, said in (
        ((tmp_path / "none.jpg",), "none.jpg"),
        ((picture, "--into", broken), "broken.json"),
        ((picture, "--json", tmp_path / "none" / "t.json"), "there is no such folder"),
        ((picture, "--json", picture), "a.jpg: this file is read and would be lost"),
        ((picture, "--json", broken, "--into", broken), "two results would go there"),
    ):
        code, out, err = run(capsys, "time", *given)
        assert (code, out, err.count("\n")) == (2, "", 1) and said in err
    assert timed == {}
