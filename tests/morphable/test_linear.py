"""The linear model: shapes, points of the surface, normals."""

import jax
import jax.numpy as jnp
import numpy as np
from meshes import sphere

from dfc_jax.morphable import linear as core
from dfc_jax.morphable.linear import surface_basis, surface_positions
from dfc_jax.types import SurfacePoints


def test_shape_is_linear_and_pads_with_zeros(model):
    rng = np.random.default_rng(0)
    identity, expression = rng.standard_normal(5), rng.uniform(size=3)
    whole = np.asarray(model.mean_mm, np.float64)
    whole = whole + np.asarray(model.identity_mm, np.float64)[..., :5] @ identity
    whole = whole + np.asarray(model.expression_mm, np.float64)[..., :3] @ expression
    short = core.shape(model, jnp.asarray(identity), jnp.asarray(expression))
    np.testing.assert_allclose(short, whole, atol=1e-3)
    padded = core.shape(
        model,
        jnp.zeros(model.n_identity).at[:5].set(identity),
        jnp.zeros(model.n_expression).at[:3].set(expression),
    )
    np.testing.assert_allclose(short, padded, atol=1e-4)


def test_surface_basis_is_the_shape_at_the_points(model):
    rng = np.random.default_rng(1)
    points = SurfacePoints(
        jnp.asarray(rng.integers(0, len(model.triangles), (4, 5))),
        jnp.asarray(rng.dirichlet(np.ones(3), (4, 5)), jnp.float32),
    )
    identity = jnp.asarray(rng.standard_normal(7), jnp.float32)
    expression = jnp.asarray(rng.uniform(size=model.n_expression), jnp.float32)
    mean, basis = surface_basis(model, points, 7)
    assert mean.shape == (4, 5, 3) and basis.shape == (4, 5, 3, 7 + model.n_expression)
    blended = mean + basis @ jnp.concatenate([identity, expression])
    vertices = core.shape(model, identity, expression)
    np.testing.assert_allclose(
        blended, surface_positions(vertices, model.triangles, points), atol=2e-3
    )


def test_gradient_of_the_shape_is_its_finite_difference(model):
    points = jax.tree.map(lambda a: a[30:33], model.landmarks)

    def height(coefficients):
        vertices = core.shape(model, coefficients[:2], coefficients[2:])
        return jnp.sum(surface_positions(vertices, model.triangles, points) ** 2) / 1e3

    x = jnp.array([0.3, -0.5, 0.2, 0.7])
    gradient, step = jax.grad(height)(x), 0.05
    for k in range(4):
        ahead, behind = height(x.at[k].add(step)), height(x.at[k].add(-step))
        np.testing.assert_allclose(gradient[k], (ahead - behind) / (2 * step), rtol=0.01, atol=0.01)


def test_surface_position_of_a_corner_is_its_vertex():
    vertices = jnp.array([[0.0, 0, 0], [4, 0, 0], [0, 8, 0]])
    points = SurfacePoints(jnp.zeros(2, int), jnp.array([[0.0, 1, 0], [0.25, 0.5, 0.25]]))
    positions = surface_positions(vertices, jnp.array([[0, 1, 2]]), points)
    np.testing.assert_allclose(positions, [[4, 0, 0], [2, 2, 0]])


def test_vertex_normals_of_a_sphere_are_its_radii():
    vertices, triangles = sphere(48, 24)
    normals = np.asarray(core.vertex_normals(jnp.asarray(80.0 * vertices), jnp.asarray(triangles)))
    poles = np.abs(vertices[:, 2]) > 0.999
    assert ((normals * vertices).sum(-1)[~poles] > 0.999).all()


def test_vertex_normals_of_a_degenerate_triangle_are_finite():
    normals = core.vertex_normals(jnp.ones((3, 3)), jnp.array([[0, 1, 2]]))
    np.testing.assert_array_equal(normals, 0.0)
    slope = jax.grad(lambda v: core.vertex_normals(v, jnp.array([[0, 1, 2]])).sum())
    assert np.isfinite(slope(jnp.ones((3, 3)))).all()
