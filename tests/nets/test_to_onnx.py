"""JAX functions as ONNX graphs give the same numbers in ONNX Runtime."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from quick import quick_compilation  # noqa: F401

from dfc_jax.nets.blocks import ConvNorm, depth_to_space, space_to_depth, transposed_conv, upsample
from dfc_jax.nets.to_onnx import to_onnx
from dfc_jax.ops.sampling import sample_features


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def kernel(*shape: int) -> jax.Array:
    return jnp.asarray(noise(9, *shape))


def conv(x, weights, strides=(1, 1), padding="SAME"):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, weights, strides, padding, dimension_numbers=numbers)


def shared(x):
    """Features that all of a batch read from one map."""
    pixels = 5.0 * jax.lax.slice_in_dim(x, 0, 2, axis=-1)
    details = jnp.asarray(noise(3, 1, 6, 5, 7))
    found = jax.vmap(sample_features)(details, pixels.reshape(1, -1, 2))
    return found.reshape(*x.shape[:3], 7)


FUNCTIONS = {
    "conv": lambda x: conv(x, kernel(3, 3, 4, 6), (2, 2)),
    "uneven padding": lambda x: conv(x, kernel(2, 2, 4, 6), padding=((1, 0), (1, 0))),
    "transposed": lambda x: transposed_conv(x, kernel(3, 3, 4, 5)) + kernel(5),
    "scaled": lambda x: (conv(x, kernel(3, 3, 4, 6)) - kernel(6)) * kernel(6) / 3.0 + kernel(6),
    "scaled and plain": lambda x: (lambda y: y + 2.0 * y + jnp.abs(y))(conv(x, kernel(1, 1, 4, 4))),
    "a map added": lambda x: conv(x, kernel(3, 3, 4, 6)) + kernel(8, 6, 6),
    "from a constant": lambda x: 2.0 - conv(x, kernel(3, 3, 4, 4)),
    "relu": lambda x: jax.nn.relu(conv(x, kernel(3, 3, 4, 4)) + x),
    "depth to space": lambda x: depth_to_space(conv(x, kernel(3, 3, 4, 8))),
    "space to depth": lambda x: conv(space_to_depth(x), kernel(3, 3, 16, 2)),
    "upsample": lambda x: upsample(conv(x, kernel(3, 3, 4, 2))),
    "upsample more": lambda x: upsample(x, 4),
    "softmax": lambda x: jax.nn.softmax(conv(x, kernel(1, 1, 4, 4)), axis=-1),
    "concatenate": lambda x: jnp.concatenate([x, conv(x, kernel(1, 1, 4, 3))], axis=-1),
    "with a constant": lambda x: jnp.concatenate(
        [x, jnp.broadcast_to(kernel(1, 8, 6, 5), (*x.shape[:3], 5))], axis=-1
    ),
    "split": lambda x: jnp.split(conv(x, kernel(1, 1, 4, 6)), [1, 3], axis=-1)[1],
    "slice": lambda x: jax.lax.slice(
        conv(x, kernel(1, 1, 4, 6)), (0, 1, 0, 2), (x.shape[0], 7, 6, 6), (1, 2, 1, 1)
    ),
    "pooled": lambda x: x.reshape(x.shape[0], 4, 2, 3, 2, 4).mean(axis=(2, 4)),
    "sum of channels": lambda x: jnp.sum(conv(x, kernel(1, 1, 4, 6)), axis=-1),
    "greatest": lambda x: jnp.max(conv(x, kernel(1, 1, 4, 6)), axis=(1, 2)),
    "product": lambda x: jnp.einsum("bnc,mc->bnm", x.reshape(x.shape[0], -1, 4), kernel(3, 4)),
    "product of both": lambda x: (lambda y: jnp.einsum("bnc,bmc->bnm", y, y))(
        x.reshape(x.shape[0], -1, 4)
    ),
    "where": lambda x: jnp.where(x > 0, x, conv(x, kernel(1, 1, 4, 4))),
    "transpose": lambda x: conv(x, kernel(1, 1, 4, 4)).transpose(0, 2, 1, 3),
    "sampled": shared,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_the_same_in_onnx(name):
    function = FUNCTIONS[name]
    model = to_onnx(lambda x: [function(x)], (8, 6, 4), ["out"], {})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch in (1, 3):
        x = noise(batch, batch, 8, 6, 4)
        (found,) = session.run(None, {"crops": x})
        np.testing.assert_allclose(found, function(jnp.asarray(x)), atol=2e-5)


def test_normalisation_goes_into_the_convolution_before_it():
    layer = ConvNorm(5)
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 8, 6, 4)), False)
    variables["batch_stats"] = jax.tree.map(
        lambda a: jnp.asarray(1.0 + 0.1 * noise(1, *a.shape)), variables["batch_stats"]
    )
    model = to_onnx(lambda x: [layer.apply(variables, x, False)], (8, 6, 4), ["out"], {})
    operators = sorted(node.op_type for node in model.graph.node)
    assert operators == ["Conv", "Identity", "Relu", "Transpose", "Transpose"]
    x = noise(2, 2, 8, 6, 4)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"crops": x})
    np.testing.assert_allclose(found, layer.apply(variables, x, False), atol=1e-5)


def test_what_has_no_form_is_named():
    with pytest.raises(NotImplementedError, match="sort"):
        to_onnx(lambda x: [jnp.sort(x)], (8, 6, 4), ["out"], {})
    with pytest.raises(NotImplementedError, match="out does not depend"):
        to_onnx(lambda x: [jnp.zeros(3)], (8, 6, 4), ["out"], {})
