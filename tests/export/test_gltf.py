"""GLB files say to independent readers what was fitted."""

import io

import numpy as np
import pygltflib
import pytest
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from dfc_jax.export.gltf import Animation, Head, View, write_glb
from dfc_jax.morphable.linear import shape, vertex_normals
from dfc_jax.ops.rotations import angles_to_matrix

TO_VIEWER = np.diag([1.0, -1.0, -1.0])
TEXTURE = np.zeros((64, 64, 3), np.uint8)
TEXTURE[:32] = (200, 30, 30)


@pytest.fixture(scope="module")
def identity(model):
    return np.random.default_rng(0).normal(size=model.n_identity).astype(np.float32)


@pytest.fixture(scope="module")
def expression(model):
    return np.random.default_rng(1).uniform(size=model.n_expression).astype(np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory, model, identity, expression):
    path = tmp_path_factory.mktemp("glb") / "face.glb"
    write_glb(path, model, Head(identity, expression, TEXTURE))
    return path


def values(gltf, accessor):
    """An accessor's numbers, by its own description."""
    found = gltf.accessors[accessor]
    view = gltf.bufferViews[found.bufferView]
    dtype = {5126: "<f4", 5123: "<u2", 5125: "<u4"}[found.componentType]
    columns = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[found.type]
    start = view.byteOffset + (found.byteOffset or 0)
    content = gltf.binary_blob()[start : start + view.byteLength]
    array = np.frombuffer(content, dtype)[: found.count * columns].reshape(-1, columns)
    if found.min:
        assert np.allclose(array.min(axis=0), found.min)
        assert np.allclose(array.max(axis=0), found.max)
    return array


def test_expression_shapes_are_morph_targets_by_name_and_weight(
    written, model, identity, expression
):
    gltf = pygltflib.GLTF2().load(str(written))
    (mesh,) = gltf.meshes
    assert mesh.extras["targetNames"] == list(model.expression_names)
    assert np.allclose(mesh.weights, expression)
    (primitive,) = mesh.primitives
    neutral = values(gltf, primitive.attributes.POSITION)
    # Metres.
    no_expression = np.zeros(model.n_expression, np.float32)
    assert np.allclose(1000.0 * neutral, shape(model, identity, no_expression), atol=1e-3)
    deltas = np.stack([values(gltf, target["POSITION"]) for target in primitive.targets], axis=-1)
    assert np.allclose(1000.0 * deltas, np.asarray(model.expression_mm), atol=1e-4)
    fitted = neutral + deltas @ np.array(mesh.weights)
    assert np.allclose(1000.0 * fitted, shape(model, identity, expression), atol=1e-2)


def test_a_head_takes_as_much_room_as_its_shapes(written, model):
    n_bytes = written.stat().st_size
    assert n_bytes < 12 * len(model.mean_mm) * model.n_expression + 400_000


def test_triangles_normals_and_uv_are_the_models(written, model, identity):
    gltf = pygltflib.GLTF2().load(str(written))
    primitive = gltf.meshes[0].primitives[0]
    triangles = values(gltf, primitive.indices).reshape(-1, 3)
    assert np.array_equal(triangles, np.asarray(model.triangles))
    uv = values(gltf, primitive.attributes.TEXCOORD_0)
    assert np.allclose(uv * [1.0, -1.0] + [0.0, 1.0], np.asarray(model.uv), atol=1e-6)
    neutral = shape(model, identity, np.zeros(model.n_expression, np.float32))
    normals = values(gltf, primitive.attributes.NORMAL)
    assert np.allclose(normals, vertex_normals(neutral, model.triangles), atol=1e-4)


def test_the_texture_is_embedded_and_unlit(written):
    gltf = pygltflib.GLTF2().load(str(written))
    material = gltf.materials[gltf.meshes[0].primitives[0].material]
    assert "KHR_materials_unlit" in material.extensions
    assert "KHR_materials_unlit" in gltf.extensionsUsed
    image = gltf.images[gltf.textures[material.pbrMetallicRoughness.baseColorTexture.index].source]
    assert image.mimeType == "image/jpeg"
    view = gltf.bufferViews[image.bufferView]
    content = gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    with Image.open(io.BytesIO(content)) as picture:
        assert np.abs(np.asarray(picture).astype(int) - TEXTURE).max() < 30
        assert np.asarray(picture)[10, 10, 0] > 150


