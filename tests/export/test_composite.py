"""Composites are the render with the other texture, where the face is seen, and nothing else."""

import dataclasses

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from faces import posed
from PIL import Image

from dfc_jax.crops import box_of_points, crop_of_box
from dfc_jax.errors import OptionError, PhotoError
from dfc_jax.export.composite import Albedo, Composer, read_albedo
from dfc_jax.morphable.linear import PARTS
from dfc_jax.raster import render
from dfc_jax.raster.shade import N_SH, sh_irradiance
from dfc_jax.texture.makeup import FACE
from dfc_jax.types import Camera

SIZE, FOCAL_PX = 360, 900.0
SKIN = np.array([0.58, 0.42, 0.36], np.float32)
LIGHT = np.zeros((N_SH, 3), np.float32)
LIGHT[0], LIGHT[1], LIGHT[2], LIGHT[3] = [2.6, 2.5, 2.4], -0.3, -0.8, [0.5, 0.4, 0.3]


@pytest.fixture(scope="module")
def composer(model):
    return Composer(model)


@pytest.fixture(scope="module")
def texture():
    """(S, S, 3) of smooth colours unlike skin."""
    y, x = np.mgrid[:512, :512] / 512.0
    waves = np.sin(12.0 * x), np.sin(9.0 * y), np.cos(10.0 * (x + y))
    return (0.4 + 0.25 * np.stack(waves, axis=-1)).astype(np.float32)


class Shot:
    """A face of bare skin before noise, rendered and lit, turned by `yaw`."""

    def __init__(self, aligner, yaw=15.0):
        self.model = aligner.model
        (found,) = aligner(np.zeros((SIZE, SIZE, 3), np.uint8))
        middle = [(SIZE - 1) / 2.0] * 2
        pose = [yaw, -5.0, 4.0], [4.0, 8.0, 900.0]
        face = posed(found, self.model, *pose, FOCAL_PX, middle)
        crop = crop_of_box(box_of_points(face.landmarks))
        self.face = dataclasses.replace(
            face, crop=crop, matchability=np.ones((128, 128), np.float32)
        )
        noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3))
        self.background = cv2.GaussianBlur(noise.astype(np.uint8), (0, 0), 2.0)
        self.skin = self.render(np.broadcast_to(SKIN, (8, 8, 3)))
        self.covered, self.normals = np.asarray(self.skin.mask), np.asarray(self.skin.normals)
        self.image = self.over(np.asarray(self.skin.rgb))

    def render(self, texture, sh=LIGHT):
        camera = Camera(jnp.float32(FOCAL_PX), jnp.full(2, (SIZE - 1) / 2.0))
        vertices, given = jnp.asarray(self.face.vertices_mm), jnp.asarray(texture, jnp.float32)
        lit = {"uv": self.model.uv, "texture": given, "sh": jnp.asarray(sh)}
        return render(vertices, self.model.triangles, camera, SIZE, **lit, cull_backfaces=True)

    def over(self, rgb):
        drawn = np.round(255.0 * np.clip(rgb, 0.0, 1.0)).astype(np.uint8)
        return np.where(self.covered[..., None], drawn, self.background)

    def region(self, region):
        """Where the picture shows a region (S, S) of the atlas, (H, W) in [0, 1]."""
        flat = np.full((N_SH, 3), 0.0, np.float32)
        flat[0] = np.sqrt(4.0 * np.pi)
        return np.asarray(self.render(np.repeat(region[..., None], 3, axis=-1), flat).rgb)[..., 0]


@pytest.fixture(scope="module")
def shot(aligner):
    return Shot(aligner)


def albedo(texture, alpha=1.0, skin=None):
    return Albedo(texture, np.full(texture.shape[:2], alpha, np.float32), skin)


def interior(shot, composer):
    """Where the new texture is whole, ten pixels away from what it is not."""
    whole = (shot.region(composer._regions[FACE]) > 0.99) & (shot.normals[..., 2] < -0.5)
    return cv2.erode(whole.astype(np.uint8), np.ones((21, 21))) > 0


def test_inside_colours_are_those_of_the_render_with_the_new_texture(shot, composer, texture):
    drawn = composer(shot.image, [shot.face], albedo(texture))
    inside = interior(shot, composer)
    assert inside.mean() > 0.03
    irradiance = np.asarray(sh_irradiance(LIGHT, shot.normals))
    skin = shot.region(composer._regions["foundation"]) > 0.5
    # Skin says how light changes, not how bright it is: its mean is taken for 1.
    mean = composer.light(shot.image, shot.face).skin / SKIN
    np.testing.assert_allclose(mean, irradiance[skin].mean(axis=0), rtol=0.03)
    expected = np.asarray(shot.render(texture).rgb) / mean
    error = np.abs(drawn - 255.0 * expected)[inside]
    assert error.mean() < 2.0
    assert np.quantile(error, 0.99) < 10.0
    assert np.abs(shot.image - 255.0 * expected)[inside].mean() > 30.0


