"""Labels from 300W-LP's own parameters are exact for a face made from known ones."""

import dataclasses
from pathlib import Path

import basel_layouts as layouts
import numpy as np
import pytest
from dataset_layouts import EDGE, sample, write_300w_lp
from quick import quick_compilation  # noqa: F401
from scipy.io import loadmat

from data_pipelines.photos.parameters import label_given, posed_landmarks
from data_pipelines.photos.squares import STORED_PX, Square, read_square
from dfc_jax.crops import apply_affine
from dfc_jax.data.faces import collect
from dfc_jax.data.lp import w300lp
from dfc_jax.data.lp_model import LPModel, posed, read_lp_model
from dfc_jax.errors import DatasetError, FaceModelError
from dfc_jax.systems.dfc.template import Template, make_template

FACE = layouts.known_face(n_identity=199, n_expression=29)
# Pitch, yaw, roll (radians), translation (pixels), scale (pixels per micrometre).
POSES = {
    "AFW/AFW_1_0": [0.0, 0.0, 0.0, 225.0, 225.0, -90.0, 1.5e-3],
    "HELEN/HELEN_1_3": [0.2, -0.7, 0.3, 240.3, 201.8, -70.0, 1.1e-3],
}


def matlab_vertices(folder: Path, parameters: dict[str, np.ndarray]) -> np.ndarray:
    """(V, 3) as 300W-LP's authors draw them: pixels from 1, y down; z to the viewer."""
    basel, expressions = (loadmat(folder / f"Model_{n}.mat") for n in ("Shape", "Expression"))
    vertices = basel["mu_shape"] + basel["w"] @ parameters["shape"][:, None]
    vertices += expressions["mu_exp"] + expressions["w_exp"] @ parameters["expression"][:, None]
    pitch, yaw, roll, *t, f = parameters["pose"]
    c, s = np.cos(pitch), np.sin(pitch)
    rx = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    c, s = np.cos(yaw), np.sin(yaw)
    ry = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    c, s = np.cos(roll), np.sin(roll)
    rz = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    projected = f * vertices.reshape(-1, 3) @ (rx @ ry @ rz).T + t
    projected[:, 1] = EDGE + 1 - projected[:, 1]
    return projected


@pytest.fixture(scope="module")
def basel_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("basel")
    layouts.write_3ddfa(folder, FACE)
    return folder


@pytest.fixture(scope="module")
def lp(basel_folder) -> LPModel:
    return read_lp_model(basel_folder)


@pytest.fixture(scope="module")
def template(lp) -> Template:
    return make_template(lp.model)


@pytest.fixture(scope="module")
def drawn(basel_folder, tmp_path_factory) -> tuple[list[Square], dict[str, np.ndarray]]:
    """Squares of a 300W-LP folder whose points are the model's, and its vertices in the photos."""
    sigma, sigma_expression = (
        layouts.components(d)[1] for d in (FACE.identity_mm, FACE.expression_mm)
    )
    faces, vertices = {}, {}
    for seed, (name, pose) in enumerate(POSES.items()):
        rng = np.random.default_rng(seed)
        given = {
            # The file keeps the pose in single precision.
            "pose": np.asarray(pose, np.float32).astype(np.float64),
            "shape": 0.1 * rng.normal(size=199) * sigma,
            "expression": 0.2 * rng.normal(size=29) * sigma_expression / 1e5,
        }
        vertices[name] = matlab_vertices(basel_folder, given)
        faces[name] = sample(seed, pt2d=vertices[name][FACE.keypoints, :2], **given)
    root = tmp_path_factory.mktemp("300W_LP")
    write_300w_lp(root, faces)
    squares, problems = collect(w300lp(root), read_square)
    assert not problems
    return squares, vertices


def test_the_models_keypoints_are_the_photographs_points(lp, drawn):
    for square in drawn[0]:
        face = square.face
        in_photo = posed_landmarks(lp.model, posed(lp, face.parameters))
        np.testing.assert_allclose(in_photo, face.points, atol=0.01)
        in_square = posed_landmarks(lp.model, posed(lp, face.parameters, square.to_square))
        np.testing.assert_allclose(in_square, square.points, atol=0.01)


