"""Packed faces: what comes back, that squares stay as they are, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from dataset_layouts import face_points, picture

from data_pipelines.photos.squares import STORED_PX, packable, read_square
from data_pipelines.sources.layouts import open_faces
from data_pipelines.sources.packed import packed, write_packed
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.errors import DatasetError, PhotoError
from dfc_jax.photo import write_png


@pytest.fixture
def faces(tmp_path: Path) -> list[AnnotatedFace]:
    """A face with a visible contour, and a profile with hidden points and a box of its own."""
    made = []
    for number, name in enumerate(("front", "side")):
        file = tmp_path / f"{name}.png"
        write_png(file, picture(number))
        points = face_points(np.random.default_rng(number))
        made.append(AnnotatedFace(file, points, name))
    hidden = made[1].points.copy()
    hidden[:9] = np.nan
    box = np.array([120.0, 130.0, 180.0, 200.0])
    made[1] = AnnotatedFace(made[1].photo, hidden, "side", jaw="surface", profile=True, box=box)
    return made


def test_packed_squares_are_the_squares_of_the_photographs(faces, tmp_path: Path) -> None:
    squares = [read_square(face) for face in faces]
    write_packed(tmp_path / "faces.npz", [packable(square) for square in squares])
    for square, face in zip(squares, open_faces("packed", tmp_path / "faces.npz"), strict=True):
        assert face.name == square.face.name
        assert (face.jaw, face.profile) == (square.face.jaw, square.face.profile)
        again = read_square(face)
        np.testing.assert_array_equal(again.image, face.image())  # not resampled
        np.testing.assert_allclose(again.points, square.points, atol=1e-4)
        off = np.abs(again.image.astype(float) - square.image)
        assert off.mean() < 2.0 and again.image.std() > 20.0
        np.testing.assert_allclose(again.to_square, np.eye(2, 3), atol=1e-4)


def test_a_picture_that_is_no_such_square_is_cut_out(faces, tmp_path: Path) -> None:
    """Even if it has the size of one."""
    write_png(tmp_path / "small.png", picture(3, STORED_PX))
    points = face_points(np.random.default_rng(3), STORED_PX)
    square = read_square(AnnotatedFace(tmp_path / "small.png", points, "small"))
    assert not np.array_equal(square.image, picture(3, STORED_PX))


def test_a_broken_photograph_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    face = AnnotatedFace(tmp_path / "broken.png", np.ones((68, 2)), "broken")
    with pytest.raises(PhotoError, match="broken.png"):
        write_packed(tmp_path / "faces.npz", [face])
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("damage", ["missing", "cut", "text", "another"])
def test_a_file_that_cannot_be_used_is_named(damage, faces, tmp_path: Path) -> None:
    file = tmp_path / "faces.npz"
    if damage == "cut":
        write_packed(file, [packable(read_square(face)) for face in faces])
        file.write_bytes(file.read_bytes()[:-200])
    elif damage == "text":
        file.write_text("no faces")
    elif damage == "another":
        np.savez(file, names=np.array(["one"]))
    with pytest.raises(DatasetError, match=r"faces.npz: (there is no such file|cannot be read)"):
        packed(file)