def test_beside_the_face_nothing_changes_by_a_bit(shot, composer, texture):
    makeup = "lips=#aa2233,blush=#dd8877,eyeshadow=#334466,foundation=#ccaa99"
    drawn = composer(shot.image, [shot.face], albedo(texture), makeup)
    face = np.asarray(shot.skin.fragments.pix_to_face)
    part = np.asarray(shot.model.triangle_part)[face]
    aside = ~shot.covered | np.isin(part, [PARTS.index(name) for name in ("neck", "eyes")])
    # What the mesh shows is sampled at pixel centres, and textures between texels.
    aside = cv2.erode(aside.astype(np.uint8), np.ones((5, 5))) > 0
    assert aside.mean() > 0.3
    assert (drawn == shot.image)[aside].all()
    assert (drawn != shot.image).any(axis=-1).mean() > 0.1


@pytest.mark.parametrize("what", ["texture", "makeup"])
def test_what_covers_the_face_stays_in_front(shot, composer, texture, what):
    """A blue bar over nose and cheek, of which the mask knows."""
    image = shot.image.copy()
    x, y = np.round(shot.face.landmarks[30]).astype(int)
    bar = np.s_[y - 12 : y + 28, x - 20 : x + 120]
    image[bar] = (20, 30, 200)
    seen = np.zeros(image.shape[:2], np.float32)
    seen[bar] = 1.0
    to_crop, size = shot.face.crop.to_crop, (128, 128)
    mask = 1.0 - cv2.warpAffine(seen, to_crop, size, flags=cv2.INTER_AREA)
    given = {"texture": albedo(texture)} if what == "texture" else {"makeup": "foundation=#204080"}
    drawn = composer(image, [shot.face], **given, seen=[mask])
    inner = np.s_[y - 8 : y + 24, x - 16 : x + 116]
    assert (drawn[inner] == image[inner]).all()
    # Right beside it the face is another.
    above = np.s_[y - 22 : y - 16, x : x + 40]
    assert np.abs(drawn[above].astype(int) - image[above]).mean() > 10.0
    free = composer(image, [shot.face], **given)
    assert (free[inner] != image[inner]).any(axis=-1).mean() > 0.5


def test_the_mask_of_a_face_is_its_segmentation_or_else_its_matchability(shot, composer, texture):
    closed = dataclasses.replace(shot.face, matchability=np.zeros((128, 128), np.float32))
    assert (composer(shot.image, [closed], albedo(texture)) == shot.image).all()
    object.__setattr__(closed, "segmentation", np.ones((128, 128), np.float32))
    expected = composer(shot.image, [shot.face], albedo(texture))
    assert (composer(shot.image, [closed], albedo(texture)) == expected).all()


def test_makeup_changes_the_lips_only(shot, composer):
    drawn = composer(shot.image, [shot.face], makeup={"lips": "#aa2233:1"})
    lips = shot.region(composer._regions["lips"])
    changed = (drawn != shot.image).any(axis=-1)
    assert not changed[cv2.dilate(lips, np.ones((5, 5))) < 0.02].any()
    assert changed[lips > 0.5].all()
    np.testing.assert_allclose(drawn[lips > 0.95].mean(axis=0), [0xAA, 0x22, 0x33], atol=15)


def test_paint_is_see_through_where_it_is_transparent(shot, composer, texture):
    drawn = [
        composer(shot.image, [shot.face], albedo(texture, alpha)).astype(float)
        for alpha in (0.0, 0.5, 1.0)
    ]
    assert (drawn[0] == shot.image).all()
    inside = interior(shot, composer)
    np.testing.assert_allclose(drawn[1][inside], (drawn[0] + drawn[2])[inside] / 2.0, atol=2.0)


def test_the_colour_of_what_is_transparent_is_not_seen(shot, composer):
    """White on the face's right half; the other half is transparent, and black there."""
    colour, alpha = np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), np.float32)
    colour[:, :16], alpha[:, :16] = 0.9, 1.0
    drawn = composer(shot.image, [shot.face], Albedo(colour, alpha))
    inside = interior(shot, composer)
    change = drawn[inside].mean(axis=-1) - shot.image[inside].mean(axis=-1)
    assert change.min() > -15.0
    assert (change > 40.0).mean() > 0.2
    assert (drawn[inside] == shot.image[inside]).all(axis=-1).mean() > 0.2


def test_all_faces_are_drawn(shot, composer, texture):
    """The second one is what is seen of the first, moved to the left."""
    other = dataclasses.replace(
        shot.face,
        principal_point=shot.face.principal_point - [150.0, 0.0],
        crop=dataclasses.replace(shot.face.crop, centre=shot.face.crop.centre - [150.0, 0.0]),
    )
    image = np.where(shot.covered[..., None], shot.image, 128).astype(np.uint8)
    image[:, :180] = image[:, 150:330]
    one, both = (
        composer(image, faces, albedo(texture)) for faces in ([shot.face], [other, shot.face])
    )
    assert (one[:, :60] == image[:, :60]).all()
    assert (both[:, :60] != image[:, :60]).any(axis=-1).mean() > 0.1
    assert (both[:, 180:] == one[:, 180:]).all()
    assert (both[:, 180:] != image[:, 180:]).any(axis=-1).mean() > 0.1


