"""What runs the network: JAX, or ONNX Runtime. This module itself is light."""

from importlib.util import find_spec

from dfc_jax.errors import OptionError

RUNTIMES = ("jax", "onnx")
DEFAULT_RUNTIME = "jax"
# What an extra of the installation brings.
EXTRAS = {"onnx": ("onnx", "onnxruntime"), "export": ("flatbuffers",)}


def check_runtime(runtime: str) -> None:
    """
    Raises:
      OptionError: there is no such runtime, or it is not installed.
    """
    if runtime not in RUNTIMES:
        raise OptionError(f"runtime needs one of {', '.join(RUNTIMES)}; got {runtime!r}")
    if runtime == "onnx":
        check_extra("onnx", "the runtime onnx")


def check_extra(extra: str, what: str) -> None:
    """
    Raises:
      OptionError: `what` needs packages of this extra that are not installed.
    """
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise OptionError(
            f"{what} needs {' and '.join(missing)}; install with pip install 'dfc-jax[{extra}]'"
        )
