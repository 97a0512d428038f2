"""Flow between renders against closed forms; what is hidden; lifting, recovering, reading off."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import sphere

from dfc_jax.camera import project, to_camera
from dfc_jax.crops import box_of_points, crop_of_box
from dfc_jax.landmarks68 import EYES, OUTWARDS
from dfc_jax.morphable.linear import PARTS, landmarks3d, shape, surface_positions
from dfc_jax.ops.rotations import angles_to_rotvec, head_rotation, rotvec_to_matrix
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster import interpolate
from dfc_jax.raster.flow import fragments_of, ground_truth_flow
from dfc_jax.systems.dfc.labels import flow_to_template, nearest_uv_labels
from dfc_jax.systems.dfc.lift import flow_landmarks, lift, recover, surface_at, with_eyes
from dfc_jax.systems.dfc.template import template_landmarks
from dfc_jax.texture.appearance import part_vertex_colors
from dfc_jax.types import Camera, Fragments

SIZE = 128
GRID = np.asarray(pixel_grid(SIZE, SIZE))
# 64 pixels, and the eyes.
PARTED = np.s_[:64], np.s_[64:]

# Compiled once for all tests.
flow_between = jax.jit(ground_truth_flow)
to_template = jax.jit(flow_to_template)
lift_jit = jax.jit(lift, static_argnames="n_points")
landmarks_of_flow = jax.jit(flow_landmarks)
nearest_labels = jax.jit(nearest_uv_labels)
recover_jit = jax.jit(recover)
with_eyes_jit = jax.jit(with_eyes)
surface_jit = jax.jit(surface_at)
fragments = jax.jit(fragments_of, static_argnames="size")


@dataclasses.dataclass
class View:
    """A rendered face: what its pixels see, its vertices and landmarks in the camera."""

    fragments: Fragments
    vertices: jax.Array
    landmarks_px: np.ndarray


@jax.jit
def draw(model, camera, params):
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    landmarks = project(camera, landmarks3d(model, vertices))
    return fragments_of(vertices, model.triangles, camera, SIZE), vertices, landmarks


def view(model, template, yaw=0.0, pitch=0.0, roll=0.0, seed=None):
    """A face turned about the middle of its landmarks, so that it stays inside the crop."""
    params = template.params
    rotvec = angles_to_rotvec(jnp.array([yaw, pitch, roll]))
    middle = landmarks3d(model, model.mean_mm).mean(0) * jnp.array([0.0, 1.0, 0.5])
    slide = (head_rotation(params.rotation) - head_rotation(rotvec)) @ middle
    params = dataclasses.replace(
        params, rotation=rotvec, translation_mm=params.translation_mm + slide
    )
    if seed is not None:
        rng = np.random.default_rng(seed)
        few = rng.uniform(size=model.n_expression) * (rng.uniform(size=model.n_expression) < 0.15)
        params = dataclasses.replace(
            params,
            identity=jnp.asarray(rng.standard_normal(model.n_identity), jnp.float32),
            expression=jnp.asarray(few, jnp.float32),
        )
    fragments, vertices, landmarks = draw(model, template.camera, params)
    return View(fragments, vertices, np.asarray(landmarks))


def flow_of(source, target, template):
    flow, seen = flow_between(
        source.fragments, target.fragments, target.vertices, template.camera, template.triangles
    )
    return np.asarray(flow), np.asarray(seen)


@pytest.fixture(scope="module")
def face(model, template):
    """Another face than the template's, a little turned."""
    return view(model, template, yaw=18.0, pitch=-6.0, roll=8.0, seed=1)


@pytest.fixture(scope="module")
def labels(face, template):
    flow, seen = to_template(face.fragments, template)
    return np.asarray(flow), np.asarray(seen)


# --- the template


def test_template_is_symmetric(template):
    image, valid = np.asarray(template.image), np.asarray(template.valid)
    difference = np.abs(image - image[:, ::-1]).max(-1)
    assert np.quantile(difference, 0.98) < 0.03
    assert np.mean(valid != valid[:, ::-1]) < 0.005
    assert image.min() >= 0.0 and image.max() <= 1.0 and np.ptp(image[valid].mean(-1)) > 0.3


