"""`dfc align`: every photograph is answered, and its results are those that were asked for."""

import dataclasses
import json

import numpy as np
import pytest
import trimesh
from command_line import names_in, photo, run
from faces import half_covered, mean_aligner
from paths import ASTRONAUT
from photographs import broken_files
from PIL import Image

import dfc_jax
from dfc_jax.commands.align import MORE_OUTPUTS, OUTPUTS
from dfc_jax.export.journal import HIDDEN
from dfc_jax.inference import DEFAULT_SEGMENTATION, runtimes


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
    # The folder is looked into, and is no photograph itself.
    assert f"2 faces in 2 of {len(photos) - 1} photographs" in out
    done = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"a.json", "z.json", "pixel.json"} <= done
    assert not any(name.startswith(("truncated", "text", ".")) for name in done)
    assert json.loads((tmp_path / "out" / "pixel.json").read_text())["status"] == "no_face"


def test_missing_photographs_are_named_before_the_others_are_aligned(tmp_path, fake, capsys):
    missing = [tmp_path / "no.png", tmp_path / "gone.png"]
    photos = [missing[0], photo(tmp_path / "a.png"), missing[1]]
    code, out, err = run(capsys, "align", *photos, "--out", tmp_path / "out")
    assert code == 1
    assert [line.split(":")[1].strip() for line in err.splitlines()] == list(map(str, missing))
    assert "1 face in 1 of 3 photographs" in out


