"""The template, and flow between renders against closed forms; what is hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import sphere
from views import SIZE, View, empty, view

from dfc_jax.crops import box_of_points, crop_of_box
from dfc_jax.morphable.linear import PARTS
from dfc_jax.ops.rotations import rotvec_to_matrix
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.raster import interpolate
from dfc_jax.raster.flow import fragments_of, ground_truth_flow
from dfc_jax.systems.dfc.labels import flow_to_template, nearest_uv_labels
from dfc_jax.systems.dfc.template import template_landmarks
from dfc_jax.texture.appearance import part_vertex_colors
from dfc_jax.types import Camera

GRID = np.asarray(pixel_grid(SIZE, SIZE))

# Compiled once for all tests.
flow_between = jax.jit(ground_truth_flow)
to_template = jax.jit(flow_to_template)
nearest_labels = jax.jit(nearest_uv_labels)
fragments = jax.jit(fragments_of, static_argnames="size")


def flow_of(source, target, template):
    flow, seen = flow_between(
        source.fragments, target.fragments, target.vertices, template.camera, template.triangles
    )
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


def test_flow_and_labels_are_finite_when_nothing_is_seen(model, template, face):
    nowhere = View(empty(), face.vertices, face.landmarks_px)
    for source, target in ((nowhere, face), (face, nowhere)):
        flow, seen = flow_of(source, target, template)
        assert np.isfinite(flow).all() and not seen.any()
    nothing = jnp.zeros((SIZE, SIZE), bool)
    for found in (
        to_template(empty(), template),
        nearest_labels(jnp.zeros((SIZE, SIZE, 2)), nothing, template),
    ):
        assert np.isfinite(found[0]).all() and not np.asarray(found[1]).any()