def test_template_frames_the_face_as_every_crop_is_framed(model, template):
    points = np.asarray(template_landmarks(template))
    crop = crop_of_box(box_of_points(points), SIZE)
    np.testing.assert_allclose(crop.centre, (SIZE - 1) / 2.0, atol=0.1)
    assert crop.side_px == pytest.approx(SIZE, rel=1e-3)
    # Frontal: the subject's right eye is on the image's left, the chin below.
    assert points[36, 0] < points[45, 0] and points[8, 1] > points[30, 1] > points[27, 1]


def test_neck_takes_no_part(model, template):
    face = np.asarray(template.fragments.pix_to_face)
    part = np.where(face >= 0, np.asarray(model.triangle_part)[face], -1)
    valid = np.asarray(template.valid)
    assert (part == PARTS.index("neck")).sum() > 100
    np.testing.assert_array_equal(valid, (part >= 0) & (part != PARTS.index("neck")))


def test_irises_are_dark_in_bright_eyes(model):
    colors = np.asarray(part_vertex_colors(model)).mean(-1)
    triangles, part = np.asarray(model.triangles), np.asarray(model.triangle_part)
    eye = np.unique(triangles[part == PARTS.index("eyes")])
    for side in (-1, 1):
        own = eye[side * np.asarray(model.mean_mm)[eye, 0] > 0]
        pupil = own[np.asarray(model.mean_mm)[own, 2].argmax()]
        assert colors[pupil] < 0.2 < 0.8 < colors[own].max()


# --- exact flow


def test_a_render_flows_to_itself_by_zero(template):
    flow, seen = map(np.asarray, to_template(template.fragments, template))
    valid = np.asarray(template.valid)
    assert np.abs(flow).max() < 2e-3
    assert not seen[~valid].any() and seen[valid].mean() > 0.995


def ray_sphere(camera, centre, radius):
    """Where each pixel's ray first meets a sphere (H, W, 3), NaN where it does not."""
    xy = (GRID - np.asarray(camera.principal_point)) / float(camera.focal_px)
    ray = np.concatenate([xy, np.ones((SIZE, SIZE, 1))], axis=-1)
    a, b, c = (ray**2).sum(-1), ray @ centre, centre @ centre - radius**2
    with np.errstate(invalid="ignore"):
        return ray * ((b - np.sqrt(b**2 - a * c)) / a)[..., None]


def test_flow_of_a_moved_and_turned_sphere_is_the_projected_motion():
    vertices, triangles = sphere(96, 48)
    radius, centre, moved = 80.0, np.array([-10.0, 5.0, 900.0]), np.array([30.0, -20.0, 700.0])
    turn = np.asarray(rotvec_to_matrix(jnp.array([0.1, -0.6, 0.3])), np.float64)
    cameras = [Camera(jnp.float32(focal), jnp.array([63.5, 60.0])) for focal in (500.0, 380.0)]
    before = jnp.asarray(radius * vertices + centre, jnp.float32)
    after = jnp.asarray(radius * vertices @ turn.T + moved, jnp.float32)
    source = fragments(before, triangles, cameras[0], size=SIZE)
    target = fragments(after, triangles, cameras[1], size=SIZE)
    flow, seen = flow_between(source, target, after, cameras[1], jnp.asarray(triangles))

    point = ray_sphere(cameras[0], centre, radius)
    there = (point - centre) @ turn.T + moved
    expected = 380.0 * there[..., :2] / there[..., 2:] + [63.5, 60.0] - GRID
    # Cosine between the surface normal and the way to the camera, in each of the two views.
    here = -((point - centre) * point).sum(-1) / (radius * np.linalg.norm(point, axis=-1))
    cosine = -((there - moved) * there).sum(-1) / (radius * np.linalg.norm(there, axis=-1))
    inner = here > 0.3
    np.testing.assert_allclose(np.asarray(flow)[inner], expected[inner], atol=0.15)
    assert inner.sum() > 3000 and (inner & (cosine < -0.1)).sum() > 200
    # Two pixels at the horizon see both sphere and background.
    assert np.asarray(seen)[inner & (cosine > 0.3)].all()
    assert not np.asarray(seen)[inner & (cosine < -0.05)].any()
    background = np.asarray(source.pix_to_face) < 0
    assert not np.asarray(seen)[background].any() and not np.asarray(flow)[background].any()


