"""How the face model is made: the FaceKit's reader, the reduction, landmarks and their places."""

import dataclasses
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faces import mean_aligner
from paths import shared_data

from data_pipelines.photos.squares import STORED_PX
from dfc_jax.crops import box_of_points
from dfc_jax.errors import FaceModelError
from dfc_jax.fitting import LandmarkSettings, project_landmarks
from dfc_jax.landmarks68 import MIRROR, N_JAW
from dfc_jax.morphable import ict as io
from dfc_jax.morphable.decimate import _HalfMesh, decimate_half, mirror_permutation
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.ict import read_ict
from dfc_jax.morphable.linear import PARTS, landmarks3d
from dfc_jax.types import FaceParams
from experiments.tools import build_face_model as build
from experiments.tools import calibrate_landmarks as calibrate

# A quad and a triangle on five vertices, centimetres.
NEUTRAL = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 2, 0.25]])
FACES = "f 1/1/1 2/2/1 3/3/1 4/4/1\nf 4/4 3/3 5/5\n"
TEXTURE = "".join(f"vt {u} {v}\n" for u, v in [(0, 0), (1, 0), (1, 0.5), (0, 0.5), (0.5, 1)])


def obj(vertices, rest=TEXTURE + FACES):
    return "# made for a test\n" + "".join("v {} {} {}\n".format(*v) for v in vertices) + rest


@pytest.fixture
def kit(tmp_path):
    """A folder in the FaceKit's layout with two identities and two expressions."""
    files = {"generic_neutral_mesh": NEUTRAL}
    files |= {f"identity{k:03d}": NEUTRAL + [0.1 * (k + 1), 0, 0] for k in range(2)}
    files |= {"jawOpen": NEUTRAL - [0, 0.5, 0], "eyeBlink_L": NEUTRAL + [0, 0, 0.25]}
    for name, vertices in files.items():
        (tmp_path / f"{name}.obj").write_text(obj(vertices))
    (tmp_path / "vertex_indices.json").write_text(
        json.dumps({"expressions": ["jawOpen", "eyeBlink_L"], "idxs": []})
    )
    return tmp_path


# --- the reader


def test_reader_keeps_vertex_order_and_converts_to_millimetres(kit):
    model = read_ict(kit)
    np.testing.assert_allclose(model.neutral_mm, 10.0 * NEUTRAL)
    np.testing.assert_allclose(model.identity_mm[:, :, 0], [[1.0] * 5, [2.0] * 5])
    np.testing.assert_allclose(model.identity_mm[:, :, 1:], 0.0)
    assert model.expression_names == ("jawOpen", "eyeBlink_L")
    np.testing.assert_allclose(model.expression_mm[0], [[0, -5.0, 0]] * 5)
    np.testing.assert_allclose(model.expression_mm[1], [[0, 0, 2.5]] * 5, atol=1e-9)


def test_reader_takes_quads_and_triangles_with_their_texture(kit):
    model = read_ict(kit)
    np.testing.assert_array_equal(model.polygons, [[0, 1, 2, 3], [3, 2, 4, -1]])
    np.testing.assert_allclose(model.polygon_uv[0], [[0, 0], [1, 0], [1, 0.5], [0, 0.5]])
    np.testing.assert_allclose(model.polygon_uv[1, :3], [[0, 0.5], [1, 0.5], [0.5, 1]])


def break_json(kit):
    (kit / "vertex_indices.json").write_text("[]")


def break_obj(kit):
    (kit / "identity001.obj").write_text(obj(NEUTRAL).replace("v 1.0 0.0 0.0", "v 1.0 zero 0.0"))


def drop_vertex(kit):
    (kit / "identity001.obj").write_text(obj(NEUTRAL[:4]))


def drop_texture(kit):
    (kit / "generic_neutral_mesh.obj").write_text(obj(NEUTRAL, "f 1 2 3\n"))


