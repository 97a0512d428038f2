"""The `dfc` command: every photograph is answered, every mistake is one sentence, never a trace."""

import json
import subprocess
import sys

import numpy as np
import pytest
from faces import ASTRONAUT, mean_aligner
from PIL import Image
from test_evaluate import write_example
from test_photo import broken_files

import dfc_jax
from dfc_jax import cli
from dfc_jax.inference.photo import read_photo


@pytest.fixture(scope="module")
def aligner():
    return mean_aligner()


@pytest.fixture
def fake(monkeypatch, aligner):
    """`dfc_jax.load` without a network; collects what it was asked for."""
    asked = {}

    def load(**keywords):
        asked.update(keywords)
        return aligner

    monkeypatch.setattr(dfc_jax, "load", load)
    return asked


def run(capsys, *arguments):
    """Exit code, standard output and standard error."""
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def photo(path, size=(200, 160)):
    Image.new("RGB", size, "grey").save(path)
    return path


def test_align_writes_everything_about_a_photograph(tmp_path, fake, capsys):
    code, out, err = run(capsys, "align", photo(tmp_path / "one.png"), "--out", tmp_path / "out")
    assert code == 0
    assert err == ""
    assert "1 faces in 1 of 1 photographs" in out
    record = json.loads((tmp_path / "out" / "one.json").read_text())
    assert record["status"] == "ok"
    (face,) = record["faces"]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"one.json", "one_overlay.png", *face["files"].values()}
    assert record["photo"]["width"] == 200


def test_bad_photographs_do_not_stop_the_good_ones(tmp_path, fake, capsys):
    broken = broken_files(tmp_path)
    pixel = photo(tmp_path / "pixel.png", (1, 1))
    photos = [photo(tmp_path / "a.png"), *(tmp_path / b for b in broken), pixel]
    photos += [photo(tmp_path / "z.png")]
    code, out, err = run(capsys, "align", *photos, "--out", tmp_path / "out")
    assert code == 1
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == len(broken) + 1
    for name in [*broken, "pixel.png"]:
        assert sum(name in line for line in lines) == 1
    assert "pixel.png: no face was found" in err
    done = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"a.json", "z.json", "pixel.json"} <= done
    assert not any(name.startswith(("truncated", "text", ".")) for name in done)
    assert json.loads((tmp_path / "out" / "pixel.json").read_text())["status"] == "no_face"


