"""The rasterizer against a brute-force reference and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshes import sphere

from dfc_jax.camera import project
from dfc_jax.raster import barycentrics, interpolate, rasterize, render
from dfc_jax.raster.rasterize import MAX_BOX_PX
from dfc_jax.types import Camera

SIZE = 24


def brute_force(xy, depth, triangles, size, perspective=True):
    """Float64, one triangle after the other; also how near each pixel is to a change of winner."""
    y, x = np.mgrid[:size, :size]
    zbuf, face = np.full((size, size), np.inf), np.full((size, size), -1)
    doubtful = np.zeros((size, size), bool)
    for t, ids in enumerate(triangles):
        p, z = xy[ids].astype(np.float64), depth[ids].astype(np.float64)
        (x1, y1), (x2, y2) = p[1] - p[0], p[2] - p[0]
        area = x1 * y2 - y1 * x2
        if not np.isfinite(area + z.sum()) or (perspective and z.min() < 1.0) or area == 0:
            continue
        b1 = ((x - p[0, 0]) * y2 - (y - p[0, 1]) * x2) / area
        b2 = (x1 * (y - p[0, 1]) - y1 * (x - p[0, 0])) / area
        b = np.stack([1 - b1 - b2, b1, b2], axis=-1)
        with np.errstate(divide="ignore"):
            d = 1 / (b / z).sum(-1) if perspective else (b * z).sum(-1)
        # Within rounding of an edge, or of the depth in front, either answer is right.
        doubtful |= np.abs(b.min(-1)) < 1e-4
        doubtful |= np.abs(d - zbuf) < 1e-3 * np.abs(d) + 0.1
        won = (b.min(-1) >= 0) & (d < zbuf)
        zbuf[won], face[won] = d[won], t
    return zbuf, face, doubtful


def draw(xy, depth, triangles, **kwargs):
    """`rasterize` at one padded shape, so that the tests share a few compilations."""
    xy, depth = np.asarray(xy, np.float32), np.asarray(depth, np.float32)
    xy = np.pad(xy, ((0, 96 - len(xy)), (0, 0)))
    depth = np.pad(depth, (0, 96 - len(depth)), constant_values=10.0)
    triangles = np.asarray(triangles, np.int32)
    triangles = np.pad(triangles, ((0, 128 - len(triangles)), (0, 0)), constant_values=95)
    return rasterize(xy, depth, triangles, SIZE, **kwargs)


def soup(rng, n, scale):
    """n triangles (3 n vertices) in and around the image, none of them a sliver."""
    shapes = rng.normal(size=(n, 3, 2))
    u, v = shapes[:, 1] - shapes[:, 0], shapes[:, 2] - shapes[:, 0]
    sliver = np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) < 0.1
    shapes[sliver] = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    xy = rng.uniform(-5, SIZE + 5, (n, 1, 2)) + shapes * scale
    triangles = np.arange(3 * n, dtype=np.int32).reshape(n, 3)
    return xy.reshape(-1, 2).astype(np.float32), triangles


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([2.0, 6.0, 30.0, 300.0]))
@pytest.mark.parametrize("perspective", [True, False])
def test_random_triangles_match_brute_force(perspective, seed, scale):
    """Also behind the camera (perspective), across the border and far larger than the image."""
    rng = np.random.default_rng(seed)
    xy, triangles = soup(rng, 16, scale)
    depth = rng.uniform(-50, 500, len(xy)).astype(np.float32)
    got = draw(xy, depth, triangles, perspective_correct=perspective)
    zbuf, face, doubtful = brute_force(xy, depth, triangles, SIZE, perspective)
    sure = ~doubtful
    np.testing.assert_array_equal(np.asarray(got.pix_to_face)[sure], face[sure])
    np.testing.assert_allclose(np.asarray(got.zbuf)[sure], zbuf[sure], rtol=1e-3, atol=0.05)


def draw_one(*corners, z=(10.0, 10.0, 10.0), **kwargs):
    return draw(corners, z, [[0, 1, 2]], **kwargs)


def covered(fragments):
    """Set of (x, y) that show something."""
    y, x = np.nonzero(np.asarray(fragments.pix_to_face) >= 0)
    return set(zip(x.tolist(), y.tolist(), strict=True))


def test_integer_coordinates_are_pixel_centres_and_edges_belong_to_the_triangle():
    assert covered(draw_one((2, 3), (4, 3), (2, 5))) == {
        (2, 3), (3, 3), (4, 3), (2, 4), (3, 4), (2, 5),
    }  # fmt: skip
    inner = covered(draw_one((1.9, 2.9), (3.9, 2.9), (1.9, 4.9)))
    assert inner == {(2, 3), (3, 3), (2, 4)}
    assert covered(draw_one((2.1, 3.1), (2.9, 3.1), (2.1, 3.9))) == set()


def test_both_windings_are_drawn_unless_backfaces_are_culled():
    clockwise = (2, 3), (9, 3), (2, 9)
    assert covered(draw_one(*clockwise)) == covered(draw_one(*clockwise[::-1]))
    assert not covered(draw_one(*clockwise, cull_backfaces=True))
    assert covered(draw_one(*clockwise[::-1], cull_backfaces=True))


def test_shared_edges_and_corners_leave_no_hole_whatever_the_winding_and_position():
    rng = np.random.default_rng(0)
    n = 9
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).astype(np.float32)
    corners = grid * (SIZE + 1) / (n - 1) - 1
    # Inner vertices move, half of them onto pixel centres.
    moved = corners + rng.uniform(-1, 1, grid.shape)
    moved = np.where(rng.random((n, n, 1)) < 0.5, np.round(moved), moved)
    corners[1:-1, 1:-1] = moved[1:-1, 1:-1]
    a = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).reshape(-1)
    triangles = np.stack([a, a + 1, a + n, a + 1, a + n, a + n + 1], -1).reshape(-1, 3)
    got = draw(corners.reshape(-1, 2), np.full(n * n, 9.0), triangles)
    assert (np.asarray(got.pix_to_face) >= 0).all()


def test_shared_edges_far_larger_than_the_image_leave_no_hole():
    rng = np.random.default_rng(1)
    for _ in range(20):
        # A fan around a point on screen: its spokes cross the image, its rim is far outside.
        angles = np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.4, 0.4, 3)
        rim = 1e4 * np.stack([np.cos(angles), np.sin(angles)], -1)
        xy = np.concatenate([rng.uniform(0, SIZE, (1, 2)), rim])
        got = draw(xy, np.full(4, 9.0), [[0, 1, 2], [0, 2, 3], [0, 3, 1]])
        assert (np.asarray(got.pix_to_face) >= 0).all()


def test_nearer_triangle_hides_the_farther_in_either_order():
    xy = np.array([[0, 0], [20, 0], [0, 20], [0, 0], [20, 0], [0, 20]], np.float32)
    depth = np.array([5, 5, 5, 9, 9, 9], np.float32)
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    for order, expected in ([0, 1], 0), ([1, 0], 1):
        got = draw(xy, depth, triangles[order])
        assert set(np.unique(got.pix_to_face)) == {-1, expected}
        assert np.asarray(got.zbuf)[2, 2] == pytest.approx(5.0)


def test_equal_depth_goes_to_the_lowest_index_whatever_the_sizes():
    # A power of two, so that every triangle computes the depth without rounding.
    for edge in (1.5, 3.5, 7.5, 15.5, 23.5):
        face = draw([[0, 0], [edge, 0], [0, edge]], [8.0] * 3, [[0, 1, 2]] * 5).pix_to_face
        assert set(np.unique(face)) == {-1, 0}
    xy = [[-1, -1], [90, -1], [-1, 90], [1, 0], [3, 0], [1, 2]]
    face = draw(xy, [8.0] * 6, [[0, 1, 2], [3, 4, 5]]).pix_to_face
    assert set(np.unique(face)) == {0}


def test_triangles_too_large_for_chunks_meet_the_others():
    """Two that fill an image of 96 pixels, and a patch: by depth, then by index."""
    size, large, patch = 96, [[-9, -9], [200, -9], [-9, 200]], [[40, 40], [60, 40], [40, 60]]
    xy = np.array([*large, *large, *patch], np.float32)
    assert size**2 > MAX_BOX_PX
    ids = np.arange(9, dtype=np.int32).reshape(3, 3)
    cases = [
        ((8, 8, 8), [0, 1, 2], {0}),
        ((8, 8, 8), [2, 1, 0], {0, 1}),
        ((8, 4, 2), [0, 1, 2], {1, 2}),
        ((4, 8, 2), [0, 1, 2], {0, 2}),
        ((4, 2, 8), [0, 1, 2], {1}),
    ]
    for depths, order, expected in cases:
        depth = np.repeat(np.float32(depths), 3)
        got = rasterize(xy, depth, ids[order], size)
        assert set(np.unique(got.pix_to_face)) == expected
        patch_seen = np.asarray(got.zbuf)[45, 45]
        assert patch_seen == min(depths) and np.asarray(got.zbuf)[90, 90] == min(depths[:2])


def test_what_cannot_be_drawn_is_dropped_and_the_rest_stays():
    good = [[0, 0], [20, 0], [0, 20]]
    xy = np.array(good + [[np.nan, 0], [5, 5], [10, 10], [1e30, 1e30], [1e30, -1e30]])
    depth = [10, 10, 10, 5, 5, 5, 5, np.inf]
    bad = [[3, 1, 2], [4, 4, 5], [0, 4, 5], [4, 6, 7], [6, 7, 1], [7, 1, 2]]
    # Finite on screen and infinitely far at one corner: 1/z alone would still draw it.
    xy, depth = np.vstack([xy, [[20, 20]]]), depth + [np.inf]
    bad += [[4, 2, 8], [4, 8, 1]]
    got = draw(xy, depth, [[0, 1, 2]] + bad)
    assert set(np.unique(got.pix_to_face)) == {-1, 0}
    assert np.isfinite(got.bary_coords).all()
    assert not covered(draw_one(*good, z=(10, 10, 0.5)))
    assert covered(draw_one(*good, z=(10, 10, -5), perspective_correct=False))


@pytest.mark.parametrize("size", [1, 130])
def test_one_huge_triangle_fills_images_of_any_size(size):
    xy = np.array([[-1e5, -1e5], [3e5, -1e5], [-1e5, 3e5]], np.float32)
    got = rasterize(xy, np.full(3, 10.0, np.float32), np.array([[0, 1, 2]]), size)
    assert (np.asarray(got.pix_to_face) == 0).all()
    np.testing.assert_allclose(got.zbuf, 10.0, rtol=1e-5)


def test_vertices_off_screen_do_not_move_what_is_on_screen():
    got = covered(draw_one((-6.5, -6.5), (-6.5, 40.0), (40.0, -6.5)))
    assert got == {(x, y) for x in range(SIZE) for y in range(SIZE) if x + y <= 33.5}
    for shift in ((-30, 0), (30, 0), (0, -30), (0, 30)):
        corners = np.array([[0, 0], [20, 0], [0, 20]]) + shift
        assert not covered(draw_one(*corners))


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
def test_sphere_has_the_depth_and_normals_of_the_closed_form(projection):
    size, radius, distance = 64, 80.0, 400.0
    unit, triangles = sphere(64, 64)
    focal = 110.0 if projection == "perspective" else 0.3
    camera = Camera(jnp.float32(focal), jnp.array([30.0, 33.0]), projection)
    # Two flips keep the sphere right side out; culling must then leave its near side.
    vertices = unit * radius * [1, -1, -1] + [5.0, -4.0, distance]
    out = render(jnp.asarray(vertices, jnp.float32), triangles, camera, size, cull_backfaces=True)
    depth, inside = sphere_depth(projection, focal, radius, distance, size)
    silhouette = np.abs(inside) < 0.02 * radius**2
    agree = (np.asarray(out.mask) == (inside > 0)) | silhouette
    assert agree.all()
    # Where the sphere is steep, the chord's error in depth grows.
    flat = np.asarray(out.mask) & (inside > 0.3 * radius**2)
    assert flat.sum() > 500
    np.testing.assert_allclose(np.asarray(out.depth_mm)[flat], depth[flat], atol=0.5)
    np.testing.assert_allclose(
        np.asarray(out.fragments.zbuf)[flat], np.asarray(out.depth_mm)[flat], rtol=1e-4
    )
    y, x = np.mgrid[:size, :size]
    scale = depth if projection == "perspective" else np.ones_like(depth)
    points = np.stack([(x - 30) / focal * scale, (y - 33) / focal * scale, depth], axis=-1)
    normals = (points - [5.0, -4.0, distance]) / radius
    np.testing.assert_allclose(np.asarray(out.normals)[flat], normals[flat], atol=0.02)


def sphere_depth(projection, focal, radius, distance, size):
    """Depth of the near side, and the discriminant (mm^2), positive inside the silhouette."""
    y, x = np.mgrid[:size, :size].astype(float)
    centre = np.array([5.0, -4.0, distance])
    ray = np.stack([(x - 30) / focal, (y - 33) / focal, np.ones_like(x)], axis=-1)
    if projection == "orthographic":
        inside = radius**2 - ((ray - centre)[..., :2] ** 2).sum(-1)
        return distance - np.sqrt(np.maximum(inside, 0)), inside
    along = ray @ centre / (ray**2).sum(-1)
    inside = radius**2 - ((ray * along[..., None] - centre) ** 2).sum(-1)
    return along - np.sqrt(np.maximum(inside, 0) / (ray**2).sum(-1)), inside


def test_attributes_on_a_slanted_plane_are_perspective_correct():
    camera = Camera(jnp.float32(30.0), jnp.array([11.5, 11.5]))
    corners = jnp.array([[-90.0, -60, 100], [90, -60, 100], [-90, 60, 400], [90, 60, 400]])
    triangles = jnp.array([[0, 1, 2], [1, 3, 2]])
    got = draw(project(camera, corners), corners[:, 2], triangles)
    points = np.asarray(interpolate(got, triangles, corners))
    y, x = np.mgrid[:SIZE, :SIZE]
    # The plane z = 250 + 2.5 y meets the ray (x', y', 1) z at z = 250 / (1 - 2.5 y').
    z = 250.0 / (1.0 - 2.5 * (y - 11.5) / 30.0)
    truth = np.stack([(x - 11.5) / 30.0 * z, (y - 11.5) / 30.0 * z, z], axis=-1)
    seen = np.asarray(got.pix_to_face) >= 0
    assert seen.sum() > 150
    np.testing.assert_allclose(points[seen], truth[seen], rtol=1e-4, atol=1e-2)
    assert not points[~seen].any()
    np.testing.assert_allclose(np.asarray(got.zbuf)[seen], z[seen], rtol=1e-4)


@pytest.mark.parametrize("perspective", [True, False])
def test_interpolation_gradients_match_finite_differences(perspective):
    rng = np.random.default_rng(3)
    xy = np.array([[-3.3, -2.1], [26.2, -4.4], [4.7, 28.3], [27.4, 26.6]], np.float32)
    depth = np.array([50, 80, 120, 60], np.float32)
    triangles = np.array([[0, 1, 2], [1, 2, 3]], np.int32)
    attributes = rng.normal(size=(4, 2)).astype(np.float32)
    weight = rng.normal(size=(SIZE, SIZE, 2))
    fragments = draw(xy, depth, triangles, perspective_correct=perspective)

    @jax.jit
    def loss(xy, depth, attributes):
        bary = barycentrics(fragments, xy, depth, triangles, perspective)
        image = interpolate(fragments.replace(bary_coords=bary), triangles, attributes)
        return jnp.sum(image * weight)

    arguments = xy, depth, attributes
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*arguments)
    for k, (step, moved) in enumerate(zip((0.02, 0.1, 0.01), gradients, strict=True)):
        direction = rng.normal(size=arguments[k].shape)

        def along(s, k=k, direction=direction):
            shifted = list(arguments)
            shifted[k] = (shifted[k] + s * direction).astype(np.float32)
            return float(loss(*shifted))

        expected = (along(step) - along(-step)) / (2 * step)
        assert float((moved * direction).sum()) == pytest.approx(expected, rel=0.01, abs=0.02)
    if not perspective:
        assert not gradients[1].any()


def test_recomputed_barycentrics_equal_the_rasterizers_and_sum_to_one():
    rng = np.random.default_rng(4)
    xy, triangles = soup(rng, 30, 6.0)
    depth = rng.uniform(20, 500, len(xy)).astype(np.float32)
    got = draw(xy, depth, triangles)
    seen = np.asarray(got.pix_to_face) >= 0
    bary = np.asarray(got.bary_coords)
    np.testing.assert_allclose(bary.sum(-1), seen.astype(float), atol=1e-5)
    assert bary.min() > -1e-4
    np.testing.assert_allclose(bary, barycentrics(got, xy, depth, triangles), atol=1e-6)
    depth_again = np.asarray(interpolate(got, triangles, depth[:, None]))[..., 0]
    np.testing.assert_allclose(depth_again[seen], np.asarray(got.zbuf)[seen], rtol=1e-4)


def test_vmap_draws_what_a_loop_draws():
    rng = np.random.default_rng(5)
    scenes = [soup(rng, 16, scale)[0] for scale in (1.5, 5.0, 40.0)]
    triangles = soup(rng, 16, 1.0)[1]
    depth = rng.uniform(10, 500, (3, 48)).astype(np.float32)
    rasterize_batch = jax.jit(jax.vmap(lambda xy, z: rasterize(xy, z, triangles, SIZE)))
    batch = rasterize_batch(np.stack(scenes), depth)
    for i, xy in enumerate(scenes):
        alone = draw(xy, depth[i], triangles)
        np.testing.assert_array_equal(batch.pix_to_face[i], alone.pix_to_face)
        np.testing.assert_allclose(batch.zbuf[i], alone.zbuf, rtol=1e-5)
        np.testing.assert_allclose(batch.bary_coords[i], alone.bary_coords, atol=1e-4)


def test_more_triangles_than_a_chunk_holds_are_all_drawn():
    """A dense sphere next to itself at one eighth: chunks of one class run over several trips."""
    unit, triangles = sphere(160, 90)
    depth = (unit[:, 2] * 10 + 100).astype(np.float32)
    for radius in (40.0, 20.0, 5.0):
        got = rasterize(unit[:, :2] * radius + 47.5, depth, triangles, 96, cull_backfaces=False)
        y, x = np.mgrid[:96, :96] - 47.5
        r = np.hypot(x, y) / radius
        face = np.asarray(got.pix_to_face)
        assert (face[r < 0.99] >= 0).all() and (face[r > 1.0] == -1).all()
        inner = r < 0.9
        near = 100 - 10 * np.sqrt(1 - r[inner] ** 2)
        np.testing.assert_allclose(np.asarray(got.zbuf)[inner], near, atol=0.05)


def test_compiles_once_for_scenes_of_one_shape():
    rng = np.random.default_rng(6)
    draw_one((0, 0), (9, 0), (0, 9))
    before = rasterize._cache_size()
    for scale in (0.5, 5.0, 50.0, 5000.0):
        xy, triangles = soup(rng, 16, scale)
        draw(xy, rng.uniform(-10, 500, 48), triangles)
    assert rasterize._cache_size() == before


def test_render_gives_finite_values_and_gradients_on_hostile_vertices():
    unit, triangles = sphere(8, 8)
    camera = Camera(jnp.float32(40.0), jnp.array([11.5, 11.5]))
    vertices = unit * 50.0 + np.array([0.0, 0.0, 60.0])
    vertices[3] = [1.0, 2.0, -5.0]
    vertices[20] = [0.0, 0.0, 0.0]
    vertices[30:33] = vertices[30]
    vertices[40] = [3e4, -3e4, 1.0]

    def total(vertices, colors, uv, sh):
        light = {"uv": uv, "vertex_colors": colors, "sh": sh}
        out = render(vertices, triangles, camera, SIZE, **light, attributes={"color": colors})
        images = out.rgb, out.depth_mm, out.normals, out.uv, out.attributes["color"]
        return sum(x.sum() for x in images)

    arguments = jnp.asarray(vertices, jnp.float32), jnp.ones((len(unit), 3)) * 0.5
    arguments += jnp.full((len(unit), 2), 0.5), jnp.ones((9, 3))
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))(*arguments)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.isfinite(gradient).all() and np.any(gradient)


def test_render_interpolates_any_attributes_at_the_surface_point_of_each_pixel():
    """Camera-space positions as an attribute: each pixel's is the point that its depth says."""
    unit, triangles = sphere(12, 24)
    vertices = jnp.asarray(unit * 50.0 + np.array([0.0, 0.0, 150.0]), jnp.float32)
    camera = Camera(jnp.float32(20.0), jnp.array([11.5, 11.5]))
    attributes = {"position": vertices, "height": vertices[:, 1:2] + 1e3}
    out = render(vertices, triangles, camera, SIZE, attributes=attributes)
    assert {name: image.shape[2:] for name, image in out.attributes.items()} == {
        "position": (3,),
        "height": (1,),
    }
    mask = np.asarray(out.mask)
    y, x = np.nonzero(mask)
    depth = np.asarray(out.depth_mm)[mask]
    expected = np.stack([(x - 11.5) * depth / 20.0, (y - 11.5) * depth / 20.0, depth], axis=-1)
    np.testing.assert_allclose(np.asarray(out.attributes["position"])[mask], expected, atol=1e-2)
    height = np.asarray(out.attributes["height"])
    np.testing.assert_allclose(height[mask][:, 0], expected[:, 1] + 1e3, atol=1e-2)
    assert mask.any() and not height[~mask].any()
    assert render(vertices, triangles, camera, SIZE).attributes == {}


