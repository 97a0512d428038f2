"""The networks: the paper's table, the re-ordered convolutions, codes and tying."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from quick import quick_compilation  # noqa: F401

from dfc_jax.nets import blocks
from dfc_jax.systems.dfc import lite, paper
from dfc_jax.systems.dfc import networks as nets

# One of each network that `SPECS` describes; those are too large to be computed here.
SMALL: dict[str, nets.NetSpec] = {
    "paper": nets.PaperSpec(widths=(4, 4, 8, 8, 16)),
    "lite": nets.LiteSpec(
        widths=(4, 6, 8, 10),
        depths=(0, 0, 0, 1),
        decoder_depths=(0,) * 4,
        descriptors=6,
        details=5,
        refinements=2,
        edges=4,
    ),
}
# What else changes where a network has one branch.
ALONE = {"lite": {"descriptors": 0, "details": 0, "refinements": 0, "edges": 0}}


def noise(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def shapes_of(spec: nets.NetSpec, size: int = 128):
    crop = jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32)
    template = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda key: nets.init(key, spec), jax.random.key(0))
    outputs = jax.eval_shape(lambda v, s, t: nets.apply(v, s, t, spec), variables, crop, template)
    code = jax.eval_shape(lambda v, t: nets.encode_target(v, t, spec), variables, template)
    return variables, outputs, code


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("tied", "count"), [(True, 8_034_416), (False, 8_620_784)])
def test_paper_network_has_the_parameters_of_its_table(
    tied: bool, count: int, strict: bool
) -> None:
    spec = nets.SPECS["paper" + "-strict" * strict + "-tied" * tied]
    assert (spec.tied, spec.strict) == (tied, strict)
    variables, outputs, code = shapes_of(spec)
    assert nets.param_count(variables) == count
    assert code.shape == (1, 8, 8, 256)
    assert outputs.flow.shape == outputs.logits.shape == (3, 128, 128, 2)


def test_wide_tail_replaces_only_the_last_layers() -> None:
    spec = nets.SPECS["paper-wide"]
    narrow, wide = (9 * (32 * c + c * c + c * 2) + 2 * c + 2 for c in (2, 16))
    assert nets.param_count(shapes_of(spec)[0]) == 8_620_784 - narrow + wide


@pytest.mark.slow
@pytest.mark.parametrize("family", ["paper", "lite"])
def test_initial_values_are_those_of_he_whatever_layers_are_called(family: str) -> None:
    """Each kernel's variance times its fan-in: 2; a hundredth of He's deviation in the heads."""
    variables = nets.init(jax.random.key(0), nets.SPECS[family])
    kernels = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        *parents, name = (str(entry.key) for entry in path)
        layer = parents[-1]
        if name != "kernel":
            np.testing.assert_array_equal(leaf, float(name in ("scale", "var")))
        elif layer == "correction":
            assert not leaf.any()
        else:
            kernels += 1
            fan_in = leaf.size / leaf.shape[-1] / (4 if layer.startswith("Deconv") else 1)
            expected = 2.0 * (1e-4 if layer == "heads" else 1.0)
            # Of n normal values; truncated ones vary less.
            tolerance = 4 * expected * (2 / leaf.size) ** 0.5
            assert float(jnp.mean(leaf**2)) * fan_in == pytest.approx(expected, abs=tolerance), path
            limit = 2.0 / 0.8796 * (expected / fan_in) ** 0.5
            assert 0.5 * limit < float(jnp.abs(leaf).max()) <= limit * 1.001
    assert kernels > 20
    again = nets.init(jax.random.key(1), nets.SPECS[family])
    encoders = (jax.tree.leaves(v["params"]["encoder"]) for v in (variables, again))
    assert any((a != b).any() for a, b in zip(*encoders, strict=True)), "the key is not used"


@pytest.mark.slow
def test_the_narrow_tail_learns_again_where_it_went_below_zero() -> None:
    spec = SMALL["paper"]
    variables = nets.init(jax.random.key(0), spec)
    crops = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    tail = variables["params"]["flow_decoder"]["Conv3x3_8"]
    tail["bias"] = jnp.array([-10.0, 0.0])

    def flow(variables):
        return nets.apply(variables, crops, crops, spec).flow.sum()

    gradient = jax.grad(flow)(variables)["params"]["flow_decoder"]["Conv3x3_8"]["bias"]
    assert (jnp.abs(gradient) > 1e-3).all()
    tail["bias"] = jnp.array([10.0 * paper.KNEE_PX, 0.0])
    gradient = jax.grad(flow)(variables)["params"]["flow_decoder"]["Conv3x3_8"]["bias"]
    assert gradient[0] == 0.0 != gradient[1]


@pytest.mark.slow
def test_the_strict_tail_is_the_plain_relu_of_the_paper() -> None:
    x, tail = noise(0, 1, 4, 4, 3), (2, 2, 2)
    kneed, strict = (paper.PaperDecoder(8, tail, strict) for strict in (False, True))
    shapes = jax.eval_shape(kneed.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: 0.3 * noise(leaf.size, *leaf.shape), shapes)
    first, second = params["Conv3x3_8"], params["Conv3x3_9"]
    params["Conv3x3_9"] = {**second, "bias": jnp.full(2, 1e4)}
    for bias, alike in ((1e3, True), (-1.0, False)):
        # Far above zero the two are one function, below it the ReLU cuts.
        params["Conv3x3_8"] = {**first, "bias": jnp.full(2, bias)}
        outputs = [module.apply({"params": params}, x) for module in (kneed, strict)]
        assert bool(jnp.allclose(*outputs)) == alike
    params["Conv3x3_9"] = {**second, "bias": jnp.full(2, -1e4)}
    constant = strict.apply({"params": params}, x)
    np.testing.assert_array_equal(constant, jnp.broadcast_to(constant[0, 0, 0], constant.shape))


def test_every_kind_of_network_is_computed_in_these_tests() -> None:
    assert {spec.kind for spec in SMALL.values()} == {spec.kind for spec in nets.SPECS.values()}


@pytest.mark.parametrize("name", nets.SPECS)
def test_every_network_has_the_same_inputs_and_outputs(name: str) -> None:
    variables, outputs, code = shapes_of(nets.SPECS[name])
    assert outputs.flow.shape == outputs.logits.shape == (3, 128, 128, 2)
    assert code.shape[:3] == (1, 8, 8)
    assert ("target_encoder" in variables["params"]) != nets.SPECS[name].tied


@pytest.mark.parametrize("name", ["lite", "lite-tied"])
def test_the_code_of_lite_holds_descriptors_and_details(name: str) -> None:
    variables, _, code = shapes_of(nets.SPECS[name])
    assert code.shape[-1] == 128 + 4 * 32 + 16 * 16
    assert 1e6 < nets.param_count(variables) < 3e6


def test_transposed_convolution_equals_the_textbook_one() -> None:
    x, kernel = noise(0, 2, 6, 4, 3), noise(1, 3, 3, 3, 5)
    expected = lax.conv_transpose(x, kernel, (2, 2), "SAME")
    np.testing.assert_allclose(blocks.transposed_conv(x, kernel), expected, atol=1e-5)


def test_depth_to_space_inverts_space_to_depth() -> None:
    x = noise(0, 2, 4, 6, 3)
    np.testing.assert_array_equal(blocks.depth_to_space(blocks.space_to_depth(x)), x)


def test_upsampling_keeps_pixel_centres() -> None:
    ramp = jnp.arange(8.0)[None, None, :, None] * jnp.ones((1, 8, 1, 1))
    # Resizing by 2 maps x to 2 (x + 0.5) - 0.5, so output x shows input (x + 0.5) / 2 - 0.5.
    expected = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)
    np.testing.assert_allclose(blocks.upsample(ramp)[0, 3, :, 0], expected, atol=1e-6)


def test_lite_flow_leads_from_each_pixel_to_the_target_coordinate() -> None:
    coords = jnp.broadcast_to(jnp.array([1.0, -0.5]), (1, 128, 128, 2))
    flow = lite.coords_to_flow(coords)[0]
    x, y = 20, 90
    np.testing.assert_allclose(flow[y, x] + jnp.array([x, y]), [63.5 + 40.0, 63.5 - 20.0])


def test_matching_finds_each_cell_where_it_was_moved() -> None:
    """Descriptors of which no two are alike, moved by a permutation of the cells."""
    height, width = 6, 8
    cells = height * width
    order = np.random.default_rng(0).permutation(cells)
    target = 40.0 * jnp.eye(cells).reshape(1, height, width, cells)
    source = 40.0 * jnp.eye(cells)[order].reshape(1, height, width, cells)
    coords, found = lite.match(source, target)
    np.testing.assert_allclose(found, source, atol=1e-3)
    # In pixels of a crop of 8 pixels a cell, whose first cell has its centre at 3.5.
    pixels = lite.UNIT * 8 * np.array([width, height]) * coords[0].reshape(cells, 2)
    expected = 8 * np.stack([order % width, order // width], axis=-1) + 3.5
    np.testing.assert_allclose(
        pixels + (8 * np.array([width, height]) - 1) / 2, expected, atol=1e-3
    )


def test_cells_that_look_alike_share_the_match() -> None:
    coords, found = lite.match(jnp.ones((2, 4, 4, 3)), jnp.ones((1, 4, 4, 3)))
    np.testing.assert_allclose(coords, np.zeros((2, 4, 4, 2)), atol=1e-6)
    np.testing.assert_allclose(found, np.ones((2, 4, 4, 3)), atol=1e-6)


def test_an_update_sees_the_target_at_the_coords_of_a_pixel_and_nowhere_else() -> None:
    """All coords are those of the cell (2, 1) in a target of 4 x 4 cells."""
    module = lite.UpdateBlock()
    cell = np.array([2, 1])
    coords = jnp.broadcast_to((cell + 0.5) / 4 - 0.5, (1, 8, 8, 2)) / lite.UNIT
    features, detail = noise(0, 1, 4, 4, 3), noise(1, 1, 4, 4, 2)
    variables = module.init(jax.random.key(0), coords, features, detail, False)
    assert not module.apply(variables, coords, features, detail, False)[0].any(), "starts at zero"
    fresh = jax.tree.map(lambda a: a + noise(2, *a.shape) ** 2, variables)

    def change(x: int, y: int) -> float:
        moved = detail.at[0, y, x].add(1.0)
        outputs = (module.apply(fresh, coords, features, d, False)[0] for d in (detail, moved))
        return float(jnp.abs(jnp.subtract(*outputs)).max())

    assert change(*cell) > 1e-2
    assert max(change(1, 1), change(3, 1), change(2, 2), change(1, 2)) < 1e-4


@pytest.mark.slow
def test_lite_starts_near_the_centre_of_the_crop() -> None:
    """As normalised in training; what is far from the truth then takes long to come back."""
    spec = nets.SPECS["lite"]
    crops = jax.random.uniform(jax.random.key(1), (4, 64, 64, 3))
    flow = nets.apply_train(nets.init(jax.random.key(0), spec), crops, crops, spec)[0].flow
    axis = jnp.arange(64.0)
    away = flow + jnp.stack(jnp.meshgrid(axis, axis), axis=-1) - 31.5
    assert float(jnp.abs(away).mean()) < 3.0 and float(jnp.abs(away).max()) < 20.0


@pytest.mark.parametrize("family", SMALL)
def test_cached_code_untied_copy_and_batch_agree(family: str) -> None:
    """One tied network: its kept code, a batch of targets and its untied copy say the same."""
    tied = dataclasses.replace(SMALL[family], tied=True)
    variables = nets.init(jax.random.key(0), tied)
    sources, target = noise(1, 2, 32, 32, 3), noise(2, 1, 32, 32, 3)

    expected = nets.apply(variables, sources, target, tied)
    code = nets.encode_target(variables, target, tied)
    untied, spec = nets.untie(variables, tied)
    assert not spec.tied
    assert nets.param_count(untied) > nets.param_count(variables)
    others = (
        nets.apply_with_code(variables, sources, code, tied),
        nets.apply(variables, sources, jnp.repeat(target, 2, axis=0), tied),
        nets.apply(untied, sources, target, spec),
    )
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), expected, other)
    moved = nets.apply(variables, sources, target + 1.0, tied)
    assert float(jnp.abs(moved.logits - expected.logits).max()) > 1e-4, "the target is not read"


@pytest.mark.parametrize("family", SMALL)
def test_a_network_of_one_branch_never_looks_at_the_target(family: str) -> None:
    spec = dataclasses.replace(SMALL[family], branches=1, **ALONE.get(family, {}))
    variables = nets.init(jax.random.key(0), spec)
    assert "target_encoder" not in variables["params"]
    source, target = noise(0, 2, 32, 32, 3), noise(1, 2, 32, 32, 3)
    one, other = (nets.apply(variables, source, t, spec) for t in (target, target[:1] + 1.0))
    np.testing.assert_array_equal(one.flow, other.flow)
    code = nets.encode_target(variables, target[:1], spec)
    cached = nets.apply_with_code(variables, source, code, spec)
    np.testing.assert_allclose(cached.flow, one.flow, atol=1e-4)
    assert jnp.abs(one.flow[0] - one.flow[1]).max() > 1e-4
    with pytest.raises(ValueError, match="nothing to tie"):
        dataclasses.replace(spec, tied=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lacking", "block"),
    [
        ({"edges": 0}, "edge_block"),
        ({"edges": 0, "details": 0, "refinements": 0}, "Correction_1"),
    ],
)
def test_an_extended_network_is_the_same_function_and_can_learn_more(lacking, block: str) -> None:
    wanted = SMALL["lite"]
    spec = dataclasses.replace(wanted, **lacking)
    variables = nets.init(jax.random.key(0), spec)
    source, target = noise(0, 2, 32, 32, 3), noise(1, 1, 32, 32, 3)
    extended = nets.extend(variables, spec, wanted)
    before = nets.apply(variables, source, target, spec)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        before,
        nets.apply(extended, source, target, wanted),
    )
    slopes = jax.grad(
        lambda p: nets.apply({**extended, "params": p}, source, target, wanted).flow.sum()
    )(extended["params"])
    assert jnp.abs(slopes["decoder"][block]["correction"]["kernel"]).max() > 1e-3
    assert nets.extend(variables, spec, spec) is variables
    with pytest.raises(ValueError, match="refinement and edges only"):
        nets.extend(variables, spec, dataclasses.replace(wanted, descriptors=7))
    with pytest.raises(ValueError, match="belong together"):
        dataclasses.replace(wanted, refinements=0)


def test_edges_differ_between_the_pixels_of_half_size() -> None:
    spec = SMALL["lite"]
    variables = nets.init(jax.random.key(0), spec)
    source, target = noise(0, 1, 32, 32, 3), noise(1, 1, 32, 32, 3)
    before = nets.apply(variables, source, target, spec)
    correction = variables["params"]["decoder"]["edge_block"]["correction"]
    # Coords and logits of the four pixels, row by row.
    added = jnp.arange(16.0).reshape(2, 2, 4)
    correction["bias"] = added.reshape(16)
    after = nets.apply(variables, source, target, spec)
    tiled = jnp.tile(added, (16, 16, 1))[None]
    scale = lite.UNIT * 32
    np.testing.assert_allclose(after.flow - before.flow, scale * tiled[..., :2], atol=1e-3)
    np.testing.assert_allclose(after.logits - before.logits, tiled[..., 2:], atol=1e-3)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("lite", {"depths": (100_000, 0, 0, 0)}),
        ("lite", {"decoder_depths": (0, 0, 0, 100_000)}),
        ("lite", {"refinements": 100_000}),
        ("lite", {"refinements": -1}),
        ("lite", {"widths": ()}),
        ("lite", {"widths": (4, 4, 4, 0)}),
        ("lite", {"widths": (4, 4, 4, 10**9)}),
        ("lite", {"widths": (4, 4, 4, 4.0)}),
        ("lite", {"widths": (4, 4, 4, True)}),
        ("lite", {"widths": (4, 4, 4)}),
        ("lite", {"widths": 4}),
        ("lite", {"depths": ()}),
        ("lite", {"depths": ((), 0, 0, 0)}),
        ("lite", {"descriptors": "6"}),
        ("lite", {"branches": 3}),
        ("lite", {"tied": 1}),
        ("paper", {"strict": "no"}),
        ("paper", {"tail": ()}),
        ("paper", {"tail": (2, 2, 3)}),
        ("paper", {"tail": (2,) * 1000}),
        ("paper", {"widths": (4, 4, 8, 16)}),
        ("paper", {"widths": (4, 4, 8, 8, 8)}),
    ],
)
def test_sizes_out_of_all_reason_are_refused_before_anything_is_built(family, change) -> None:
    with pytest.raises(ValueError, match="|".join(change)) as error:
        dataclasses.replace(SMALL[family], **change)
    assert "\n" not in str(error.value)


def test_untying_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="already untied"):
        nets.untie({"params": {}}, nets.SPECS["lite"])


def test_training_uses_the_batch_and_updates_the_state() -> None:
    spec = SMALL["lite"]
    variables = nets.init(jax.random.key(0), spec)
    sources, target = 5.0 + noise(1, 4, 32, 32, 3), noise(2, 1, 32, 32, 3)
    outputs, state = nets.apply_train(variables, sources, target, spec)
    assert set(state) == {"batch_stats"}
    before, after = variables["batch_stats"], state["batch_stats"]
    assert not np.allclose(
        before["encoder"]["ConvNorm_0"]["BatchNorm_0"]["mean"],
        after["encoder"]["ConvNorm_0"]["BatchNorm_0"]["mean"],
    )
    # A single template has no batch: its branch is the same function in training and afterwards.
    jax.tree.map(np.testing.assert_array_equal, before["target_encoder"], after["target_encoder"])
    evaluated = nets.apply(variables, sources, target, spec)
    assert float(jnp.abs(outputs.logits - evaluated.logits).max()) > 1e-3


def test_paper_network_has_no_state_to_update() -> None:
    spec = SMALL["paper"]
    variables, _, _ = shapes_of(spec, size=32)
    crop = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    assert set(variables) == {"params"}
    assert jax.eval_shape(lambda v, x: nets.apply_train(v, x, x, spec), variables, crop)[1] == {}


def test_matchability_is_the_probability_of_the_second_class() -> None:
    logits = jnp.array([[0.0, jnp.log(3.0)], [2.0, 2.0]])
    np.testing.assert_allclose(nets.matchability(logits), [0.75, 0.5], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALL)
def test_bfloat16_images_change_the_arithmetic_and_no_type_outside(family: str) -> None:
    spec = SMALL[family]
    variables = nets.init(jax.random.key(0), spec)
    sources, targets = noise(1, 2, 32, 32, 3), noise(2, 2, 32, 32, 3)

    @jax.jit
    def outputs_and_gradient(variables, dtype_of: jax.Array):
        def loss(params):
            images = (crops.astype(dtype_of.dtype) for crops in (sources, targets))
            outputs, state = nets.apply_train({**variables, "params": params}, *images, spec)
            return jnp.mean(outputs.flow**2), (outputs, state)

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (_, exact), exact_gradient = outputs_and_gradient(variables, jnp.float32(0))
    (_, rounded), rounded_gradient = outputs_and_gradient(variables, jnp.bfloat16(0))
    for tree in (rounded, rounded_gradient):
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(tree)} == {"float32"}
    error = float(jnp.abs(rounded[0].logits - exact[0].logits).max())
    assert 1e-6 < error < 0.1 * float(jnp.abs(exact[0].logits).max())
    a, b = (
        jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
        for tree in (exact_gradient, rounded_gradient)
    )
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    assert cosine > 0.95


def test_flow_is_finer_than_bfloat16() -> None:
    variables = nets.init(jax.random.key(0), SMALL["paper"])
    crop = noise(1, 1, 32, 32, 3).astype(jnp.bfloat16)
    flow = nets.apply(variables, crop, crop, SMALL["paper"]).flow
    assert float(jnp.mean(flow == flow.astype(jnp.bfloat16).astype(jnp.float32))) < 0.2
