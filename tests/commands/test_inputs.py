"""Which photographs a command is given: files, folders, patterns, lists; and parts of them."""

import io
import os
import sys
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from dfc_jax.commands.arguments import UsageError
from dfc_jax.commands.inputs import PHOTO_SUFFIXES, find_photos, part_of
from dfc_jax.export.results import is_result
from dfc_jax.photo import FORMATS


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder of photographs, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("p/b.jpg", "p/a.PNG", "p/notes.txt", "p/._a.jpg", "p/.thumbs/a.jpg"),
        *("p/deep/c.webp", "p/deep/er/d.tiff", "q/a.jpg"),
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


def found(*given, list_file=None, out="out"):
    return find_photos(given, list_file, is_result, Path(out))


IN_P = ["p/a.PNG", "p/b.jpg", "p/deep/c.webp", "p/deep/er/d.tiff"]


@pytest.mark.parametrize(
    ("given", "photos"),
    [
        (["q/a.jpg", "p/b.jpg"], ["q/a.jpg", "p/b.jpg"]),
        (["p"], IN_P),
        (["./p//"], IN_P),
        (["q", "p/deep"], ["q/a.jpg", "p/deep/c.webp", "p/deep/er/d.tiff"]),
        (["p/notes.txt"], ["p/notes.txt"]),
        (["p/*.jpg"], ["p/b.jpg"]),
        (["*/?.jpg"], ["p/b.jpg", "q/a.jpg"]),
        (["p/**/*.[tw][ei]*"], ["p/deep/c.webp", "p/deep/er/d.tiff"]),
        (["**/*.jpg"], ["p/b.jpg", "q/a.jpg"]),
        (["p/**"], IN_P),
        (["p/d*"], ["p/deep/c.webp", "p/deep/er/d.tiff"]),
        (["p", "./p/b.jpg", "p/*.jpg"], IN_P),
        (["p/deep", "p"], [*IN_P[2:], *IN_P[:2]]),
    ],
)
def test_folders_and_patterns_stand_for_photographs_each_once(tree, given, photos):
    assert found(*given) == (photos, {}, [])
    absolute = [str(tree / name) for name in given]
    assert found(*absolute).photos == [str(tree / name) for name in photos]


def test_a_name_with_the_letters_of_a_pattern_is_itself_where_it_is_there(tree):
    Path("q/a[1].jpg").touch()
    assert found("q/a[1].jpg").photos == ["q/a[1].jpg"]
    assert found("q/a[[]1].jpg").photos == ["q/a[1].jpg"]


def test_links_that_lead_back_are_followed_once(tree):
    Path("p/deep/loop").symlink_to(tree / "p")
    Path("p/self").symlink_to(".")
    Path("p/gone").symlink_to("nowhere")
    Path("p/other").symlink_to(tree / "q")
    Path("p/gone.jpg").symlink_to("nowhere")
    assert sorted(found("p").photos) == sorted([*IN_P, "p/other/a.jpg", "p/gone.jpg"])
    Path("p/gone.jpg").unlink()
    names = {os.path.basename(photo) for photo in found("p/**/*.jpg").photos}
    assert names == {"b.jpg", "a.jpg"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_is_no_photograph(tree):
    os.mkfifo("p/pipe.jpg")
    assert found("p").photos == IN_P


def test_a_folder_that_cannot_be_read_is_named_and_stops_nothing(tree, monkeypatch):
    scandir = os.scandir

    def refused(folder):
        if os.path.basename(folder) == "deep":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    inputs = found("p")
    assert inputs.photos == IN_P[:2]
    assert inputs.problems == ["p/deep: this folder cannot be read (Permission denied)"]
    assert found("p/**/*.jpg").photos == ["p/b.jpg"]


def test_results_are_no_photographs(tree):
    Path("p/out").mkdir()
    for name in (
        "p/out/b_overlay.png",
        "p/out/mine.png",
        "p/b_overlay.png",
        "p/b_face1_flow.png",
        "p/b_face.jpg",
    ):
        Path(name).touch()
    assert not [photo for photo in found("p", out="p/out").photos if photo.startswith("p/out/")]
    inputs = found("p", out="p")
    assert "p/b_face.jpg" in inputs.photos
    assert not {"p/b_overlay.png", "p/b_face1_flow.png"} & set(inputs.photos)


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_a_list_has_one_name_a_line_or_ends_them_with_nul(tree, monkeypatch, separator):
    names = [b"p/b.jpg", b"./q/a.jpg", b"caf\xe9.jpg", b" spaced .jpg", b"p/b.jpg"]
    if separator == b"\0":
        names[3] = b"two\nlines.jpg"
    content = separator.join([*names, b""])
    Path("list").write_bytes(content)
    photos = [os.fsdecode(name) for name in (*names[:4],)]
    photos[1] = "q/a.jpg"
    assert found(list_file="list") == (photos, {}, [])
    for given, list_file in ((["-"], None), ([], "-"), (["-"], "-")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert found(*given, list_file=list_file).photos == photos
    assert found("p/b.jpg", list_file="list").photos == photos


def test_what_gives_no_photograph_is_named(tree):
    Path("empty").touch()
    Path("hollow").mkdir()
    inputs = found("no.jpg", "hollow", "*.gif", "q")
    assert inputs.photos == ["no.jpg", "q/a.jpg"]
    assert list(inputs.absent) == ["no.jpg"]
    for problem, words in zip(inputs.problems, ("no.jpg: ", "hollow: ", "*.gif: "), strict=True):
        assert problem.startswith(words)
    with pytest.raises(UsageError, match="empty: this list names no photograph"):
        found(list_file="empty")


def test_the_suffixes_are_those_of_the_formats_that_are_read():
    Image.init()
    kinds = {suffix: kind for suffix, kind in Image.EXTENSION.items() if kind in FORMATS}
    assert {kinds[suffix] for suffix in PHOTO_SUFFIXES} == set(FORMATS)


def test_shards_are_disjoint_together_all_and_do_not_depend_on_the_order():
    photos = [f"{number}.jpg" for number in range(100)]
    parts = [part_of(photos, (number, 7)) for number in range(1, 8)]
    assert sorted(chain(*parts)) == sorted(photos)
    assert {len(part) for part in parts} == {14, 15}
    assert part_of(photos[::-1], (3, 7)) == parts[2]
    assert part_of(photos, None) == photos
    assert part_of(photos[:2], (3, 3)) == []
