"""The embedded face model: what a user may rely on; the linear model and its file."""

import dataclasses
import struct
import warnings
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import sphere

from dfc_jax.errors import FaceModelError
from dfc_jax.landmarks68 import MIRROR as LANDMARK_MIRROR
from dfc_jax.landmarks68 import N_JAW
from dfc_jax.morphable import linear as core
from dfc_jax.morphable.decimate import mirror_permutation
from dfc_jax.morphable.file import load_face_model, save_face_model
from dfc_jax.morphable.linear import PARTS, landmarks3d, surface_basis, surface_positions
from dfc_jax.types import SurfacePoints
from experiments.tools.build_face_model import chart_overlap

FLIP = np.array([-1.0, 1.0, 1.0])
# ARKit's 52, but for the tongue; the model has browInnerUp and cheekPuff once per side.
# fmt: off
ARKIT = {
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft",
    "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft",
    "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
}
# fmt: on
ONCE_PER_SIDE = {"browInnerUp", "cheekPuff"}


@pytest.fixture(scope="module")
def marks(model):
    return np.asarray(landmarks3d(model, model.mean_mm))


@pytest.fixture(scope="module")
def mirror(model):
    return mirror_permutation(np.asarray(model.mean_mm, np.float64))


def expression_of(model, name):
    return np.asarray(model.expression_mm[..., model.expression_names.index(name)])


def marks_with(model, name):
    return np.asarray(landmarks3d(model, model.mean_mm + expression_of(model, name)))


def triangle_set(triangles):
    """Triangles with the smallest vertex first, so that only orientation and membership count."""
    return {tuple(np.roll(t, -np.argmin(t)).tolist()) for t in np.asarray(triangles)}


# --- the embedded model


def test_it_is_as_small_as_promised(model):
    import dfc_jax

    file = next(iter(dfc_jax.__path__)) + "/assets/face_model.npz"
    assert len(np.fromfile(file, np.uint8)) <= 6e6
    assert 5000 <= len(model.mean_mm) <= 8000
    assert model.n_identity >= 60
    assert np.isfinite(model.identity_mm).all() and np.isfinite(model.expression_mm).all()


def test_every_vertex_is_used_and_every_edge_has_at_most_two_triangles(model):
    triangles = np.asarray(model.triangles)
    assert len(np.unique(triangles)) == len(model.mean_mm)
    directed = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    # Neighbours of one orientation run along their common edge in opposite directions.
    assert len(np.unique(directed, axis=0)) == len(directed)


def test_mirroring_maps_vertices_to_vertices_and_triangles_to_triangles(model, mirror):
    mean, triangles = np.asarray(model.mean_mm), np.asarray(model.triangles)
    np.testing.assert_allclose(mean[mirror] * FLIP, mean, atol=0.1)
    assert triangle_set(mirror[triangles][:, [0, 2, 1]]) == triangle_set(triangles)


def test_surface_is_oriented_outward(model):
    normals = np.asarray(core.vertex_normals(model.mean_mm, model.triangles))
    mean = np.asarray(model.mean_mm)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1.0, atol=1e-4)
    assert normals[mean[:, 2].argmax(), 2] > 0.9
    # Nostrils, ears and eyelids fold back, the rest turns away from the middle of the head.
    assert ((mean - mean.mean(0)) * normals).sum(-1).mean() > 30.0
    face = np.unique(np.asarray(model.triangles)[np.asarray(model.triangle_part) == 0])
    assert (((mean - mean.mean(0)) * normals).sum(-1)[face] > 0).mean() > 0.9


def test_lengths_are_millimetres(marks):
    outer, inner = marks[45] - marks[36], marks[42] - marks[39]
    # The subject's left is x > 0, and iBUG counts from the image's left.
    assert 80.0 < outer[0] < 100.0 and 28.0 < inner[0] < 42.0
    assert 130.0 < (marks[16] - marks[0])[0] < 165.0
    assert 55.0 < np.linalg.norm(marks[36:42].mean(0) - marks[42:48].mean(0)) < 70.0
    assert 100.0 < marks[27, 1] - marks[8, 1] < 130.0


def test_chart_lies_in_the_unit_square_without_overlaps(model):
    uv, triangles = np.asarray(model.uv), np.asarray(model.triangles)
    assert uv.min() >= 0.0 and uv.max() <= 1.0
    assert chart_overlap(uv, triangles, size=512) < 1e-3
    # v points up: brows above the chin.
    corner = triangles[np.asarray(model.landmarks.triangle), 0]
    assert uv[corner[17:27], 1].min() > uv[corner[8], 1] + 0.2


