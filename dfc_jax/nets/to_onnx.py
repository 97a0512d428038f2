"""JAX functions to ONNX: what our networks are made of, primitive by primitive.

The function is traced with a symbolic batch. What depends on constants alone (parameters, the code
of the template) is computed on the way; a scale or an offset of channels after a convolution, as
batch normalisation has it, goes into its kernel. Layers that ONNX has an operation for are known by
the name of their function (`_LAYERS`), everything else is put together from primitives.

The extra `onnx` of the installation has what this needs.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import Literal

from dfc_jax.nets.onnx_graph import TO_FIRST, Conv, Graph, Known, Value, is_static, onnx_type

BATCH = "N"
# ONNX's operators, and NumPy's functions for what is known: XLA would compile each.
_ELEMENTWISE: dict[str, tuple[str, Callable[..., Any]]] = {
    "add": ("Add", np.add),
    "sub": ("Sub", np.subtract),
    "mul": ("Mul", np.multiply),
    "div": ("Div", np.divide),
    "max": ("Max", np.maximum),
    "min": ("Min", np.minimum),
    "exp": ("Exp", np.exp),
    "log": ("Log", np.log),
    "neg": ("Neg", np.negative),
    "abs": ("Abs", np.abs),
    "sqrt": ("Sqrt", np.sqrt),
    "floor": ("Floor", np.floor),
    "lt": ("Less", np.less),
    "le": ("LessOrEqual", np.less_equal),
    "gt": ("Greater", np.greater),
    "ge": ("GreaterOrEqual", np.greater_equal),
    "eq": ("Equal", np.equal),
    "and": ("And", np.logical_and),
    "or": ("Or", np.logical_or),
    "not": ("Not", np.logical_not),
}
_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
_NOTHING = {"stop_gradient", "copy", "copy_p", "sharding_constraint"}


def to_onnx(
    function: Callable[[jax.Array], Sequence[jax.Array]],
    shape: tuple[int, ...],
    outputs: Sequence[str],
    metadata: dict[str, str],
    name: str = "crops",
) -> onnx.ModelProto:
    """A function of a batch of images as an ONNX model, checked by ONNX's checker.

    Args:
      function: of float32 (N, *shape) to as many arrays (N, ...) as there are `outputs`. Its
        parameters are part of it.
      shape: of one image.
      outputs: names for what it returns.
      metadata: kept in the file.
      name: of the input.

    Raises:
      NotImplementedError: the function does what has no form here.
    """
    (batch,) = jax.export.symbolic_shape(BATCH)
    given = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    closed = jax.make_jaxpr(lambda x: tuple(function(x)))(given)
    graph = Graph(batch)
    found = _interpret(graph, closed, [graph.input(name, given.shape)])
    values = {}
    for label, value, var in zip(outputs, found, closed.jaxpr.outvars, strict=True):
        value = graph.whole(value, var.aval.shape)
        if not isinstance(value, Value):
            raise NotImplementedError(f"{label} does not depend on the input")
        values[label] = value
    return graph.model(values, metadata)


def _interpret(graph: Graph, closed: Any, inputs: Sequence[Known]) -> list[Known]:
    jaxpr = closed.jaxpr
    known: dict[Any, Known] = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update(zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True))

    def read(atom: Any) -> Known:
        return np.asarray(atom.val) if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
        found = _apply(graph, eqn, [read(atom) for atom in eqn.invars])
        known.update(zip(eqn.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


class _Call(NamedTuple):
    """A primitive at work: what it is given, and shapes as JAX has them."""

    graph: Graph
    params: dict[str, Any]
    inputs: list[Known]
    avals: list[Any]  # shapes and types of the inputs
    out: Any  # and of the first output

    def whole(self, i: int, channels_first: bool | None = None) -> Known:
        """An input in its full shape, and as it is to lie in memory, if that is said."""
        value = self.graph.whole(self.inputs[i], self.avals[i].shape)
        return value if channels_first is None else self.graph.laid_out(value, channels_first)

    def name(self, i: int, channels_first: bool | None = None) -> str:
        """The name of `whole`."""
        return self.graph.name_of(self.whole(i, channels_first))

    def add(
        self, op: str, inputs: Sequence[str | np.ndarray], first: bool = False, **attributes: Any
    ) -> list[Known]:
        """A node whose output is the primitive's."""
        (name,) = self.graph.add(op, inputs, **attributes)
        return [Value(name, self.out.shape, first)]

    @property
    def any_first(self) -> bool:
        return any(isinstance(v, Value) and v.channels_first for v in self.inputs)


