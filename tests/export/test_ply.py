"""PLY files have the colours that the photograph shows."""

import numpy as np
import pytest
import trimesh

from dfc_jax.export.ply import vertex_colours, write_ply


def test_colours_are_those_of_the_texture_at_each_vertex():
    texture = np.zeros((4, 8, 3), np.uint8)
    texture[..., 0] = 10 * np.arange(8)
    texture[..., 1] = 20 * np.arange(4)[:, None]
    # The middle of the lower left texel, of the upper right one, and between two.
    uv = np.array([[0.5 / 8, 0.5 / 4], [7.5 / 8, 3.5 / 4], [2 / 8, 3.5 / 4], [1.0, 0.0]])
    found = vertex_colours(texture, uv)
    assert found.tolist() == [[0, 60, 0], [70, 0, 0], [15, 0, 0], [70, 60, 0]]


@pytest.mark.parametrize("space", ["model", "camera"])
def test_ply_is_read_back_by_trimesh(tmp_path, model, space):
    vertices, triangles = np.asarray(model.mean_mm), np.asarray(model.triangles)
    colours = np.random.default_rng(0).integers(0, 256, (len(vertices), 3)).astype(np.uint8)
    normals = np.tile([0.0, 0.6, 0.8], (len(vertices), 1))
    write_ply(tmp_path / "a.ply", vertices, triangles, colours, normals, space)
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    signs = [1, -1, -1] if space == "camera" else [1, 1, 1]
    assert np.allclose(mesh.vertices, vertices * signs, atol=1e-3)
    assert np.allclose(mesh.vertex_normals, normals * signs, atol=1e-6)
    assert np.array_equal(mesh.faces, triangles)
    assert np.array_equal(mesh.visual.vertex_colors[:, :3], colours)


def test_a_mesh_without_colours_is_a_mesh(tmp_path, model):
    write_ply(tmp_path / "a.ply", model.mean_mm, model.triangles)
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    assert mesh.visual.kind is None
    assert len(mesh.faces) == len(model.triangles)
