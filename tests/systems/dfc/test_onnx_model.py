"""The networks as ONNX models: valid, self-described, and the same numbers in ONNX Runtime."""

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from test_networks import SMALL

from dfc_jax.files import WEIGHTS_DIR
from dfc_jax.nets.registry import _KINDS, from_json
from dfc_jax.nets.weights import load
from dfc_jax.systems.dfc import networks as nets
from dfc_jax.systems.dfc.onnx_model import correspond_alone, network_model

WEIGHTS = sorted(path.stem for path in WEIGHTS_DIR.glob("*.safetensors"))


def crops(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, size, size, 3), np.float32)


correspond = jax.jit(correspond_alone, static_argnames="spec")


def compare(
    variables, spec, template: np.ndarray, model: onnx.ModelProto, counts: tuple[int, ...] = (1, 3)
) -> tuple[float, float]:
    """The greatest differences from JAX, of flow in pixels and of matchability."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    code = nets.encode_target(variables, template[None], spec)
    differences = []
    for n in counts:
        x = crops(n, len(template))
        found = session.run(["flow", "matchability"], {"crops": x})
        wanted = correspond(x, variables, code, spec)
        differences.append([np.abs(a - b).max() for a, b in zip(found, wanted, strict=True)])
    flow, matchability = np.max(differences, axis=0)
    return float(flow), float(matchability)


def test_a_small_network_of_every_kind_is_tried() -> None:
    kinds = {kind for kind in _KINDS if kind.startswith("dfc/")}
    assert {spec.kind for spec in SMALL.values()} == kinds


@pytest.mark.parametrize("family", SMALL)
def test_any_network_becomes_a_model(family: str) -> None:
    spec = SMALL[family]
    # Fresh ones add nothing in their last steps.
    variables = jax.tree.map(
        lambda a: a + 0.02 * np.random.default_rng(a.size).standard_normal(a.shape, np.float32),
        jax.device_get(nets.init(jax.random.key(0), spec)),
    )
    template = crops(1, 32)[0]
    model = network_model(variables, spec, template, {"weights": "mine"})
    flow, matchability = compare(variables, spec, template, model)
    assert flow < 1e-3
    assert matchability < 1e-5


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_weights_that_come_with_the_package_become_models(name: str, template) -> None:
    variables, spec, _ = load(name)
    image = np.asarray(template.image)
    model = network_model(variables, spec, image, {})
    flow, matchability = compare(variables, spec, image, model, (2,))
    # A flow is up to 200 pixels, of which float32 keeps seven digits.
    assert flow < 1e-3
    assert matchability < 1e-4


def test_a_model_says_what_it_is() -> None:
    spec = SMALL["paper"]
    variables = nets.init(jax.random.key(0), spec)
    model = network_model(variables, spec, crops(1, 32)[0], {"weights": "mine-1234"})
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["weights"] == "mine-1234"
    assert from_json(said["kind"], said["spec"]) == spec
    assert "(N, 32, 32, 3) float32 RGB in [0, 1]" in said["crops"]
    assert "(N, 32, 32, 2) crop pixels" in said["flow"]
    assert "probability" in said["matchability"]
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "crops": ["N", 32, 32, 3],
        "flow": ["N", 32, 32, 2],
        "matchability": ["N", 32, 32],
    }
    # Read by all of ONNX Runtime that the extra allows.
    assert model.ir_version == 8
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
