"""The evaluation's numbers follow their definitions, and broken data is named."""

import subprocess
import sys

import numpy as np
import pytest
from photographs import points_in_box, write_example

from dfc_jax.data.faces import AnnotatedFace, read_usable
from dfc_jax.data.ibug import ibug, read_ibug, read_pts
from dfc_jax.errors import DatasetError
from dfc_jax.evaluation.protocols import align_examples
from dfc_jax.inference.align import Aligned
from dfc_jax.inference.detect import Detection


def test_points_count_from_zero(tmp_path):
    write_example(tmp_path)
    assert np.allclose(read_pts(tmp_path / "one.pts"), points_in_box(), atol=1e-5)


ROWS = "\n".join(f"{x + 1:.6f} {y + 1:.6f}" for x, y in points_in_box())
HEADER = "version: 1\nn_points:  68\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}{{\n{ROWS}\n}}\n",
        f"version: 1 n_points: 68 {{ {ROWS} }}",
        ROWS,
        HEADER.upper() + ROWS,
        f"# by hand\n{HEADER}{{ // the points\n{ROWS} # the last\n}}",
        "\ufeff" + HEADER + ROWS.replace(" ", "\t\t"),
        f"{HEADER}{{\n{ROWS}\n}}\n".replace("\n", "\r\n"),
    ],
    ids=["plain", "one line", "bare", "no braces", "comments", "BOM and tabs", "CRLF"],
)
def test_points_are_read_however_they_are_written(tmp_path, text):
    (tmp_path / "one.pts").write_bytes(text.encode())
    np.testing.assert_allclose(read_pts(tmp_path / "one.pts"), points_in_box(), atol=1e-5)


def test_photographs_are_found_whatever_their_suffix(tmp_path):
    for name, suffix in (("a.b", ".PNG"), ("c", ".jpeg"), ("d", ".Jpg"), ("e", ".JPG")):
        write_example(tmp_path, name)
        (tmp_path / f"{name}.jpg").rename(tmp_path / f"{name}{suffix}")
    (tmp_path / "c.pts").rename(tmp_path / "c.PTS")
    found = [example.photo.name for example in read_ibug(tmp_path)]
    assert found == ["a.b.PNG", "c.jpeg", "d.Jpg", "e.JPG"]


def test_mirrored_copies_are_no_faces_of_their_own(tmp_path):
    for name in ("image_1", "image_1_mirror", "image_2_mirror"):
        write_example(tmp_path, name)
    found = [example.photo.stem for example in read_ibug(tmp_path)]
    assert found == ["image_1", "image_2_mirror"]
    assert len(read_ibug(tmp_path, mirrored=True)) == 3


def test_broken_data_is_named(tmp_path):
    def refused(words, read, path):
        with pytest.raises(DatasetError, match=words) as caught:
            read(path)
        assert "\n" not in str(caught.value)

    refused("no such folder", read_ibug, tmp_path / "nowhere")
    refused(r"no \.pts files", read_ibug, tmp_path)
    refused("cannot be read", read_pts, tmp_path / "missing.pts")
    broken = {
        "none": "hello",
        "few": "{ 1 2 }",
        "many": f"{ROWS}\n1 2",
        "cut": f"{HEADER}{{\n{ROWS}",
        "nan": "{" + " nan" * 136 + "}",
    }
    for name, text in broken.items():
        (tmp_path / f"{name}.pts").write_text(text)
        refused(
            rf"{name}\.pts: a \.pts file needs .*; (mend|annotate)",
            read_pts,
            tmp_path / f"{name}.pts",
        )
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    write_example(lonely)
    (lonely / "one.jpg").unlink()
    refused(r"one\.pts: there is no photograph .*; put it there", read_ibug, lonely)


def test_broken_annotations_are_left_out_each_with_a_sentence_that_names_it(tmp_path):
    for name in ("a", "b", "c", "d"):
        write_example(tmp_path, name)
    (tmp_path / "a.pts").write_text("hello")
    (tmp_path / "b.jpg").unlink()
    write_example(tmp_path, "c", np.ones((68, 2)))
    examples, problems = read_usable(ibug(tmp_path))
    assert [example.photo.stem for example in examples] == ["d"]
    assert [path.name for path in problems] == ["a.pts", "b.pts", "c.pts"]
    for path, words in zip(problems, ("68 points", "no photograph", "span no face"), strict=True):
        assert str(path) in problems[path]
        assert words in problems[path]
    (tmp_path / "d.pts").unlink()
    with pytest.raises(DatasetError, match=r"none of 3 annotations can be used; .*a\.pts"):
        read_usable(ibug(tmp_path))


READ_ALL = """
import sys
from dfc_jax.data.ibug import read_pts
from dfc_jax.errors import DatasetError
for path in sys.argv[1:]:
    try:
        read_pts(path)
    except DatasetError as error:
        print(error)
"""


@pytest.mark.slow
def test_long_files_without_points_are_answered_at_once(tmp_path):
    repeated = ["\n", " ", "version\n", "version :\n", "#\n", "/", "{", "{}"]
    paths = [tmp_path / f"{number}.pts" for number in range(len(repeated))]
    for path, text in zip(paths, repeated, strict=True):
        path.write_text(text * (200_000 // len(text)))
    # Not in this process: a regular expression that hangs cannot be interrupted.
    command = [sys.executable, "-c", READ_ALL, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count(".pts: a .pts file needs 68 points") == len(repeated)


def test_a_file_too_large_to_hold_points_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "large.pts"
    path.write_text(ROWS + " " * 1_000_000)
    monkeypatch.setattr(type(path), "read_text", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(DatasetError, match=r"large\.pts: more than a megabyte"):
        read_pts(path)


class Echo:
    """An aligner whose landmarks are the corners of its boxes."""

    def __init__(self):
        self.boxes = []

    def many(self, examples, boxes, read):
        for example, find in zip(examples, boxes, strict=True):
            image = read(example)
            found = find(image)
            self.boxes += found
            corners = [np.full((68, 2), box[0]) for box in found]
            faces = [type("Face", (), {"landmarks": points}) for points in corners]
            yield Aligned(image, faces, None)


def test_a_given_box_is_that_of_the_annotation_and_a_face_not_found_is_none(tmp_path):
    write_example(tmp_path)
    box, nowhere = np.array([3.0, 4.0, 50.0, 60.0]), np.full((68, 2), np.nan)
    face = AnnotatedFace(tmp_path / "one.jpg", nowhere, "one", box=box)
    (found,) = align_examples(Echo(), [face])
    assert (found.landmarks == 3.0).all()
    assert list(align_examples(Echo(), [face], lambda image: [])) == [None]


def test_ground_truth_boxes_are_the_tight_boxes_of_the_points(tmp_path):
    write_example(tmp_path)
    aligner = Echo()
    list(align_examples(aligner, read_ibug(tmp_path)))
    assert np.allclose(aligner.boxes[0], [0, 0, 200, 50], atol=1e-4)


def test_the_detection_on_the_annotated_face_is_scored_and_misses_are_none(tmp_path):
    write_example(tmp_path, "a")
    write_example(tmp_path, "b")
    found = [
        [Detection(np.array([x, 0.0, 100, 100]), 1.0, "given") for x in (400.0, 150.0, 60.0)],
        [Detection(np.array([400.0, 0.0, 100, 100]), 1.0, "given")],
    ]
    first, second = align_examples(Echo(), read_ibug(tmp_path), lambda image: found.pop(0))
    assert (first.landmarks == 60.0).all()
    assert second is None