def cast(vertices: np.ndarray, triangles: np.ndarray, pixel: np.ndarray):
    """The triangle nearest to the viewer at a pixel and its barycentric coordinates, or None."""
    a, b, c = np.moveaxis(vertices[triangles], 1, 0)
    columns = np.stack([b[:, :2] - a[:, :2], c[:, :2] - a[:, :2]], axis=-1)
    turned = np.linalg.det(columns)
    v, w = np.linalg.solve(columns, (pixel - a[:, :2])[..., None])[..., 0].T
    weights = np.stack([1 - v - w, v, w], axis=-1)
    depth = np.einsum("tk,tk->t", weights, np.stack([a[:, 2], b[:, 2], c[:, 2]], axis=-1))
    # Counter-clockwise from outside turns the other way where y points down.
    hit = np.flatnonzero((weights >= 0).all(axis=1) & (turned < 0))
    if not hit.size:
        return None
    nearest = hit[np.argmax(depth[hit])]
    return nearest, weights[nearest]


def test_labels_are_where_a_ray_through_each_pixel_meets_the_template(lp, template, drawn):
    squares, vertices = drawn
    labels = label_given(lp, template, squares, batch=1)
    assert (labels.error < 0.01).all()
    triangles = np.asarray(lp.model.triangles)
    corners = np.asarray(template.vertices_mm, np.float64)
    focal, middle = float(template.camera.focal_px), np.asarray(template.camera.principal_point)
    rng = np.random.default_rng(0)
    for n, square in enumerate(squares):
        in_photo = vertices[square.face.name] - [1.0, 1.0, 0.0]
        xy = apply_affine(square.to_square, in_photo[:, :2])
        seen = np.column_stack([xy, in_photo[:, 2]])
        wrong = []
        for x, y in rng.integers(0, STORED_PX, (1500, 2)):
            hit = cast(seen, triangles, np.array([x, y]))
            if hit is None:
                assert not labels.matchable[n, y, x]
            elif labels.matchable[n, y, x]:
                at = hit[1] @ corners[triangles[hit[0]]]
                wrong.append(labels.template_xy[n, y, x] - (focal * at[:2] / at[2] + middle))
        assert len(wrong) > 60
        # Half of a step of float16 at 127 is 0.03.
        np.testing.assert_allclose(wrong, np.zeros((len(wrong), 2)), atol=0.035)


@pytest.mark.slow
def test_the_papers_labels_are_the_exact_ones_to_a_template_pixel(lp, template, drawn):
    exact = label_given(lp, template, drawn[0][:1], batch=1)
    nearest = label_given(lp, template, drawn[0][:1], nearest_uv=True, batch=1)
    both = exact.matchable & nearest.matchable
    assert both.sum() > 0.8 * exact.matchable.sum()
    xy = nearest.template_xy[both].astype(np.float32)
    np.testing.assert_array_equal(xy, np.round(xy))
    distance = np.linalg.norm(xy - exact.template_xy[both], axis=-1)
    assert np.median(distance) < 0.6 and np.quantile(distance, 0.95) < 1.5


def test_the_shape_file_of_basel_itself_serves_too(tmp_path, lp, drawn):
    layouts.write_hpen(tmp_path, FACE)
    other, face = read_lp_model(tmp_path), drawn[0][0].face
    # These components are of unit length over more vertices.
    scaled = face.parameters.shape / lp.sigma * other.sigma
    parameters = dataclasses.replace(face.parameters, shape=scaled)
    found = posed_landmarks(other.model, posed(other, parameters))
    np.testing.assert_allclose(found, face.points, atol=0.02)


def test_what_does_not_belong_together_is_refused(tmp_path, lp, template, drawn):
    layouts.write_coarse_data(tmp_path, FACE)
    with pytest.raises(FaceModelError, match="belong to Model_Shape.mat"):
        read_lp_model(tmp_path)
    face = drawn[0][0].face
    short = dataclasses.replace(face.parameters, shape=face.parameters.shape[:80])
    with pytest.raises(FaceModelError, match="199 and 29 coefficients, the annotation 80 and 29"):
        posed(lp, short)
    bare = dataclasses.replace(drawn[0][0], face=dataclasses.replace(face, parameters=None))
    with pytest.raises(DatasetError, match=f"{face.name}: comes without parameters"):
        label_given(lp, template, [bare])
    with pytest.raises(DatasetError, match="no squares"):
        label_given(lp, template, [])
