"""Exact flow: forth and back between random faces, and against closed forms of moved objects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from data_pipelines.faces.synthetic import SyntheticSettings, sample_params
from dfc_jax.camera import crop_camera, to_camera
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import shape
from dfc_jax.ops.rotations import rotvec_to_matrix
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.raster.flow import fragments_of, ground_truth_flow
from dfc_jax.types import Camera

SIZE = 128
GRID = np.asarray(pixel_grid(SIZE, SIZE), np.float64)
N_PAIRS = 8


# --- forth and back


@pytest.fixture(scope="module")
def face_flows():
    """Flow and matchability of pairs of random faces, forth and back."""
    model, settings = load_face_model(), SyntheticSettings(size=SIZE)

    def view(key):
        params = sample_params(key, model, settings)
        vertices = to_camera(params, shape(model, params.identity, params.expression))
        camera = crop_camera(params, SIZE)
        return fragments_of(vertices, model.triangles, camera, SIZE), vertices, camera

    @jax.jit
    @jax.vmap
    def both_ways(keys):
        (seen_a, *a), (seen_b, *b) = view(keys[0]), view(keys[1])
        return (
            ground_truth_flow(seen_a, seen_b, *b, model.triangles),
            ground_truth_flow(seen_b, seen_a, *a, model.triangles),
        )

    return jax.tree.map(np.asarray, both_ways(jax.random.split(jax.random.key(5), (N_PAIRS, 2))))


def there_and_back(forth, back):
    """For each pixel that is matchable, as are the four pixels around where it goes: the pixel
    (N, 2), where these four lead back to (4, N, 2), and their bilinear weights (4, N)."""
    (flow, seen), (flow_back, seen_back) = forth, back
    q = GRID + flow
    low = np.clip(np.floor(q), 0, SIZE - 2).astype(int)
    around = [(low[..., 1] + j, low[..., 0] + i) for j in (0, 1) for i in (0, 1)]
    both = seen & np.all([seen_back[cell] for cell in around], axis=0)
    ends = np.stack([(GRID + flow_back)[cell][both] for cell in around])
    x, y = (q - low)[both].T
    return GRID[both], ends, np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x])


@pytest.fixture(scope="module")
def round_trips(face_flows):
    """All pairs' `there_and_back`, one after the other."""
    pairs = [jax.tree.map(lambda leaf, i=i: leaf[i], face_flows) for i in range(N_PAIRS)]
    start, ends, weights = zip(*(there_and_back(*pair) for pair in pairs), strict=True)
    return np.concatenate(start), np.concatenate(ends, axis=1), np.concatenate(weights, axis=1)


@pytest.mark.slow
def test_forth_and_back_between_random_faces_ends_where_it_began(round_trips):
    """Bilinear between the four pixels around; at the 99th percentile only where these four lead
    back to places at most 3 px apart. Elsewhere (lips and lids part, a cheek turns away) the way
    back tears or magnifies, and what lies between the four is not on the surface."""
    start, ends, weights = round_trips
    error = np.linalg.norm((weights[..., None] * ends).sum(axis=0) - start, axis=-1)
    one_surface = np.ptp(ends, axis=0).max(axis=-1) < 3.0
    assert len(start) > 30_000 and one_surface.mean() > 0.75
    assert np.median(error) < 0.1
    assert np.quantile(error[one_surface], 0.99) < 0.5


def test_every_matchable_pixel_is_among_those_that_its_place_in_the_target_leads_back_to(
    round_trips,
):
    """Tears included: the four pixels around show the point, or what is on either side of it."""
    start, ends, _ = round_trips
    outside = np.maximum(ends.min(axis=0) - start, start - ends.max(axis=0)).max(axis=-1)
    assert np.mean(outside > 0.5) < 0.003


# --- closed forms


@jax.jit
def flow_of(before, after, triangles, source_camera, target_camera):
    source = fragments_of(before, triangles, source_camera, SIZE)
    target = fragments_of(after, triangles, target_camera, SIZE)
    flow, seen = ground_truth_flow(source, target, after, target_camera, triangles)
    return flow, seen, source.pix_to_face >= 0


def camera_of(focal_px, x, y):
    return Camera(jnp.float32(focal_px), jnp.array([x, y], jnp.float32))


def rays(camera, pixels):
    """Directions (..., 3) of unit depth."""
    xy = (pixels - np.asarray(camera.principal_point, np.float64)) / float(camera.focal_px)
    return np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1)


def project(camera, points):
    xy = points[..., :2] / points[..., 2:]
    return float(camera.focal_px) * xy + np.asarray(camera.principal_point, np.float64)


def outline_px(camera, centre, radius, pixels):
    """How far inside a sphere's outline pixels lie, in pixels; negative outside."""
    ray = rays(camera, pixels)
    cosine = ray @ centre / np.linalg.norm(ray, axis=-1) / np.linalg.norm(centre)
    edge = np.arcsin(radius / np.linalg.norm(centre))
    return float(camera.focal_px) * (edge - np.arccos(np.clip(cosine, -1.0, 1.0)))


