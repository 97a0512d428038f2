"""ONNX Runtime in place of XLA: the same correspondences and faces, and a graph that is kept."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from paths import ASTRONAUT

import dfc_jax
from dfc_jax import cache
from dfc_jax.errors import OptionError
from dfc_jax.inference import onnx_network, runtimes
from dfc_jax.inference.onnx_network import OnnxNetwork
from dfc_jax.inference.programs import correspond
from dfc_jax.systems.dfc import networks as nets
from dfc_jax.systems.dfc.networks import encode_target

SPEC = nets.PaperSpec(widths=(4, 4, 8, 8, 16))


@pytest.fixture(scope="module")
def variables():
    return jax.device_get(nets.init(jax.random.key(0), SPEC))


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The cache's folder, empty; and how often a graph is made."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    made, make = [], onnx_network.network_model
    monkeypatch.setattr(
        onnx_network, "network_model", lambda *given: made.append(given) or make(*given)
    )
    return tmp_path, made


def crops(n: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, 32, 32, 3), np.float32)


def graphs(folder):
    return sorted(folder.rglob("*.onnx"))


@pytest.mark.parametrize("flip_test", [False, True])
def test_correspondences_are_those_of_xla(variables, kept, flip_test):
    template = crops(1)[0]
    network = OnnxNetwork(variables, SPEC, template, flip_test)
    code = encode_target(variables, template[None], SPEC)
    for n in (1, 3):
        wanted = correspond(crops(n), variables, code, SPEC, flip_test)
        for found, other in zip(network(crops(n)), wanted, strict=True):
            np.testing.assert_allclose(found, other, atol=1e-4)


def test_the_graph_is_made_once_for_what_it_is_made_of(variables, kept):
    folder, made = kept
    template = crops(1)[0]
    first = OnnxNetwork(variables, SPEC, template)(crops(1))
    assert len(made) == len(graphs(folder)) == 1
    again = OnnxNetwork(variables, SPEC, template)(crops(1))
    assert len(made) == 1
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    other = jax.tree.map(lambda a: a + 0.01, variables)
    for changed in (
        (other, SPEC, template),
        (variables, dataclasses.replace(SPEC, strict=True), template),
        (variables, SPEC, 1.0 - template),
    ):
        OnnxNetwork(*changed)
    assert len(made) == len(graphs(folder)) == 4


def test_a_graph_of_another_version_is_not_taken(variables, kept, monkeypatch):
    folder, made = kept
    OnnxNetwork(variables, SPEC, crops(1)[0])
    monkeypatch.setattr(dfc_jax, "__version__", "another")
    OnnxNetwork(variables, SPEC, crops(1)[0])
    assert len(made) == len(graphs(folder)) == 2


def test_a_damaged_graph_is_made_again(variables, kept):
    folder, made = kept
    OnnxNetwork(variables, SPEC, crops(1)[0])
    (path,) = graphs(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    OnnxNetwork(variables, SPEC, crops(1)[0])
    assert len(made) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize("chosen", ["off", "/proc/nowhere"])
def test_without_a_cache_the_graph_is_made_each_time(variables, kept, monkeypatch, chosen):
    monkeypatch.setenv(cache.VARIABLE, chosen)
    for _ in range(2):
        OnnxNetwork(variables, SPEC, crops(1)[0])(crops(1))
    assert len(kept[1]) == 2


def test_an_unknown_runtime_is_refused():
    with pytest.raises(OptionError, match="runtime needs one of jax, onnx; got 'tensorrt'"):
        dfc_jax.load(runtime="tensorrt")


def test_a_missing_extra_is_named_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnxruntime" else 1)
    wanted = r"^the runtime onnx needs onnxruntime; install with pip install 'dfc-jax\[onnx\]'$"
    with pytest.raises(OptionError, match=wanted):
        dfc_jax.load(weights="missing", runtime="onnx")


@pytest.mark.slow
def test_faces_are_those_of_xla_in_one_thread_and_in_several(trained):
    aligner = dfc_jax.load(runtime="onnx", detector=trained.detector)
    photo = dfc_jax.read_photo(ASTRONAUT)
    (wanted,) = trained(photo)
    with ThreadPoolExecutor(3) as pool:
        found = [face for (face,) in pool.map(lambda _: aligner(photo), range(6))]
    for face in found:
        np.testing.assert_allclose(face.matchability, wanted.matchability, atol=1e-4)
        np.testing.assert_allclose(face.flow, wanted.flow, atol=1e-3)
        np.testing.assert_allclose(face.landmarks, wanted.landmarks, atol=0.02)
        for name, angle in wanted.angles_deg.items():
            assert face.angles_deg[name] == pytest.approx(angle, abs=0.02)
        np.testing.assert_array_equal(face.flow, found[0].flow)
