"""`dfc export`: files that other programs load."""

import json

import jax
import jax.export
import numpy as np
import onnxruntime
import pytest
from command_line import names_in, run

import dfc_jax
from dfc_jax.files import WEIGHTS_DIR, file_version
from dfc_jax.inference import onnx_network, runtimes
from dfc_jax.nets.weights import load
from dfc_jax.systems.dfc.networks import encode_target
from dfc_jax.systems.dfc.onnx_model import correspond_alone

LITE = file_version(WEIGHTS_DIR / "lite.safetensors")


@pytest.fixture(scope="module")
def wanted(template):
    """Two crops, and what JAX finds in them."""
    variables, spec, _ = load("lite")
    crops = np.random.default_rng(0).random((2, 128, 128, 3), np.float32)
    code = encode_target(variables, template.image[None], spec)
    correspond = jax.jit(correspond_alone, static_argnames="spec")
    return crops, correspond(crops, variables, code, spec)


def test_onnx(tmp_path, capsys, wanted, model):
    path = tmp_path / "lite.onnx"
    code, out, _ = run(capsys, "export", "--format", "onnx", "--out", path)
    assert code == 0
    assert LITE in out
    assert "of JAX" in out
    assert names_in(tmp_path) == {"lite.onnx"}
    session = onnxruntime.InferenceSession(path)
    said = session.get_modelmeta().custom_metadata_map
    versions = {name: said[name] for name in ("dfc_jax", "weights", "face_model")}
    assert versions == {
        "dfc_jax": dfc_jax.__version__,
        "weights": LITE,
        "face_model": model.version,
    }
    crops, (flow, matchability) = wanted
    found = dict(zip(("flow", "matchability"), session.run(None, {"crops": crops}), strict=True))
    np.testing.assert_allclose(found["flow"], flow, atol=1e-3)
    np.testing.assert_allclose(found["matchability"], matchability, atol=1e-4)


def test_jax(tmp_path, capsys, wanted, model):
    path = tmp_path / "lite.jax"
    assert run(capsys, "export", "--format", "jax", "--out", path)[0] == 0
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert program.platforms == ("cpu", "cuda")
    assert json.loads(program.fun_name) == {
        "dfc_jax": dfc_jax.__version__,
        "weights": LITE,
        "face_model": model.version,
    }
    crops, (flow, matchability) = wanted
    found = program.call(crops)
    np.testing.assert_allclose(found["flow"], flow, atol=1e-3)
    np.testing.assert_allclose(found["matchability"], matchability, atol=1e-4)


def test_a_model_that_is_another_function_is_not_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(onnx_network, "MOST_PX", 0.0)
    code, _, err = run(capsys, "export", "--format", "onnx", "--out", tmp_path / "lite.onnx")
    assert code == 2
    assert "nothing was written" in err
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "onnx", "--part", "face"], "no form in ONNX"),
        (["--format", "jax", "--weights", "none-such"], "none-such: no such weight file"),
        (["--format", "jax", "--face-model", "none-such"], "none-such: no such face model"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, capsys, arguments, said):
    code, _, err = run(capsys, "export", *arguments, "--out", tmp_path / "x")
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert run(capsys, "export", "--format", "jax", "--out", tmp_path)[0] == 2


@pytest.mark.parametrize(("form", "extra"), [("onnx", "onnx"), ("jax", "export")])
def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch, form, extra):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    code, _, err = run(capsys, "export", "--format", form, "--out", tmp_path / "x")
    assert code == 2
    assert f"--format {form} needs" in err
    assert f"pip install 'dfc-jax[{extra}]'" in err
