"""`dfc compare`: the same faces side by side, and one sentence where they are not the same."""

import copy
import json

import numpy as np
import pytest
from command_line import run

from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.evaluation.predictions import Predictions
from dfc_jax.evaluation.scores import evaluation, set_scores

TRUTH = np.zeros((68, 2))
TRUTH[0], TRUTH[1] = [-50.0, -50.0], [50.0, 50.0]  # a box of 100 px: errors are pixels
ERRORS = {
    "ours": [1.0, 2.0, 3.0, 4.0, np.nan, 6.0, 2.0],
    "theirs": [2.0, 1.5, 3.0, 14.0, 5.0, np.nan, 3.5],
    "others": [1.0, 2.0, 3.0, 4.0, np.nan, 6.0, 2.0],
}


def record(system: str) -> dict:
    errors = np.array(ERRORS[system])
    names = tuple(f"face{k}" for k in range(len(errors)))
    faces = [AnnotatedFace(name, TRUTH, name) for name in names]
    found = Predictions(system, names, TRUTH + errors[:, None, None] * [1.0, 0.0])
    scores = {"name": "a/test", "layout": "ibug", **set_scores(faces, found), "unusable": []}
    return evaluation(system, [scores], seed=0)


@pytest.fixture(scope="module")
def records() -> dict:
    return {system: record(system) for system in ERRORS}


@pytest.fixture
def files(tmp_path, records):
    paths = []
    for system in ERRORS:
        paths.append(tmp_path / f"{system}.json")
        paths[-1].write_text(json.dumps(records[system]))
    return paths


def test_each_system_is_tested_against_the_first_on_the_same_faces(files, capsys):
    code, out, err = run(capsys, "compare", *files, "--json", "-")
    assert (code, err) == (0, "")
    comparison = json.loads(out)
    assert comparison["schema"] == "dfc-comparison/1.0"
    assert comparison["systems"] == ["ours", "theirs", "others"]
    (one,) = comparison["sets"]
    assert one["name"] == "a/test" and set(one["protocols"]) == {"all68", "inner"}
    inner = one["protocols"]["inner"]
    assert [each["mean"] for each in inner["systems"]] == pytest.approx([3.0, 29.0 / 6, 3.0])
    assert [each["no_output"] for each in inner["systems"]] == [1, 1, 1]
    theirs, others = inner["against_first"]
    assert (theirs["wins"], theirs["losses"], theirs["ties"]) == (2, 4, 1)
    assert theirs["n"] == 5
    assert theirs["mean_difference"] == pytest.approx((1.0 - 0.5 + 0.0 + 10.0 + 1.5) / 5)
    # Differences 0.5, 1, 1.5, 10 have the ranks 1 to 4, of which one is negative: of the 2^4 signs
    # two have as small a sum, on either side.
    assert theirs["p_wilcoxon"] == pytest.approx(4 / 16)
    assert [face["name"] for face in theirs["most_different"]] == [
        *("face4", "face5", "face3", "face6", "face0"),
    ]
    assert theirs["most_different"][0] == {"name": "face4", "error": 5.0, "first": None}
    assert theirs["most_different"][2]["error"] == pytest.approx(14.0)
    assert others["p_wilcoxon"] == 1.0 and others["ties"] == 7 and others["most_different"] == []


def test_tables_are_printed_or_written_as_markdown(files, tmp_path, capsys):
    code, out, _ = run(capsys, "compare", *files, "--json", tmp_path / "c.json")
    assert code == 0
    assert "a/test, original labels: inner, normalised by box" in out.splitlines()
    row = next(line for line in out.splitlines() if line.startswith("theirs "))
    assert "4.83 [" in row and "2.40 [" in row and row.endswith("0.25        2/4/1")
    assert "face4  5.00       no output" in out.splitlines()
    assert json.loads((tmp_path / "c.json").read_text())["systems"][1] == "theirs"
    code, printed, _ = run(capsys, "compare", *files, "--markdown", "-")
    assert code == 0 and "| face4 | 5.00 | no output |" in printed.splitlines()
    code, out, _ = run(capsys, "compare", *files, "--markdown", tmp_path / "c.md")
    assert code == 0 and out
    assert (tmp_path / "c.md").read_text() == printed


def test_names_of_systems_and_faces_steer_no_terminal_and_break_no_table(
    tmp_path, records, files, capsys
):
    bad = copy.deepcopy(records["theirs"])
    bad["system"]["name"] = "a|b\x1b[2J"
    files[1].write_text(json.dumps(bad))
    _, out, _ = run(capsys, "compare", *files[:2], "--markdown", "-")
    assert r"| a\|b\\x1b[2J |" in out and "\x1b" not in out