def drop_faces(kit):
    (kit / "generic_neutral_mesh.obj").write_text(obj(NEUTRAL, TEXTURE))


def point_past_the_end(kit):
    (kit / "generic_neutral_mesh.obj").write_text(obj(NEUTRAL, TEXTURE + "f 1/1 2/2 9/3\n"))


def write_binary(kit):
    (kit / "generic_neutral_mesh.obj").write_bytes(b"\xff\xfe\x00\x81" * 9)


def drop_identities(kit):
    for path in kit.glob("identity*.obj"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda kit: (kit / "vertex_indices.json").unlink(), "vertex_indices.json: cannot be read"),
        (lambda kit: (kit / "jawOpen.obj").unlink(), "jawOpen.obj: cannot be read"),
        (break_json, "vertex_indices.json: lists no expressions"),
        (break_obj, "identity001.obj: a vertex line"),
        (drop_vertex, "identity001.obj: has 4 vertices where the neutral mesh has 5"),
        (drop_texture, "generic_neutral_mesh.obj: holds a polygon"),
        (drop_faces, "generic_neutral_mesh.obj: holds no polygons"),
        (point_past_the_end, "generic_neutral_mesh.obj: holds no polygons over its vertices"),
        (write_binary, r"generic_neutral_mesh.obj: cannot be read \(not a text file\)"),
        (drop_identities, "holds no identity"),
    ],
)
def test_reader_names_the_file_that_is_wrong(kit, damage, named):
    damage(kit)
    with pytest.raises(FaceModelError, match=named) as error:
        read_ict(kit)
    assert str(error.value).startswith(str(kit)) and "\n" not in str(error.value)


def test_reader_refuses_a_missing_folder(tmp_path):
    with pytest.raises(FaceModelError, match="nowhere.*No such file"):
        read_ict(tmp_path / "nowhere")


# --- the reduction


def bumpy_grid(n=12):
    """A symmetric sheet (2n + 1)^2, z up, with two bumps; its mirror index and triangles."""
    x, y = np.meshgrid(np.arange(-n, n + 1.0), np.arange(2 * n + 1.0))
    z = 4.0 * np.exp(-((np.abs(x) - n / 2) ** 2 + (y - n) ** 2) / 9.0)
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    width = 2 * n + 1
    a = (np.arange(2 * n)[:, None] * width + np.arange(n, 2 * n)).reshape(-1)
    half = np.concatenate(
        [np.stack([a, a + 1, a + width + 1], 1), np.stack([a, a + width + 1, a + width], 1)]
    )
    return vertices, half


def reduce_grid(target):
    """The grid, its left half, its mirror index, what is locked, and the half reduced."""
    vertices, half = bumpy_grid()
    mirror = mirror_permutation(vertices)
    locked = np.zeros(len(vertices), bool)
    locked[build.boundary_vertices(np.concatenate([half, mirror[half][:, [0, 2, 1]]]))] = True
    locked[[200, 320]] = True
    locked |= locked[mirror]
    poses = np.stack([vertices, vertices * [1.0, 1.0, 1.5]])
    small = decimate_half(poses, half, locked, mirror == np.arange(len(vertices)), target)
    return vertices, half, mirror, locked, small


@pytest.fixture(scope="module")
def reduced():
    return reduce_grid(130)


def test_reduction_reaches_its_target_with_original_vertices(reduced):
    _, half, _, _, small = reduced
    assert len(np.unique(small)) == 130 < len(np.unique(half))
    assert set(np.unique(small)) <= set(np.unique(half))


