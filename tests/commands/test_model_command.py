"""`dfc model`: what is in a face model, and pictures of it."""

import pytest
from command_line import run
from PIL import Image

from dfc_jax.photo import read_photo


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


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_a_picture_is_what_its_suffix_says(tmp_path, capsys, suffix):
    path = tmp_path / f"face{suffix}"
    assert run(capsys, "model", "render", "--out", path, "--size", "64")[0] == 0
    with Image.open(path) as image:
        assert image.format == {".png": "PNG", ".webp": "WEBP"}.get(suffix, "JPEG")