def test_the_far_side_of_a_thin_disc_is_hidden_though_as_near_as_its_front():
    vertices, triangles = sphere(96, 48)
    disc, centre = vertices * [60.0, 60.0, 0.2], [0.0, 0.0, 900.0]
    camera = Camera(jnp.float32(500.0), jnp.full(2, 63.5))
    source = fragments(jnp.asarray(disc + centre, jnp.float32), triangles, camera, size=SIZE)
    for turned, share in ((disc, 0.95), (disc * [-1.0, 1.0, -1.0], 0.0)):
        after = jnp.asarray(turned + centre, jnp.float32)
        target = fragments(after, triangles, camera, size=SIZE)
        _, seen = flow_between(source, target, after, camera, jnp.asarray(triangles))
        inner = np.linalg.norm(GRID - 63.5, axis=-1) < 30.0
        assert share <= np.asarray(seen)[inner].mean() <= share + 0.05


def test_what_leaves_the_target_image_is_not_matchable(model, template):
    frontal = view(model, template)
    shifted = frontal.vertices + jnp.array([60.0, 0.0, 0.0])
    target = fragments(shifted, template.triangles, template.camera, size=SIZE)
    flow, seen = flow_of(frontal, View(target, shifted, frontal.landmarks_px), template)
    q = GRID + flow
    assert seen.any() and (q[seen] <= SIZE - 0.5).all()
    outside = (q[..., 0] > SIZE - 0.5) & (np.asarray(frontal.fragments.pix_to_face) >= 0)
    assert outside.sum() > 500 and not seen[outside].any()


def test_forth_and_back_between_two_faces_ends_where_it_began(model, template, face):
    other = view(model, template, yaw=-22.0, pitch=8.0, seed=2)
    (forth, seen), (back, seen_back) = (
        flow_of(face, other, template),
        flow_of(other, face, template),
    )
    q = GRID + forth
    low = np.clip(np.floor(q).astype(int), 0, SIZE - 2)
    corners = [(low[..., 1] + j, low[..., 0] + i) for i in (0, 1) for j in (0, 1)]
    around = np.stack([back[c] for c in corners])
    # Where the way back tears (eyelids, lips, silhouettes) it cannot be interpolated.
    smooth = np.ptp(around, axis=0).max(-1) < 2.0
    both = seen & smooth & np.all([seen_back[c] for c in corners], axis=0)
    again = q + np.asarray(bilinear_sample(jnp.asarray(back), jnp.asarray(q)))
    error = np.linalg.norm(again - GRID, axis=-1)[both]
    assert both.sum() > 2500
    assert np.median(error) < 0.1 and np.quantile(error, 0.99) < 0.5


def test_far_cheek_is_hidden_in_profile(model, template):
    frontal, profile = view(model, template), view(model, template, yaw=75.0)
    _, seen = flow_of(frontal, profile, template)
    # Yaw > 0 turns the face to the image's left: the subject's right cheek goes out of sight.
    right, left = frontal.landmarks_px[[2, 3, 4]], frontal.landmarks_px[[12, 13, 14]]
    inward = np.array([6.0, 0.0])
    for points, expected in ((right + inward, False), (left - inward, True)):
        x, y = np.round(points).astype(int).T
        assert (seen[y, x] == expected).all()
    assert seen[:, :50].mean() < 0.1 * seen[:, 78:].mean()