# To 0: until no collapse is allowed any more.
@pytest.mark.parametrize("target", [130, 0])
def test_reduced_mesh_is_manifold_whole_and_unfolded_and_keeps_locked_vertices(target):
    vertices, half, mirror, locked, small = reduce_grid(target)
    assert set(np.unique(half)[locked[np.unique(half)]]) <= set(np.unique(small))
    directed = small[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    assert len(np.unique(directed, axis=0)) == len(directed)
    # The whole has the outline of the sheet and no hole along the seam.
    whole = np.concatenate([small, mirror[small][:, [0, 2, 1]]])
    boundary = vertices[build.boundary_vertices(whole)]
    assert ((np.abs(boundary[:, 0]) == 12) | np.isin(boundary[:, 1], [0, 24])).all()

    def areas(triangles):
        a, b, c = (vertices[triangles[:, i], :2] for i in range(3))
        return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2

    assert (areas(small) > 0).all()
    np.testing.assert_allclose(areas(small).sum(), areas(half).sum())


def test_a_collapse_that_pinches_the_surface_is_refused():
    # Two vertices of an octahedron's belt: the third corner of no common triangle joins them.
    octahedron = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    ring = [(k, (k + 1) % 4) for k in range(4)]
    triangles = np.array([(a, b, 4) for a, b in ring] + [(b, a, 5) for a, b in ring[1:]])
    mesh = _HalfMesh(octahedron[None], triangles)
    mesh._flips = lambda gone, kept: False
    # Without the triangle (1, 0, 5), vertices 0 and 1 share neighbour 5 but no triangle with it.
    assert not mesh.allowed(0, 1) and mesh.allowed(4, 0)


def test_reduction_spends_its_vertices_on_the_bumps(reduced):
    vertices, _, _, locked, small = reduced
    free = np.setdiff1d(np.unique(small), np.flatnonzero(locked))
    on_bump = np.hypot(np.abs(vertices[:, 0]) - 6, vertices[:, 1] - 12) < 6.5
    assert on_bump[free].mean() > 0.75


def test_mirror_permutation_refuses_a_crooked_mesh():
    vertices, _ = bumpy_grid(3)
    vertices[0, 2] += 1.0
    with pytest.raises(ValueError, match="symmetric"):
        mirror_permutation(vertices)


@pytest.mark.slow
def test_embedded_model_stands_for_its_source(tmp_path):
    # The archive is read in its own order up to the neutral mesh: a tenth of the directions.
    identities = {f"identity{k:03d}" for k in (0, 4, 11, 18, 37, 42, 68, 77)}
    expressions = {"jawOpen", "browDown_R", "mouthSmile_L", "eyeBlink_L"}
    wanted = identities | expressions | {"generic_neutral_mesh", "vertex_indices"}
    with tarfile.open(shared_data("ICT-FaceKit-light.tar.xz"), "r|xz") as archive:
        for member in archive:
            if (name := Path(member.name)).stem in wanted:
                (tmp_path / name.name).write_bytes(archive.extractfile(member).read())
            if name.stem == "generic_neutral_mesh":
                break
    names = sorted(e for e in expressions if (tmp_path / f"{e}.obj").exists())
    (tmp_path / "vertex_indices.json").write_text(json.dumps({"expressions": names}))
    ict, model = read_ict(tmp_path), load_face_model()
    assert len(ict.identity_mm) >= 4 and names
    columns = [int(path.stem[8:]) for path in sorted(tmp_path.glob("identity*.obj"))]
    shapes = [model.expression_names.index(build.arkit_name(name)) for name in names]
    reduced = jax.tree.map(np.asarray, model)
    reduced = reduced.replace(
        identity_mm=reduced.identity_mm[..., columns],
        expression_mm=reduced.expression_mm[..., shapes],
    )
    error = build.reduction_error(ict, reduced, faces=20)
    assert error.shape == (20, io.ICT_FACE.stop)
    assert error.mean() < 0.15 and error.mean(1).max() < 0.5


# --- helpers of the builder


def test_arkit_names():
    assert [build.arkit_name(n) for n in ("mouthSmile_L", "eyeBlink_R", "jawOpen")] == [
        "mouthSmileLeft",
        "eyeBlinkRight",
        "jawOpen",
    ]


def test_quads_are_split_along_the_shorter_diagonal_and_keep_their_turn():
    vertices = np.array([[0.0, 0, 0], [2, 0, 0], [3, 3, 0], [0, 2, 0]])
    triangles = build.triangulate(vertices, np.array([[0, 1, 2, 3], [0, 1, 2, -1]]))
    assert {tuple(sorted(t)) for t in triangles.tolist()} == {(0, 1, 2), (0, 1, 3), (1, 2, 3)}
    edges = vertices[triangles[:, 1:]] - vertices[triangles[:, :1]]
    assert (np.cross(edges[:, 0], edges[:, 1])[:, 2] > 0).all()


def test_inside_polygon_of_a_concave_outline():
    outline = np.array([[0.0, 0], [4, 0], [4, 4], [2, 1], [0, 4]])
    points = np.array([[1.0, 1], [2, 0.5], [2, 3], [5, 1], [-1, 1]])
    np.testing.assert_array_equal(
        build.inside_polygon(points, outline), [True, True, False, False, False]
    )


def test_distance_to_a_line_ends_at_its_ends():
    line = np.array([[0.0, 0, 0], [4, 0, 0], [4, 4, 0]])
    points = np.array([[2.0, 1, 0], [-3, 4, 0], [6, 2, 0], [4, 4, 7]])
    np.testing.assert_allclose(build.distance_to_line(points, line), [1, 5, 2, 7])


def test_chart_overlap_sees_a_fold():
    corners = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9], [0.5, 0.2]])
    square = np.array([[0, 1, 2], [0, 2, 3]])
    assert build.chart_overlap(corners, square, size=128) == 0.0
    # Either turn: a mirrored copy covers the chart too.
    for fold in ([0, 1, 4], [1, 0, 4]):
        share = build.chart_overlap(corners, np.vstack([square, [fold]]), size=128)
        assert share == pytest.approx(0.04 / 0.64, rel=0.05)


