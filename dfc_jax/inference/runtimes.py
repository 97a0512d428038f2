"""What runs the network: JAX, or ONNX Runtime. This module itself is light."""

from importlib.util import find_spec

from dfc_jax.errors import OptionError

RUNTIMES = ("jax", "onnx")
DEFAULT_RUNTIME = "jax"


def check_runtime(runtime: str) -> None:
    """
    Raises:
      OptionError: there is no such runtime, or it is not installed.
    """
    if runtime not in RUNTIMES:
        raise OptionError(f"runtime needs one of {', '.join(RUNTIMES)}; got {runtime!r}")
    if runtime == "onnx" and not (find_spec("onnx") and find_spec("onnxruntime")):
        raise OptionError(
            "the runtime onnx needs onnx and onnxruntime; install them by pip install"
            " 'dfc-jax[onnx]'"
        )