def test_every_part_is_there_left_and_right_alike(model, mirror):
    triangles = map(tuple, np.sort(model.triangles, axis=1).tolist())
    part = dict(zip(triangles, np.asarray(model.triangle_part), strict=True))
    assert set(part.values()) == set(range(len(PARTS)))
    mirrored = [part[tuple(sorted(mirror[list(t)].tolist()))] for t in part]
    assert np.mean(np.array(mirrored) == list(part.values())) > 0.995


@pytest.mark.parametrize(
    ("part", "points", "share"),
    [("nose", range(28, 36), 1.0), ("brows", range(17, 27), 0.6), ("lips", range(61, 64), 1.0)],
)
def test_parts_lie_where_their_landmarks_are(model, part, points, share):
    of_landmark = np.asarray(model.triangle_part)[np.asarray(model.landmarks.triangle)]
    assert np.mean(of_landmark[list(points)] == PARTS.index(part)) >= share


def test_eyes_lie_behind_the_lids_and_ears_and_neck_at_the_rim(model, marks):
    centre = np.asarray(model.mean_mm)[np.asarray(model.triangles)].mean(1)
    where = {name: centre[np.asarray(model.triangle_part) == i] for i, name in enumerate(PARTS)}
    for eye in (marks[36:42], marks[42:48]):
        near = where["eyes"][np.sign(where["eyes"][:, 0]) == np.sign(eye[0, 0])]
        assert np.linalg.norm(near.mean(0)[:2] - eye.mean(0)[:2]) < 5.0
        assert near[:, 2].max() < eye[:, 2].max() + 3.0
    assert np.abs(where["ears"][:, 0]).min() > 55.0
    assert where["neck"][:, 1].mean() < marks[8, 1]


@pytest.mark.parametrize("name", ["landmarks", "contours"])
def test_landmarks_and_contours_are_surface_points(model, name):
    points = getattr(model, name)
    assert points.triangle.shape == {"landmarks": (68,), "contours": (N_JAW, 17)}[name]
    assert (np.asarray(points.triangle) >= 0).all()
    assert (np.asarray(points.triangle) < len(model.triangles)).all()
    np.testing.assert_allclose(np.asarray(points.barycentric).sum(-1), 1.0, atol=1e-5)
    assert (np.asarray(points.barycentric) >= -1e-5).all()


def test_landmarks_and_contours_are_symmetric(model, marks):
    assert sorted(LANDMARK_MIRROR) == list(range(68))
    mirrored = marks[LANDMARK_MIRROR] * FLIP
    np.testing.assert_allclose(mirrored[:N_JAW], marks[:N_JAW], atol=0.3)
    np.testing.assert_allclose(mirrored[:, 1], marks[:, 1], atol=0.35)
    # Annotators put the inner ones to the image's right, by half a millimetre in the mean.
    sideways = (marks - mirrored)[N_JAW:, 0] / 2.0
    assert sideways.min() > -0.05 and 0.4 < sideways.mean() < 0.7
    lines = np.asarray(surface_positions(model.mean_mm, model.triangles, model.contours))
    np.testing.assert_allclose(lines[::-1] * FLIP, lines, atol=0.3)


def test_landmarks_lie_in_the_order_of_a_face(marks):
    x, y, z = marks.T
    right, left = [*range(8), *range(17, 22), *range(36, 42)], [*range(9, 17), *range(22, 27)]
    assert (x[right] < 0).all() and (x[left + list(range(42, 48))] > 0).all()
    brows, eyes, nose, mouth = y[17:27], y[36:48], y[31:36], y[48:68]
    assert brows.min() > eyes.max() > nose.max() > nose.min() > mouth.max()
    assert mouth.min() > y[8] and y[8] == y[:17].min()
    assert (np.diff(y[27:31]) < 0).all() and z.argmax() == 30
    assert (np.diff(x[:17]) > 0).all()
    # Upper lids and lips over lower ones.
    assert (y[[37, 38, 43, 44]] > y[[41, 40, 47, 46]] + 3.0).all()
    assert (y[[50, 51, 52]] > y[[58, 57, 56]] + 5.0).all()
    assert (y[[61, 62, 63]] >= y[[67, 66, 65]] - 0.5).all()


def test_contours_run_from_the_cheek_over_the_landmark_backwards(model, marks):
    lines = np.asarray(surface_positions(model.mean_mm, model.triangles, model.contours))
    to_landmark = np.linalg.norm(lines - marks[:N_JAW, None], axis=-1)
    assert to_landmark.min(axis=1).max() < 3.0
    assert (lines[:, 0, 2] > lines[:, -1, 2]).all()


