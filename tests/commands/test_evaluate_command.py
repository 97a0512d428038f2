"""`dfc evaluate`: scores on standard output, predictions in a file, what is unusable named."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
from command_line import names_in, run
from dataset_layouts import sample, write_aflw2000, write_cfp, write_fasseg
from paths import shared_data
from photographs import points_in_box, write_example

import dfc_jax
from dfc_jax.commands import evaluate
from dfc_jax.commands.evaluate import LAYOUTS
from dfc_jax.data import layouts
from dfc_jax.data.faces import AnnotatedFace, FaceSet
from dfc_jax.errors import DatasetError
from dfc_jax.evaluation import metrics, trials
from dfc_jax.evaluation.predictions import Predictions, read_predictions, write_predictions
from experiments.bench.compiles import compiles


def test_evaluate_prints_only_json_and_keeps_the_predictions(tmp_path, fake, capsys):
    for name in ("one", "two"):
        write_example(tmp_path, name)
    out_file = tmp_path / "predictions.npz"
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--predictions-out", out_file)
    code, out, _ = run(capsys, *common, "--json", "-", "--weights", "lite-synthetic")
    assert code == 0
    scores = json.loads(out)
    assert scores["schema"] == "dfc-evaluation/1.0"
    assert scores["system"]["name"] == "dfc_jax fake" and scores["system"]["boxes"] == "gt"
    assert scores["system"]["versions"]["weights"] == "fake"
    (one,) = scores["sets"]
    assert one["name"] == "/".join(tmp_path.parts[-2:]) and one["layout"] == "ibug"
    assert set(one["protocols"]) == {"all68", "inner"}
    assert one["pose"] is one["profiles"] is one["mask_iou"] is one["dense"] is None
    assert one["openings"]["eyes"]["n"] == 4
    assert one["unusable"] == [] and one["n"] == 2
    means = [each["inner"]["mean"] for each in (one["protocols"], one["flow"], one["blend"])]
    assert len(set(means)) == 3
    assert [face["photo"] for face in one["faces"]] == ["one.jpg", "two.jpg"]
    assert fake["weights"] == "lite-synthetic"
    predictions = read_predictions(out_file)
    assert predictions.names == ("one", "two") and predictions.system == "dfc_jax fake"
    assert predictions.angles_deg.shape == (2, 3)
    assert not fake["flip_test"]
    assert fake["runtime"] == "jax"
    options = ("--boxes", "detector", "--flip-test", "--runtime", "onnx", "--system", "ours")
    code, out, _ = run(capsys, *common, "--json", tmp_path / "s.json", *options)
    assert code == 0
    assert fake["flip_test"]
    assert fake["runtime"] == "onnx"
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["system"]["boxes"] == "detector" and written["system"]["name"] == "ours"
    mean = written["sets"][0]["protocols"]["inner"]["mean"]
    assert out.startswith("ours, boxes: detector\n") and f"{mean:.2f} [" in out
    assert run(capsys, *common, "--json", tmp_path / "s.json", "--quiet")[1] == ""


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
    scores = json.loads(out)["sets"][0]
    assert scores["n"] == 1
    assert scores["no_output"] == 0
    assert scores["unusable"] == ["a.pts", "b.pts", "c.jpg", "d.jpg"]
    with np.load(tmp_path / "p.npz") as predictions:
        assert list(predictions["names"]) == ["e"]
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


def test_the_choices_of_the_command_are_those_of_the_library():
    assert LAYOUTS == tuple(layouts.READERS)
    assert evaluate.PROTOCOLS == trials.PROTOCOLS
    assert evaluate.NORMALISERS == tuple(metrics.NORMALISERS)


def test_packages_that_stand_on_this_one_bring_layouts_of_their_own(
    tmp_path, fake, capsys, monkeypatch
):
    """Their faces may be counted, and need no files."""
    write_example(tmp_path, "one")
    encoded = (tmp_path / "one.jpg").read_bytes()

    def read(number: int) -> AnnotatedFace:
        if number == 1:
            raise DatasetError(f"record {number}: is damaged")
        return AnnotatedFace(
            Path(f"record/{number}"), points_in_box(), f"{number}", encoded=encoded
        )

    reader = {"records": lambda folder: FaceSet(str(folder), range(3), read)}
    entry = types.SimpleNamespace(load=lambda: reader)
    monkeypatch.setattr(layouts, "entry_points", lambda group: {"dfc_jax.layouts": [entry]}[group])
    code, out, err = run(capsys, "evaluate", "--set", f"records={tmp_path}", "--json", "-")
    assert code == 1 and "record 1: is damaged" in err
    (one,) = json.loads(out)["sets"]
    assert one["layout"] == "records" and one["n"] == 2 and one["unusable"] == ["1"]
    assert [face["name"] for face in one["faces"]] == ["0", "2"]
    code, _, err = run(capsys, "evaluate", "--set", f"others={tmp_path}", "--json", "-")
    assert code == 2 and "give LAYOUT=DIR, of ibug, " in err


def test_evaluate_scores_poses_where_they_are_known_and_names_faces_by_their_set(
    tmp_path, fake, capsys
):
    def evaluate(layout, folder):
        common = ("evaluate", "--layout", layout, "--data", folder, "--json", "-")
        code, out, err = run(capsys, *common, "--weights", "lite-synthetic")
        return code, json.loads(out)["sets"][0], err

    write_aflw2000(tmp_path / "aflw", {"image00002": sample(1), "image00004": sample(2)})
    code, scores, _ = evaluate("aflw2000", tmp_path / "aflw")
    assert code == 0 and scores["pose"]["roll"]["n"] == 2
    assert scores["protocols"]["inner"]["bins"]["0-30"]["n"] >= 1
    assert sum(each["n"] for each in scores["abs_yaw"].values()) == 2

    write_fasseg(tmp_path / "fasseg", {"p01140+0-90": (40, 50), "p01146+0+0": (80, 100)})
    code, scores, _ = evaluate("fasseg", tmp_path / "fasseg")
    assert code == 0 and set(scores["yaw"]) == {"-90", "0"}
    assert scores["protocols"] == {} and scores["profiles"]["n"] == 1

    half = np.random.default_rng(0).uniform(50, 150, (68, 2))
    half[9:17] = np.nan
    write_cfp(tmp_path / "cfp", {"a_profile": half, "b_profile": np.full((68, 2), np.nan)})
    code, scores, err = evaluate("cfp", tmp_path / "cfp")
    assert code == 1 and "b_profile.jpg" in err and scores["unusable"] == ["b_profile"]
    assert scores["pose"] is None and scores["profiles"]["n"] == 1


def two_sets(folder):
    """Two folders a/test and b/test of a photograph each, one and two."""
    for which, name in (("a", "one"), ("b", "two")):
        (folder / which / "test").mkdir(parents=True)
        write_example(folder / which / "test", name)
    return [folder / which / "test" for which in ("a", "b")]


def test_several_sets_are_scored_and_a_bad_one_does_not_stop_the_others(tmp_path, fake, capsys):
    one, two = two_sets(tmp_path)
    sets = ("--set", f"ibug={one}", "--set", f"cfp={tmp_path / 'nowhere'}", "--set", f"ibug={two}")
    code, out, err = run(capsys, "evaluate", *sets, "--json", "-")
    assert code == 1
    assert [each["name"] for each in json.loads(out)["sets"]] == ["a/test", "b/test"]
    assert err.count("\n") == 1 and "nowhere" in err
    both = ("--set", f"fasseg={one}", "--set", f"cfp={two}")
    code, out, err = run(capsys, "evaluate", *both, "--json", "-")
    assert (code, out) == (2, "") and "none of the 2 sets could be scored" in err.splitlines()[-1]


def test_one_folder_of_two_layouts_gets_two_names(tmp_path, fake, capsys):
    one, _ = two_sets(tmp_path)
    both = ("--set", f"facesynthetics={one}", "--set", f"ibug={one}")
    _, out, err = run(capsys, "evaluate", *both, "--json", "-")
    assert [each["name"] for each in json.loads(out)["sets"]] == ["ibug:a/test"]
    assert "facesynthetics:a/test" in err


UNFIT = {
    "--layout ibug": "--layout and --data go together",
    "": "no set of faces is given",
    "--set nothing": "--set nothing: give LAYOUT=DIR",
    "--set x=y": "--set x=y: give LAYOUT=DIR",
    "--set ibug=a/b --set ibug=a/b": "two sets are called so",
    "--set ibug=b/c --set ibug=d/e --predictions d/e=f": "b/c has no --predictions",
    "--set ibug=b/c --set ibug=d/e --predictions f": "--predictions f: give SET=FILE",
    "--set ibug=b/c --predictions x --weights lite": "leave out --weights",
    "--set ibug=b/c --predictions x --basel nowhere": "one with the Basel model",
    "--set ibug=a/b --set ibug=c/d --predictions-out p": "--predictions-out is of one set",
}


@pytest.mark.parametrize("arguments", UNFIT)
def test_arguments_that_do_not_fit_are_one_sentence(arguments, fake, capsys):
    code, out, err = run(capsys, "evaluate", *arguments.split(), "--json", "-")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert UNFIT[arguments] in err


def without_network(monkeypatch):
    monkeypatch.setattr(dfc_jax, "load", lambda **_: pytest.fail("it loads a network"))
    monkeypatch.setattr(dfc_jax, "make_detector", lambda *_: pytest.fail("it loads a detector"))


def predicted(names, offset=(3.0, 4.0), system="theirs", **fields):
    points = np.stack([points_in_box() + offset] * len(names))
    return Predictions(system, tuple(names), points, **fields)


@pytest.mark.parametrize("name", ["p.npz", "p.csv"])
def test_another_systems_predictions_are_scored_without_a_network_or_a_compilation(
    tmp_path, capsys, monkeypatch, name
):
    without_network(monkeypatch)
    for photo in ("one", "two"):
        write_example(tmp_path, photo)
    (tmp_path / "two.jpg").write_bytes(b"no photograph is read")
    write_predictions(tmp_path / name, predicted(["two", "one"], angles_deg=np.zeros((2, 3))))
    before = compiles()
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--json", "-")
    code, out, err = run(capsys, *common, "--predictions", tmp_path / name, "--system", "x")
    assert (code, err) == (0, "") and compiles() == before
    scores = json.loads(out)
    assert scores["system"] == {"name": "x", "versions": {}, "boxes": None}
    # 5 px in a box of sqrt(200 * 50) px.
    assert scores["sets"][0]["protocols"]["inner"]["mean"] == pytest.approx(5.0)
    assert scores["sets"][0]["flow"] is None and scores["sets"][0]["no_output"] == 0


def test_scores_without_faces_name_nobody_and_cannot_be_compared(tmp_path, capsys, monkeypatch):
    without_network(monkeypatch)
    write_example(tmp_path, "somebody")
    write_predictions(tmp_path / "p.npz", predicted(["somebody"]))
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--predictions")
    result = tmp_path / "s.json"
    given = (tmp_path / "p.npz", "--json", result, "--without-faces", "-q")
    assert run(capsys, *common, *given)[0] == 0
    assert "somebody" not in result.read_text()
    (record,) = json.loads(result.read_text())["sets"]
    assert record["faces"] == [] and record["protocols"]["inner"]["mean"] == pytest.approx(5.0)
    code, _, err = run(capsys, "compare", result, result)
    assert code == 2 and f"{result}: has no single faces" in err
    assert run(capsys, "report", result, "--out", tmp_path / "page.html")[0] == 0


def test_faces_without_a_prediction_are_said_and_unknown_ones_are_an_error(
    tmp_path, capsys, monkeypatch
):
    without_network(monkeypatch)
    for photo in ("one", "two", "three"):
        write_example(tmp_path, photo)
    (tmp_path / "three.pts").write_text("no points")
    file = tmp_path / "p.npz"
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--json", "-")
    write_predictions(file, predicted(["one", "three"]))
    code, out, err = run(capsys, *common, "--predictions", file)
    # Three is there, but its annotation cannot be used.
    assert code == 1 and "three.pts" in err.splitlines()[0]
    assert "has none of 1 of 2 faces, which count as no output: two" in err.splitlines()[1]
    scores = json.loads(out)
    assert scores["system"]["name"] == "theirs" and scores["sets"][0]["no_output"] == 1
    assert scores["sets"][0]["protocols"]["inner"]["failure_8"] == 0.5
    write_predictions(file, predicted(["one", "four"]))
    code, out, err = run(capsys, *common, "--predictions", file)
    assert (code, out) == (2, "") and str(file) in err and "does not have (four)" in err
    before = file.read_bytes()
    for given in (("--json", file), ("--json", "-", "--predictions-out", file)):
        code, out, err = run(capsys, *common[:-2], *given, "--predictions", file)
        assert (code, out) == (2, "") and f"{file}: this file is read and would be lost" in err
    assert file.read_bytes() == before


def test_several_sets_have_a_file_of_predictions_each(tmp_path, capsys, monkeypatch):
    without_network(monkeypatch)
    one, two = two_sets(tmp_path)
    write_predictions(tmp_path / "a.npz", predicted(["one"]))
    write_predictions(tmp_path / "b.csv", predicted(["two"], (0.0, 9.0)))
    files = (f"a/test={tmp_path / 'a.npz'}", f"b/test={tmp_path / 'b.csv'}")
    sets = ("--set", f"ibug={one}", "--set", f"ibug={two}")
    given = ("--predictions", files[1], "--predictions", files[0], "--system", "theirs")
    code, out, _ = run(capsys, "evaluate", *sets, *given, "--json", "-")
    assert code == 0
    means = [each["protocols"]["inner"]["mean"] for each in json.loads(out)["sets"]]
    assert means == pytest.approx([5.0, 9.0])


def test_a_protocol_that_a_set_does_not_have_is_said(tmp_path, capsys, monkeypatch):
    without_network(monkeypatch)
    write_example(tmp_path, "one")
    write_predictions(tmp_path / "p.npz", predicted(["one"]))
    common = ("evaluate", "--set", f"ibug={tmp_path}", "--json", "-")
    given = ("--predictions", tmp_path / "p.npz", "--protocol", "points21", "--protocol", "inner")
    code, out, err = run(capsys, *common, *given)
    assert code == 0 and set(json.loads(out)["sets"][0]["protocols"]) == {"inner"}
    assert "it has no points for the protocol points21\n" in err and err.count("\n") == 1
    assert run(capsys, *common, *given[:2])[2] == ""


def test_options_of_the_scores_reach_them(tmp_path, capsys, monkeypatch):
    without_network(monkeypatch)
    faces = {f"image{k:05}": sample(k) for k in range(3)}
    write_aflw2000(tmp_path / "aflw", faces)
    points = np.stack([face.pts_3d - 1.0 for face in faces.values()]) + [3.0, 4.0]
    write_predictions(tmp_path / "p.npz", Predictions("theirs", tuple(faces), points))
    common = ("evaluate", "--set", f"aflw2000={tmp_path / 'aflw'}", "--json", "-")
    options = ("--protocol", "inner", "--normalise", "box-diagonal", "--balanced", "--seed", 7)
    given = ("--predictions", tmp_path / "p.npz")
    code, out, _ = run(capsys, *common, *given, *options)
    assert code == 0
    scores = json.loads(out)
    assert scores["seed"] == 7 and set(scores["sets"][0]["protocols"]) == {"inner"}
    inner = scores["sets"][0]["protocols"]["inner"]
    assert inner["normalised_by"] == "box-diagonal" and inner["balanced"]
    lengths = [np.hypot(*np.ptp(face.pts_3d, axis=0)) for face in faces.values()]
    means = [500.0 / length for length in lengths]
    assert min(means) <= inner["mean"] <= max(means)


def test_real_predictions_have_the_scores_that_are_known_of_them(tmp_path, capsys, monkeypatch):
    without_network(monkeypatch)
    file = shared_data("peers/cfp_validation.npz")
    common = ("evaluate", "--layout", "cfp", "--data", shared_data("cfp/validation"))
    for system, none, mean in (("mediapipe", 13, 5.65), ("tddfa_v2", 0, 4.23)):
        given = ("--predictions", file, "--system", system, "--json", "-")
        code, out, _ = run(capsys, *common, *given)
        inner = json.loads(out)["sets"][0]["protocols"]["visible-inner"]
        assert code == 0 and inner["visible"] == "annotated"
        assert inner["no_output"] == none
        assert inner["mean"] == pytest.approx(mean, abs=0.01)


@pytest.mark.slow
def test_the_shipped_network_has_its_known_error_on_the_validation_faces(tmp_path, capsys):
    folder = shared_data("300w/helen/testset")
    code, out, _ = run(capsys, "evaluate", "--layout", "ibug", "--data", folder, "--json", "-")
    (scores,) = json.loads(out)["sets"]
    assert code == 0 and scores["n"] == 110
    assert scores["protocols"]["inner"]["mean"] == pytest.approx(1.606, abs=0.005)
