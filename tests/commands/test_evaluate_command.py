"""`dfc evaluate`: scores on standard output, predictions in a file, what is unusable named."""

import json

import numpy as np
from command_line import names_in, run
from dataset_layouts import sample, write_aflw2000, write_cfp, write_fasseg
from photographs import write_example

from dfc_jax.commands.evaluate import LAYOUTS
from dfc_jax.data import layouts


def test_evaluate_prints_only_json_and_keeps_the_predictions(tmp_path, fake, capsys):
    for name in ("one", "two"):
        write_example(tmp_path, name)
    out_file = tmp_path / "predictions.npz"
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--predictions-out", out_file)
    code, out, _ = run(capsys, *common, "--json", "-", "--weights", "lite-synthetic")
    assert code == 0
    scores = json.loads(out)
    names = {"n", "no_output", "inner", "all68", "flow", "blend", "unusable", "weights", "boxes"}
    assert set(scores) == names | {"pose", "yaw", "abs_yaw", "profiles", "openings"}
    assert scores["pose"] is scores["profiles"] is None
    assert scores["openings"]["eyes"]["n"] == 4
    assert scores["unusable"] == []
    assert set(scores["flow"]) == set(scores["blend"]) == {"inner", "all68"}
    assert scores["flow"]["inner"] != scores["inner"] != scores["blend"]["inner"]
    assert scores["n"] == 2
    assert scores["boxes"] == "gt"
    assert fake["weights"] == "lite-synthetic"
    with np.load(out_file) as predictions:
        assert predictions["points"].shape == (2, 68, 2)
        assert predictions["angles_deg"].shape == (2, 3)
        assert list(predictions["names"]) == ["one.jpg", "two.jpg"]
    assert not fake["flip_test"]
    assert fake["runtime"] == "jax"
    options = ("--boxes", "detector", "--flip-test", "--runtime", "onnx")
    code, out, _ = run(capsys, *common, "--json", tmp_path / "s.json", *options)
    assert code == 0
    assert fake["flip_test"]
    assert fake["runtime"] == "onnx"
    assert out == ""
    assert json.loads((tmp_path / "s.json").read_text())["boxes"] == "detector"


def test_quiet_and_verbose_change_what_is_said_beside_the_scores(tmp_path, fake, capsys):
    write_example(tmp_path, "one")
    (tmp_path / "bad.pts").write_text("no points")
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--json", "-")
    said = [run(capsys, *common, *how) for how in ((), ("--quiet",), ("--verbose",))]
    assert {code for code, _, _ in said} == {1}
    assert len({out for _, out, _ in said}) == 1
    usual, quiet, verbose = (err for _, _, err in said)
    assert quiet == usual
    assert "bad.pts" in quiet
    assert "dfc: weights: fake\n" in verbose


def test_predictions_go_to_a_file_of_any_name(tmp_path, fake, capsys):
    write_example(tmp_path, "one")
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--json", "-")
    assert run(capsys, *common, "--predictions-out", tmp_path / "p.dat")[0] == 0
    with np.load(tmp_path / "p.dat") as predictions:
        assert predictions["points"].shape == (1, 68, 2)
    assert names_in(tmp_path) == {"one.jpg", "one.pts", "p.dat"}


def test_evaluate_names_what_it_cannot_use_and_scores_the_rest(tmp_path, fake, capsys):
    for name in ("a", "b", "c", "d", "e"):
        write_example(tmp_path, name)
    (tmp_path / "a.pts").write_text("no points")
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "c.jpg").write_bytes(b"no photograph")
    write_example(tmp_path, "d", np.random.default_rng(0).uniform(900, 999, (68, 2)))
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path)
    saved = ("--predictions-out", tmp_path / "p.npz")
    code, out, err = run(capsys, *common, "--json", "-", *saved)
    assert code == 1
    assert len(err.splitlines()) == 4
    for name in ("a.pts", "b.pts", "c.jpg", "d.jpg"):
        assert sum(name in line for line in err.splitlines()) == 1
    scores = json.loads(out)
    assert scores["n"] == 1
    assert scores["no_output"] == 0
    assert scores["unusable"] == ["a.pts", "b.pts", "c.jpg", "d.jpg"]
    with np.load(tmp_path / "p.npz") as predictions:
        assert list(predictions["names"]) == ["e.jpg"]
        assert predictions["points"].shape == (1, 68, 2)


def test_evaluate_with_nothing_usable_is_one_sentence_more_and_no_scores(tmp_path, fake, capsys):
    write_example(tmp_path, "a")
    (tmp_path / "a.pts").write_text("no points")
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--json", tmp_path / "s.json")
    code, out, err = run(capsys, *common)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "a.pts" in err
    write_example(tmp_path, "b")
    (tmp_path / "b.jpg").write_bytes(b"no photograph")
    code, out, err = run(capsys, *common)
    assert (code, out) == (2, "")
    assert "no photograph in it could be scored" in err.splitlines()[-1]
    assert not (tmp_path / "s.json").exists()


def test_the_layouts_of_the_command_are_those_of_the_readers():
    assert LAYOUTS == tuple(layouts.READERS)


def test_evaluate_scores_poses_where_they_are_known_and_names_faces_by_their_set(
    tmp_path, fake, capsys
):
    def evaluate(layout, folder):
        common = ("evaluate", "--layout", layout, "--data", folder, "--json", "-")
        code, out, err = run(capsys, *common, "--weights", "lite-synthetic")
        return code, json.loads(out), err

    write_aflw2000(tmp_path / "aflw", {"image00002": sample(1), "image00004": sample(2)})
    code, scores, _ = evaluate("aflw2000", tmp_path / "aflw")
    assert code == 0 and scores["pose"]["roll"]["n"] == 2
    assert sum(each["n"] for each in scores["abs_yaw"].values()) == 2

    write_fasseg(tmp_path / "fasseg", {"p01140+0-90": (40, 50), "p01146+0+0": (80, 100)})
    code, scores, _ = evaluate("fasseg", tmp_path / "fasseg")
    assert code == 0 and set(scores["yaw"]) == {"-90", "0"}
    assert scores["inner"]["mean"] is None and scores["profiles"]["n"] == 1

    half = np.random.default_rng(0).uniform(50, 150, (68, 2))
    half[9:17] = np.nan
    write_cfp(tmp_path / "cfp", {"a_profile": half, "b_profile": np.full((68, 2), np.nan)})
    code, scores, err = evaluate("cfp", tmp_path / "cfp")
    assert code == 1 and "b_profile.jpg" in err and scores["unusable"] == ["b_profile"]
    assert scores["pose"] is None and scores["profiles"]["n"] == 1
