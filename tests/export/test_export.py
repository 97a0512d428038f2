"""Files are whole or absent, never overwrite each other, and can be read back."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import trimesh
from faces import half_covered, mean_aligner
from paths import ROOT

from dfc_jax.errors import ExportError
from dfc_jax.export.obj import write_obj
from dfc_jax.export.records import SCHEMA_VERSION, _rounded, face_record, photo_record
from dfc_jax.files import write_json, write_npz, written_aside


@pytest.fixture(scope="module")
def face(aligner):
    (found,) = aligner(np.zeros((300, 200, 3), np.uint8))
    return found


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_threads_that_write_one_file_at_the_same_time_do_not_meet(tmp_path):
    path, n = tmp_path / "result.json", 4
    together = threading.Barrier(n)

    def write(number):
        with written_aside(path) as aside:
            together.wait(60)
            aside.write_text(f"{number}" * 1000)
            together.wait(60)
            if number == 0:
                raise RuntimeError

    with ThreadPoolExecutor(n) as pool:
        errors = [future.exception() for future in [pool.submit(write, k) for k in range(n)]]
    assert [type(error) for error in errors] == [RuntimeError] + [type(None)] * (n - 1)
    assert path.read_text() in [f"{number}" * 1000 for number in range(1, n)]
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "x.json", {})
    assert (tmp_path / "x.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_archives_hold_the_given_arrays_and_no_other(tmp_path):
    given = {"flow": np.zeros(3), "file": np.ones(2, bool), "names": np.array(["a", "bc"])}
    write_npz(tmp_path / "a.npz", **given)
    with np.load(tmp_path / "a.npz") as found:
        assert set(found.files) == set(given)
        for name, array in given.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_an_unwritable_place_is_one_sentence(tmp_path):
    with pytest.raises(ExportError, match=r"missing.x\.json: cannot be written"):
        write_json(tmp_path / "missing" / "x.json", {})


def test_face_record_is_strict_json_with_the_documented_fields(face):
    record = photo_record("photo.jpg", (200, 300), [face_record(face)], {"weights": "fake"})
    read = json.loads(json.dumps(record, allow_nan=False))
    assert read["schema_version"] == SCHEMA_VERSION
    assert read["photo"] == {"file": "photo.jpg", "width": 200, "height": 300}
    (entry,) = read["faces"]
    assert np.shape(entry["landmarks_px"]) == (68, 2)
    assert np.shape(entry["landmarks3d_mm"]) == (68, 3)
    assert set(entry["angles_deg"]) == {"yaw", "pitch", "roll"}
    assert "jawOpen" in entry["expression"]
    assert photo_record("x", (1, 1), [], {})["status"] == "no_face"


def test_face_record_says_how_sure_it_is(face):
    found = face_record(face)["standard_deviations"]
    side = face.crop.scale**-1
    np.testing.assert_allclose(found["landmarks_px"], np.sqrt(2.5) * side, atol=1e-3)
    np.testing.assert_allclose(found["rotation_deg"], [1.0, 2.0, 3.0], atol=1e-3)
    np.testing.assert_allclose(found["translation_mm"], [1.0, 2.0, 30.0], atol=1e-3)
    np.testing.assert_allclose(found["focal_px"], 0.2 * face.focal_px, rtol=1e-3)
    assert found["identity"] == [0.5] * 3
    assert found["expression"] == dict.fromkeys(face.expression, 0.1)


def test_what_is_not_known_of_errors_is_null(face):
    blind = dataclasses.replace(face.uncertainty, log_focal=np.inf)
    record = face_record(dataclasses.replace(face, uncertainty=blind))
    assert record["standard_deviations"] is None


def test_face_record_says_what_covers_the_face(face, model):
    unknown = face_record(face)
    assert unknown["covered"] is None and unknown["occluded_share"] is None
    half = half_covered(model)
    (found,) = mean_aligner(solver=lambda crop: half)(np.zeros((300, 200, 3), np.uint8))
    record = json.loads(json.dumps(face_record(found), allow_nan=False))
    assert record["covered"] == found.covered.tolist()
    # The corners of the eyes lie on both sides of the middle.
    assert not record["covered"][36] and record["covered"][45]
    y, x = np.mgrid[:128, :128] - 63.5
    fitted = x**2 + y**2 < 42**2
    share = (fitted & (x > 0)).sum() / fitted.sum()
    assert record["occluded_share"] == pytest.approx(share, abs=1e-4)


def test_the_schema_document_names_every_field(face):

    text = (ROOT / "docs" / "ALIGN_SCHEMA.md").read_text()
    record = photo_record("x", (1, 1), [face_record(face)], {})
    assert SCHEMA_VERSION in text
    (entry,) = record["faces"]
    for name in [*record, *entry, *entry["standard_deviations"]]:
        assert f"`{name}`" in text, name


def test_the_record_reprojects(face):
    """What the JSON promises: focal * (X, Y) / Z + principal point is the landmark."""
    entry = face_record(face)
    points = np.array(entry["landmarks3d_mm"])
    projected = entry["focal_px"] * points[:, :2] / points[:, 2:] + entry["principal_point_px"]
    assert np.abs(projected - entry["landmarks_px"]).max() < 0.05


def test_what_is_not_finite_is_not_written():
    with pytest.raises(ExportError, match="not finite"):
        _rounded(np.array([1.0, np.nan]), 2)


def test_obj_is_read_back_by_trimesh(tmp_path, aligner, face):
    triangles, uv = np.asarray(aligner.model.triangles), np.asarray(aligner.model.uv)
    write_obj(tmp_path / "face.obj", face.vertices_mm, triangles, uv)
    mesh = trimesh.load(tmp_path / "face.obj", process=False)
    assert np.array_equal(mesh.faces, triangles)
    assert np.allclose(mesh.vertices, face.vertices_mm * [1, -1, -1], atol=1e-3)
    assert np.allclose(mesh.visual.uv, uv, atol=1e-4)
    # Counter-clockwise from outside: the nose points towards the viewer.
    nose = np.argmax(mesh.vertices[:, 2])
    assert mesh.vertex_normals[nose, 2] > 0.5


@pytest.mark.parametrize("with_uv", [True, False])
@pytest.mark.parametrize("with_normals", [True, False])
def test_obj_names_what_its_corners_have(tmp_path, aligner, face, with_uv, with_normals):
    triangles, uv = np.asarray(aligner.model.triangles), np.asarray(aligner.model.uv)
    normals = np.tile([0.0, 0.0, -1.0], (len(uv), 1))
    write_obj(
        tmp_path / "face.obj",
        face.vertices_mm,
        triangles,
        uv if with_uv else None,
        normals if with_normals else None,
    )
    mesh = trimesh.load(tmp_path / "face.obj", process=False)
    assert np.array_equal(mesh.faces, triangles)
    text = (tmp_path / "face.obj").read_text()
    assert ("vt " in text, "vn " in text) == (with_uv, with_normals)
    # Turned with the vertices: a normal to the camera looks at the viewer.
    if with_normals:
        assert mesh.vertex_normals[0, 2] == 1.0