def test_expressions_are_arkits(model):
    names = model.expression_names
    assert len(set(names)) == len(names) == model.n_expression
    halves = {name + side for name in ONCE_PER_SIDE for side in ("Left", "Right")}
    assert set(names) == ARKIT - ONCE_PER_SIDE | halves


def test_expressions_of_the_two_sides_mirror_each_other(model, mirror):
    for name in model.expression_names:
        if name.endswith("Left") and name != "jawLeft":
            other = expression_of(model, name[:-4] + "Right")
            mirrored = expression_of(model, name)[mirror] * FLIP
            assert np.linalg.norm(mirrored - other, axis=-1).max() < 2.0, name


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_blink_closes_its_own_eye(model, marks, side):
    def opening(points, upper, lower):
        return np.linalg.norm(points[upper].mean(0) - points[lower].mean(0))

    left, right = ([43, 44], [47, 46]), ([37, 38], [41, 40])
    own, other = (left, right) if side == "Left" else (right, left)
    assert (marks[own[0], 0] > 0).all() == (side == "Left")
    blinked = marks_with(model, f"eyeBlink{side}")
    assert opening(blinked, *own) < 0.4 * opening(marks, *own)
    assert opening(blinked, *other) > 0.98 * opening(marks, *other)


def test_an_opening_jaw_lowers_chin_and_lower_lip(model, marks):
    moved = marks_with(model, "jawOpen") - marks
    assert moved[8, 1] < -20.0 and moved[66, 1] < -15.0
    assert np.abs(moved[[27, 30, 37, 51]]).max() < 3.0
    swung = marks_with(model, "jawLeft") - marks
    assert swung[8, 0] > 3.0


def test_directions_shrink_from_millimetres_to_details(model):
    spread = np.sqrt((np.asarray(model.identity_mm) ** 2).sum(1).mean(0))
    assert 2.0 < spread[0] < 8.0 and spread[-1] < 0.5
    assert spread[:10].mean() > 5 * spread[-10:].mean()


# --- the linear model


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


# --- the file


def test_a_model_survives_its_file(model, tmp_path):
    save_face_model(tmp_path / "again.npz", dataclasses.replace(model, version="again"))
    again = load_face_model(tmp_path / "again.npz")
    assert again.version == "again" and again.expression_names == model.expression_names
    jax.tree.map(
        np.testing.assert_array_equal, dataclasses.replace(again, version=model.version), model
    )
    assert [path.name for path in tmp_path.iterdir()] == ["again.npz"]


def small_arrays(model):
    """The arrays of a file, with few directions so that many of them can be written."""
    points = {
        f"{name}_{field}": np.asarray(getattr(getattr(model, name), field))
        for name in ("landmarks", "contours")
        for field in ("triangle", "barycentric")
    }
    return points | {
        "mean_mm": np.asarray(model.mean_mm),
        "identity_mm": np.asarray(model.identity_mm[..., :1]),
        "expression_mm": np.asarray(model.expression_mm[..., :1]),
        "triangles": np.asarray(model.triangles),
        "uv": np.asarray(model.uv),
        "triangle_part": np.asarray(model.triangle_part),
        "expression_names": np.array(["jawOpen"]),
        "version": np.array("small"),
    }