def test_photographs_of_one_name_do_not_overwrite_each_other(tmp_path, fake, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        photo(tmp_path / folder / "one.png")
    photos = [tmp_path / "a" / "one.png", tmp_path / "b" / "one.png"]
    assert run(capsys, "align", *photos, "--out", tmp_path / "out")[0] == 0
    assert len(list((tmp_path / "out").glob("*.json"))) == 2


def test_boxes_may_be_given_and_must_touch_the_photograph(tmp_path, fake, capsys):
    one = photo(tmp_path / "one.png")
    boxes = ("--box", "10,20,50,60", "--box", "100,20,50,60")
    code, _, _ = run(capsys, "align", one, "--out", tmp_path / "out", *boxes)
    assert code == 0
    record = json.loads((tmp_path / "out" / "one.json").read_text())
    assert [face["box"] for face in record["faces"]] == [[10, 20, 50, 60], [100, 20, 50, 60]]
    code, _, err = run(capsys, "align", one, "--out", tmp_path / "far", "--box", "500,20,50,60")
    assert code == 1
    assert err.count("\n") == 1
    assert "one.png: the box 500,20,50,60 lies outside" in err
    assert not list((tmp_path / "far").iterdir())


def test_a_defect_in_one_photograph_is_reported_and_survived(tmp_path, monkeypatch, capsys):
    def broken(crop):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(dfc_jax, "load", lambda **_: mean_aligner(solver=broken))
    code, _, err = run(capsys, "align", photo(tmp_path / "a.png"), "--out", tmp_path / "out")
    assert code == 1
    assert "a.png: failed unexpectedly (RuntimeError: two lines)" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["align"], "required"),
        (["align", "a.png"], "--out"),
        (["align", "a.png", "--out", "o", "--detector", "hog"], "invalid choice: 'hog'"),
        (["align", "a.png", "--out", "o", "--detector", "yunet"], "needs a model file"),
        (["align", "a.png", "--out", "o", "--detector-model", "x"], "takes no model file"),
        (["align", "a.png", "--out", "o", "--box", "1,2,3"], "x,y,width,height"),
        (["align", "a.png", "--out", "o", "--box", "1,2,0,4"], "x,y,width,height"),
        (["align", "a.png", "b.png", "--out", "o", "--box", "1,2,3,4"], "one photograph"),
        (["align", "a.png", "--out", "o", "--face-model", "no.npz"], "no.npz: no such"),
        (["evaluate", "--layout", "wflw"], "invalid choice: 'wflw'"),
        (["evaluate", "--layout", "ibug", "--data", "no", "--json", "-"], "no: there is no such"),
        (["model", "info", "no.npz"], "no.npz: no such"),
        (["model", "render", "--out", "m.png", "--expression", "smirk=1"], "no such expression"),
        (["model", "render", "--out", "m.png", "--expression", "jawOpen"], "NAME=NUMBER"),
        (["model", "render", "--out", "m.png", "--size", "0"], "16 to 2048"),
        (["fly"], "invalid choice"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_broken_weights_are_one_sentence_and_leave_no_folder(tmp_path, capsys):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing of the kind")
    code, _, err = run(capsys, "align", ASTRONAUT, "--out", tmp_path / "out", "--weights", broken)
    assert code == 2
    assert err.count("\n") == 1
    assert "broken.safetensors" in err
    assert not (tmp_path / "out").exists()


def test_evaluate_prints_only_json_and_keeps_the_predictions(tmp_path, fake, capsys):
    for name in ("one", "two"):
        write_example(tmp_path, name)
    out_file = tmp_path / "predictions.npz"
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--predictions-out", out_file)
    code, out, _ = run(capsys, *common, "--json", "-", "--weights", "mine")
    assert code == 0
    scores = json.loads(out)
    names = {"n", "no_output", "inner", "all68", "flow", "blend", "weights", "boxes"}
    assert set(scores) == names
    assert set(scores["flow"]) == set(scores["blend"]) == {"inner", "all68"}
    assert scores["flow"]["inner"] != scores["inner"] != scores["blend"]["inner"]
    assert scores["n"] == 2
    assert scores["boxes"] == "gt"
    assert fake["weights"] == "mine"
    with np.load(out_file) as predictions:
        assert predictions["points"].shape == (2, 68, 2)
        assert list(predictions["names"]) == ["one.jpg", "two.jpg"]
    assert not fake["flip_test"]
    options = ("--boxes", "detector", "--flip-test")
    code, out, _ = run(capsys, *common, "--json", tmp_path / "s.json", *options)
    assert code == 0
    assert fake["flip_test"]
    assert out == ""
    assert json.loads((tmp_path / "s.json").read_text())["boxes"] == "detector"


def test_model_info_and_render(tmp_path, capsys):
    code, out, _ = run(capsys, "model", "info")
    assert code == 0
    assert "jawOpen" in out
    assert "vertices" in out
    pictures = []
    for name, extra in (("a", ()), ("b", ("--expression", "jawOpen=1")), ("c", ("--yaw", "30"))):
        path = tmp_path / f"{name}.png"
        assert run(capsys, "model", "render", "--out", path, *extra)[0] == 0
        pictures.append(read_photo(path))
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[0] != pictures[2]).any()


def test_version(capsys):
    assert run(capsys, "version")[1].strip() == dfc_jax.__version__


def test_help_does_not_import_jax():
    code = "import sys, dfc_jax.cli; assert not {'jax', 'numpy', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
