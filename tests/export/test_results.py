"""Results of photographs are named apart, and replaced as a whole or not at all."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfc_jax import files
from dfc_jax.export import results
from dfc_jax.export.journal import HIDDEN, stamp_of
from dfc_jax.export.results import Results, output_names, overwritten

ALL = ("json", "overlay", "flow", "mask", "npz", "obj")
IMAGE = np.zeros((300, 200, 3), np.uint8)


@pytest.fixture(scope="module")
def face(aligner):
    (found,) = aligner(IMAGE)
    return found


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["a/one.jpg", "a/two.png"], ["one", "two"]),
        (["a/one.jpg", "b/one.jpg"], ["a_one", "b_one"]),
        (["a/one.jpg", "a/one.png"], ["a_one", "a_one-2"]),
        (["a/One.jpg", "b/one.jpg"], ["a_One", "b_one"]),
        (["a/one.jpg", "b/one.jpg", "c/a_one.jpg"], ["a_one-2", "b_one", "a_one"]),
        (["a/caf\u00e9.jpg", "b/cafe\u0301.jpg"], ["a_caf\u00e9", "b_cafe\u0301"]),
    ],
)
def test_names_never_collide(photos, names):
    assert output_names(photos) == names


def test_names_do_not_depend_on_the_order_of_photographs():
    photos = [
        f"{folder}/one{suffix}" for folder in ("a", "b", "c/a") for suffix in (".jpg", ".png")
    ]
    names = dict(zip(photos, output_names(photos), strict=True))
    assert names["a/one.jpg"] == "a_one"
    backwards = photos[::-1]
    assert dict(zip(backwards, output_names(backwards), strict=True)) == names


def test_naming_takes_as_many_comparisons_as_there_are_photographs(monkeypatch):
    compared, calls = results._compared, []
    monkeypatch.setattr(results, "_compared", lambda name: calls.append(name) or compared(name))
    names = output_names([f"{number}/same/one.jpg" for number in range(3000)])
    assert len(set(names)) == 3000
    assert len(calls) < 10 * 3000


def test_names_that_were_changed_stay_apart():
    photos = [
        "x" * 240 + ".jpg",
        "x" * 239 + "y.jpg",
        "a\x01.jpg",
        "a\x02.jpg",
        "A\x02.jpg",
        "a_.jpg",
    ]
    names = output_names(photos)
    assert len({name.casefold() for name in names}) == len(photos)
    # Also those of different runs.
    assert [output_names([photo])[0] for photo in photos] == names
    assert names[-1] == "a_"
    assert all(len(name.encode()) <= 220 for name in names)


def test_long_names_that_repeat_are_told_apart_by_folder_and_number(tmp_path):
    names = output_names([f"{'f' * 99}/{'w' * 200}{suffix}" for suffix in (".jpg", ".png")])
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 220 for name in names)


def test_a_face_writes_its_arrays_and_pictures(tmp_path, aligner, face):
    Results(tmp_path, aligner, ALL).write("photo", "photo.jpg", IMAGE, [face])
    record = json.loads((tmp_path / "photo.json").read_text())
    files = record["faces"][0]["files"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "photo.json",
        "photo_overlay.png",
        *files.values(),
    }
    with np.load(tmp_path / files["npz"]) as arrays:
        assert np.array_equal(arrays["flow"], face.flow)
        assert np.array_equal(arrays["mask"], face.mask)
        assert arrays["vertices_mm"].shape == face.vertices_mm.shape
    for kind in ("flow", "mask", "texture"):
        with Image.open(tmp_path / files[kind]) as picture:
            assert min(picture.size) >= 256


def test_while_the_json_is_there_so_is_the_rest_wherever_a_run_is_killed(
    tmp_path, aligner, face, monkeypatch
):
    """Killed at each change of the folder in turn, then run again."""
    outputs = ("json", "mask", "npz")
    replace, unlink = os.replace, Path.unlink

    def killed_at(step, action):
        def maybe(*arguments, **keywords):
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return action(*arguments, **keywords)

        left = step
        return maybe

    def state():
        names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
        assert all(re.fullmatch(r"a(\.json|_face[12](\.npz|_mask\.png))", name) for name in names)
        if "a.json" not in names:
            return 0
        faces = json.loads((tmp_path / "a.json").read_text())["faces"]
        assert names == {"a.json"}.union(*(each["files"].values() for each in faces))
        return len(faces)

    for patched in ("replace", "unlink"):
        for step in range(1, 7):
            Results(tmp_path, aligner, outputs).write("a", "a.jpg", IMAGE, [face, face])
            assert state() == 2
            with monkeypatch.context() as patch:
                if patched == "replace":
                    patch.setattr(files.os, "replace", killed_at(step, replace))
                else:
                    patch.setattr(Path, "unlink", killed_at(step, unlink))
                try:
                    Results(tmp_path, aligner, outputs).write("a", "a.jpg", IMAGE, [face])
                    killed = False
                except KeyboardInterrupt:
                    killed = True
            assert killed or state() == 1
            state()
            Results(tmp_path, aligner, outputs).write("a", "a.jpg", IMAGE, [face])
            assert state() == 1


def written(folder, aligner, faces, outputs=("json", "mask"), settings=None):
    """Results of a photograph beside the folder; the results, and how to ask whether it is done."""
    photo = folder.parent / f"{folder.name}.jpg"
    if not photo.exists():
        photo.write_bytes(b"a photograph")
    Results(folder, aligner, outputs, settings=settings).write(
        "a", photo, IMAGE, faces, stamp_of(photo)
    )
    return photo


@pytest.mark.parametrize("outputs", [("json", "mask", "overlay"), ("mask", "overlay")])
def test_a_photograph_is_done_as_long_as_nothing_would_be_different(
    tmp_path, aligner, face, outputs
):
    settings = {"recrop": (1, 2)}

    def done(outputs=outputs, settings=settings, space="model", file=None):
        now = Results(tmp_path, aligner, outputs, space, settings)
        return now.done("a", file or photo, stamp_of(photo)) is not None

    photo = written(tmp_path, aligner, [face, face], outputs, settings)
    assert done() and done(outputs=outputs[::-1])
    assert not done(outputs=(*outputs, "npz"))
    assert not done(settings={"recrop": 2})
    assert not done(space="camera")
    assert not done(file="other.jpg")
    aligner.versions["weights"] += "x"
    try:
        assert not done()
    finally:
        aligner.versions["weights"] = aligner.versions["weights"][:-1]
    assert done()
    for gone in ("a_face2_mask.png", "a_overlay.png"):
        (tmp_path / gone).rename(tmp_path / "away")
        assert not done()
        (tmp_path / "away").rename(tmp_path / gone)
    assert done()
    os.utime(photo, ns=(0, 10**15))
    assert not done()
    written(tmp_path, aligner, [], outputs, settings)
    assert done()
    photo.write_bytes(b"another photograph")
    os.utime(photo, ns=(0, 10**15))
    assert not done()
    photo.unlink()
    assert not done(file=str(photo))


def test_a_record_that_is_no_output_is_short_hidden_and_replaced(tmp_path, aligner, face):
    written(tmp_path, aligner, [face], ("mask",))
    (record,) = (tmp_path / HIDDEN).iterdir()
    found = json.loads(record.read_text())
    assert found["faces"][0]["files"] == {"mask": "a_face1_mask.png"}
    assert "landmarks_px" not in found["faces"][0]
    written(tmp_path, aligner, [face], ("json",))
    assert {path.name for path in tmp_path.iterdir()} == {"a.json"}
    written(tmp_path, aligner, [face], ("mask",))
    assert {path.name for path in tmp_path.iterdir()} == {HIDDEN, "a_face1_mask.png"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": "1.4"}', "[" * 100_000])
def test_a_record_that_is_none_is_no_reason_to_skip(tmp_path, aligner, text):
    (tmp_path / "a.json").write_text(text)
    photo = tmp_path / "a.jpg"
    photo.touch()
    assert Results(tmp_path, aligner, ("json",)).done("a", photo, stamp_of(photo)) is None


def test_what_a_killed_process_left_goes_with_the_results_of_its_photograph(
    tmp_path, aligner, face
):
    (tmp_path / HIDDEN).mkdir()
    left = [".a.0123abcd.json", ".a_face1_texture.0123abcd.jpg", f"{HIDDEN}/.a.0123abcd.json"]
    others = [".b_overlay.0123abcd.png", ".a.0123abcd.txt", ".a.0123.json", ".profile"]
    for name in (*left, *others):
        (tmp_path / name).touch()
    written(tmp_path, aligner, [face], ("mask",))
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {"a_face1_mask.png", f"{HIDDEN}/a.json", *others}


def test_photographs_in_the_way_of_results_are_found(tmp_path):
    names = ("a.png", "a_face12.obj", "a_overlay.png", "a_depth.png", "b_mask.png")
    photos = [tmp_path / name for name in names]
    assert overwritten(tmp_path, photos, ["a", "b"]) == photos[1:4]
    assert overwritten(tmp_path, photos, ["b"]) == []
    assert overwritten(tmp_path / "out", photos, ["a", "b"]) == []
    photos[2].touch()
    (tmp_path / "other").mkdir()
    link, folder = tmp_path / "other" / "me.png", tmp_path / "folder"
    link.symlink_to(photos[2])
    folder.symlink_to(tmp_path)
    assert overwritten(tmp_path, [link, folder / "a_overlay.png"], ["a"]) == [
        link,
        folder / "a_overlay.png",
    ]
