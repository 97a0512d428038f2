"""Results of photographs are named apart, and replaced as a whole or not at all."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfc_jax import files
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
    ],
)
def test_names_never_collide(photos, names):
    assert output_names(photos) == names


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


def test_photographs_in_the_way_of_results_are_found(tmp_path):
    names = ("a.png", "a_face12.obj", "a_overlay.png", "a_depth.png", "b_mask.png")
    photos = [tmp_path / name for name in names]
    assert overwritten(tmp_path, photos, ["a", "b"]) == photos[1:4]
    assert overwritten(tmp_path, photos, ["b"]) == []
    assert overwritten(tmp_path / "out", photos, ["a", "b"]) == []
