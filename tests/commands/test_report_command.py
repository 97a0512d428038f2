"""`dfc report`: a page and a table; what cannot be used is named, and nothing is half written."""

import json

import pytest
from command_line import names_in, run
from evaluation_results import two_results
from PIL import Image


@pytest.fixture
def results(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, result in zip(paths, two_results(), strict=True):
        path.write_text(json.dumps(result))
    return paths


def test_report_writes_page_and_table(tmp_path, results, capsys) -> None:
    page, table = tmp_path / "p.html", tmp_path / "t.md"
    assert run(capsys, "report", *results, "--out", page, "--markdown", table) == (0, "", "")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and "3.17 [3.06, 3.29]" in text
    assert "4.06 [3.95, 4.18]" in table.read_text(encoding="utf-8")


def test_report_draws_faces_on_the_photographs_of_their_set(tmp_path, results, capsys) -> None:
    folder = tmp_path / "a=b"
    folder.mkdir()
    Image.new("RGB", (200, 180)).save(folder / "face6.png")
    given = ("report", results[0], "--out", tmp_path / "p.html", "--photos")
    assert run(capsys, *given, f"cfp/validation={folder}")[0] == 0
    assert "data:image/jpeg" in (tmp_path / "p.html").read_text()
    folder = tmp_path / "empty"
    folder.mkdir()
    code, _, err = run(capsys, *given, f"cfp/validation={folder}")
    assert code == 1 and f"{folder}: holds no photograph of cfp/validation" in err
    assert "data:image/jpeg" not in (tmp_path / "p.html").read_text()
    for photos, said in (
        (f"other={folder}", "no result has such a set; they have"),
        (f"cfp/validation={tmp_path / 'none'}", "there is no such folder"),
        ("cfp/validation", "is not SET=DIR"),
    ):
        code, _, err = run(capsys, *given, photos)
        assert code == 2 and said in err and err.count("\n") == 1


def test_report_names_what_it_cannot_use_and_shows_the_rest(tmp_path, results, capsys) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    page = tmp_path / "p.html"
    code, out, err = run(capsys, "report", bad, results[0], "--out", page)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "bad.json" in err and page.exists()
    page.unlink()
    code, _, err = run(capsys, "report", bad, "--out", page)
    assert code == 2 and "none of the results can be used" in err and not page.exists()


def test_report_says_where_it_cannot_write_and_what_it_was_not_asked(
    tmp_path, results, capsys
) -> None:
    code, _, err = run(capsys, "report", *results, "--out", tmp_path / "none" / "p.html")
    assert code == 2 and "there is no such folder" in err
    code, _, err = run(capsys, "report", *results)
    assert code == 2 and "give --out PAGE.html or --markdown TABLE.md" in err
    assert names_in(tmp_path) == {"a.json", "b.json"}


def test_report_is_not_written_over_a_result_nor_over_itself(tmp_path, results, capsys) -> None:
    before = results[1].read_bytes()
    link = tmp_path / "link.html"
    link.symlink_to(results[1])
    for given in (("--out", results[1]), ("--markdown", results[1]), ("--out", link)):
        code, _, err = run(capsys, "report", *results, *given)
        assert code == 2 and "is read and would be lost; give another name" in err
    twice = ("--out", tmp_path / "p.html", "--markdown", tmp_path / "." / "p.html")
    code, _, err = run(capsys, "report", *results, *twice)
    assert code == 2 and "two results would go there" in err
    assert results[1].read_bytes() == before and not (tmp_path / "p.html").exists()
