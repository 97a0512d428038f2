"""Textures show what the photograph shows, and nothing of what is behind the face."""

import numpy as np
import pytest
from PIL import Image

from dfc_jax.crops import apply_affine
from dfc_jax.export.texture import Seen, TextureMaker, blended, continued, masked
from dfc_jax.inference.draw import projected
from dfc_jax.morphable.linear import PARTS, vertex_normals
from dfc_jax.photo import write_png

SIZE = 256


@pytest.fixture(scope="module")
def make(aligner):
    return TextureMaker(aligner.model, SIZE)


def ramp(height, width):
    """Red grows with x, green with y, blue is full."""
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return np.stack([red, green, np.full_like(red, 255)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(300, 200), (1500, 2400)])
def test_texels_have_the_colour_of_the_photograph_where_they_are_seen(aligner, make, shape):
    image = ramp(*shape)
    (face,) = aligner(image)
    texture = make(image, face)
    assert texture.shape == (SIZE, SIZE, 3)
    normals = np.asarray(vertex_normals(face.vertices_mm, aligner.model.triangles))
    is_eye = np.asarray(aligner.model.triangle_part) == PARTS.index("eyes")
    front = normals[:, 2] < -0.8
    front[np.asarray(aligner.model.triangles)[is_eye]] = False
    xy = projected(face, face.vertices_mm)[front]
    expected = np.stack([255 * xy[:, 0] / (shape[1] - 1), 255 * xy[:, 1] / (shape[0] - 1)], axis=-1)
    uv = np.asarray(aligner.model.uv)[front]
    column, row = np.floor(uv[:, 0] * SIZE), np.floor((1.0 - uv[:, 1]) * SIZE)
    found = texture[row.astype(int), column.astype(int), :2]
    inside = ((xy >= 0) & (xy <= [shape[1] - 1, shape[0] - 1])).all(axis=1)
    # Nearest texel, and a few points behind the nostrils and lips, which are not seen.
    wrong = np.abs(found[inside] - expected[inside]).max(axis=1) > 6
    assert wrong.mean() < 0.03


def test_the_background_does_not_reach_the_texture(aligner, make):
    """A red face before blue: of the hidden ears' back and the scalp's, none is blue."""
    image = np.zeros((300, 200, 3), np.uint8)
    image[..., 2] = 255
    (face,) = aligner(image)
    xy = np.round(projected(face, face.vertices_mm)).astype(int)
    x, y = np.clip(xy, 0, [199, 299]).T
    for dx in range(-2, 3):
        for dy in range(-2, 3):
            image[np.clip(y + dy, 0, 299), np.clip(x + dx, 0, 199)] = (255, 0, 0)
    texture = make(image, face)
    assert (texture[..., 0] > 240).all()
    assert (texture[..., 2] < 15).all()


@pytest.mark.parametrize(("x", "grey"), [(80, 200), (195, 128)], ids=["half", "none"])
def test_a_face_that_leaves_the_photograph_takes_its_colours_and_not_black(aligner, make, x, grey):
    image = np.full((300, 200, 3), 200, np.uint8)
    (face,) = aligner(image, boxes=[[x, 50, 200, 200]])
    assert (np.abs(make(image, face).astype(int) - grey) <= 2).all()


def test_continued_keeps_what_is_known_and_fills_the_rest_with_what_is_around():
    colour = np.random.default_rng(0).uniform(size=(64, 64, 3)).astype(np.float32)
    weight = np.zeros((64, 64), np.float32)
    weight[:32] = 1.0
    colour[32:] = 99.0
    filled = continued(colour, weight)
    assert np.allclose(filled[:32], colour[:32], atol=1e-6)
    assert (filled[32:] >= 0.0).all()
    assert (filled[32:] <= 1.0).all()
    assert np.abs(filled[48:].mean() - 0.5) < 0.1