def test_matchable_pixels_see_the_same_place_in_both_views(model, template, face):
    """By the chart alone, which knows nothing of depth: a nose hides a cheek at three quarters."""
    turned = view(model, template, yaw=50.0, seed=3)
    flow, seen = flow_of(face, turned, template)
    uv = [
        np.asarray(interpolate(v.fragments, template.triangles, model.uv)) for v in (face, turned)
    ]
    x, y = np.clip(np.round(GRID + flow), 0, SIZE - 1).astype(int)[seen].T
    distance = np.linalg.norm(uv[0][seen] - uv[1][y, x], axis=-1)
    assert seen.sum() > 2500 and np.quantile(distance, 0.98) < 0.03
    # And nearly every place that both views show is matched.
    seen_uv = uv[1][np.asarray(turned.fragments.pix_to_face) >= 0]
    some = np.flatnonzero((np.asarray(face.fragments.pix_to_face) >= 0).reshape(-1))[::7]
    nearest = np.linalg.norm(uv[0].reshape(-1, 2)[some, None] - seen_uv, axis=-1).min(1)
    assert seen.reshape(-1)[some][nearest < 0.006].mean() > 0.95


def test_nearest_chart_coordinates_give_the_same_labels(model, template, face, labels):
    uv = interpolate(face.fragments, template.triangles, model.uv)
    foreground = face.fragments.pix_to_face >= 0
    flow, matched = map(np.asarray, nearest_labels(uv, foreground, template))
    both = matched & labels[1]
    assert both.sum() / (matched | labels[1]).sum() > 0.9
    assert np.median(np.linalg.norm(flow - labels[0], axis=-1)[both]) < 0.7
    assert np.quantile(np.linalg.norm(flow - labels[0], axis=-1)[both], 0.95) < 1.5
    # Whole template pixels, all of them valid.
    q = (GRID + flow)[matched]
    np.testing.assert_allclose(q, np.round(q), atol=1e-4)
    x, y = np.round(q).astype(int).T
    assert np.asarray(template.valid)[y, x].all()


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
    assert (hole & seen).sum() > 300
    network = np.where(hole[..., None], 99.0, flow + 0.25)
    filled, mask = map(np.asarray, recover_jit(network, seen & ~hole, face.fragments, template))
    np.testing.assert_array_equal(mask, seen)
    np.testing.assert_allclose(filled[hole & seen], flow[hole & seen], atol=1e-3)
    np.testing.assert_allclose(filled[seen & ~hole], flow[seen & ~hole] + 0.25, atol=1e-3)
    # What the network claims beside the fitted mesh is dropped.
    _, mask = recover_jit(network, np.ones_like(seen), face.fragments, template)
    np.testing.assert_array_equal(np.asarray(mask), seen)


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


def test_everything_is_finite_when_nothing_is_seen(model, template, face):
    empty = Fragments(
        pix_to_face=jnp.full((SIZE, SIZE), -1),
        zbuf=jnp.full((SIZE, SIZE), jnp.inf),
        bary_coords=jnp.zeros((SIZE, SIZE, 3)),
    )
    nothing, zero = jnp.zeros((SIZE, SIZE), bool), jnp.zeros((SIZE, SIZE))
    nowhere = View(empty, face.vertices, face.landmarks_px)
    for source, target in ((nowhere, face), (face, nowhere)):
        flow, seen = flow_of(source, target, template)
        assert np.isfinite(flow).all() and not seen.any()
    marks = template_landmarks(template)
    results = [
        to_template(empty, template),
        recover_jit(jnp.zeros((SIZE, SIZE, 2)), nothing, empty, template),
        lift_jit(template, jnp.zeros((SIZE, SIZE, 2)), zero, n_points=1024),
        landmarks_of_flow(jnp.zeros((SIZE, SIZE, 2)), zero, marks),
        nearest_labels(jnp.zeros((SIZE, SIZE, 2)), nothing, template),
    ]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))
    for mask in (results[0][1], results[1][1], results[2].weight, results[3][1], results[4][1]):
        assert not np.asarray(mask).any()
