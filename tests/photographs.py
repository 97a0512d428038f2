"""Photographs, annotated or broken, as files."""

import numpy as np
from PIL import Image


def broken_files(folder):
    jpeg = folder / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(jpeg)
    (folder / "truncated.jpg").write_bytes(jpeg.read_bytes()[:-900])
    (folder / "header.jpg").write_bytes(jpeg.read_bytes()[:30])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is not a photograph")
    (folder / "folder.jpg").mkdir()
    return {
        "truncated.jpg": "truncated",
        "header.jpg": "not an image|truncated",
        "empty.jpg": "empty",
        "text.jpg": "not an image",
        "folder.jpg": "folder",
        "missing.jpg": "no such file",
    }


def points_in_box(width=200.0, height=50.0):
    """68 points whose tight box is width x height: sqrt(w h) is 100 as given."""
    points = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))
    points[0], points[1] = 0.0, 1.0
    return points * [width, height]


def write_example(folder, name="one", points=None):
    points = points_in_box() if points is None else points
    rows = "\n".join(f"{x + 1:.6f} {y + 1:.6f}" for x, y in points)
    (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    Image.new("RGB", (300, 100), "grey").save(folder / f"{name}.jpg")
