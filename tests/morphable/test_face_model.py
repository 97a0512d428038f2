"""The embedded face model: what a user may rely on."""

import numpy as np
import pytest

from dfc_jax.landmarks68 import MIRROR as LANDMARK_MIRROR
from dfc_jax.landmarks68 import N_JAW
from dfc_jax.morphable import linear as core
from dfc_jax.morphable.decimate import mirror_permutation
from dfc_jax.morphable.linear import PARTS, landmarks3d, surface_positions
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