def blind_to_the_left(seen, make):
    """The same, without what lies on the right half of the atlas: the subject's left."""
    weight = seen.weight.copy()
    weight[:, make.size // 2 :] = 0.0
    return Seen(seen.colour, weight)


@pytest.fixture(scope="module")
def smooth_face(aligner, make):
    """A face in a photograph of smooth colours, alike on both sides."""
    y, x = np.mgrid[:300, :200] / 40.0
    image = 128.0 + 60.0 * np.stack([np.cos(x - 99.5 / 40), np.sin(y), np.cos(y)], axis=-1)
    (face,) = aligner(image.astype(np.uint8))
    return make.see(image.astype(np.uint8), face)


def test_what_one_side_does_not_show_comes_from_the_other(make, smooth_face):
    expected = make.complete(smooth_face).astype(int)
    half = blind_to_the_left(smooth_face, make)
    shown = smooth_face.weight > 0.9
    hidden = shown & (half.weight == 0.0)
    assert hidden.sum() > 5000
    found = make.complete(half).astype(int)
    assert np.abs(found - expected)[hidden].mean() < 5.0
    alone = make.complete(half, symmetric=False).astype(int)
    assert np.abs(alone - expected)[hidden].mean() > 10.0


def test_the_other_side_becomes_as_bright_as_its_surroundings(make, smooth_face):
    """The subject's left is half as bright, and shown in a strip beside the middle."""
    # Towards the middle the ratio tends to 1, so that there is no seam.
    left = np.arange(make.size) >= make.size // 2
    colour = smooth_face.colour * np.where(left, 0.5, 1.0)[None, :, None].astype(np.float32)
    weight = smooth_face.weight.copy()
    weight[:, make.size // 2 + 40 :] = 0.0
    found = make.complete(Seen(colour, weight)) / 255.0
    hidden = (smooth_face.weight > 0.9) & (weight == 0.0)
    assert hidden.sum() > 3000
    ratio = found[hidden].mean() / smooth_face.colour[hidden].mean()
    assert 0.45 < ratio < 0.7


def test_masked_textures_are_transparent_where_nothing_is_shown(make, smooth_face, tmp_path):
    half = blind_to_the_left(smooth_face, make)
    write_png(tmp_path / "t.png", masked(half))
    with Image.open(tmp_path / "t.png") as picture:
        assert picture.mode == "RGBA"
        read = np.asarray(picture)
    assert (read[half.weight == 0.0] == 0).all()
    full = half.weight == 1.0
    assert (read[full, 3] == 255).all()
    assert np.abs(read[full, :3] / 255.0 - half.colour[full]).max() < 0.01


def test_several_photographs_are_blended_by_what_they_show(make, smooth_face):
    half = blind_to_the_left(smooth_face, make)
    red = Seen(np.zeros_like(half.colour) + [1.0, 0.0, 0.0], np.full_like(half.weight, 0.5))
    both = blended([half, red])
    hidden, full = half.weight == 0.0, half.weight == 1.0
    assert np.allclose(both.colour[hidden], [1.0, 0.0, 0.0])
    assert np.allclose(both.weight[hidden], 0.5)
    expected = (half.colour[full] + 0.5 * red.colour[full]) / 1.5
    assert np.allclose(both.colour[full], expected, atol=1e-5)
    assert (both.weight[full] == 1.0).all()
    with pytest.raises(ValueError, match="nothing to blend"):
        blended([])


def test_a_model_without_symmetry_has_no_other_side(aligner, make, smooth_face):
    model = aligner.model.replace(mean_mm=aligner.model.mean_mm.at[0, 0].add(30.0))
    lopsided = TextureMaker(model, make.size)
    half = blind_to_the_left(smooth_face, make)
    assert lopsided.mirrored(half) is half


def test_what_a_mask_hides_is_not_in_the_texture(aligner, make):
    """Of a picture whose left half is green, as the mask of the face's crop knows."""
    image = np.full((300, 200, 3), (200, 40, 40), np.uint8)
    image[:, :100] = (0, 255, 0)
    (face,) = aligner(image)
    shown = np.zeros((128, 128), np.float32)
    x, _ = apply_affine(face.crop.to_crop, np.array([102.0, 150.0]))
    shown[:, int(np.ceil(x)) :] = 1.0
    plain, seen = make.see(image, face), make.see(image, face, shown=shown)
    assert (plain.colour[plain.weight > 0.0][:, 1] > 0.5).mean() > 0.3
    assert (seen.weight > 0.0).sum() > 5000
    assert (seen.colour[seen.weight > 0.5][:, 1] < 0.2).all()