def test_trimesh_reads_the_neutral_mesh_with_its_texture(written, model, identity):
    scene = trimesh.load(written, process=False)
    (mesh,) = scene.geometry.values()
    neutral = shape(model, identity, np.zeros(model.n_expression, np.float32))
    assert np.allclose(1000.0 * mesh.vertices, neutral, atol=1e-3)
    assert np.array_equal(mesh.faces, np.asarray(model.triangles))
    assert np.allclose(mesh.visual.uv, np.asarray(model.uv), atol=1e-5)
    assert mesh.visual.material.baseColorTexture.size == (64, 64)
    # Row 0 of a texture, which is red here, is v = 1.
    upper = mesh.visual.uv[:, 1] > 0.55
    assert mesh.visual.to_color().vertex_colors[upper, 0].min() > 150


def test_without_a_texture_a_head_is_matt(tmp_path, model, identity, expression):
    write_glb(tmp_path / "a.glb", model, Head(identity, expression))
    gltf = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    (material,) = gltf.materials
    assert material.pbrMetallicRoughness.metallicFactor == 0.0
    assert not gltf.images
    assert not gltf.extensionsUsed


def test_heads_stand_in_metres_where_the_camera_sees_them(tmp_path, model, identity, expression):
    heads, poses = [], []
    for yaw, x in ((40.0, -200.0), (-20.0, 300.0)):
        rotation = np.asarray(angles_to_matrix(np.array([yaw, 10.0, 5.0], np.float32)))
        translation = np.array([x, 50.0, 1200.0])
        poses.append((rotation, translation))
        heads.append(Head(identity, expression, TEXTURE, rotation, translation, name=f"x{x:.0f}"))
    write_glb(tmp_path / "two.glb", model, heads, View(800.0, 1000, 600))
    scene = trimesh.load(tmp_path / "two.glb", process=False)
    neutral = np.asarray(shape(model, identity, np.zeros(model.n_expression, np.float32)))
    for head, (rotation, translation) in zip(heads, poses, strict=True):
        transform, name = scene.graph[head.name]
        placed = trimesh.transform_points(scene.geometry[name].vertices, transform)
        seen = (neutral @ rotation.T + translation) @ TO_VIEWER
        assert np.allclose(1000.0 * placed, seen, atol=0.01)
    gltf = pygltflib.GLTF2().load(str(tmp_path / "two.glb"))
    # The shapes are there once.
    first, second = (mesh.primitives[0].targets for mesh in gltf.meshes)
    assert first == second
    (camera,) = gltf.cameras
    assert camera.perspective.yfov == pytest.approx(2.0 * np.arctan(300.0 / 800.0))
    assert camera.perspective.aspectRatio == pytest.approx(1000 / 600)


def test_an_animation_holds_weights_and_pose_of_each_time(tmp_path, model, identity, expression):
    times = np.array([0.0, 0.04, 0.1])
    weights = np.random.default_rng(2).uniform(size=(3, model.n_expression))
    # SciPy gives the second and third quaternion the other sign, which is no motion.
    angles = np.array([[0.0, 0.0, 80.0], [5.0, 0.0, 110.0], [0.0, 0.0, 140.0]], np.float32)
    rotation = np.asarray(angles_to_matrix(angles))
    translation = np.array([[0.0, 0.0, 1000.0], [5.0, 0.0, 1000.0], [9.0, -8.0, 990.0]])
    animation = Animation(times, weights, rotation, translation)
    write_glb(tmp_path / "a.glb", model, Head(identity, expression, animation=animation))
    gltf = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    (found,) = gltf.animations
    tracks = {}
    for channel in found.channels:
        assert gltf.nodes[channel.target.node].mesh == 0
        sampler = found.samplers[channel.sampler]
        assert np.allclose(values(gltf, sampler.input)[:, 0], times)
        assert sampler.interpolation == "LINEAR"
        tracks[channel.target.path] = values(gltf, sampler.output)
    assert set(tracks) == {"weights", "rotation", "translation"}
    assert np.allclose(tracks["weights"].reshape(3, -1), weights)
    assert np.allclose(tracks["translation"], 1e-3 * translation @ TO_VIEWER)
    turned = Rotation.from_quat(tracks["rotation"]).as_matrix()
    assert np.allclose(turned, TO_VIEWER @ rotation, atol=1e-5)
    assert (np.sum(tracks["rotation"][1:] * tracks["rotation"][:-1], axis=1) > 0.0).all()


def test_an_expression_has_a_weight_for_each_shape(tmp_path, model, identity):
    with pytest.raises(ValueError, match="53 expression shapes"):
        write_glb(tmp_path / "a.glb", model, Head(identity, np.zeros(3)))
    assert not list(tmp_path.iterdir())
