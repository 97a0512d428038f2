"""The Basel reader finds a known face in every layout, and says what is wrong with the others."""

from collections.abc import Callable
from pathlib import Path

import basel_layouts as layouts
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from dfc_jax.errors import FaceModelError
from dfc_jax.morphable.basel import read_basel
from dfc_jax.morphable.linear import FaceModel, landmarks3d, shape, vertex_normals

FACE = layouts.known_face()
WRITERS = {
    "coarse_data": layouts.write_coarse_data,
    "3ddfa": layouts.write_3ddfa,
    "hpen": layouts.write_hpen,
}
TOLERANCE_MM = 1e-4


@pytest.fixture(scope="module", params=WRITERS)
def read(request, tmp_path_factory) -> tuple[str, Path, FaceModel]:
    folder = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](folder, FACE)
    return request.param, folder, read_basel(folder)


def expected_mean(layout: str) -> np.ndarray:
    return FACE.mean_mm + (0.0 if layout == "coarse_data" else FACE.mean_expression_mm)


def test_mean_and_directions_are_the_known_face_in_millimetres(read):
    layout, _, model = read
    np.testing.assert_allclose(model.mean_mm, expected_mean(layout), atol=TOLERANCE_MM)
    np.testing.assert_allclose(model.identity_mm, FACE.identity_mm, atol=TOLERANCE_MM)
    np.testing.assert_allclose(model.expression_mm, FACE.expression_mm, atol=TOLERANCE_MM)
    assert model.expression_names == ("exp_00", "exp_01", "exp_02")
    assert model.mean_mm.dtype == jnp.float32 and model.triangles.dtype == jnp.int32


def test_triangles_are_the_known_ones_and_face_outwards(read):
    _, _, model = read

    def canonical(triangles):
        """Each triangle from its smallest index on, which keeps its orientation."""
        first = np.argmin(triangles, axis=1)
        return {tuple(np.roll(t, -i)) for t, i in zip(np.asarray(triangles), first, strict=True)}

    assert canonical(model.triangles) == canonical(FACE.triangles)
    normals = vertex_normals(model.mean_mm, model.triangles)
    middle_row = np.abs(FACE.mean_mm[:, 1]) < 1
    outward = np.sum(np.asarray(normals) * FACE.mean_mm * [1, 0, 1], axis=-1)
    assert (outward[middle_row] > 0).all()
    assert np.asarray(normals)[np.argmax(FACE.mean_mm[:, 2]), 2] > 0.9


def test_landmarks_are_the_keypoints_and_contours_the_jaw(read):
    layout, _, model = read
    vertices = expected_mean(layout)[FACE.keypoints]
    np.testing.assert_allclose(landmarks3d(model, model.mean_mm), vertices, atol=TOLERANCE_MM)
    np.testing.assert_array_equal(model.contours.triangle, model.landmarks.triangle[:17, None])
    np.testing.assert_array_equal(
        model.contours.barycentric, model.landmarks.barycentric[:17, None]
    )
    np.testing.assert_array_equal(model.landmarks.barycentric.sum(axis=-1), 1.0)


def test_chart_fills_the_unit_square_without_flips(read):
    _, _, model = read
    uv = np.asarray(model.uv)
    np.testing.assert_allclose([uv.min(axis=0), uv.max(axis=0)], [[0, 0], [1, 1]], atol=0.02)
    corners = uv[np.asarray(model.triangles)]
    edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0] > 0).all()
    nose = np.argmax(FACE.mean_mm[:, 2])
    np.testing.assert_allclose(uv[nose], [0.5, 0.5], atol=0.02)


def test_parameters_of_300w_lp_give_the_vertices_of_their_formula(tmp_path):
    layouts.write_3ddfa(tmp_path, FACE)
    basel, facewarehouse = (
        loadmat(tmp_path / name) for name in ("Model_Shape.mat", "Model_Expression.mat")
    )
    rng = np.random.default_rng(2)
    shape_para = rng.normal(size=(4, 1)) * basel["sigma"]
    exp_para = rng.normal(size=(3, 1)) * facewarehouse["sigma_exp"]
    vertices_um = basel["mu_shape"] + basel["w"] @ shape_para
    vertices_um += facewarehouse["mu_exp"] + facewarehouse["w_exp"] @ exp_para
    vertices = shape(
        read_basel(tmp_path),
        jnp.asarray(shape_para / basel["sigma"])[:, 0],
        jnp.asarray(exp_para / facewarehouse["sigma_exp"])[:, 0],
    )
    np.testing.assert_allclose(vertices, vertices_um.reshape(-1, 3) / 1000, atol=1e-3)


