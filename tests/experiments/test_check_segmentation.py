"""Scores of a segmentation on sets with masks, and on faces with something in front."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from dataset_layouts import write_fasseg
from PIL import Image

from data_pipelines.masks.squares import FACE, OTHER, UNKNOWN, MaskSquares
from data_pipelines.photos.squares import STORED_PX
from dfc_jax.crops import Crop
from dfc_jax.errors import DatasetError
from dfc_jax.nets import weights
from dfc_jax.systems.segmentation.networks import TwoStreamSpec
from experiments.tools import check_segmentation as tool

TINY = TwoStreamSpec(widths=(4, 6), depths=(1, 1), deconvolved=(4,), context=3, merged=5)


def bright(crops: np.ndarray) -> np.ndarray:
    """Takes what is bright for the face."""
    return crops.mean(axis=-1)


@pytest.fixture
def masks(tmp_path):
    """Two heads whose faces are white on black."""
    folder = tmp_path / "masks"
    folder.mkdir()
    write_fasseg(folder, {"p01146+0+0": (80, 120), "p01149+0+45": (80, 120)})
    for mask in folder.glob("*.png"):
        face = np.asarray(Image.open(mask)) > 0
        Image.fromarray(np.uint8(255 * face)).convert("RGB").save(mask.with_suffix(".jpg"))
    return folder


def test_what_is_found_is_held_against_the_mask(masks) -> None:
    found, sheet = tool.check_masks(bright, f"fasseg={masks}")
    assert found["inside"]["n"] == 2 and found["inside"]["mean"] > 0.97
    assert found["by_yaw"].keys() == {"0", "45"}
    # The face goes on to the left of the crop, where nothing can be found.
    assert found["photo"]["mean"] < found["inside"]["mean"] - 0.05
    assert sheet.ndim == 3 and sheet.shape[0] > 2 * 128
    none, _ = tool.check_masks(lambda crops: 0.0 * bright(crops), f"fasseg={masks}")
    assert none["photo"]["mean"] == none["inside"]["mean"] == 0.0
    everything, _ = tool.check_masks(lambda crops: 1.0 + 0.0 * bright(crops), f"fasseg={masks}")
    assert 0.0 < everything["inside"]["mean"] < 0.9


def test_a_set_without_masks_is_refused(tmp_path) -> None:
    write_fasseg(tmp_path, {"p01146+0+0": (80, 120)})
    (tmp_path / "p01146+0+0.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="has no face with a mask; .*p01146"):
        tool.check_masks(bright, f"fasseg={tmp_path}")


def test_the_crop_is_where_it_lies() -> None:
    crop = Crop(centre=np.array([20.0, 10.0]), side_px=8.0)
    where = tool.inside(crop, np.zeros((30, 40), bool))
    assert where[10, 20] and where[7, 17] and not where[3, 20] and not where[10, 26]
    assert 49 <= where.sum() <= 81


def test_something_is_in_front_of_every_face_in_its_order() -> None:
    y, x = np.mgrid[:STORED_PX, :STORED_PX]
    disc = np.hypot(x - 95.5, y - 95.5) < 40
    region = np.where(disc, FACE, np.where(y < 60, UNKNOWN, OTHER)).astype(np.uint8)
    angle = np.linspace(0.0, 2 * np.pi, 68, endpoint=False)
    points = 95.5 + 40.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    images = np.repeat(np.arange(40, 250, 6, np.uint8)[:, None, None, None], STORED_PX, axis=1)
    images = np.broadcast_to(images, (35, STORED_PX, STORED_PX, 3))
    known = MaskSquares(
        images, np.repeat(region[None], 35, axis=0), np.repeat(points[None], 35, axis=0)
    )
    plain = tool.covered(jax.random.key(0), known, tool.KINDS["nothing"])
    assert plain.image.shape == (35, 128, 128, 3)
    np.testing.assert_allclose(plain.image[:, 64, 64, 0] * 255.0, np.arange(40, 250, 6), atol=0.01)
    boxes = tool.covered(jax.random.key(0), known, tool.KINDS["boxes"])
    changed = np.abs(boxes.image - plain.image).max(axis=-1) > 0.02
    assert changed.any(axis=(1, 2)).all()
    assert (boxes.face[changed] == 0).all() and (boxes.counted[changed] == 1).all()
    np.testing.assert_array_equal(boxes.face[~changed], plain.face[~changed])


def test_the_program_writes_scores_and_sheets(masks, tmp_path) -> None:
    file = tmp_path / "weights.safetensors"
    weights.save(file, TINY.init(jax.random.key(0)), TINY, {})
    command = [sys.executable, "-m", "experiments.tools.check_segmentation", "--weights", file]
    more = ["--masks", f"fasseg={masks}", "--draw", tmp_path / "sheet.png", "--json", "-"]
    done = subprocess.run([*command, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[f"fasseg={masks}"]["photo"]["n"] == 2
    assert np.asarray(Image.open(tmp_path / "sheet_0.png")).shape[2] == 3


def test_weights_of_another_network_are_one_sentence(tmp_path) -> None:
    command = [sys.executable, "-m", "experiments.tools.check_segmentation"]
    done = subprocess.run(
        [*command, "--weights", tmp_path / "none.safetensors"], capture_output=True, text=True
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "none.safetensors" in done.stderr
