"""Spherical harmonics, textures and image sampling against quadrature, closed forms and OpenCV."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.crops import Crop
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid, warp_affine
from dfc_jax.raster import (
    N_SH,
    pncc_colors,
    render,
    sample_texture,
    sh_basis,
    sh_irradiance,
    shade,
)
from dfc_jax.types import Camera


def sphere_quadrature(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Directions (M, 3) and weights (M,) that integrate polynomials over the sphere exactly."""
    z, weight = np.polynomial.legendre.leggauss(n)
    phi = np.arange(2 * n) * np.pi / n
    z, phi = np.meshgrid(z, phi, indexing="ij")
    r = np.sqrt(1 - z**2)
    directions = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=-1).reshape(-1, 3)
    return directions, np.repeat(weight, 2 * n) * np.pi / n


def test_sh_basis_is_orthonormal():
    directions, weight = sphere_quadrature()
    basis = np.asarray(sh_basis(jnp.asarray(directions, jnp.float32)), np.float64)
    np.testing.assert_allclose((basis.T * weight) @ basis, np.eye(N_SH), atol=1e-5)


def test_sh_basis_has_the_documented_order_and_signs():
    directions, weight = sphere_quadrature()
    x, y, z = directions.T
    terms = [np.ones_like(x), y, z, x, x * y, y * z, 3 * z**2 - 1, x * z, x**2 - y**2]
    basis = np.asarray(sh_basis(jnp.asarray(directions, jnp.float32)), np.float64)
    for k, term in enumerate(terms):
        norm = np.sqrt(weight @ term**2)
        np.testing.assert_allclose(basis[:, k], term / norm, atol=1e-5)


def test_irradiance_of_a_distant_light_is_the_clamped_cosine():
    """Nine coefficients reproduce max(0, n.l) within 0.1 (Ramamoorthi and Hanrahan 2001)."""
    directions, weight = sphere_quadrature()
    normals = jnp.asarray(directions, jnp.float32)
    light = np.array([0.36, -0.48, -0.8])
    cosine = np.maximum(directions @ light, 0)
    coeffs = np.asarray(sh_basis(normals), np.float64).T @ (weight * cosine)
    got = sh_irradiance(jnp.asarray(np.tile(coeffs[:, None], 3), jnp.float32), normals)
    np.testing.assert_allclose(got, np.tile(cosine[:, None], 3), atol=0.1)
    # The cosine kernel's band factors over pi: 1, 2/3, 1/4 times the basis at the light.
    bands = np.repeat([1.0, 2 / 3, 1 / 4], [1, 3, 5])
    at_light = np.asarray(sh_basis(jnp.asarray(light, jnp.float32)), np.float64)
    np.testing.assert_allclose(coeffs, np.pi * bands * at_light, atol=1e-3)


def test_constant_light_leaves_the_albedo_and_negative_light_is_black():
    albedo = jnp.array([[0.2, 0.5, 0.9]])
    normals = jnp.array([[0.0, 0.6, -0.8]])
    constant = jnp.zeros((9, 3)).at[0].set(np.sqrt(4 * np.pi))
    np.testing.assert_allclose(shade(albedo, normals, constant), albedo, rtol=1e-6)
    np.testing.assert_array_equal(shade(albedo, normals, -constant), jnp.zeros((1, 3)))


def quad(uv=((0, 0), (1, 0), (0, 1), (1, 1))):
    """A square parallel to the image plane that covers pixels 0 to 15 of an image, edge to edge.

    Corners in the order lower left, lower right, upper left, upper right, as seen.
    """
    camera = Camera(jnp.float32(8.0), jnp.array([7.5, 7.5]))
    x, y = np.array([-1, 1, -1, 1]), np.array([1, 1, -1, -1])
    vertices = np.stack([x, y, np.ones(4)], axis=-1).astype(np.float32) * 50.0
    # Counter-clockwise as seen, with y down.
    triangles = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    return vertices, triangles, camera, np.array(uv, np.float32)


def test_a_texture_on_a_frontal_square_comes_back_unchanged():
    """Pins down v up and the half-pixel offset of texture coordinates."""
    vertices, triangles, camera, uv = quad()
    texture = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    out = render(vertices, triangles, camera, 16, uv=uv, texture=texture, cull_backfaces=True)
    assert np.asarray(out.mask).all()
    np.testing.assert_allclose(out.rgb, texture, atol=1e-4)
    np.testing.assert_allclose(out.depth_mm, 50.0, rtol=1e-5)
    np.testing.assert_allclose(out.normals, np.broadcast_to([0, 0, -1.0], (16, 16, 3)), atol=1e-6)
    np.testing.assert_allclose(out.uv[3, 5], [5.5 / 16, 1 - 3.5 / 16], atol=1e-5)


def test_texture_corners_and_border():
    texture = jnp.arange(12.0).reshape(3, 4, 1)
    uv = jnp.array([[0.0, 0.0], [1.0, 1.0], [0.125, 5 / 6], [-3.0, 0.5], [0.25, 0.5]])
    got = sample_texture(texture, uv)[:, 0]
    np.testing.assert_allclose(got, [8.0, 3.0, 0.0, 4.0, 4.5], atol=1e-5)


def test_render_shades_with_camera_space_normals_and_keeps_the_background_black():
    vertices, triangles, camera, _ = quad()
    sh = jnp.zeros((9, 3)).at[0].set(1.0).at[2].set(jnp.array([-1.0, 0.0, 1.0]))
    out = render(vertices, triangles, camera, 24, sh=sh, vertex_colors=np.full((4, 3), 0.5))
    light = 0.2820948 + np.array([0.4886025, 0.0, -0.4886025])
    expected = 0.5 * np.maximum(light, 0)
    mask = np.asarray(out.mask)
    assert mask.sum() == 256 and mask[:16, :16].all()
    np.testing.assert_allclose(
        np.asarray(out.rgb)[mask], np.tile(expected, (256, 1)), rtol=1e-4, atol=1e-6
    )
    for image in (out.rgb, out.normals, out.depth_mm):
        assert not np.asarray(image)[~mask].any()
    assert out.uv is None and out.attributes == {}