def test_gradients_of_rendered_attributes_match_finite_differences():
    """In the attributes and, inside the silhouette, in the vertices."""
    rng = np.random.default_rng(5)
    camera = Camera(jnp.float32(30.0), jnp.array([11.5, 11.5]))
    # Larger than the image, so that no silhouette is in it.
    vertices = np.array([[-90, -80, 90], [95, -85, 110], [-85, 90, 100], [90, 95, 120]], np.float32)
    triangles = np.array([[0, 2, 1], [1, 2, 3]], np.int32)
    weight = rng.normal(size=(SIZE, SIZE, 2)).astype(np.float32)
    values = rng.normal(size=(4, 2)).astype(np.float32)

    @jax.jit
    def loss(vertices, values):
        out = render(vertices, triangles, camera, SIZE, attributes={"it": values})
        return jnp.sum(out.attributes["it"] * weight)

    gradients = jax.grad(loss, argnums=(0, 1))(vertices, values)
    for k, step in enumerate((0.02, 0.01)):
        # All vertices move alike in the first, so that no pixel changes to the other triangle.
        direction = np.tile(rng.normal(size=(1, 3)), (4, 1)) * [0, 0, 1] if k == 0 else values[::-1]
        ends = []
        for sign in (1, -1):
            moved = [vertices, values]
            moved[k] = (moved[k] + sign * step * direction).astype(np.float32)
            ends.append(float(loss(*moved)))
        expected = (ends[0] - ends[1]) / (2 * step)
        got = float((gradients[k] * direction).sum())
        assert got == pytest.approx(expected, rel=0.02, abs=5e-3) and abs(got) > 1e-2


def test_an_attribute_without_a_row_for_each_vertex_is_refused():
    vertices, triangles = sphere(4, 4)
    camera = Camera(jnp.float32(20.0), jnp.array([11.5, 11.5]))
    for shape in ((3, 2), (len(vertices),)):
        with pytest.raises(ValueError, match="'age' has shape"):
            render(vertices, triangles, camera, SIZE, attributes={"age": jnp.ones(shape)})


def test_an_empty_view_is_all_background():
    got = draw_one((-9, -9), (-5, -9), (-9, -5))
    assert (np.asarray(got.pix_to_face) == -1).all() and np.isinf(got.zbuf).all()
    assert not np.asarray(got.bary_coords).any()