def _apply(graph: Graph, eqn: Any, inputs: list[Known]) -> list[Known]:
    """The outputs of an equation of a jaxpr."""
    name, params = eqn.primitive.name, eqn.params
    avals = [atom.aval for atom in eqn.invars]
    constant = not any(isinstance(value, Value) for value in inputs)
    call = _Call(graph, params, inputs, avals, eqn.outvars[0].aval)
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    if inner is not None:
        layer = None if constant else _LAYERS.get(str(params.get("name", "")))
        return layer(call) if layer else _interpret(graph, inner, inputs)
    if name in _NOTHING:
        return inputs
    if name in _ELEMENTWISE:
        operator, by_numpy = _ELEMENTWISE[name]
        if constant:
            return [np.asarray(by_numpy(*inputs)).astype(call.out.dtype)]
        return _elementwise(call, operator)
    if constant and name in ("broadcast_in_dim", "reshape", "squeeze"):
        return _PRIMITIVES[name](call)
    if constant and all(is_static(var.aval) for var in (*eqn.invars, *eqn.outvars)):
        return _compute(eqn, [call.whole(i) for i in range(len(inputs))])
    if name in _REDUCTIONS:
        return _reduce(call, _REDUCTIONS[name])
    if name not in _PRIMITIVES:
        raise NotImplementedError(f"the primitive {name} has no form in ONNX here")
    return _PRIMITIVES[name](call)


def _compute(eqn: Any, inputs: Sequence[Any]) -> list[Known]:
    found = eqn.primitive.bind(*map(jnp.asarray, inputs), **eqn.params)
    return [np.asarray(x) for x in (found if eqn.primitive.multiple_results else [found])]


def _elementwise(call: _Call, op: str) -> list[Known]:
    first = call.any_first
    folded = _into_convolution(call, op)
    if folded is not None:
        return [folded]
    if op == "Max" and any(_is_zero(v) for v in call.inputs):
        (value,) = (v for v in call.inputs if not _is_zero(v))
        assert isinstance(value, Value)
        return call.add("Relu", [value.name], first)
    given = [call.graph.laid_out(v, first) for v in call.inputs]
    (name,) = call.graph.add(op, [call.graph.name_of(v) for v in given])
    return [Value(name, _joint_shape(call.inputs), first)]


def _joint_shape(values: Sequence[Known]) -> tuple[Any, ...]:
    """The shape of values that are broadcast against each other."""
    rank = max(len(value.shape) for value in values)
    padded = [(1,) * (rank - len(value.shape)) + tuple(value.shape) for value in values]
    return tuple(
        next((n for n in sizes if str(n) != "1"), 1) for sizes in zip(*padded, strict=True)
    )


def _into_convolution(call: _Call, op: str) -> Value | None:
    """The convolution whose output is scaled or moved, channel by channel, with that in it."""
    if op not in ("Add", "Sub", "Mul", "Div") or len(call.inputs) != 2:
        return None
    value, other = call.inputs
    if op in ("Add", "Mul") and isinstance(other, Value):
        value, other = other, value
    if not isinstance(value, Value) or isinstance(other, Value) or value.conv is None:
        return None
    if other.size not in (1, other.shape[-1] if other.ndim else 1):
        return None
    by = np.broadcast_to(other.reshape(-1), value.conv.bias.shape)
    kernel, bias = value.conv.kernel, value.conv.bias
    if op in ("Mul", "Div"):
        by = by if op == "Mul" else 1.0 / by
        kernel, bias = kernel * by[:, None, None, None], bias * by
    else:
        bias = bias + by if op == "Add" else bias - by
    return call.graph.convolve(value.conv._replace(kernel=kernel, bias=bias), value.shape)


def _is_zero(value: Known) -> bool:
    return not isinstance(value, Value) and value.ndim == 0 and value == 0


def _reduce(call: _Call, op: str) -> list[Known]:
    axes = call.params["axes"]
    # Without its channels, a value lies the same way in both layouts.
    first = call.any_first and tuple(axes) == (3,)
    wanted = np.array([1] if first else axes, np.int64)
    return call.add(op, [call.name(0, first), wanted], keepdims=0)


def _conv(call: _Call) -> list[Known]:
    params, kernel = call.params, call.inputs[1]
    numbers = params["dimension_numbers"]
    ours = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != ours:
        raise NotImplementedError("a convolution is of (B, H, W, C) and (h, w, I, O) here")
    if isinstance(kernel, Value) or tuple(params["lhs_dilation"]) != (1, 1):
        raise NotImplementedError("a convolution is with a constant, and not transposed here")
    (top, bottom), (left, right) = params["padding"]
    attributes = {
        "strides": list(params["window_strides"]),
        "pads": [top, left, bottom, right],
        "dilations": list(params["rhs_dilation"]),
        "group": params["feature_group_count"],
    }
    kernel = kernel.transpose(3, 2, 0, 1)
    conv = Conv(call.name(0, True), kernel, np.zeros(len(kernel), np.float32), attributes)
    return [call.graph.convolve(conv, call.out.shape)]


def _broadcast(call: _Call) -> list[Known]:
    """Dimensions of 1 where new ones are; they are filled when they have to be."""
    value, dims = call.inputs[0], call.params["broadcast_dimensions"]
    shape = [1] * len(call.out.shape)
    for axis, size in zip(dims, value.shape, strict=True):
        shape[axis] = size
    return [_reshaped(call.graph, value, tuple(shape))]


def _reshape(call: _Call) -> list[Known]:
    value, shape = call.inputs[0], call.out.shape
    if value.shape and value.shape[0] == 1 and call.avals[0].shape[:1] == shape[:1]:
        if value.shape[1:] == call.avals[0].shape[1:]:
            return [_reshaped(call.graph, value, (1, *shape[1:]))]
    return [_reshaped(call.graph, call.whole(0), tuple(shape))]