def test_a_runtime_that_is_not_installed_is_named_first(tmp_path, fake, capsys, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    given = "align", photo(tmp_path / "a.jpg"), "--runtime", "onnx", "--out", tmp_path / "out"
    code, _, err = run(capsys, *given)
    assert code == 2
    assert "the runtime onnx needs onnx and onnxruntime" in err
    assert not (tmp_path / "out").exists()


def test_a_photograph_without_a_face_has_an_exit_code_of_its_own(tmp_path, fake, capsys):
    pixel, face = photo(tmp_path / "pixel.png", (1, 1)), photo(tmp_path / "a.png")
    out = ("--out", tmp_path / "out")
    assert run(capsys, "align", pixel, face, *out)[0] == 3
    assert run(capsys, "align", pixel, face, tmp_path / "missing.png", *out)[0] == 1
    assert run(capsys, "align", face, *out)[0] == 0


def test_a_defect_in_one_photograph_is_reported_and_survived(tmp_path, monkeypatch, capsys):
    def broken(crop):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(dfc_jax, "load", lambda **_: mean_aligner(solver=broken))
    code, _, err = run(capsys, "align", photo(tmp_path / "a.png"), "--out", tmp_path / "out")
    assert code == 1
    assert "a.png: failed unexpectedly (RuntimeError: two lines)" in err


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


def test_photographs_of_one_name_do_not_overwrite_each_other(tmp_path, fake, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        photo(tmp_path / folder / "one.png")
    photos = [tmp_path / "a" / "one.png", tmp_path / "b" / "one.png"]
    assert run(capsys, "align", *photos, "--out", tmp_path / "out")[0] == 0
    assert len(list((tmp_path / "out").glob("*.json"))) == 2


def test_results_never_overwrite_the_photographs(tmp_path, fake, capsys):
    photos = [photo(tmp_path / name) for name in ("a.png", "a_overlay.png")]
    code, _, err = run(capsys, "align", *photos, "--out", tmp_path)
    assert code == 2
    assert "a_overlay.png: a result would overwrite this photograph" in err
    assert names_in(tmp_path) == {"a.png", "a_overlay.png"}


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
        "glb": {"a_face1.glb"},
        "ply": {"a_face1.ply"},
        "texture": {"a_face1_texture.png"},
        "pts": {"a_face1.pts"},
        "mat": {"a_face1.mat"},
        "occlusion": set(),
    }
    photograph = {
        "overlay": {"a_overlay.png"},
        "depth": {"a_depth.png", "a_depth.npy"},
        "normals": {"a_normals.png"},
        "pncc": {"a_pncc.png"},
        "livelink": {"a_livelink.csv"},
        "scene": {"a_scene.glb", "a_scene.obj"},
    }
    names = {"json": {"a.json"}, "camera": {"a.json"}, **photograph, **face}
    assert set(names) == {*OUTPUTS, *MORE_OUTPUTS}
    more = ("json,glb,texture", "camera,livelink", "depth", "scene,json,ply")
    for chosen in ("all", "json,obj", "mask", "npz, overlay", "flow,json", *more):
        assert run(capsys, "align", one, "--out", folder, "--outputs", chosen)[0] == 0
        kinds = list(names) if chosen == "all" else chosen.replace(" ", "").split(",")
        record = {HIDDEN} if {"json", "camera"}.isdisjoint(kinds) else set()
        assert names_in(folder) == record.union(*(names[kind] for kind in kinds))
        if not {"json", "camera"}.isdisjoint(kinds):
            record = json.loads((folder / "a.json").read_text())
            for files, of in ((record["faces"][0]["files"], face), (record["files"], photograph)):
                assert set(files.values()) == set().union(*(of.get(k, set()) for k in kinds))
            assert (record["camera"] is not None) == ("camera" in kinds)
    photo(one, (1, 1))
    assert run(capsys, "align", one, "--out", folder, "--outputs", "all")[0] == 3
    assert names_in(folder) == {"a.json"}
    record = json.loads((folder / "a.json").read_text())
    assert (record["files"], record["camera"]) == ({}, None)
    photo(one)
    # A file of this name that is none of ours stays, as long as none is asked for.
    (folder / "a.json").write_text('{"my": "own"}')
    assert run(capsys, "align", one, "--out", folder, "--outputs", "mask")[0] == 0
    assert names_in(folder) == {"a.json", "a_face1_mask.png", HIDDEN}


def test_what_covers_a_face_is_written_where_it_is_known(tmp_path, capsys, monkeypatch, model):
    half, asked = half_covered(model), {}
    aligner = mean_aligner(solver=lambda crop: half)
    monkeypatch.setattr(dfc_jax, "load", lambda **given: asked.update(given) or aligner)
    one, folder = photo(tmp_path / "a.png"), tmp_path / "out"
    weights = tmp_path / "some.safetensors"
    weights.write_bytes(b"")
    given = "align", one, "--out", folder, "--segmentation", weights
    assert run(capsys, *given, "--outputs", "json,occlusion,npz")[0] == 0
    assert asked["segmentation"] == str(weights)
    (face,) = json.loads((folder / "a.json").read_text())["faces"]
    assert face["files"] == {"occlusion": "a_face1_occlusion.png", "npz": "a_face1.npz"}
    assert face["occluded_share"] == pytest.approx(0.5, abs=0.02)
    with Image.open(folder / "a_face1_occlusion.png") as picture:
        shown = np.asarray(picture)[::4, ::4]
    assert shown.shape == (128, 128) and not shown[:, :64].any() and shown[64, 64:90].min() == 255
    with np.load(folder / "a_face1.npz") as arrays:
        np.testing.assert_array_equal(arrays["occlusion"], shown / 255.0)
        assert arrays["segmentation"][:, :64].min() == 1.0
    assert run(capsys, *given, "--outputs", "all")[0] == 0
    assert "a_face1_occlusion.png" in names_in(folder)


def test_a_segmentation_that_is_not_there_is_named_first(tmp_path, fake, capsys):
    one, folder = photo(tmp_path / "a.png"), tmp_path / "out"
    given = "align", one, "--out", folder
    code, _, err = run(capsys, *given, "--segmentation", "nowhere")
    assert code == 2 and err.startswith("dfc: nowhere: there are no such weights of a segmentation")
    code, _, err = run(capsys, *given, "--outputs", "json,occlusion")
    assert code == 2 and "occlusion needs a segmentation; give --segmentation" in err
    assert not folder.exists()
    assert run(capsys, *given, "--segmentation", "none", "--outputs", "json")[0] == 0
    assert fake["segmentation"] is None
    assert run(capsys, *given, "--outputs", "json")[0] == 0
    assert fake["segmentation"] == DEFAULT_SEGMENTATION


def test_what_two_faces_share_is_in_the_pictures_and_scenes_of_the_photograph(
    tmp_path, fake, capsys, aligner
):
    one, folder = photo(tmp_path / "a.png"), tmp_path / "out"
    boxes = ("--box", "10,20,60,60", "--box", "110,120,60,60")
    assert run(capsys, "align", one, *boxes, "--out", folder, "--outputs", "all")[0] == 0
    record = json.loads((folder / "a.json").read_text())
    with Image.open(one) as picture:
        size = picture.size
    depth = np.load(folder / record["files"]["depth_npy"])
    assert depth.shape == size[::-1]
    fx, _, cx, cy = record["camera"]["params"]
    for face, pose in zip(record["faces"], record["camera"]["faces"], strict=True):
        x, y = np.round(face["landmarks_px"][30]).astype(int)
        assert depth[y, x] > 0.0
        # The nose is nearer than the head's middle, by less than a head.
        assert 0.0 < pose["tvec"][2] - depth[y, x] < 200.0
        middle = np.array(pose["tvec"][:2]) / pose["tvec"][2] * fx + [cx, cy]
        box = np.array(face["box"])
        assert np.linalg.norm(middle - box[:2] - box[2:] / 2.0) < box[2]
    for kind in ("depth", "normals", "pncc"):
        with Image.open(folder / record["files"][kind]) as picture:
            assert picture.size == size
    n_vertices = len(aligner.model.mean_mm)
    mesh = trimesh.load(folder / record["files"]["scene_obj"], process=False)
    assert len(mesh.vertices) == 2 * n_vertices
    assert len(mesh.faces) == 2 * len(aligner.model.triangles)
    scene = trimesh.load(folder / record["files"]["scene_glb"], process=False)
    assert {"face1", "face2"} <= set(scene.graph.nodes)
    whole = scene.to_geometry()
    assert np.allclose(1000.0 * whole.bounds, mesh.bounds, atol=0.5)
    with (folder / record["files"]["livelink"]).open() as file:
        assert len(file.readlines()) == 3
    ply = trimesh.load(folder / record["faces"][0]["files"]["ply"], process=False)
    obj = trimesh.load(folder / record["faces"][0]["files"]["obj"], process=False)
    assert np.allclose(ply.vertices, obj.vertices, atol=1e-3)


@pytest.mark.parametrize("space", ["model", "camera"])
def test_a_glb_stands_where_the_mesh_does(tmp_path, fake, capsys, space):
    folder = tmp_path / "out"
    options = ("--outputs", "glb,obj,ply", "--obj-space", space)
    assert run(capsys, "align", photo(tmp_path / "a.png"), "--out", folder, *options)[0] == 0
    obj = trimesh.load(folder / "a_face1.obj", process=False)
    ply = trimesh.load(folder / "a_face1.ply", process=False)
    glb = trimesh.load(folder / "a_face1.glb", process=False).to_geometry()
    assert np.allclose(1000.0 * glb.vertices, obj.vertices, atol=0.01)
    assert np.allclose(ply.vertices, obj.vertices, atol=0.01)


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