def test_rays_hit_the_first_surface_and_borrow_from_a_neighbour():
    plane = np.array([[[-9.0, -9, 5], [9, -9, 5], [0, 18, 5]]])
    corners = np.concatenate([plane + [0, 0, 3], plane])
    directions = np.array([[0.0, 0, 1], [0.1, 0.2, 1], [0, 0, -1]])
    triangle, barycentric = build.ray_hits(corners, np.zeros(3), directions)
    np.testing.assert_array_equal(triangle, [1, 1, 1])
    hits = (corners[triangle] * barycentric[..., None]).sum(1)
    np.testing.assert_allclose(hits, [[0, 0, 5], [0.5, 1, 5], [0.5, 1, 5]], atol=1e-9)


def test_nearest_surface_point_of_a_plane_is_the_foot():
    vertices, half = bumpy_grid(4)
    vertices[:, 2] = 0.0
    points = np.array([[1.3, 2.6, 2.0], [2.0, 5.5, -1.0]])
    triangle, barycentric = build.nearest_surface(points, vertices, half)
    feet = (vertices[half[triangle]] * barycentric[..., None]).sum(1)
    np.testing.assert_allclose(feet, points * [1, 1, 0], atol=1e-9)


# --- landmarks moved to where annotators put them


def test_landmarks_move_over_the_surface_by_their_offset(model):
    offset = np.zeros((68, 2))
    offset[:, 1] = 1.5
    before = np.asarray(landmarks3d(model, model.mean_mm))
    moved = calibrate.move_landmarks(model, offset)
    after = np.asarray(landmarks3d(moved, moved.mean_mm))
    np.testing.assert_array_equal(after[:N_JAW], before[:N_JAW])
    # Brows and bridge are nearly flat in the image; a slope shortens the way.
    step = (after - before)[17:31]
    np.testing.assert_allclose(step[:, 1], 1.5, atol=0.6)
    # They do not lie alike on both sides, as the annotators' did not; they move alike.
    mirrored = (after - before)[MIRROR] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored[17:31], step, atol=0.6)


