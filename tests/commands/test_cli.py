"""The `dfc` command: every photograph is answered, every mistake is one sentence, never a trace."""

import argparse
import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from faces import mean_aligner
from paths import ASTRONAUT, ROOT
from photographs import broken_files, write_example
from PIL import Image

import dfc_jax
from dfc_jax import cli
from dfc_jax.photo import read_photo


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


def test_align_says_how_many_faces_are_uncertain(tmp_path, monkeypatch, capsys):
    solution = mean_aligner().solver.solve(None)
    doubtful = dataclasses.replace(solution, matchability=0.6 * solution.matchability)
    aligner = mean_aligner(solver=lambda crop: doubtful)
    monkeypatch.setattr(dfc_jax, "load", lambda **_: aligner)
    picture = photo(tmp_path / "one.png")
    code, out, _ = run(capsys, "align", picture, "--out", tmp_path / "out", "--outputs", "json")
    assert code == 0
    assert "1 face (1 uncertain) in 1 of 1 photograph: " in out


def test_align_writes_everything_about_a_photograph(tmp_path, fake, capsys):
    code, out, err = run(capsys, "align", photo(tmp_path / "one.png"), "--out", tmp_path / "out")
    assert code == 0
    assert err == ""
    assert "1 face in 1 of 1 photograph: " in out
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
    assert f"2 faces in 2 of {len(photos)} photographs" in out
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
        (["model", "render", "--out", "m.png", "--expression", "jawOpen=9"], "lies in [0, 1]"),
        (["model", "render", "--out", "m.png", "--expression", "jawOpen=-1"], "lies in [0, 1]"),
        (["model", "render", "--out", "m.png", "--expression", "jawOpen=nan"], "NAME=NUMBER"),
        (["model", "render", "--out", "m.png", "--identity", "0=50"], "lies in [-5, 5]"),
        (["model", "render", "--out", "m.png", "--identity", "0=inf"], "NAME=NUMBER"),
        (["model", "render", "--out", "m.png", "--identity", "7000=1"], "no such identity"),
        (["model", "render", "--out", "m.png", "--yaw", "abc"], "'abc' is not a finite number"),
        (["model", "render", "--out", "m.png", "--size", "0"], "16 to 2048"),
        (["model", "render", "--out", "m.png", "--size", "\u00b2"], "16 to 2048"),
        (["model", "render", "--out", "m.gif"], "end it in .png, .jpg, .jpeg, .webp"),
        (["model", "render", "--out", "none/m.png"], "none: there is no such folder"),
        (["synth", "--out", "o", "--count", "0"], "whole number from 1"),
        (["synth", "--out", "o", "--seed", "abc"], "'abc' is not a whole number from 0"),
        (["synth", "--out", "o", "--backgrounds", "none"], "none: there is no such folder"),
        (["synth", "--out", "o", "--light", "none.npz"], "none.npz: there is no such file"),
        (["align", "a.png", "--out", "o", "--recrop", "x"], "whole number from 0 to 3"),
        (["align", "a.png", "--out", "o", "--outputs", "json,ply"], "'ply' is none of json, "),
        (["align", "a.png", "--out", "o", "--outputs", ""], "'' is none of json, "),
        (["align", "a.png", "--out", "o", "--obj-space", "world"], "invalid choice: 'world'"),
        (
            ["align", "a.png", "--out", "o", "--weights", "lite.jpg"],
            "lite.jpg: no such weight file",
        ),
        (["align", "a.png", "--out", "o", "--weights", "light"], "dfc: light: no such weight file"),
        (["align", "a.png", "--out", "o"], "a.png: there is no such file"),
        (["align", "."], "--out"),
        (["align", "/", "--out", "o"], "/: this is a folder"),
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


