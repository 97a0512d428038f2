"""The mouth behind the lips: closes the hole, hides when closed, follows skull and jaw."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces.mouth import (
    MOUTH_PARTS,
    face_fragments,
    make_mouth,
    mouth_light,
    mouth_vertices,
    sample_mouth_albedo,
)
from dfc_jax.camera import project, to_camera
from dfc_jax.morphable.linear import landmarks3d, shape
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.raster.flow import fragments_of, ground_truth_flow
from dfc_jax.types import Camera, FaceParams, Fragments

SIZE = 128
DISTANCE_MM, WIDTH_MM = 700.0, 110.0
FRONTAL = (0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def mouth(model):
    return make_mouth(model)


@pytest.fixture(scope="module")
def draw(model, mouth):
    """Fragments of face and mouth, and of the face alone, the mouth filling a third of the crop;
    and the landmarks (68, 2), pixels."""
    camera = Camera(jnp.float32(SIZE * DISTANCE_MM / WIDTH_MM), jnp.full(2, (SIZE - 1) / 2.0))
    triangles = jnp.concatenate([model.triangles, mouth.triangles])

    @jax.jit
    def run(identity, expression, angles):
        turned = FaceParams(
            focal_px=camera.focal_px,
            rotation=angles_to_rotvec(angles),
            translation_mm=jnp.array([0.0, 0.0, DISTANCE_MM]),
            identity=identity,
            expression=expression,
        )
        face = shape(model, identity, expression)
        joint = jnp.concatenate([face, mouth_vertices(mouth, identity, expression)])
        lips = to_camera(turned, landmarks3d(model, face)[48:].mean(axis=0))
        vertices = to_camera(turned, joint) - lips * jnp.array([1.0, 1.0, 0.0])
        landmarks = project(camera, landmarks3d(model, vertices[: len(face)]))
        alone = fragments_of(vertices[: len(face)], model.triangles, camera, SIZE)
        return fragments_of(vertices, triangles, camera, SIZE), alone, landmarks

    return lambda identity, expression, angles=FRONTAL: jax.device_get(
        run(jnp.asarray(identity), jnp.asarray(expression), jnp.asarray(angles, jnp.float32))
    )


def weights(model, **shapes: float) -> np.ndarray:
    """Expression weights by name; a name without a side sets both sides."""
    expression = np.zeros(model.n_expression, np.float32)
    for name, weight in shapes.items():
        both = {name, f"{name}Left", f"{name}Right"}
        chosen = [i for i, known in enumerate(model.expression_names) if known in both]
        assert chosen, name
        expression[chosen] = weight
    return expression


def identity(model, seed: int | None = None) -> np.ndarray:
    if seed is None:
        return np.zeros(model.n_identity, np.float32)
    return np.random.default_rng(seed).normal(size=model.n_identity).astype(np.float32)


def part(mouth, name: str) -> np.ndarray:
    return np.asarray(mouth.part) == MOUTH_PARTS.index(name)


def inside(outline: np.ndarray) -> np.ndarray:
    """Pixels (SIZE, SIZE) inside a polygon (n, 2)."""
    drawn = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(drawn, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    return drawn > 0


def enclosed_background(fragments: Fragments, landmarks: np.ndarray) -> np.ndarray:
    """Background pixels in the box of the lips that are not connected with the image's border."""
    background = (np.asarray(fragments.pix_to_face) < 0).astype(np.uint8)
    _, component = cv2.connectedComponents(background, connectivity=4)
    border = np.concatenate([component[[0, -1]].ravel(), component[:, [0, -1]].ravel()])
    low, high = landmarks[48:68].min(axis=0), landmarks[48:68].max(axis=0)
    y, x = np.mgrid[:SIZE, :SIZE]
    box = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    return (background > 0) & box & ~np.isin(component, border)


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (30, 0), (-60, 0), (75, 0), (0, 25), (0, -25)])
def test_an_open_mouth_shows_no_background(model, draw, yaw, pitch) -> None:
    wide = {"jawOpen": 1.0, "mouthStretch": 0.5, "mouthUpperUp": 0.5}
    for seed, shapes in ((None, {"jawOpen": 1.0}), (1, wide), (2, {"mouthFunnel": 1.0})):
        expression = weights(model, **shapes)
        joint, alone, marks = draw(identity(model, seed), expression, (yaw, pitch, 0))
        assert not enclosed_background(joint, marks).any()
        if abs(yaw) <= 30:
            # Seen from the side, the polygon of the inner lips also covers what is before a face.
            hole = inside(marks[60:68]) & (alone.pix_to_face < 0)
            assert hole.sum() > 20 and (joint.pix_to_face[hole] >= 0).all()
            assert enclosed_background(alone, marks).any()