def changed(record: dict, **fields) -> dict:
    """A copy with other fields in the protocol `inner`, or else in the set."""
    record = copy.deepcopy(record)
    inner = record["sets"][0]["protocols"]["inner"]
    for name, value in fields.items():
        (inner if name in inner else record["sets"][0])[name] = value
    return record


CHANGES = {
    "the labels of a/test is reannotated": {"labels": "reannotated"},
    "the layout of a/test is cfp": {"layout": "cfp"},
    'inner of a/test has normalised_by "box-diagonal"': {"normalised_by": "box-diagonal"},
    "inner of a/test has balanced true": {"balanced": True},
    'inner of a/test has visible "fitted mesh"': {"visible": "fitted mesh"},
    "a/test has other faces (1 more, 7 fewer)": {"faces": [{"name": "x", "errors": {}}]},
}


@pytest.mark.parametrize("words", CHANGES)
def test_what_cannot_be_compared_is_one_sentence(words, records, files, capsys):
    files[1].write_text(json.dumps(changed(records["theirs"], **CHANGES[words])))
    code, out, err = run(capsys, "compare", *files, "--json", "-")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{files[1]}: {words}, unlike {files[0]}" in err


BROKEN = {
    "is no JSON": "no",
    "its schema is unknown": "[]",
    "its schema is dfc-evaluation/9.0, not dfc-evaluation/1.0": '{"schema": "dfc-evaluation/9.0"}',
    "is no JSON; evaluate": "[" * 100_000,
    "system is missing; make it again": '{"schema": "dfc-evaluation/1.0", "sets": []}',
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_file_that_is_no_evaluation_is_one_sentence(words, files, capsys):
    files[2].write_text(BROKEN[words])
    code, out, err = run(capsys, "compare", *files)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{files[2]}: {words}" in err


def test_the_sets_that_all_have_are_compared_and_the_others_named(records, files, capsys):
    record = copy.deepcopy(records["ours"])
    record["sets"].append(changed(records["ours"], name="b/test")["sets"][0])
    files[0].write_text(json.dumps(record))
    code, out, err = run(capsys, "compare", *files, "--json", "-")
    found = json.loads(out)
    assert code == 0 and [each["name"] for each in found["sets"]] == ["a/test"]
    assert found["left_out"] == ["b/test"] and "left out, as not all have them: b/test" in err
    files[1].write_text(json.dumps(changed(records["theirs"], name="c/test")))
    code, out, err = run(capsys, "compare", *files)
    assert (code, out) == (2, "")
    assert err == f"dfc: {files[0]} has no set that all others have; evaluate the same ones\n"


def test_runs_of_one_system_are_told_apart(records, files, capsys):
    for path, boxes in zip(files, ("gt", "detector", None), strict=True):
        record = copy.deepcopy(records["ours"])
        record["system"]["boxes"] = boxes
        path.write_text(json.dumps(record))
    code, out, _ = run(capsys, "compare", *files, "--json", "-")
    names = ["ours, gt boxes", "ours, detector boxes", "ours"]
    assert code == 0 and json.loads(out)["systems"] == names
    inner = json.loads(out)["sets"][0]["protocols"]["inner"]
    assert [each["system"] for each in inner["systems"]] == names
    assert [each["system"] for each in inner["against_first"]] == names[1:]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("mean", "1.5", "sets[].protocols.inner.mean is not a number; make it again"),
        ("points", None, "is damaged or incomplete"),
        ("failure_8", None, "is damaged or incomplete"),
        ("ci95", [1.0], "is damaged or incomplete"),
        ("median_ci95", [None, None], "is damaged or incomplete"),
    ],
)
def test_a_score_that_is_none_is_one_sentence(field, value, said, records, files, capsys):
    record = copy.deepcopy(records["ours"])
    record["sets"][0]["protocols"]["inner"][field] = value
    files[2].write_text(json.dumps(record))
    code, out, err = run(capsys, "compare", *files)
    assert (code, out, err.count("\n")) == (2, "", 1) and f"{files[2]}: {said}" in err


def test_arguments_that_do_not_fit_are_one_sentence(files, tmp_path, capsys, records):
    for arguments, words in (
        (files[:1], "one file alone"),
        ([files[0], tmp_path / "nowhere.json"], "nowhere.json: cannot be read (No such file"),
        ([*files, "--json", "-", "--markdown", "-"], "both print"),
        ([*files, "--json", files[1]], f"{files[1]}: this file is read and would be lost"),
    ):
        code, out, err = run(capsys, "compare", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1) and words in err
    files[1].write_text(json.dumps(changed(records["theirs"], protocols={})))
    code, _, err = run(capsys, "compare", *files)
    assert code == 2 and "has no protocol that all others have" in err