def _reshaped(graph: Graph, value: Known, shape: tuple[Any, ...]) -> Known:
    if not isinstance(value, Value):
        return value.reshape(shape)
    if value.shape == shape:
        return value
    wanted = np.array([n if isinstance(n, int) else -1 for n in shape], np.int64)
    (name,) = graph.add("Reshape", [graph.name_of(graph.laid_out(value, False)), wanted])
    return Value(name, shape)


def _transpose(call: _Call) -> list[Known]:
    return call.add("Transpose", [call.name(0, False)], perm=call.params["permutation"])


def _concatenate(call: _Call) -> list[Known]:
    first, axis = call.any_first, call.params["dimension"]
    names = [call.name(i, first) for i in range(len(call.inputs))]
    return call.add("Concat", names, first, axis=_axis(axis, first))


def _split(call: _Call) -> list[Known]:
    sizes, axis, first = call.params["sizes"], call.params["axis"], call.any_first
    names = call.graph.add(
        "Split",
        [call.name(0), np.array(sizes, np.int64)],
        len(sizes),
        axis=_axis(axis, first),
    )
    before, after = call.avals[0].shape[:axis], call.avals[0].shape[axis + 1 :]
    return [Value(n, (*before, size, *after), first) for n, size in zip(names, sizes, strict=True)]


def _slice(call: _Call) -> list[Known]:
    starts, stops, first = (
        call.params["start_indices"],
        call.params["limit_indices"],
        call.any_first,
    )
    steps = call.params["strides"] or (1,) * len(starts)
    rows = [
        (start, stop, _axis(axis, first), step)
        for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True))
        if (start, stop, step) != (0, call.avals[0].shape[axis], 1)
    ]
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    return call.add("Slice", [call.name(0), *columns], first)


def _axis(axis: int, channels_first: bool) -> int:
    return TO_FIRST.index(axis) if channels_first else axis


def _dot(call: _Call) -> list[Known]:
    (left, right), (left_batch, right_batch) = call.params["dimension_numbers"]
    n = len(left_batch)
    leading = tuple(range(n))
    if tuple(left_batch) != leading or tuple(right_batch) != leading or len(left) != 1:
        raise NotImplementedError("a product sums over one dimension, after those of a batch, here")
    if len(call.avals[1].shape) != n + 2 or left[0] != len(call.avals[0].shape) - 1:
        raise NotImplementedError("a product is of matrices, the first one row by row, here")
    other = call.inputs[1]
    if right[0] == n + 1:
        swapped = (*leading, n + 1, n)
        if isinstance(other, Value):
            (name,) = call.graph.add("Transpose", [other.name], perm=swapped)
        else:
            name = call.graph.name_of(other.transpose(swapped))
    else:
        name = call.graph.name_of(other)
    return call.add("MatMul", [call.name(0), name])


def _select(call: _Call) -> list[Known]:
    first = call.any_first
    which, no, yes = (
        call.graph.name_of(call.graph.laid_out(value, first)) for value in call.inputs
    )
    return call.add("Where", [which, yes, no], first)


def _convert(call: _Call) -> list[Known]:
    if call.avals[0].dtype == call.out.dtype:
        return call.inputs
    return call.add("Cast", [call.name(0)], call.any_first, to=onnx_type(call.out.dtype))


def _upsample(call: _Call) -> list[Known]:
    times = float(call.out.shape[1] // call.avals[0].shape[1])
    scales = np.array([1.0, 1.0, times, times], np.float32)
    return call.add("Resize", [call.name(0, True), "", scales], True, mode="linear")


def _sample(call: _Call) -> list[Known]:
    """`sample_features` of (B, H, W, C) at pixels (B, N, 2): (B, N, C)."""
    _, height, width, _ = call.avals[0].shape
    batch, n, _ = call.avals[1].shape
    half = np.array([(width - 1) / 2.0, (height - 1) / 2.0], np.float32)
    (unit,) = call.graph.add("Div", [call.name(1), half])
    (grid,) = call.graph.add("Sub", [unit, np.ones(1, np.float32)])
    places = _reshaped(call.graph, Value(grid, (batch, n, 2)), (batch, n, 1, 2))
    given = [call.name(0, True), call.graph.name_of(places)]
    (name,) = call.graph.add("GridSample", given, padding_mode="border", align_corners=1)
    channels = call.avals[0].shape[-1]
    sampled = Value(name, (batch, n, 1, channels), True)
    return [_reshaped(call.graph, sampled, (batch, n, channels))]


_PRIMITIVES: dict[str, Callable[[_Call], list[Known]]] = {
    "conv_general_dilated": _conv,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "split": _split,
    "slice": _slice,
    "dot_general": _dot,
    "select_n": _select,
    "convert_element_type": _convert,
}
# Functions of `nets.blocks` and `ops.sampling`, under `jit`.
_LAYERS: dict[str, Callable[[_Call], list[Known]]] = {
    "upsample": _upsample,
    "sample_features": _sample,
}
