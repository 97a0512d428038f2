"""From a flow to surface points and landmarks, and back from a mesh to the flow."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion
from views import SIZE, View, draw, empty

from dfc_jax.camera import project
from dfc_jax.landmarks68 import EYES, OUTWARDS
from dfc_jax.morphable.linear import surface_positions
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.systems.dfc.lift import flow_landmarks, lift, recover, surface_at, with_eyes
from dfc_jax.systems.dfc.template import template_landmarks

GRID = np.asarray(pixel_grid(SIZE, SIZE))
# 64 pixels, and the eyes.
PARTED = np.s_[:64], np.s_[64:]

# Compiled once for all tests.
to_template = jax.jit(flow_to_template)
lift_jit = jax.jit(lift, static_argnames="n_points")
landmarks_of_flow = jax.jit(flow_landmarks)
recover_jit = jax.jit(recover)
with_eyes_jit = jax.jit(with_eyes)
surface_jit = jax.jit(surface_at)


# --- from a flow to surface points


def test_surface_points_project_back_to_where_they_were_asked_for(template):
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.uniform(-3, SIZE + 2, (4000, 2)), jnp.float32)
    surface, seen = surface_jit(template, q)
    positions = surface_positions(template.vertices_mm, template.triangles, surface)
    error = np.linalg.norm(project(template.camera, positions) - q, axis=-1)
    pixel = np.clip(np.round(np.asarray(q)), 0, SIZE - 1).astype(int)
    inside = np.all((np.asarray(q) >= -0.5) & (np.asarray(q) <= SIZE - 0.5), axis=-1)
    valid = np.asarray(template.valid)[pixel[:, 1], pixel[:, 0]]
    np.testing.assert_array_equal(np.asarray(seen), valid & inside)
    # Slivers seen edge-on answer with their pixel's own point, at most half a pixel away.
    error = error[np.asarray(seen)]
    assert error.max() < 0.75 and np.mean(error < 0.01) > 0.97
    np.testing.assert_allclose(
        np.asarray(surface.barycentric)[np.asarray(seen)].sum(-1), 1, atol=1e-4
    )


@partial(jax.jit, static_argnames="n_points")
def lifted(template, vertices, flow, seen, n_points):
    """Correspondences, and where their surface points lie in the template and in the face."""
    found = lift(template, flow, seen, n_points=n_points)
    places = [
        project(template.camera, surface_positions(v, template.triangles, found.surface))
        for v in (template.vertices_mm, vertices)
    ]
    return found, *places


def test_lifted_points_are_the_surface_that_the_pixels_show(template, face, labels):
    flow, seen = labels
    found, at_template, at_face = lifted(template, face.vertices, flow, seen * 0.75, 1024)
    points, weight = np.asarray(found.points_px), np.asarray(found.weight)
    x, y = points.astype(int).T
    assert (weight == 0.75).all() and len(np.unique(points, axis=0)) == 1024 and seen[y, x].all()
    wanted = points + flow[y, x]
    error = np.linalg.norm(np.asarray(at_template) - wanted, axis=-1)
    assert np.mean(error < 0.01) > 0.97 and error.max() < 0.75
    # The same surface points, on the face that was drawn, project to the pixels themselves.
    error = np.linalg.norm(np.asarray(at_face) - points, axis=-1)
    assert np.median(error) < 0.02 and np.quantile(error, 0.95) < 0.3
    # A spread over the face, not its upper rows.
    everywhere = GRID[seen]
    np.testing.assert_allclose(points.mean(0), everywhere.mean(0), atol=2.0)
    np.testing.assert_allclose(points.std(0), everywhere.std(0), rtol=0.1)


def test_fewer_candidates_than_points_are_padded_without_weight(template, labels):
    flow, seen = labels
    probability = np.where(seen, 0.9, 0.0)
    rows = np.flatnonzero(seen.any(1))
    probability[rows[len(rows) // 2] + 2 :] = 0.3  # not over the threshold
    probability[: rows[len(rows) // 2]] = 0.0
    found = lift_jit(template, flow, probability, n_points=1024)
    weight = np.asarray(found.weight)
    count = (probability > 0.5).sum()
    assert 0 < count < 1024 and (weight > 0).sum() == count
    np.testing.assert_allclose(weight[weight > 0], 0.9, rtol=1e-5)
    x, y = np.asarray(found.points_px)[weight > 0].astype(int).T
    assert (probability[y, x] > 0.5).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    looser = lift_jit(template, flow, probability, n_points=1024, threshold=0.2)
    assert (np.asarray(looser.weight) > 0).sum() == 1024


def test_flow_that_ends_off_the_template_is_not_lifted(template):
    far = jnp.full((SIZE, SIZE, 2), 500.0)
    to_corner = -pixel_grid(SIZE, SIZE)  # background of the template
    for flow in (far, to_corner):
        found = lift_jit(template, flow, jnp.ones((SIZE, SIZE)), n_points=1024)
        assert not np.asarray(found.weight).any()


def test_recover_fills_a_hole_and_leaves_the_rest_to_the_network(template, face, labels):
    flow, seen = labels
    hole = np.zeros_like(seen)
    hole[50:70, 45:75] = True
    inside = binary_erosion(seen, iterations=6)
    assert (hole & inside).sum() > 300
    network = np.where(hole[..., None], 99.0, flow + 0.25)
    filled, mask = map(np.asarray, recover_jit(network, seen & ~hole, flow, seen))
    assert mask[inside].all() and not mask[~seen].any()
    np.testing.assert_allclose(filled[hole & inside], flow[hole & inside], atol=1e-3)
    np.testing.assert_allclose(filled[inside & ~hole], flow[inside & ~hole] + 0.25, atol=1e-3)


def test_recover_takes_the_outline_from_the_network(template, face, labels):
    """Hair over the upper rim, a beard beyond the lower one, and nothing far away."""
    flow, seen = labels
    upper = np.arange(SIZE)[:, None] < SIZE / 2
    beard = binary_dilation(seen, iterations=2) & ~upper
    network = (seen | beard) & ~(upper & ~binary_erosion(seen, iterations=2))
    network[:6, :6] = True
    filled, mask = map(np.asarray, recover_jit(flow + 0.25, network, flow, seen))
    wanted = network.copy()
    wanted[:6, :6] = False
    np.testing.assert_array_equal(mask, wanted)
    outside = mask & ~seen
    assert outside.sum() > 30
    np.testing.assert_allclose(filled[outside], flow[outside] + 0.25, atol=1e-3)


def test_recover_drops_flow_that_is_far_from_the_fit(template, face, labels):
    flow, seen = labels
    inside = binary_erosion(seen, iterations=8)
    for error, kept in ((4.0, True), (6.0, False)):
        network = flow + np.float32([error, 0.0])
        filled, _ = map(np.asarray, recover_jit(network, seen, flow, seen))
        wanted = network if kept else flow
        np.testing.assert_allclose(filled[inside], wanted[inside], atol=1e-3)


def test_landmarks_are_read_from_an_exact_flow(model, template, face, labels):
    flow, seen = labels
    wanted = template_landmarks(template)
    points, support = map(np.asarray, landmarks_of_flow(flow, seen * 1.0, wanted))
    error = np.linalg.norm(points - face.landmarks_px, axis=-1)
    clear = support > 1.0
    assert clear[27:48].all() and clear.sum() > 55
    # Brows and bridge lie in smooth surface. Lids, nostrils and lips lie beside creases and gaps
    # where the flow is not affine over the window.
    assert np.median(error[[*range(17, 31)]]) < 0.25 and error[17:31].max() < 0.5
    assert np.median(error[31:60]) < 0.7


def test_lips_that_part_and_lids_that_close_are_read_where_they_are(model, template):
    def moved(**weights):
        expression = np.zeros(model.n_expression, np.float32)
        for name, weight in weights.items():
            expression[model.expression_names.index(name)] = weight
        params = dataclasses.replace(template.params, expression=jnp.asarray(expression))
        parts = draw(model, template.camera, params)
        return View(*parts[:2], np.asarray(parts[2]))

    face = moved(jawOpen=0.5, eyeBlinkLeft=0.6)
    flow, seen = to_template(face.fragments, template)
    wanted = template_landmarks(template)
    points, _ = landmarks_of_flow(flow, seen * 1.0, wanted, outwards=OUTWARDS)
    points, true = np.asarray(points), face.landmarks_px

    def gap(p, above, below):
        return np.linalg.norm(p[above].mean(0) - p[below].mean(0))

    for above, below in (([61, 62, 63], [65, 66, 67]), ([43, 44], [46, 47]), ([37, 38], [40, 41])):
        assert gap(points, above, below) == pytest.approx(gap(true, above, below), rel=0.25)
    assert np.linalg.norm(points - true, axis=-1)[60:].mean() < 0.7


def test_landmarks_follow_an_affine_flow_exactly():
    matrix, origin = np.array([[1.1, 0.15], [-0.1, 0.9]]), np.array([5.0, -3.0])
    flow = (GRID @ matrix.T + origin - GRID).astype(np.float32)
    points = np.array([[40.0, 50.0], [61.3, 77.7], [80.5, 30.25]])
    wanted = points @ matrix.T + origin
    found, support = landmarks_of_flow(flow, np.full((SIZE, SIZE), 0.8, np.float32), wanted)
    np.testing.assert_allclose(found, points, atol=0.05)
    # Sum of a Gaussian of 2.5 px over every other pixel, stretched by the map.
    expected = 0.8 * 2 * np.pi * 2.5**2 / 4 / np.linalg.det(matrix)
    np.testing.assert_allclose(support, expected, rtol=0.02)


def test_an_unseen_landmark_has_no_support(model, template, labels):
    flow, seen = labels
    wanted = np.asarray(template_landmarks(template))
    near_nose = np.linalg.norm(GRID + flow - wanted[30], axis=-1) < 12.0
    points, support = landmarks_of_flow(flow, (seen & ~near_nose) * 1.0, wanted)
    assert support[30] < 0.05 < 1.0 < support[36]
    assert np.isfinite(np.asarray(points)).all()


def test_landmarks_of_the_eyes_join_the_pixels(template, face, labels):
    flow, seen = labels
    found = lift_jit(template, flow, seen * 1.0, n_points=64)
    both = with_eyes_jit(found, template, flow, seen * 1.0)
    pixels, eyes = (jax.tree.map(lambda leaf, part=part: leaf[part], both) for part in PARTED)
    jax.tree.map(np.testing.assert_array_equal, pixels, found)
    wanted = jax.tree.map(lambda leaf: leaf[EYES], template.landmarks)
    jax.tree.map(np.testing.assert_array_equal, eyes.surface, wanted)
    assert (eyes.weight == 4.0).sum() >= 6, "the near eye is seen, and counts as four pixels each"
    error = np.linalg.norm(eyes.points_px - face.landmarks_px[EYES], axis=-1)
    assert error[np.asarray(eyes.weight) > 0].max() < 2.0
    none = with_eyes_jit(found, template, flow, jnp.zeros((SIZE, SIZE)))
    assert not none.weight[64:].any() and np.isfinite(none.points_px).all()


def test_everything_is_finite_when_nothing_is_seen(template):
    flow, zero = jnp.zeros((SIZE, SIZE, 2)), jnp.zeros((SIZE, SIZE))
    completed, mask = recover_jit(flow, zero > 0, *to_template(empty(), template))
    found = lift_jit(template, flow, zero, n_points=1024)
    points, support = landmarks_of_flow(flow, zero, template_landmarks(template))
    for leaf in jax.tree.leaves((completed, found, points)):
        assert np.isfinite(leaf).all()
    for weight in (mask, found.weight, support):
        assert not np.asarray(weight).any()