def test_pncc_is_zero_to_one_along_each_axis():
    mean = np.array([[-50.0, 0.0, 10.0], [50.0, 80.0, 10.0], [0.0, 20.0, 10.0]])
    expected = [[0, 0, 0], [1, 1, 0], [0.5, 0.25, 0]]
    np.testing.assert_allclose(pncc_colors(jnp.asarray(mean)), expected, atol=1e-6)
    vertices, triangles, camera, _ = quad()
    colors = {"pncc": pncc_colors(jnp.asarray(vertices))}
    out = render(vertices, triangles, camera, 16, attributes=colors)
    np.testing.assert_allclose(out.attributes["pncc"][15, 0], [0.5 / 16, 15.5 / 16, 0], atol=1e-4)


def test_render_refuses_a_texture_it_cannot_place():
    vertices, triangles, camera, uv = quad()
    texture = jnp.ones((4, 4, 3))
    with pytest.raises(ValueError, match="uv"):
        render(vertices, triangles, camera, 16, texture=texture)
    with pytest.raises(ValueError, match="not both"):
        render(
            vertices, triangles, camera, 16, uv=uv, texture=texture, vertex_colors=jnp.ones((4, 3))
        )


MATRICES = {
    "shift": [[1.0, 0.0, 2.25], [0.0, 1.0, -3.5]],
    "enlarge": [[0.37, 0.0, 3.0], [0.0, 0.41, 4.0]],
    "turn": [[0.9, -0.5, 4.0], [0.5, 0.9, -6.0]],
    "mirror": [[-1.0, 0.0, 19.0], [0.0, 1.0, 0.0]],
}


@pytest.mark.parametrize("fill", [None, 0.25])
@pytest.mark.parametrize("name", MATRICES)
def test_warp_affine_agrees_with_opencv(name, fill):
    rng = np.random.default_rng(0)
    # Smooth, because OpenCV rounds sampling positions to 1/32 of a pixel.
    image = cv2.GaussianBlur(rng.random((17, 20, 3)).astype(np.float32), (0, 0), 1.5)
    matrix = np.array(MATRICES[name], np.float32)
    border = cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT
    expected = cv2.warpAffine(
        image,
        matrix,
        (24, 24),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
        borderValue=(fill or 0.0,) * 3,
    )
    got = warp_affine(jnp.asarray(image), jnp.asarray(matrix), 24, fill)
    np.testing.assert_allclose(got, expected, atol=0.012)
    inner = np.abs(np.asarray(got) - expected)[5:-5, 5:-5]
    assert inner.mean() < 2e-3


def test_a_crop_resized_by_its_matrix_agrees_with_opencv_resize():
    image = np.random.default_rng(1).random((16, 16, 3)).astype(np.float32)
    crop = Crop(centre=np.array([7.5, 7.5]), side_px=16.0, size=32)
    expected = cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR)
    got = warp_affine(jnp.asarray(image), jnp.asarray(crop.to_photo, jnp.float32), 32)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_sampling_at_pixel_centres_returns_the_pixels():
    image = jnp.asarray(np.random.default_rng(2).random((5, 7, 2)), jnp.float32)
    for fill in (None, 9.0):
        np.testing.assert_array_equal(bilinear_sample(image, pixel_grid(5, 7), fill), image)


def test_sampling_outside_takes_the_border_or_the_fill_and_never_nan():
    image = jnp.arange(6.0).reshape(2, 3, 1)
    outside = jnp.array([[-5.0, 0.0], [1e9, 1.0], [jnp.inf, -jnp.inf], [jnp.nan, 0.0]])
    np.testing.assert_allclose(bilinear_sample(image, outside)[:, 0], [0, 5, 2, 0])
    np.testing.assert_allclose(bilinear_sample(image, outside, 7.0)[:, 0], [7, 7, 7, 7])
    # Half a pixel out is half fill.
    half = bilinear_sample(image, jnp.array([[-0.5, 0.0], [2.0, 1.5]]), 10.0)
    np.testing.assert_allclose(half[:, 0], [5.0, 7.5])


def test_sampling_gradients_match_finite_differences():
    rng = np.random.default_rng(3)
    image = jnp.asarray(rng.random((6, 6, 2)), jnp.float32)
    # Away from pixel centres, where bilinear interpolation has a kink.
    xy = jnp.asarray(rng.integers(0, 5, (8, 2)) + rng.uniform(0.2, 0.8, (8, 2)), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(8, 2)), jnp.float32)

    @jax.jit
    def loss(image, xy):
        return jnp.sum(bilinear_sample(image, xy, 0.0) * weight)

    d_image, d_xy = jax.jit(jax.grad(loss, argnums=(0, 1)))(image, xy)
    for k, gradient in ((0, d_image), (1, d_xy)):
        direction = jnp.asarray(rng.normal(size=gradient.shape), jnp.float32)
        step = 0.05 * direction / jnp.abs(direction).max()
        ends = [
            loss(*((image + s * step, xy) if k == 0 else (image, xy + s * step))) for s in (1, -1)
        ]
        assert float(jnp.sum(gradient * step)) * 2 == pytest.approx(
            float(ends[0] - ends[1]), abs=2e-3
        )
    bad = jax.grad(loss, argnums=1)(image, jnp.full((8, 2), jnp.nan))
    assert np.isfinite(bad).all()
