"""The loss against closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.systems.dfc import loss as losses

SIZE = (2, 4, 4)

loss_of = jax.jit(
    losses.correspondence_loss,
    static_argnames=("norm", "reduction", "matchability_weight", "frame"),
)


@pytest.fixture
def example() -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "flow": jax.random.normal(keys[0], (*SIZE, 2)),
        "logits": jax.random.normal(keys[1], (*SIZE, 2)),
        "true_flow": jax.random.normal(keys[2], (*SIZE, 2)),
        "matchable": jax.random.bernoulli(keys[3], 0.5, SIZE),
    }


def test_known_residuals_give_known_sums() -> None:
    flow = jnp.zeros((1, 2, 2)).at[0, 0].set(jnp.array([3.0, 4.0])).at[0, 1].set(7.0)
    matchable = jnp.array([[1.0, 0.0]])
    logits = jnp.array([[[0.0, jnp.log(3.0)], [0.0, 0.0]]])
    parts = loss_of(
        flow, logits, jnp.zeros_like(flow), matchable, matchability_weight=2.0, reduction="sum"
    )
    entropy = -np.log(0.75) - np.log(0.5)
    np.testing.assert_allclose(parts["flow"], 5.0, rtol=1e-6)
    np.testing.assert_allclose(parts["matchability"], entropy, rtol=1e-6)
    np.testing.assert_allclose(parts["loss"], 5.0 + 2.0 * entropy, rtol=1e-6)


def test_mean_divides_by_matchable_pixels_and_by_all_pixels(example) -> None:
    total = loss_of(**example, reduction="sum")
    mean = loss_of(**example, reduction="mean")
    count = example["matchable"].sum((1, 2))
    np.testing.assert_allclose(mean["flow"], total["flow"] / count, rtol=1e-5)
    np.testing.assert_allclose(mean["matchability"], total["matchability"] / 16, rtol=1e-5)


def linear_flow(matrix) -> jax.Array:
    """The flow (6, 8, 2) of ``q = matrix p``."""
    p = jnp.stack(jnp.meshgrid(jnp.arange(8.0), jnp.arange(6.0)), axis=-1)
    return p @ jnp.asarray(matrix, jnp.float32).T - p


def test_errors_in_the_source_are_those_that_the_map_takes_to_errors_of_the_target() -> None:
    matrix = np.array([[2.0, 1.5], [-1.0, 3.0]])
    moved = np.random.default_rng(0).normal(size=(6, 8, 2))
    found = losses.in_source(moved @ matrix.T, linear_flow(matrix), jnp.ones((6, 8)))
    np.testing.assert_allclose(found, moved, rtol=0.02, atol=0.01)


def test_what_the_target_shows_small_counts_more_but_not_without_end() -> None:
    """The lid of a shut eye: heights are a third, or nothing, of what they are in the source."""
    error = jnp.ones((6, 8, 2))
    seen = jnp.ones((6, 8))
    third = losses.in_source(error, linear_flow(np.diag([1.0, 1 / 3])), seen)
    damping = losses.DAMPING**2
    expected = [1.0 / (1.0 + damping), (1 / 3) / (1 / 9 + damping)]
    np.testing.assert_allclose(third, np.broadcast_to(expected, third.shape), rtol=1e-5)
    for height in (1e-4, 0.05, 0.15, 0.3):
        found = losses.in_source(error, linear_flow(np.diag([1.0, height])), seen)
        assert jnp.abs(found[..., 1]).max() <= 1.0 / (2.0 * losses.DAMPING) + 1e-4


def test_edges_and_what_is_not_matchable_do_not_make_the_map_of_the_source() -> None:
    flow = linear_flow(np.diag([0.5, 0.5]))
    error = jnp.ones((6, 8, 2))
    whole = losses.in_source(error, flow, jnp.ones((6, 8)))
    # To the right of an edge everything is seen 40 pixels farther on.
    torn = losses.in_source(error, flow.at[:, 4:, 0].add(40.0), jnp.ones((6, 8)))
    np.testing.assert_allclose(torn, whole, rtol=1e-5)
    seen = jnp.ones((6, 8)).at[2, 3].set(0.0)
    hole = losses.in_source(error, flow.at[2, 3].set(jnp.nan), seen)
    np.testing.assert_allclose(hole[seen > 0], whole[seen > 0], rtol=1e-5)
    alone = jnp.zeros((6, 8)).at[2, 3].set(1.0)
    found = losses.in_source(error, flow, alone)[2, 3]
    np.testing.assert_allclose(found, 1.0 / (1.0 + losses.DAMPING**2), rtol=1e-5)


def test_loss_measures_where_the_frame_says() -> None:
    true_flow = linear_flow(np.diag([1.0, 0.25]))[None]
    flow = true_flow + jnp.array([0.0, 1.0])
    given = flow, jnp.zeros((1, 6, 8, 2)), true_flow, jnp.ones((1, 6, 8))
    assert loss_of(*given)["flow"] == pytest.approx(1.0)
    expected = 0.25 / (0.25**2 + losses.DAMPING**2)
    assert loss_of(*given, frame="source")["flow"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_importance_weighs_the_flow_and_not_the_mask(example, reduction: str) -> None:
    plain = loss_of(**example, reduction=reduction)
    ones = loss_of(**example, importance=jnp.ones(SIZE), reduction=reduction)
    np.testing.assert_allclose(ones["loss"], plain["loss"], rtol=1e-6)
    one = jnp.zeros(SIZE).at[:, 1, 2].set(1.0)
    seen = {**example, "matchable": example["matchable"].at[:, 1, 2].set(True)}
    single = loss_of(**seen, importance=one, reduction=reduction)
    length = jnp.linalg.norm(example["flow"] - example["true_flow"], axis=-1)[:, 1, 2]
    np.testing.assert_allclose(single["flow"], length, rtol=1e-5)
    whole = loss_of(**seen, reduction=reduction)
    np.testing.assert_allclose(single["matchability"], whole["matchability"])


def test_batch_equals_single_examples(example) -> None:
    batch = loss_of(**example)
    single = loss_of(**{k: v[1] for k, v in example.items()})
    assert batch["loss"].shape == (2,)
    np.testing.assert_allclose(batch["loss"][1], single["loss"], rtol=1e-6)


@pytest.mark.parametrize(
    ("norm", "length"), [("l2", 5.0), ("l1", 7.0), ("charbonnier", np.sqrt(25.01) - 0.1)]
)
def test_norms_of_a_known_residual(norm: str, length: float) -> None:
    np.testing.assert_allclose(losses.norm_of(jnp.array([3.0, -4.0]), norm), length, rtol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1", "charbonnier"])
def test_gradient_at_zero_residual_is_finite(norm: str) -> None:
    gradient = jax.grad(lambda r: losses.norm_of(r, norm))(jnp.zeros(2))
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


@pytest.mark.parametrize("norm", ["l2", "l1", "charbonnier"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", ["flow", "logits"])
def test_gradient_matches_finite_differences(example, norm, reduction, name) -> None:
    def loss(value: jax.Array) -> jax.Array:
        parts = loss_of(
            **{**example, name: value}, norm=norm, reduction=reduction, matchability_weight=3.0
        )
        return parts["loss"].sum()

    value = example[name]
    direction = jax.random.normal(jax.random.key(7), value.shape)
    step = 1e-3
    numeric = (loss(value + step * direction) - loss(value - step * direction)) / (2 * step)
    analytic = jnp.vdot(jax.grad(loss)(value), direction)
    np.testing.assert_allclose(analytic, numeric, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("frame", ["target", "source"])
def test_truth_that_is_not_matchable_is_never_read(example, frame: str) -> None:
    hole = jnp.where(example["matchable"][..., None], example["true_flow"], jnp.nan)

    def loss(flow: jax.Array, true_flow: jax.Array) -> jax.Array:
        inputs = {**example, "flow": flow, "true_flow": true_flow}
        return loss_of(**inputs, frame=frame)["loss"].sum()

    value, gradient = jax.value_and_grad(loss)(example["flow"], hole)
    np.testing.assert_allclose(value, loss(example["flow"], example["true_flow"]))
    assert jnp.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~example["matchable"]], 0.0)


def test_picture_without_a_face_has_no_flow_error(example) -> None:
    empty = {**example, "matchable": jnp.zeros(SIZE, bool)}
    parts = loss_of(**empty)
    np.testing.assert_array_equal(parts["flow"], 0.0)
    assert (parts["loss"] > 0).all()


def test_unknown_settings_are_named(example) -> None:
    with pytest.raises(ValueError, match="'l3'"):
        loss_of(**example, norm="l3")
    with pytest.raises(ValueError, match="'median'"):
        loss_of(**example, reduction="median")
    with pytest.raises(ValueError, match="'camera'"):
        loss_of(**example, frame="camera")
