"""Make-up goes where it belongs, in its colour, over the texture of the skin."""

import numpy as np
import pytest

from dfc_jax.errors import OptionError
from dfc_jax.export.texture import TextureMaker
from dfc_jax.morphable.linear import PARTS, landmarks3d
from dfc_jax.raster import interpolate
from dfc_jax.texture.makeup import FACE, OPACITIES, Makeup, make_regions, painted, parse_makeup

SIZE = 256
RED = (0.8, 0.2, 0.4)


@pytest.fixture(scope="module")
def atlas(model):
    return TextureMaker(model, SIZE).atlas


@pytest.fixture(scope="module")
def regions(model, atlas):
    return make_regions(model, atlas)


@pytest.fixture(scope="module")
def position(model, atlas):
    """(S, S, 3) millimetres of the mean shape."""
    return np.asarray(interpolate(atlas, model.triangles, model.mean_mm))


def test_regions_are_shares_and_leave_eyes_ears_and_neck_alone(model, atlas, regions):
    assert set(regions) == {FACE, *OPACITIES}
    face = np.asarray(atlas.pix_to_face)
    part = np.where(face >= 0, np.asarray(model.triangle_part)[face], -1)
    others = [-1, *(PARTS.index(name) for name in ("eyes", "ears", "neck"))]
    for region in regions.values():
        assert region.shape == (SIZE, SIZE) and region.dtype == np.float32
        assert region.min() >= 0.0 and 0.95 < region.max() <= 1.0
        assert not region[np.isin(part, others)].any()


def test_lipstick_is_on_the_lips(model, atlas, regions):
    face = np.asarray(atlas.pix_to_face)
    lips = (face >= 0) & (np.asarray(model.triangle_part)[face] == PARTS.index("lips"))
    red = regions["lips"] > 0.5
    assert lips[red].mean() > 0.9
    assert not (red & (regions["foundation"] > 0.5)).any()


def test_regions_lie_where_their_names_say(model, regions, position):
    marks = np.asarray(landmarks3d(model, model.mean_mm))
    shadow = position[regions["eyeshadow"] > 0.5]
    eyes, brows = marks[36:48, 1], marks[17:27, 1]
    assert eyes.min() < shadow[:, 1].min() and shadow[:, 1].max() < brows.max()
    assert (np.abs(shadow[:, 0]) > np.abs(marks[27, 0]) + 5.0).all()
    blush = position[regions["blush"] > 0.5]
    assert (np.abs(blush[:, 0]) > np.abs(marks[48, 0])).all()
    assert marks[48, 1] - 5.0 < blush[:, 1].min() and blush[:, 1].max() < eyes.min() + 5.0
    whole = position[regions[FACE] > 0.0]
    assert whole[:, 1].min() > marks[8, 1] - 1.0
    assert 20.0 < whole[:, 1].max() - brows.max() < 40.0
    for name in regions:
        # Alike on both sides.
        x = position[..., 0][regions[name] > 0.5]
        assert abs((x > 0).mean() - 0.5) < 0.02


def test_the_mean_of_a_region_takes_the_colour_and_ratios_stay():
    """Pixels of luminance 0.4 and, one each, half and twice as bright, of which the mean is 0.4:
    red is (0.8, 0.2, 0.4); half of it; and 1 - (1 - red) / 2."""
    grey = np.array([0.4, 0.4, 0.4, 0.2, 0.8, 0.1], np.float32)
    under = np.repeat(grey[None, :, None], 3, axis=-1)
    alpha = np.array([[1.0, 1.0, 1.0, 1.0, 0.5, 0.0]], np.float32)
    # (3 * 0.4 + 0.2 + 0.5 * 0.8) / 4.5 = 0.4
    drawn = painted(under, alpha, Makeup("lips", RED, 1.0))
    np.testing.assert_allclose(drawn[0, 0], RED, atol=1e-5)
    np.testing.assert_allclose(drawn[0, 3], [0.4, 0.1, 0.2], atol=1e-5)
    np.testing.assert_allclose(drawn[0, 4], (0.8 + np.array([0.9, 0.6, 0.7])) / 2.0, atol=1e-5)
    assert (drawn[0, 5] == under[0, 5]).all()


def test_opacity_and_exposure():
    under, alpha = np.full((4, 4, 3), 0.5, np.float32), np.ones((4, 4), np.float32)
    quarter = painted(under, alpha, Makeup("blush", RED, 0.25))
    np.testing.assert_allclose(quarter[0, 0], [0.575, 0.425, 0.475], atol=1e-5)
    dark = painted(under, alpha, Makeup("blush", RED, 1.0), exposure=0.5)
    np.testing.assert_allclose(dark[0, 0], [0.4, 0.1, 0.2], atol=1e-5)
    assert (painted(under, alpha, Makeup("blush", RED, 0.0)) == under).all()


def test_makeup_in_words():
    expected = (
        Makeup("lips", (170 / 255, 34 / 255, 51 / 255), OPACITIES["lips"]),
        Makeup("blush", (1.0, 0.0, 0.0), 0.25),
    )
    assert parse_makeup("lips=#aa2233, blush=FF0000:0.25") == expected
    assert parse_makeup({"lips": "#aa2233", "blush": "#ff0000:0.25"}) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nails=#aa2233", "no region 'nails'.*lips, eyeshadow, blush, foundation"),
        ("lips=red", "'red' is no colour for lips.*six hexadecimal digits"),
        ("lips=#aa22", "'#aa22' is no colour"),
        ("lips", "'' is no colour"),
        ("lips=#aa2233:2", "'2' is no opacity for lips.*from 0 to 1"),
        ("lips=#aa2233:", "'' is no opacity"),
        ("lips=#aa2233,lips=#aa2234", "lips is given twice"),
        ("", "no region ''"),
    ],
)
def test_mistakes_in_makeup_are_named(text, words):
    with pytest.raises(OptionError, match=words):
        parse_makeup(text)