def test_light_taken_off_one_face_and_put_on_another(aligner, shot, composer, texture):
    """A face of the texture in one light, drawn on one of bare skin in another."""
    other = Shot(aligner, yaw=-10.0)
    lit = other.over(np.asarray(other.render(0.3 * texture + 0.7 * SKIN).rgb))
    found = composer.albedo_of(lit, other.face)
    inside = interior(shot, composer)
    drawn = composer(shot.image, [shot.face], found)[inside] / 255.0
    # It takes the tone of the skin below, wherever its own was.
    mean = shot.image[inside].mean(axis=0) / 255.0
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.06)
    expected = np.asarray(shot.render(0.3 * texture + 0.7 * SKIN).rgb)[inside]
    # And otherwise is the other face.
    along = [np.corrcoef(drawn[:, i], expected[:, i])[0, 1] for i in range(3)]
    assert min(along) > 0.85


def test_unlit_takes_the_light_off_a_texture(model, composer):
    """Of a mean face of bare skin that is lit from the side."""
    sh = LIGHT.copy()
    sh[3] = 0.9
    normals = composer._texel_normals(np.asarray(model.mean_mm) * [1.0, -1.0, -1.0])
    lit = SKIN * np.maximum(np.asarray(sh_irradiance(sh, normals)), 0.0)
    skin = cv2.resize(composer._regions["foundation"], lit.shape[:2]) > 0.9
    flat = composer.unlit(albedo(lit.astype(np.float32)))
    spread = [
        (each[skin].std(axis=0) / each[skin].mean(axis=0)).max() for each in (lit, flat.colour)
    ]
    assert spread[1] < 0.3 * spread[0]
    assert flat.skin is not None


@pytest.mark.parametrize("times", [3, 8])
def test_large_faces_look_like_small_ones(shot, composer, texture, times):
    """At 8 the face is larger than it is rasterized."""
    size = [SIZE * times] * 2
    large = cv2.resize(shot.image, size, interpolation=cv2.INTER_CUBIC)
    face = dataclasses.replace(
        shot.face,
        focal_px=FOCAL_PX * times,
        principal_point=(shot.face.principal_point + 0.5) * times - 0.5,
        crop=dataclasses.replace(
            shot.face.crop,
            centre=(shot.face.crop.centre + 0.5) * times - 0.5,
            side_px=shot.face.crop.side_px * times,
        ),
    )
    given = {"texture": albedo(texture), "makeup": "lips=#aa2233:1"}
    drawn = composer(large, [face], **given)
    small = cv2.resize(drawn, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(float)
    expected = composer(shot.image, [shot.face], **given)
    error = np.abs(small - expected).max(axis=-1)
    assert error[interior(shot, composer)].mean() < 3.0
    assert error.mean() < 3.0


def test_a_face_beside_the_picture_changes_nothing(shot, composer, texture):
    away = dataclasses.replace(shot.face, principal_point=np.array([-900.0, 100.0]))
    assert (composer(shot.image, [away], albedo(texture)) == shot.image).all()
    half = dataclasses.replace(shot.face, principal_point=np.array([0.0, 180.0]))
    drawn = composer(shot.image, [half], albedo(texture))
    assert (drawn != shot.image).any(axis=-1)[:, :80].mean() > 0.03
    assert (drawn == shot.image)[:, 200:].all()


def test_the_light_can_be_steadied(shot, composer, texture):
    asked = []

    def steady(number, light):
        asked.append(number)
        return dataclasses.replace(light, sh=0.5 * light.sh)

    plain = composer(shot.image, [shot.face], albedo(texture)).astype(float)
    dimmed = composer(shot.image, [shot.face], albedo(texture), steady=steady)
    inside = interior(shot, composer)
    assert asked == [0]
    # Near its border colours are mixed with those of the picture.
    assert np.quantile(np.abs(dimmed - plain / 2.0)[inside], 0.8) < 6.0


def test_textures_are_read_with_what_is_transparent(tmp_path, texture):
    alpha = np.linspace(0.0, 1.0, 512)[None, :].repeat(512, axis=0)
    pixels = np.round(255.0 * np.dstack([texture, alpha])).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "paint.png")
    read = read_albedo(tmp_path / "paint.png")
    np.testing.assert_allclose(read.colour, texture, atol=0.003)
    np.testing.assert_allclose(read.alpha, alpha, atol=0.003)
    assert read.skin is None
    Image.fromarray(pixels[..., :3]).save(tmp_path / "plain.png")
    assert (read_albedo(tmp_path / "plain.png").alpha == 1.0).all()


@pytest.mark.parametrize("size", [(64, 32), (8, 8)])
def test_a_texture_of_a_wrong_size_is_named(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "wrong.png")
    with pytest.raises(OptionError, match=rf"wrong.png: a texture of {size[0]} x {size[1]} pixels"):
        read_albedo(tmp_path / "wrong.png")
    with pytest.raises(PhotoError, match="no such file"):
        read_albedo(tmp_path / "missing.png")
