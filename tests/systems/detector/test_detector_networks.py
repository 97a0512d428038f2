"""The detector's network: what its layers are, and that it sees a picture the same everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dfc_jax.nets import weights
from dfc_jax.systems.detector.cells import decode
from dfc_jax.systems.detector.networks import (
    SPECS,
    START,
    STRIDE,
    DetectorSpec,
    apply,
    apply_train,
    calibrated,
    depthwise,
    init,
)
from dfc_jax.systems.detector.scenes import MULTIPLE, PAD

TINY = DetectorSpec(stem=4, width=6, deep=8, blocks=1)


@pytest.fixture(scope="module")
def variables():
    """Fresh ones, whose last layer says something."""
    made = init(jax.random.key(0), TINY)
    last = made["params"]["Dense_0"]
    last["kernel"] = 0.3 * jax.random.normal(jax.random.key(1), last["kernel"].shape)
    return made


def test_the_network_has_as_many_parameters_as_its_table_says() -> None:
    fresh = init(jax.random.key(0), SPECS["small"])
    stem, width, deep, blocks, last = 24, 64, 128, 3, 2
    mixed = [(48, stem), (4 * stem, width), (4 * width, deep), (deep, width)]
    kernels = sum(a * b + 2 * b for a, b in mixed)
    fine = (1 + last) * (9 * width + width * width + 2 * width)
    coarse = blocks * (25 * deep + deep * deep + 2 * deep)
    count = sum(leaf.size for leaf in jax.tree.leaves(fresh["params"]))
    assert count == kernels + fine + coarse + 6 * width + 6 == 123_126


def test_shifted_copies_are_a_grouped_convolution() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 12, 16, 5))
    for size in (3, 5):
        kernel = jax.random.normal(jax.random.key(1), (size, size, 5))
        expected = lax.conv_general_dilated(
            x,
            kernel[:, :, None],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=5,
        )
        np.testing.assert_allclose(depthwise(x, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_its_gradient_is_that_of_a_grouped_convolution(size) -> None:
    keys = jax.random.split(jax.random.key(size), 3)
    x, weight = (jax.random.normal(key, (2, 7, 9, 4)) for key in keys[:2])
    kernel = jax.random.normal(keys[2], (size, size, 4))

    def grouped(x, kernel):
        dims = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel[:, :, None], (1, 1), "SAME", dimension_numbers=dims, feature_group_count=4
        )

    ours, theirs = (
        jax.grad(lambda *given, f=f: (weight * f(*given)).sum(), (0, 1))(x, kernel)
        for f in (depthwise, grouped)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


def test_cells_are_of_the_stride_and_start_without_faces() -> None:
    fresh = init(jax.random.key(0), TINY)
    outputs = apply(fresh, jnp.zeros((2, 48, 80, 3), jnp.uint8), TINY)
    assert outputs.logit.shape == (2, 48 // STRIDE, 80 // STRIDE)
    assert outputs.values.shape == (2, 48 // STRIDE, 80 // STRIDE, 5)
    np.testing.assert_array_equal(outputs.logit, np.float32(START))


def test_a_picture_moved_on_its_canvas_is_seen_alike(variables) -> None:
    rng = np.random.default_rng(0)
    canvas = np.full((1, 160, 160, 3), PAD, np.uint8)
    moved = canvas.copy()
    picture = rng.integers(0, 255, (32, 32, 3), np.uint8)
    canvas[0, 64:96, 64:96] = picture
    moved[0, 64 + MULTIPLE : 96 + MULTIPLE, 64:96] = picture
    step = MULTIPLE // STRIDE
    here, there = (apply(variables, each, TINY).logit[0] for each in (canvas, moved))
    np.testing.assert_allclose(here[6:14, 6:14], there[6 + step : 14 + step, 6:14], atol=1e-5)
    assert np.ptp(np.asarray(here[8:12, 8:12])) > 0.01


def test_training_follows_the_statistics_of_its_batches(variables) -> None:
    pictures = jax.random.randint(jax.random.key(2), (4, 32, 32, 3), 0, 255).astype(jnp.uint8)
    outputs, state = apply_train(variables, pictures, TINY)
    assert np.isfinite(outputs.logit).all()
    before, after = (jax.tree.leaves(tree["batch_stats"]) for tree in (variables, state))
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_weights_come_back_from_their_file(variables, tmp_path) -> None:
    weights.save(tmp_path / "w.safetensors", variables, TINY, {"steps": 1})
    read, spec, metadata = weights.load(tmp_path / "w.safetensors", DetectorSpec)
    assert spec == TINY and metadata["steps"] == 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), read, variables
    )


def test_calibrated_weights_say_what_they_shall(variables) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1, 32, 48, 3), np.uint8)
    before = apply(variables, picture, TINY)
    after = apply(calibrated(variables, 0.7, -1.5, 0.9), picture, TINY)
    np.testing.assert_allclose(after.logit, 0.7 * before.logit - 1.5, rtol=1e-4, atol=1e-4)
    edge, before_edge = (
        decode(jax.tree.map(lambda leaf: leaf[0], said), 1e-9)[0].edge for said in (after, before)
    )
    np.testing.assert_allclose(edge, 0.9 * before_edge, rtol=1e-4)
    np.testing.assert_array_equal(after.values[..., [0, 1, 3, 4]], before.values[..., [0, 1, 3, 4]])
