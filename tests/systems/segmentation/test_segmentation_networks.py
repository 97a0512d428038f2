"""The two-stream network: its streams, its sizes, and that it says something of every pixel."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.nets import weights
from dfc_jax.systems.segmentation.networks import (
    MULTIPLE,
    SPECS,
    TwoStreamSpec,
    apply,
    apply_train,
    init,
)

TINY = TwoStreamSpec(widths=(4, 6, 8), depths=(1, 1, 1), deconvolved=(4, 6), context=3, merged=5)
STREAMS = {
    "both": TINY,
    "deconvolution": dataclasses.replace(TINY, context=0),
    "context": dataclasses.replace(TINY, deconvolved=()),
}


def size_of(spec: TwoStreamSpec) -> int:
    """Parameters of a network, which needs no values for that."""
    shapes = jax.eval_shape(lambda key: spec.init(key), jax.random.key(0))["params"]
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def test_the_networks_have_as_many_parameters_as_the_documents_say() -> None:
    """A convolution without bias and its normalisation have ``k k a b + 2 b``."""
    encoder = 9 * 12 * 4 + 8 + 9 * 4 * 6 + 12 + 9 * 6 * 8 + 16
    deconvolution = 8 * 24 + 24 + 9 * 6 * 6 + 12 + 6 * 16 + 16 + 9 * 4 * 4 + 8
    context = 6 * 3 + 6 + 8 * 3 + 6
    merged = 9 * (4 + 3) * 5 + 10 + 9 * 5 * 4 + 4
    assert size_of(TINY) == encoder + deconvolution + context + merged
    assert {name: size_of(spec) for name, spec in SPECS.items()} == {
        "lite": 310_508,
        "lite-deconvolution": 306_332,
        "lite-context": 243_284,
        "full": 19_766_788,
        "full-deconvolution": 19_639_300,
        "full-context": 14_854_020,
    }


@pytest.mark.parametrize("name", STREAMS)
def test_each_stream_alone_and_both_say_something_of_every_pixel(name) -> None:
    spec = STREAMS[name]
    variables = init(jax.random.key(0), spec)
    assert {"deconvolution", "context"} & variables["params"].keys() == (
        {"deconvolution", "context"} if name == "both" else {name}
    )
    crops = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    logits = apply(variables, crops, spec)
    assert logits.shape == (2, 64, 64) and logits.dtype == jnp.float32
    # Every pixel of the crop counts, and neighbours are told apart.
    gradient = jax.grad(lambda crops: apply(variables, crops, spec)[0].sum())(crops)
    assert (np.abs(np.asarray(gradient[0])).sum(axis=-1) > 0.0).mean() > 0.99
    assert not np.asarray(gradient[1]).any()
    assert np.std(np.asarray(logits) - np.asarray(logits).mean()) > 0.0


def test_training_in_bfloat16_gives_float32() -> None:
    variables = init(jax.random.key(0), TINY)
    crops = jax.random.uniform(jax.random.key(1), (2, MULTIPLE, MULTIPLE, 3))
    logits, state = apply_train(variables, crops.astype(jnp.bfloat16), TINY)
    assert logits.dtype == jnp.float32 and set(state) == {"batch_stats"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), state, {"batch_stats": variables["batch_stats"]}
    )
    assert max(jax.tree.leaves(moved)) > 0.0


def test_weights_are_read_as_what_they_are(tmp_path) -> None:
    variables = init(jax.random.key(0), TINY)
    weights.save(tmp_path / "w.safetensors", variables, TINY, {})
    loaded, spec, _ = weights.load(tmp_path / "w.safetensors", TwoStreamSpec)
    assert spec == TINY
    # Files hold half the digits.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), loaded, variables)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depths": (1, 1)}, "as many of both"),
        ({"deconvolved": (4,)}, "one size less"),
        ({"deconvolved": (), "context": 0}, "needs a stream"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, words) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TINY, **change)