def test_files_in_two_folders_are_given_as_a_pair(tmp_path):
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    layouts.write_model_shape(folders[0], FACE)
    layouts.write_model_expression(folders[1], FACE)
    paths = folders[0] / "Model_Shape.mat", folders[1] / "Model_Expression.mat"
    np.testing.assert_allclose(read_basel(paths).mean_mm, expected_mean("3ddfa"), atol=TOLERANCE_MM)


def test_without_keypoints_there_are_no_landmarks(tmp_path):
    layouts.write_coarse_data(tmp_path, FACE)
    (tmp_path / "facemodel_info.mat").unlink()
    model = read_basel(tmp_path)
    assert model.landmarks.triangle.shape == (0,)
    assert model.landmarks.barycentric.shape == (0, 3)
    assert model.contours.barycentric.shape == (0, 1, 3)


def edited(name: str, **changes: Callable[[np.ndarray], np.ndarray] | None):
    """A damage: keys of a .mat file replaced by a function of their value, or left out."""

    def apply(folder: Path) -> None:
        content = {k: v for k, v in loadmat(folder / name).items() if not k.startswith("_")}
        for key, change in changes.items():
            value = content.pop(key)
            if change is not None:
                content[key] = change(value)
        savemat(folder / name, content)

    return apply


def removed(name: str):
    return lambda folder: (folder / name).unlink()


def truncated(name: str, size: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


BFM, EXP = "01_MorphableModel.mat", "Model_Expression.mat"
SHAPE, IDX = "Model_Shape.mat", "BFM_exp_idx.mat"
DAMAGES = [
    ("coarse_data", removed(BFM), "no shape file here; put 01_MorphableModel.mat"),
    ("3ddfa", removed(EXP), "no expression file here; put Exp_Pca.bin or Model_Expression.mat"),
    ("coarse_data", removed("std_exp.txt"), "std_exp.txt: no such file"),
    ("coarse_data", removed(IDX), "put BFM_exp_idx.mat or model_info.mat"),
    ("coarse_data", truncated("Exp_Pca.bin", 500), "Exp_Pca.bin: 500 bytes do not hold"),
    ("coarse_data", truncated("Exp_Pca.bin", 0), "Exp_Pca.bin: 0 bytes do not hold"),
    ("coarse_data", truncated("std_exp.txt", 20), "Exp_Pca.bin: sizes disagree"),
    ("3ddfa", truncated(SHAPE, 1000), "Model_Shape.mat: not a readable MATLAB file"),
    ("3ddfa", truncated(SHAPE, 0), "Model_Shape.mat: not a readable MATLAB file"),
    ("3ddfa", edited(SHAPE, sigma=None, tri=None), "Model_Shape.mat: has no sigma, tri"),
    ("3ddfa", edited(EXP, sigma_exp=lambda s: s[:2]), "Model_Expression.mat: sizes disagree"),
    ("3ddfa", edited(SHAPE, mu_shape=lambda m: m * np.nan), "not finite"),
    ("3ddfa", edited(SHAPE, tri=lambda t: t - 1), "tri must lie in 1 to 99, found 0 to 98"),
    ("3ddfa", edited(SHAPE, keypoints=lambda k: k[:, :5]), "5 keypoints; expected 68"),
    ("3ddfa", edited(SHAPE, tri=lambda t: t[:, :3]), "keypoint is a vertex of no triangle"),
    ("coarse_data", edited(IDX, trimIndex=lambda i: i[:-1]), "BFM_exp_idx.mat keeps 98"),
    ("coarse_data", edited(IDX, trimIndex=lambda i: i + 9), "trimIndex must lie in 1 to 105"),
]


@pytest.mark.parametrize(("layout", "damage", "message"), DAMAGES, ids=[d[2] for d in DAMAGES])
def test_a_damaged_layout_is_refused_with_the_file_and_the_reason(
    layout, damage, message, tmp_path
):
    WRITERS[layout](tmp_path, FACE)
    damage(tmp_path)
    with pytest.raises(FaceModelError) as caught:
        read_basel(tmp_path)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_matlab_73_file_is_refused_with_the_remedy(tmp_path):
    layouts.write_3ddfa(tmp_path, FACE)
    header = b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM"
    (tmp_path / SHAPE).write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(512))
    with pytest.raises(FaceModelError, match="save it with `-v7`"):
        read_basel(tmp_path)


@pytest.mark.parametrize("source", ["nowhere", ("no_shape.mat", "no_expression.mat")])
def test_a_path_that_does_not_exist_is_named(source):
    with pytest.raises(FaceModelError, match="nowhere|no_shape.mat"):
        read_basel(source)
