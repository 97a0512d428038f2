"""The network run by ONNX Runtime, which on a CPU takes less time than XLA."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

import dfc_jax
from dfc_jax.cache import cache_folder
from dfc_jax.errors import ExportError
from dfc_jax.files import written_aside
from dfc_jax.nets.registry import Variables, to_json
from dfc_jax.systems.dfc.networks import NetSpec, encode_target
from dfc_jax.systems.dfc.onnx_model import OUTPUTS, correspond_alone, network_model

# What rounding may change, of flows of up to 200 pixels and of probabilities.
MOST_PX, MOST_PROBABILITY = 1e-2, 1e-3
# The code that a graph comes from.
_SOURCES = ("nets", "ops", "systems/dfc")


class OnnxNetwork:
    """`programs.correspond` of one network. Several threads can share one.

    The graph is made once, in seconds, and kept in the cache folder (`dfc_jax.cache`) under what
    it is made of.

    Args:
      variables, spec: the network and what it is.
      template: (S, S, 3) the template's image.
      flip_test: see `programs.correspond`.
    """

    def __init__(
        self, variables: Variables, spec: NetSpec, template: np.ndarray, flip_test: bool = False
    ) -> None:
        self.flip_test = flip_test
        path = _path(variables, spec, template)
        # One that is damaged is made again.
        with suppress(Exception):
            if path is not None and path.is_file():
                self._session = _session(path.read_bytes())
                return
        model = network_model(variables, spec, template, {"dfc_jax": dfc_jax.__version__})
        made = model.SerializeToString()
        self._session = _session(made)
        if path is not None:
            with suppress(ExportError, OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with written_aside(path) as aside:
                    aside.write_bytes(made)

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flow (N, S, S, 2) and matchability (N, S, S) of crops (N, S, S, 3), float32."""
        flow, probability = self._run(crops)
        if not self.flip_test:
            return flow, probability
        mirrored, of_mirrored = self._run(np.ascontiguousarray(crops[:, :, ::-1]))
        mirrored = mirrored[:, :, ::-1] * np.array([-1.0, 1.0], np.float32)
        return (flow + mirrored) / 2.0, (probability + of_mirrored[:, :, ::-1]) / 2.0

    def _run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flow, probability = self._session.run(OUTPUTS, {"crops": crops})
        return flow, probability


def differences(
    model: bytes, variables: Variables, spec: NetSpec, template: np.ndarray
) -> tuple[float, float]:
    """How far ONNX Runtime's flow, in pixels, and matchability are from JAX's, on random crops.

    Raises:
      ExportError: they are so far that the model is another function.
    """
    crops = np.random.default_rng(0).random((2, *template.shape), np.float32)
    code = encode_target(variables, template[None], spec)
    wanted = jax.jit(correspond_alone, static_argnames="spec")(crops, variables, code, spec)
    found = _session(model).run(OUTPUTS, {"crops": crops})
    flow, matchability = (
        float(np.abs(a - np.asarray(b)).max()) for a, b in zip(found, wanted, strict=True)
    )
    if not (flow <= MOST_PX and matchability <= MOST_PROBABILITY):
        raise ExportError(
            f"ONNX Runtime's flow is {flow:.1g} px and its matchability {matchability:.1g} away"
            " from JAX's; nothing was written, please report it"
        )
    return flow, matchability


def _session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads that wait for work by looking for it take the cores from XLA's, which are next.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _path(variables: Variables, spec: NetSpec, template: np.ndarray) -> Path | None:
    """Where the graph is kept: under a hash of all that it is made of."""
    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(f"{dfc_jax.__version__} {spec.kind} {to_json(spec)}".encode())
    for source in _sources():
        digest.update(source.read_bytes())
    for name, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(name).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    digest.update(np.ascontiguousarray(template).data)
    return folder / f"network-{digest.hexdigest()[:32]}.onnx"


def _sources() -> Iterator[Path]:
    root = Path(dfc_jax.__file__).parent
    for folder in _SOURCES:
        yield from sorted((root / folder).glob("*.py"))