def test_every_hole_of_the_open_mouth_is_filled_but_those_of_the_face_stay(model, draw) -> None:
    joint, alone, marks = draw(identity(model), weights(model, jawOpen=1.0))
    mouth_box = inside(marks[48:60])
    assert (alone.pix_to_face[mouth_box] < 0).mean() > 0.2
    assert (joint.pix_to_face[mouth_box] >= 0).all()
    np.testing.assert_array_equal(joint.pix_to_face[~mouth_box], alone.pix_to_face[~mouth_box])


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (45, 0), (-80, 0), (100, 0), (0, 25), (0, -25)])
def test_a_closed_mouth_hides_what_is_in_it(model, draw, yaw, pitch) -> None:
    closed = [{}, {"mouthPucker": 1.0}, {"mouthPress": 1.0}, {"mouthSmile": 1.0}]
    for seed, shapes in zip((None, 1, 2, 3), closed, strict=True):
        joint, _, marks = draw(identity(model, seed), weights(model, **shapes), (yaw, pitch, 0))
        own = joint.pix_to_face >= len(model.triangles)
        # A line along the lips is right; a pixel of skin that shows teeth is not.
        assert own.sum() < (60 if abs(yaw) < 60 else 10)
        if abs(yaw) > 60:  # the landmarks' polygon is no outline of the lips any more
            continue
        lips = cv2.dilate(inside(marks[48:60]).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert not (own & ~lips).any()


def test_teeth_do_not_come_through_rolled_or_shifted_lips(model, draw) -> None:
    hard = [
        {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
        {"mouthRollLower": 0.8, "mouthDimple": 0.8},
        {"mouthLeft": 1.0, "mouthSmile": 0.7},
        {"mouthDimple": 1.0, "mouthStretch": 1.0},
        {"mouthFrown": 1.0, "mouthShrugLower": 1.0},
    ]
    for seed, shapes in enumerate(hard):
        joint, _, marks = draw(identity(model, seed), weights(model, **shapes), (15.0, -10.0, 0.0))
        own = joint.pix_to_face >= len(model.triangles)
        lips = cv2.dilate(inside(marks[48:60]).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert (own & ~lips).sum() <= 1, shapes


def test_upper_teeth_keep_to_the_skull_and_lower_teeth_to_the_jaw(model, mouth) -> None:
    move = jax.jit(lambda e: mouth_vertices(mouth, jnp.zeros(3), e))
    rest = np.asarray(move(weights(model)))
    teeth = np.flatnonzero(part(mouth, "teeth"))
    upper, lower = np.split(teeth, 2)
    assert rest[upper, 1].mean() > rest[lower, 1].mean()
    everything = np.asarray(move(weights(model) + 1.0)) - rest
    assert np.abs(everything[upper]).max() == 0.0 and np.abs(everything[lower]).max() > 5.0
    opened = np.asarray(move(weights(model, jawOpen=1.0)))
    drop = (opened - rest)[lower]
    chin = model.landmarks.triangle[8]
    column = model.expression_names.index("jawOpen")
    chin = np.asarray(model.expression_mm)[np.asarray(model.triangles)[chin], 1, column].mean()
    np.testing.assert_allclose(drop[:, 1].mean(), chin, atol=6.0)
    # Rigid: all distances within the row stay.
    np.testing.assert_allclose(
        np.linalg.norm(opened[lower[1:]] - opened[lower[:-1]], axis=-1),
        np.linalg.norm(rest[lower[1:]] - rest[lower[:-1]], axis=-1),
        atol=1e-3,
    )
    # Lips that move over the jaw leave the teeth behind.
    pout = np.asarray(move(weights(model, mouthShrugLower=1.0, mouthFunnel=1.0)))
    assert np.abs(pout - rest)[lower].max() == 0.0
    assert np.abs(pout - rest)[part(mouth, "cavity")].max() > 1.0


def test_identity_moves_both_rows_with_the_face(model, mouth) -> None:
    own = np.asarray(mouth_vertices(mouth, jnp.zeros(0), jnp.zeros(0)))
    np.testing.assert_array_equal(own, mouth.mean_mm)
    wide = np.asarray(mouth.identity_mm)[part(mouth, "teeth")]
    assert (np.abs(wide).max(axis=(0, 1))[:4] > 0.5).all()
    # Lower teeth of a taller face stay under its lips, not under the mean's.
    alpha = identity(model, 5)
    face = np.asarray(shape(model, jnp.asarray(alpha), jnp.zeros(0)))
    moved = np.asarray(mouth_vertices(mouth, jnp.asarray(alpha), jnp.zeros(0)))
    lips = np.asarray(landmarks3d(model, face))[60:68].mean(axis=0)
    mean = np.asarray(landmarks3d(model, model.mean_mm))[60:68].mean(axis=0)
    shift = (moved - own)[part(mouth, "teeth")].mean(axis=0)
    np.testing.assert_allclose(shift, lips - mean, atol=2.0)


def test_the_bowl_is_a_weighted_mean_of_the_loop(model, mouth) -> None:
    """Evaluated from the face's own vertices: the first triangles share the loop with it."""
    alpha, expression = jnp.asarray(identity(model, 7)), jnp.asarray(weights(model, jawOpen=0.7))
    face = np.asarray(shape(model, alpha, expression))
    own = np.asarray(mouth_vertices(mouth, alpha, expression))[part(mouth, "cavity")]
    triangles = np.asarray(mouth.triangles)
    loop = np.unique(triangles[triangles < len(face)])
    assert len(loop) == 74
    edges = np.concatenate([triangles[:, [i, (i + 1) % 3]] for i in range(3)])
    faces = np.asarray(model.triangles)
    face_edges = {(a, b) for t in faces for a, b in zip(t, np.roll(t, -1), strict=True)}
    rim = {(a, b) for a, b in edges if (np.array([a, b]) < len(face)).all()}
    assert len(rim) == 74
    for a, b in rim:
        assert (b, a) in face_edges and (a, b) not in face_edges
    # The end of the bowl is as far behind the loop's middle as it was in the mean face.
    gap = own[-1] - own[:12].mean(axis=0)
    at_rest = np.asarray(mouth.mean_mm)[part(mouth, "cavity")]
    np.testing.assert_allclose(gap, at_rest[-1] - at_rest[:12].mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(gap, [0.0, 0.0, -21.0], atol=1e-3)
    ring = face[loop]
    assert (own[:12] > ring.min(axis=0) - 4.1).all() and (own[:12] < ring.max(axis=0)).all()


def test_the_mouth_is_linear_and_differentiable_under_jit_and_vmap(model, mouth) -> None:
    rng = np.random.default_rng(0)
    alphas = jnp.asarray(rng.normal(size=(2, model.n_identity)), jnp.float32)
    betas = jnp.asarray(rng.uniform(size=(2, model.n_expression)), jnp.float32)
    both = jax.jit(jax.vmap(lambda a, b: mouth_vertices(mouth, a, b)))(alphas, betas)
    mean = np.asarray(mouth.mean_mm)
    total = mouth_vertices(mouth, alphas.sum(axis=0), betas.sum(axis=0))
    np.testing.assert_allclose(total - mean, (both - mean).sum(axis=0), atol=2e-3)
    few = mouth_vertices(mouth, alphas[0, :5], betas[0, :0])
    padded = jnp.zeros_like(alphas[0]).at[:5].set(alphas[0, :5])
    np.testing.assert_allclose(few, mouth_vertices(mouth, padded, 0 * betas[0]), atol=1e-4)

    @jax.jit
    def loss(alpha, beta, irradiance):
        light = mouth_light(mouth, irradiance) * sample_mouth_albedo(jax.random.key(0), mouth)
        return jnp.sum(mouth_vertices(mouth, alpha, beta) ** 2) / 1e6 + jnp.sum(light)

    grads = jax.grad(loss, (0, 1, 2))(alphas[0], betas[0], jnp.ones_like(model.mean_mm))
    for grad in grads:
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0


def test_colours_darken_with_depth_and_teeth_are_the_lightest(model, mouth) -> None:
    keys = jax.random.split(jax.random.key(0), 200)
    colors = np.asarray(jax.jit(jax.vmap(lambda k: sample_mouth_albedo(k, mouth)))(keys))
    assert colors.min() >= 0.0 and colors.max() <= 1.0
    grey = colors.mean(axis=-1)
    teeth, cavity = (part(mouth, name) for name in ("teeth", "cavity"))
    assert (grey[:, teeth].max(axis=1) > 2 * grey[:, cavity].mean(axis=1)).all()
    depth = np.asarray(mouth.depth)
    assert depth.min() >= 0.0 and depth.max() == 1.0
    assert (grey[:, cavity & (depth == 1.0)] < 0.2).all() and grey[:, teeth].max(
        axis=1
    ).std() > 0.05
    assert np.asarray(mouth_light(mouth, jnp.full_like(model.mean_mm, 0.7))) == pytest.approx(0.7)
    assert np.asarray(mouth_light(mouth, jnp.full_like(model.mean_mm, -1.0))) == pytest.approx(0.0)


def test_pixels_of_the_mouth_become_background(model, draw) -> None:
    joint, _, _ = draw(identity(model), weights(model, jawOpen=1.0))
    n = len(model.triangles)
    faces = jax.device_get(face_fragments(joint, n))
    own = joint.pix_to_face >= n
    assert own.sum() > 200
    assert (faces.pix_to_face[own] == -1).all() and np.isinf(faces.zbuf[own]).all()
    assert not faces.bary_coords[own].any()
    for old, new in zip(jax.tree.leaves(joint), jax.tree.leaves(faces), strict=True):
        np.testing.assert_array_equal(old[~own], new[~own])


def test_what_hides_behind_the_rim_of_the_lips_stays_hidden() -> None:
    """A lip (columns 0 and 1), the mouth beside it, and a point 5 mm behind the lip's edge."""
    size, teeth_mm, n_face = 4, 120.0, 2
    in_mouth = np.arange(size)[None, :].repeat(size, axis=0) >= 2
    joint = Fragments(
        pix_to_face=jnp.asarray(np.where(in_mouth, n_face, 0)),
        zbuf=jnp.asarray(np.where(in_mouth, teeth_mm, 100.0), jnp.float32),
        bary_coords=jnp.full((size, size, 3), 1 / 3),
    )
    # Triangle 1 lies behind triangle 0; both project around pixel (1.5, 1.5).
    offsets = np.array([[-1, -1, 0], [0, 1, 0], [1, -1, 0]])
    vertices = np.concatenate([[1.5, 1.5, 1.0] * np.ones(3) + 0.3 * offsets] * 2)
    vertices[:, :2] *= np.repeat([100.0, 105.0], 3)[:, None]
    vertices[:, 2] = np.repeat([100.0, 105.0], 3)
    triangles = jnp.array([[0, 1, 2], [3, 4, 5]])
    camera = Camera(jnp.float32(1.0), jnp.zeros(2))

    @jax.jit
    def seen(triangle, target):
        source = dataclasses.replace(joint, pix_to_face=jnp.full((size, size), triangle))
        args = jnp.asarray(vertices, jnp.float32), camera, triangles
        return ground_truth_flow(source, target, *args)[1].any()

    faces = face_fragments(joint, n_face)
    assert seen(0, faces) and not seen(1, faces)
    assert seen(1, joint), "the depth of teeth would uncover it"


def test_sealed_lips_get_no_mouth(model, mouth) -> None:
    own = np.asarray(mouth.triangles) - len(model.mean_mm)
    bowl = (part(mouth, "cavity")[np.maximum(own, 0)] | (own < 0)).all(axis=1)
    sealed = dataclasses.replace(
        model,
        triangles=jnp.concatenate([model.triangles, mouth.triangles[bowl]]),
        mean_mm=jnp.concatenate([model.mean_mm, mouth.mean_mm]),
        identity_mm=jnp.concatenate([model.identity_mm, mouth.identity_mm]),
        expression_mm=jnp.concatenate([model.expression_mm, mouth.expression_mm]),
    )
    none = make_mouth(sealed)
    assert none.triangles.shape == (0, 3) and none.mean_mm.shape == (0, 3)

    @jax.jit
    @jax.vmap
    def joint(key, alpha):
        own = mouth_vertices(none, alpha, jnp.zeros(model.n_expression))
        color = sample_mouth_albedo(key, none) * mouth_light(none, sealed.mean_mm)
        return jnp.concatenate([sealed.mean_mm, own]), color

    keys = jax.random.split(jax.random.key(0), 2)
    vertices, color = joint(keys, jnp.zeros((2, model.n_identity)))
    assert vertices.shape == (2, *sealed.mean_mm.shape) and color.shape == (2, 0, 3)
    triangles = jnp.concatenate([sealed.triangles, none.triangles])
    assert triangles.dtype == jnp.int32 and len(triangles) == len(sealed.triangles)