def test_landmarks_stay_off_the_eyeballs_and_on_their_own_lip(model):
    part, triangles = np.asarray(model.triangle_part), np.asarray(model.triangles)
    drop = -np.asarray(model.expression_mm)[..., model.expression_names.index("jawOpen")][:, 1]
    for landmark in (36, 51, 57, 62, 66):
        allowed = calibrate.allowed_triangles(model, landmark)
        assert allowed.any() and not (part[allowed] == PARTS.index("eyes")).any()
        dropping = drop[triangles[allowed]].mean(1)
        if landmark in (57, 66):
            assert dropping.min() > 8.0
        if landmark in (51, 62):
            assert dropping.max() < 8.0
    # Upper and lower lip: every landmark of the mouth is on one, or is a corner of it.
    groups = [calibrate.UPPER_LIP, calibrate.LOWER_LIP, calibrate.MOUTH_CORNERS]
    assert sorted(k for group in groups for k in group) == list(range(48, 68))


def test_leftover_is_the_annotators_habit_in_model_millimetres(model, monkeypatch):
    shifts = np.array([[0.0, 0.0], [60.0, -25.0]])
    params = FaceParams(
        focal_px=jnp.full(2, 700.0),
        rotation=jnp.zeros((2, 3)),
        translation_mm=jnp.asarray(np.pad(shifts, ((0, 0), (0, 1))) + [0.0, 0.0, 1000.0]),
        identity=jnp.zeros((2, 3)),
        expression=jnp.zeros((2, model.n_expression)),
    )
    centre = jnp.full(2, (STORED_PX - 1) / 2.0)
    project = jax.jit(jax.vmap(lambda p: project_landmarks(model, p, centre)))
    projected = np.asarray(project(params))
    habit = np.zeros((68, 2))
    habit[[30, 38, 43]] = [[0.0, 2.0], [1.0, -1.0], [-1.0, -1.0]]
    depth = 1000.0 - np.asarray(landmarks3d(model, model.mean_mm))[:, 2]
    points = projected + 700.0 / depth[:, None] * habit * [1.0, -1.0]
    monkeypatch.setattr(calibrate, "fit_points", lambda *_: SimpleNamespace(params=params))
    offset, error = calibrate.leftover_mm(model, points, LandmarkSettings())
    np.testing.assert_allclose(offset[N_JAW:], habit[N_JAW:], atol=0.15)
    box = np.sqrt(np.prod(points.max(1) - points.min(1), axis=-1))
    expected = np.linalg.norm(points - projected, axis=-1)[:, N_JAW:].mean(1) / box
    assert error == pytest.approx(100.0 * expected.mean(), rel=1e-3)


def test_sideways_is_how_far_all_annotated_points_lie_to_the_right(model):
    def example(shift_px: float):
        image = np.zeros((500, 500, 3), np.uint8)
        points = np.asarray(found[0].landmarks) + [shift_px, 3.0]
        return SimpleNamespace(
            image=lambda: image, points=points, landmark_box=box_of_points(points)
        )

    aligner = mean_aligner(recrop=0)
    found = aligner(np.zeros((500, 500, 3), np.uint8))
    fixed = lambda image, boxes: found  # noqa: E731
    scale = found[0].focal_px / (1000.0 - 110.0)  # pixels per mm at the depth of the features
    examples = [example(scale * mm) for mm in (-9.0, 1.2, 1.2)]
    assert calibrate.sideways_mm(model, fixed, examples) == pytest.approx(1.2, rel=0.05)
    turned = [dataclasses.replace(found[0], angles_deg={"yaw": 40.0})]
    both = lambda image, boxes: found if image[0, 0, 0] == 0 else turned  # noqa: E731
    far = example(50.0)
    far.image = lambda: np.ones((500, 500, 3), np.uint8)
    assert calibrate.sideways_mm(model, both, [*examples, far, far, far]) == pytest.approx(
        1.2, rel=0.05
    )
