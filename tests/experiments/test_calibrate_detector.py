"""What a detector's weights are calibrated with is what its boxes show."""

import types

import cv2
import jax
import numpy as np
import pytest
from photographs import points_in_box

from dfc_jax.errors import DatasetError
from dfc_jax.nets import weights
from dfc_jax.systems.detector.networks import DetectorSpec, init
from experiments.tools import calibrate_detector as tool
from experiments.tools.precision_recall import Found

TINY = DetectorSpec(stem=4, width=6, deep=8, blocks=1)


def found(rng: np.random.Generator, count: int) -> Found:
    """Boxes whose probability is that of half the logit less one, 20 % too large."""
    logit = rng.normal(0.0, 3.0, count)
    right = rng.uniform(size=count) < 1.0 / (1.0 + np.exp(1.0 - 0.5 * logit))
    ratio = np.where(right, np.log(1.2) + rng.normal(0.0, 0.1, count), np.nan)
    return Found(1.0 / (1.0 + np.exp(-logit)), right, ratio)


def test_the_probability_is_found_again() -> None:
    gain, shift, growth = tool.calibrate(found(np.random.default_rng(0), 20_000))
    assert gain == pytest.approx(0.5, abs=0.02) and shift == pytest.approx(-1.0, abs=0.05)
    assert growth == pytest.approx(1.0 / 1.2, abs=0.01)


def test_classes_that_are_apart_have_finite_answers() -> None:
    logit, right = np.array([-3.0, -2.0, 2.0, 3.0]), np.array([False, False, True, True])
    gain, shift = tool.fitted(logit, right)
    assert 0.0 < gain < 5.0 and abs(shift) < 1e-3


@pytest.mark.parametrize("right", [True, False])
def test_one_class_alone_is_refused(right) -> None:
    none = Found(np.array([0.2, 0.8]), np.full(2, right), np.zeros(2))
    with pytest.raises(DatasetError, match="train it for longer"):
        tool.calibrate(none)


def test_the_command_writes_weights_that_differ_in_their_last_layer(
    tmp_path, monkeypatch, capsys
) -> None:
    fresh = init(jax.random.key(0), TINY)
    weights.save(tmp_path / "fresh.safetensors", fresh, TINY, {"stage": "detector"})
    before, _, _ = weights.load(tmp_path / "fresh.safetensors")
    lines = "\n".join(f"{x} {y}" for x, y in points_in_box() + 1.0)
    (tmp_path / "one.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    cv2.imwrite(str(tmp_path / "one.png"), np.full((160, 200, 3), 90, np.uint8))
    monkeypatch.setattr(tool, "found_in", lambda *_: found(np.random.default_rng(0), 500))
    out = tmp_path / "out.safetensors"
    tool.calibrate_as_told(
        types.SimpleNamespace(
            weights=str(tmp_path / "fresh.safetensors"),
            photos=[str(tmp_path)],
            backgrounds=str(tmp_path),
            out=str(out),
        )
    )
    after, spec, metadata = weights.load(out, DetectorSpec)
    assert spec == TINY and metadata["stage"] == "detector"
    assert metadata["calibration"].keys() == {"gain", "shift", "growth"}
    layers = {name for name in after["params"] if name != "Dense_0"}
    assert layers and all(
        jax.tree.all(jax.tree.map(np.array_equal, after["params"][name], before["params"][name]))
        for name in layers
    )
    bias = after["params"]["Dense_0"]["bias"]
    assert bias[3] == pytest.approx(np.log(metadata["calibration"]["growth"]), abs=1e-3)
    assert "1 faces, 500 boxes" in capsys.readouterr().out