def test_what_is_missing_or_cannot_be_written_is_found_before_anything_is_loaded(tmp_path):
    """Not even JAX is imported."""
    for name in ("a.png", "weights.jpg"):
        photo(tmp_path / name)
    (tmp_path / "data").mkdir()
    render = ["model", "render", "--out"]
    evaluate = ["evaluate", "--layout", "ibug", "--data", "data", "--json"]
    commands = [
        ["align", "no.png", "gone.png", "--out", "o"],
        ["align", "a.png", "--out", "a.png"],
        ["align", "a.png", "--out", "/proc/none/o"],
        ["align", "a.png", "--out", "/proc"],
        ["align", "a.png", "--out", "o/o", "--detector", "yunet", "--detector-model", "no.onnx"],
        ["align", "a.png", "--out", "o/o", "--weights", "no.safetensors"],
        ["align", "a.png", "--out", "o/o", "--face-model", "no.npz"],
        [*evaluate, "no/s.json"],
        [*evaluate, "data"],
        [*evaluate, "-", "--predictions-out", "no/p.npz"],
        ["evaluate", "--layout", "ibug", "--data", "no", "--json", "-"],
        [*render, "no/m.png"],
        ["model", "info", "no.npz"],
        ["synth", "--out", "a.png"],
        ["synth", "--out", "o", "--textures", "no.npz"],
    ]
    code = f"""
import sys
from dfc_jax import cli
for command in {commands}:
    assert cli.main(command) == 2, command
    assert "jax" not in sys.modules, command
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(commands) + 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "weights.jpg", "data"}


def test_missing_photographs_are_named_before_the_others_are_aligned(tmp_path, fake, capsys):
    missing = [tmp_path / "no.png", tmp_path / "gone.png"]
    photos = [missing[0], photo(tmp_path / "a.png"), missing[1]]
    code, out, err = run(capsys, "align", *photos, "--out", tmp_path / "out")
    assert code == 1
    assert [line.split(":")[1].strip() for line in err.splitlines()] == list(map(str, missing))
    assert "1 face in 1 of 3 photographs" in out


def test_a_photograph_without_a_face_has_an_exit_code_of_its_own(tmp_path, fake, capsys):
    pixel, face = photo(tmp_path / "pixel.png", (1, 1)), photo(tmp_path / "a.png")
    out = ("--out", tmp_path / "out")
    assert run(capsys, "align", pixel, face, *out)[0] == 3
    assert run(capsys, "align", pixel, face, tmp_path / "missing.png", *out)[0] == 1
    assert run(capsys, "align", face, *out)[0] == 0


# Bytes that are no UTF-8, what steers a terminal, what turns its text, and what is too long.
HOSTILE = [b"caf\xe9", b"\xff\xfe", b"red\x1b[31m", b"two\nlines", "\u202egpj".encode(), b"w" * 240]
HOSTILE += [b"w" * 239 + b"x", "\u6f22".encode() * 80, "c\u0085".encode()]


def hostile_photos(folder, stems=HOSTILE):
    paths = [Path(os.fsdecode(os.fsencode(folder) + b"/" + stem + b".png")) for stem in stems]
    return [photo(path) for path in paths]


def assert_harmless(text):
    text.encode("utf-8")
    assert all(c.isprintable() or c == "\n" for c in text), ascii(text)


def test_file_names_of_any_bytes_give_results_whose_names_and_json_are_valid(
    tmp_path, fake, capsys
):
    photos = hostile_photos(tmp_path)
    code, _, err = run(capsys, "align", *photos, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    written = os.listdir(tmp_path / "out")
    records = [name for name in written if name.endswith(".json")]
    assert len(records) == len(photos)
    files = {
        json.loads((tmp_path / "out" / name).read_bytes())["photo"]["file"] for name in records
    }
    assert len(files) == len(photos)
    assert str(tmp_path / r"caf\xe9.png") in files
    for name in (*written, *files):
        name.encode("utf-8")
    for name in written:
        assert_harmless(name)
        assert len(name.encode()) <= 255


def test_names_never_reach_the_terminal_raw(tmp_path, fake, capsys):
    stems = [stem for stem in HOSTILE if len(stem) < 99]
    photos = hostile_photos(tmp_path, stems)
    for path in photos[::2]:
        path.write_text("no photograph")
    for path in photos[1::2]:
        path.unlink()
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/o\x1b[2J\xff"))
    for command in (
        ["align", *photos, photo(tmp_path / "a.png"), "--out", folder],
        ["align", "a.png", "--out", folder, "--weights", "w\x1b[2J"],
        ["align", "a.png", "--out", folder, "--detector", "\x1b[2J\u202e"],
        ["align", "a.png", "--out", folder, "--\x1b[2J\u202e"],
        ["model", "render", "--out", "\x1b[2J"],
    ):
        code, out, err = run(capsys, *command)
        assert code in (1, 2)
        assert_harmless(out)
        assert_harmless(err)
        assert len(err.splitlines()) == (len(photos) if code == 1 else 1)
    code, _, err = run(capsys, "align", photos[0], "--out", folder)
    assert r"caf\xe9.png: not an image" in err


def test_names_that_the_terminal_has_no_letters_for_are_no_mistake(tmp_path, fake, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert (
        cli.main(["align", str(photo(tmp_path / "a.png")), "--out", str(tmp_path / "\u6f22")]) == 0
    )
    sys.stdout.flush()
    assert rb"\u6f22" in written.getvalue()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_rerun_replaces_all_results_of_a_photograph_and_nothing_else(tmp_path, fake, capsys):
    one, other = photo(tmp_path / "a.png"), photo(tmp_path / "a_face1.png")
    out = ("--out", tmp_path / "out")
    boxes = [f"--box={10 * n},20,50,60" for n in range(9)]
    foreign = {"a_face1.txt", "a_face1_mask.png.bak", "a_face01.npz", "notes_overlay.txt", "b.json"}
    assert run(capsys, "align", one, *boxes, *out)[0] == 0
    assert run(capsys, "align", other, *boxes[:2], *out)[0] == 0
    for name in foreign:
        (tmp_path / "out" / name).write_text("mine")
    others = {name for name in names_in(tmp_path / "out") if name.startswith("a_face1_face")}
    others |= {"a_face1.json", "a_face1_overlay.png"} | foreign
    assert run(capsys, "align", one, boxes[0], *out)[0] == 0
    (face,) = json.loads((tmp_path / "out" / "a.json").read_text())["faces"]
    mine = {"a.json", "a_overlay.png", *face["files"].values()}
    assert names_in(tmp_path / "out") == mine | others
    photo(one, (1, 1))
    assert run(capsys, "align", one, *out)[0] == 3
    assert names_in(tmp_path / "out") == {"a.json"} | others
    assert json.loads((tmp_path / "out" / "a.json").read_text())["status"] == "no_face"


def test_outputs_chooses_what_is_written_and_a_rerun_drops_the_rest(tmp_path, fake, capsys):
    one, folder = photo(tmp_path / "a.png"), tmp_path / "out"
    face = {
        "npz": {"a_face1.npz"},
        "obj": {"a_face1.obj", "a_face1.mtl", "a_face1_texture.jpg"},
        "flow": {"a_face1_flow.png"},
        "mask": {"a_face1_mask.png"},
    }
    names = {"json": {"a.json"}, "overlay": {"a_overlay.png"}, **face}
    for chosen in ("all", "json,obj", "mask", "npz, overlay", "flow,json"):
        assert run(capsys, "align", one, "--out", folder, "--outputs", chosen)[0] == 0
        kinds = list(names) if chosen == "all" else chosen.replace(" ", "").split(",")
        assert names_in(folder) == set().union(*(names[kind] for kind in kinds))
        if "json" in kinds:
            files = json.loads((folder / "a.json").read_text())["faces"][0]["files"]
            assert set(files.values()) == set().union(*(face.get(kind, set()) for kind in kinds))
    # A file of this name that is none of ours stays, as long as none is asked for.
    (folder / "a.json").write_text('{"my": "own"}')
    assert run(capsys, "align", one, "--out", folder, "--outputs", "mask")[0] == 0
    assert names_in(folder) == {"a.json", "a_face1_mask.png"}


def test_results_never_overwrite_the_photographs(tmp_path, fake, capsys):
    photos = [photo(tmp_path / name) for name in ("a.png", "a_overlay.png")]
    code, _, err = run(capsys, "align", *photos, "--out", tmp_path)
    assert code == 2
    assert "a_overlay.png: a result would overwrite this photograph" in err
    assert names_in(tmp_path) == {"a.png", "a_overlay.png"}


@pytest.mark.parametrize("space", ["model", "camera"])
def test_the_mesh_has_texture_and_normals_and_stands_where_it_is_asked_to(
    tmp_path, fake, capsys, aligner, space
):
    one = photo(tmp_path / "with space.png")
    options = () if space == "model" else ("--obj-space", "camera")
    assert run(capsys, "align", one, "--out", tmp_path / "out", *options)[0] == 0
    (face,) = json.loads((tmp_path / "out" / "with space.json").read_text())["faces"]
    mesh = trimesh.load(tmp_path / "out" / face["files"]["obj"], process=False)
    with np.load(tmp_path / "out" / face["files"]["npz"]) as arrays:
        vertices = arrays["vertices_mm"]
    rotation, translation = np.array(face["rotation"]), np.array(face["translation_mm"])
    expected = (vertices - translation) @ rotation if space == "model" else vertices * [1, -1, -1]
    assert np.allclose(mesh.vertices, expected, atol=2e-3)
    assert np.array_equal(mesh.faces, np.asarray(aligner.model.triangles))
    assert np.allclose(mesh.visual.uv, np.asarray(aligner.model.uv), atol=1e-4)
    texture = mesh.visual.material.image
    assert texture.size[0] == texture.size[1] >= 256
    text = (tmp_path / "out" / face["files"]["obj"]).read_text()
    normals = np.array([line.split()[1:] for line in text.splitlines() if line[:3] == "vn "], float)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0, atol=2e-3)
    # Outwards, in the frame of the vertices; trimesh makes its own from the order of corners.
    own = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).vertex_normals
    assert np.median((normals * own).sum(axis=1)) > 0.99
    nose = np.argmax(mesh.vertices[:, 2])
    assert normals[nose, 2] > 0.5
    centre = mesh.bounds.mean(axis=0)
    assert (np.linalg.norm(centre) < 100.0) == (space == "model")


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


def test_predictions_go_to_a_file_of_any_name(tmp_path, fake, capsys):
    write_example(tmp_path, "one")
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--json", "-")
    assert run(capsys, *common, "--predictions-out", tmp_path / "p.dat")[0] == 0
    with np.load(tmp_path / "p.dat") as predictions:
        assert predictions["points"].shape == (1, 68, 2)
    assert names_in(tmp_path) == {"one.jpg", "one.pts", "p.dat"}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_a_picture_is_what_its_suffix_says(tmp_path, capsys, suffix):
    path = tmp_path / f"face{suffix}"
    assert run(capsys, "model", "render", "--out", path, "--size", "64")[0] == 0
    with Image.open(path) as image:
        assert image.format == {".png": "PNG", ".webp": "WEBP"}.get(suffix, "JPEG")


def test_broken_weights_are_one_sentence_and_leave_no_folder(tmp_path, capsys):
    for broken in (tmp_path / "broken.safetensors", tmp_path / "photo.jpg"):
        broken.write_bytes(b"nothing of the kind")
        folder = tmp_path / "deep" / "out"
        code, _, err = run(capsys, "align", ASTRONAUT, "--out", folder, "--weights", broken)
        assert code == 2
        assert err.count("\n") == 1
        assert f"dfc: {broken}: " in err
        assert "lite" in err
        assert not folder.parent.exists()


def test_evaluate_prints_only_json_and_keeps_the_predictions(tmp_path, fake, capsys):
    for name in ("one", "two"):
        write_example(tmp_path, name)
    out_file = tmp_path / "predictions.npz"
    common = ("evaluate", "--layout", "ibug", "--data", tmp_path, "--predictions-out", out_file)
    code, out, _ = run(capsys, *common, "--json", "-", "--weights", "lite-synthetic")
    assert code == 0
    scores = json.loads(out)
    names = {"n", "no_output", "inner", "all68", "flow", "blend", "unusable", "weights", "boxes"}
    assert set(scores) == names
    assert scores["unusable"] == []
    assert set(scores["flow"]) == set(scores["blend"]) == {"inner", "all68"}
    assert scores["flow"]["inner"] != scores["inner"] != scores["blend"]["inner"]
    assert scores["n"] == 2
    assert scores["boxes"] == "gt"
    assert fake["weights"] == "lite-synthetic"
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
    assert run(capsys, "--version")[:2] == (0, f"dfc {dfc_jax.__version__}\n")


def parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert all(choice.help for choice in action._choices_actions)
            for child in action.choices.values():
                yield from parsers(child)


def test_every_argument_has_help():
    for parser in parsers(cli._parser()):
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                assert action.help, f"{parser.prog}: {action.dest}"


def test_every_command_of_the_readme_is_one_that_dfc_takes():
    root = ROOT
    lines = (root / "README.md").read_text().splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("dfc ")]
    assert {command[1] for command in commands} == {"align", "evaluate", "model", "synth"}
    for command in commands:
        cli._parser().parse_args(command[1:])
    assert "source .venv/bin/activate" in "\n".join(lines)
    # What `make demo` says last, word for word.
    (last,) = re.findall(r'@echo "    \$\(BIN\)/dfc (.*)"', (root / "Makefile").read_text())
    cli._parser().parse_args(shlex.split(last))


def test_help_names_the_exit_codes(capsys):
    for command in ((), ("align",), ("evaluate",)):
        code, out, _ = run(capsys, *command, "--help")
        assert code == 0
        assert "exit codes: 0 all went well" in out


def test_help_does_not_import_jax():
    code = "import sys, dfc_jax.cli; assert not {'jax', 'numpy', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
