"""An ONNX graph in the making: values, their layouts, and convolutions that take in what follows.

ONNX's convolutions want channels first, ours have them last. A value of four dimensions may lie in
memory with channels first; its shape here is (B, H, W, C) all the same, and it is turned only where
an operation needs it otherwise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Read by every ONNX Runtime since 1.14 (2023).
OPSET, IR_VERSION = 18, 8
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class Conv(NamedTuple):
    """What a convolution computes: `kernel` is (O, I, h, w), `bias` (O,)."""

    source: str
    kernel: np.ndarray
    bias: np.ndarray
    attributes: dict[str, Any]


class Value(NamedTuple):
    """A tensor of the graph.

    Attributes:
      name: in the graph.
      shape: with channels last; 1 where it is still to be broadcast.
      channels_first: how it lies in memory.
      conv: of which convolution it is the output, if of one.
    """

    name: str
    shape: tuple[Any, ...]
    channels_first: bool = False
    conv: Conv | None = None


Known = Value | np.ndarray


class Graph:
    """Nodes in order, and the constants that they read.

    Args:
      batch: the symbolic dimension, the first of the input.
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: list[Any] = []

    def input(self, name: str, shape: tuple[Any, ...]) -> Value:
        """A float32 input, channels last."""
        self.inputs.append(_info(name, shape))
        return Value(name, shape)

    def add(
        self, op: str, inputs: Sequence[str | np.ndarray], outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """A node; returns the names of its outputs."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        given = [self.constant(x) if isinstance(x, np.ndarray) else x for x in inputs]
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, given, names, name, **attributes))
        return names

    def constant(self, array: np.ndarray) -> str:
        """The name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def laid_out(self, value: Known, channels_first: bool) -> Known:
        """The same value as it is to lie in memory; a constant is an array that lies so."""
        if len(value.shape) != 4:
            return value
        if not isinstance(value, Value):
            return value.transpose(TO_FIRST) if channels_first else value
        if value.channels_first == channels_first:
            return value
        order = TO_FIRST if channels_first else TO_LAST
        (name,) = self.add("Transpose", [value.name], perm=order)
        return Value(name, value.shape, channels_first)

    def whole(self, value: Known, shape: tuple[Any, ...]) -> Known:
        """The value, broadcast to its full shape where that was put off."""
        if tuple(value.shape) == tuple(shape):
            return value
        if not isinstance(value, Value):
            if all(isinstance(n, int) for n in shape):
                return np.broadcast_to(value, shape)
            value = Value(self.constant(np.ascontiguousarray(value)), value.shape)
        order = TO_FIRST if value.channels_first else range(len(shape))
        wanted = [self.dimension(shape[i]) for i in order]
        (target,) = self.add("Concat", wanted, axis=0)
        (name,) = self.add("Expand", [value.name, target])
        return Value(name, tuple(shape), value.channels_first)

    def dimension(self, size: Any) -> str | np.ndarray:
        """A dimension as a tensor (1,)."""
        if isinstance(size, int):
            return np.array([size], np.int64)
        if size != self.batch:
            raise NotImplementedError(f"a broadcast to {size} has no form in ONNX here")
        return self.add("Shape", [self.inputs[0].name], start=0, end=1)[0]

    def convolve(self, conv: Conv, shape: tuple[Any, ...]) -> Value:
        """A convolution, its result channels first."""
        (name,) = self.add("Conv", [conv.source, conv.kernel, conv.bias], **conv.attributes)
        return Value(name, shape, True, conv)

    def name_of(self, value: Known) -> str:
        """The name of a value, or of a constant that becomes one."""
        if isinstance(value, Value):
            return value.name
        return self.constant(np.ascontiguousarray(value))

    def model(self, outputs: dict[str, Value], metadata: dict[str, str]) -> onnx.ModelProto:
        """The whole, without what no output needs."""
        for name, value in outputs.items():
            last = self.laid_out(value, False)
            assert isinstance(last, Value)
            self.nodes.append(helper.make_node("Identity", [last.name], [name], name))
        needed, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        constants = [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in self.constants.items()
            if name in needed
        ]
        graph = helper.make_graph(
            nodes[::-1],
            "dfc_jax",
            self.inputs,
            [_info(name, value.shape) for name, value in outputs.items()],
            constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="dfc_jax",
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model


def onnx_type(dtype: Any) -> int:
    """ONNX's number of a type."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _info(name: str, shape: tuple[Any, ...]) -> Any:
    dims = [n if isinstance(n, int) else str(n) for n in shape]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def is_static(aval: jax.core.ShapedArray) -> bool:
    """Whether no dimension is symbolic."""
    return all(isinstance(n, int) for n in aval.shape)