def border_px(q):
    """How far inside the image positions lie, in pixels; negative outside."""
    return np.minimum(q + 0.5, SIZE - 0.5 - q).min(axis=-1)


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.2, -0.9, 0.4), (0.1, 2.0, 0.0)])
def test_flow_of_a_turned_and_moved_sphere_is_the_closed_form(turn):
    radius, ball = 80.0, trimesh.creation.icosphere(subdivisions=5, radius=80.0)
    centre, moved = np.array([-25.0, 15.0, 900.0]), np.array([45.0, -30.0, 600.0])
    cameras = camera_of(560.0, 66.0, 60.0), camera_of(450.0, 58.0, 70.0)
    rotation = np.asarray(rotvec_to_matrix(jnp.array(turn)), np.float64)
    before = jnp.asarray(ball.vertices + centre, jnp.float32)
    after = jnp.asarray(ball.vertices @ rotation.T + moved, jnp.float32)
    triangles = jnp.asarray(ball.faces, jnp.int32)
    flow, seen, covered = map(np.asarray, flow_of(before, after, triangles, *cameras))

    ray = rays(cameras[0], GRID)
    a, b, c = (ray**2).sum(axis=-1), ray @ centre, centre @ centre - radius**2
    inside = outline_px(cameras[0], centre, radius, GRID)
    point = ray * ((b - np.sqrt(np.maximum(b**2 - a * c, 0.0))) / a)[..., None]
    after_point = (point - centre) @ rotation.T + moved
    q = project(cameras[1], after_point)
    # Cosines between the surface's normal and the way to the camera.
    facing = -((point - centre) * point).sum(axis=-1) / radius / np.linalg.norm(point, axis=-1)
    facing = np.maximum(facing, 1e-3)
    facing_after = -((after_point - moved) * after_point).sum(axis=-1)

    assert (covered == (inside > 0))[np.abs(inside) > 1.0].all()
    # Between its vertices the mesh lies under the sphere; a ray that grazes it goes further.
    depth_error = (radius - np.linalg.norm(ball.triangles_center, axis=-1).min()) / facing
    allowed = 0.01 + depth_error * float(cameras[1].focal_px) / after_point[..., 2]
    error = np.linalg.norm(flow - (q - GRID), axis=-1)
    inner = covered & (inside > 1.0)
    assert inner.sum() > 3_000 and np.median(allowed[inner]) < 0.06
    assert (error < allowed)[inner].all()

    edge = outline_px(cameras[1], moved, radius, q)
    visible = (facing_after > 0) & (border_px(q) > 0)
    sure = inner & (np.abs(edge) > 1.0) & (np.abs(border_px(q)) > 1.0)
    assert sure.sum() > 0.65 * inner.sum() and (seen == visible)[sure].all()
    assert not seen[~covered].any() and not flow[~covered].any()


def grid_plane(n, side_mm):
    """A square of n x n quads in z = 0, counter-clockwise in y-down pixels: seen from z < 0."""
    y, x = np.mgrid[: n + 1, : n + 1] / n - 0.5
    vertices = side_mm * np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    a = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).reshape(-1)
    quads = [a, a + n + 1, a + 1, a + 1, a + n + 1, a + n + 2]
    return vertices, jnp.asarray(np.stack(quads, axis=-1).reshape(-1, 3), jnp.int32)


@pytest.mark.parametrize(("turn", "front"), [((0.5, 0.3, -0.4), True), ((0.2, 2.4, 0.3), False)])
def test_flow_of_a_turned_and_moved_plane_is_its_homography(turn, front):
    """The second time, the plane turns its back."""
    side, (plane, triangles) = 160.0, grid_plane(20, 160.0)
    centre, shift = np.array([10.0, -5.0, 800.0]), np.array([60.0, -20.0, 50.0])
    tilt, rotation = (
        np.asarray(rotvec_to_matrix(jnp.array(v)), np.float64) for v in ((0.3, -0.5, 0.2), turn)
    )
    before = plane @ tilt.T + centre
    offset = centre + shift - rotation @ centre
    after = before @ rotation.T + offset
    cameras = camera_of(600.0, 66.0, 60.0), camera_of(480.0, 58.0, 70.0)
    meshes = jnp.asarray(before, jnp.float32), jnp.asarray(after, jnp.float32)
    flow, seen, covered = map(np.asarray, flow_of(*meshes, triangles, *cameras))

    ray, normal = rays(cameras[0], GRID), tilt[:, 2]
    met = ray * (normal @ centre / (ray @ normal))[..., None]
    inside = side / 2 - np.abs((met - centre) @ tilt)[..., :2].max(axis=-1)
    # A pixel spans less than 2 mm there.
    assert (covered == (inside > 0))[np.abs(inside) > 2.0].all() and covered.sum() > 8_000
    # On the plane n . X = d the motion R X + t is (R + t n^T / d) X, whatever the depth.
    homography = rotation + np.outer(offset, normal) / (normal @ centre)
    q = project(cameras[1], ray @ homography.T)
    np.testing.assert_allclose(flow[covered], (q - GRID)[covered], atol=5e-3)

    moved = met @ rotation.T + offset
    visible = ((moved @ (rotation @ normal)) > 0) & (border_px(q) > 0)
    assert 0.2 < visible[covered].mean() < 0.95 if front else not visible.any()
    sure = covered & (inside > 2.0) & (np.abs(border_px(q)) > 1.0)
    assert (seen == visible)[sure].all() and sure.sum() > 0.9 * covered.sum()