def test_the_smallest_valid_file_loads(model, tmp_path):
    np.savez(tmp_path / "small.npz", **small_arrays(model))
    assert load_face_model(tmp_path / "small.npz").n_identity == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("uv", None),
        ("version", None),
        ("contours_barycentric", None),
        ("identity_mm", lambda a: a[:-1]),
        ("expression_names", lambda a: np.array(["jawOpen", "jawLeft"])),
        ("triangles", lambda a: a + 1),
        ("triangle_part", lambda a: a[1:]),
        ("triangle_part", lambda a: a + 1),
        ("landmarks_triangle", lambda a: a[:67]),
        ("landmarks_triangle", lambda a: a + 100_000),
        ("contours_triangle", lambda a: a[:, :3]),
        ("mean_mm", lambda a: a[:, :2]),
        ("mean_mm", lambda a: a[0, 0]),
        ("triangles", lambda a: a[:0]),
        ("triangles", lambda a: np.where(a == 7, -1, a.astype(np.int64))),
        ("triangles", lambda a: a.astype(np.float32)),
        ("triangle_part", lambda a: a.astype(np.int8) - 1),
        ("landmarks_triangle", lambda a: -a.astype(np.int64) - 1),
        ("contours_triangle", lambda a: a.astype(np.int64) - 10**6),
        ("contours_triangle", lambda a: a[:, :0]),
        ("mean_mm", lambda a: a[:0]),
        ("mean_mm", lambda a: np.full_like(a, np.nan)),
        ("mean_mm", lambda a: 1e30 * a),
        ("mean_mm", lambda a: a.astype(np.complex64)),
        ("mean_mm", lambda a: a.astype(str)),
        ("identity_mm", lambda a: np.where(a == a[5, 1, 0], np.inf, a)),
        ("expression_mm", lambda a: a.astype(np.float16) * np.float16(np.nan)),
        ("uv", lambda a: np.full_like(a, np.inf)),
        ("landmarks_barycentric", lambda a: 2.0 * a),
        ("contours_barycentric", lambda a: np.full_like(a, -np.inf)),
        ("expression_names", lambda a: np.zeros(1)),
        ("version", lambda a: np.array(3)),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(model, tmp_path, name, change):
    arrays = small_arrays(model)
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    file = tmp_path / "odd.npz"
    np.savez(file, **arrays)
    with pytest.raises(FaceModelError, match=name[:6]) as error:
        load_face_model(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


def test_a_file_that_unpacks_to_more_than_a_gibibyte_is_not_unpacked(model, tmp_path):
    file, arrays = tmp_path / "bomb.npz", small_arrays(model)
    np.savez_compressed(file, **arrays)
    with zipfile.ZipFile(file) as archive:
        declared = archive.getinfo("mean_mm.npy").file_size
    # The directory of the archive says how much each member holds.
    size = struct.pack("<I", declared)
    file.write_bytes(file.read_bytes().replace(size, struct.pack("<I", 2**30 + 1)))
    with pytest.raises(FaceModelError, match="not a readable") as error:
        load_face_model(file)
    assert "holds more than 1024 MiB" in str(error.value.__cause__)


def test_arrays_that_are_no_part_of_a_model_are_left_alone(model, tmp_path):
    file = tmp_path / "more.npz"
    np.savez(file, **small_arrays(model), objects=np.array([{}, None], object))
    with zipfile.ZipFile(file, "a") as archive, archive.open("allow_pickle.npy", "w") as member:
        np.lib.format.write_array(member, np.array(False))
    assert load_face_model(file).version == "small"


def test_every_mutated_file_loads_or_is_explained(model, tmp_path):
    """Arrays cut, turned, retyped and filled at random, but always the same."""
    arrays, rng, refused = small_arrays(model), np.random.default_rng(0), 0
    changes = (
        lambda a: a[..., :0],
        lambda a: a[:1],
        lambda a: a.T,
        lambda a: a[None],
        lambda a: np.roll(a, 1),
        lambda a: a.astype(np.int64) - 3,
        lambda a: a.astype(np.float64) * rng.choice([np.nan, np.inf, 1e200, -1.0, 0.5]),
        lambda a: np.full_like(a, rng.integers(0, 200)),
        lambda a: a.astype(rng.choice(["S8", "U8", "c16", "?", "u8", "f2", "i1", "M8[s]"])),
    )
    names = list(arrays)
    for number in range(150):
        name, change = rng.choice(names), changes[rng.integers(len(changes))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                changed = change(arrays[name])
            except (TypeError, ValueError, IndexError, OverflowError):
                continue
        file = tmp_path / f"{number}.npz"
        np.savez(file, **{**arrays, name: changed})
        try:
            loaded = load_face_model(file)
        except FaceModelError as error:
            refused += 1
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
        else:
            for leaf in jax.tree.leaves(loaded):
                assert np.isfinite(leaf).all()
            assert int(loaded.triangles.min()) >= 0
        file.unlink()
    load_face_model.cache_clear()
    assert refused > 50


def test_model_files_hold_the_documented_arrays(model, tmp_path):
    save_face_model(tmp_path / "model.npz", model)
    with np.load(tmp_path / "model.npz") as file:
        assert set(file.files) == set(small_arrays(model))


@pytest.mark.parametrize("content", [None, b"", b"no archive", "half"])
def test_a_missing_or_broken_file_is_named_in_one_sentence(tmp_path, content):
    file = tmp_path / "model.npz"
    if content == "half":
        np.savez(file, mean_mm=np.zeros((100, 3)))
        content = file.read_bytes()[:1000]
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FaceModelError) as error:
        load_face_model(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


def test_an_array_file_and_a_folder_are_no_models(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    for path in (tmp_path / "array.npy", tmp_path):
        with pytest.raises(FaceModelError, match="not a readable"):
            load_face_model(path)
