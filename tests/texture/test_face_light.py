"""Light is told from skin, whatever lies among it."""

import numpy as np
import pytest

from dfc_jax.raster.shade import N_SH, sh_irradiance
from dfc_jax.texture.light import Light, fit_light, mixed, no_light

SKIN = np.array([0.6, 0.45, 0.4], np.float32)


@pytest.fixture(scope="module")
def sphere():
    """Unit normals (N, 3) of the half of a sphere that faces the camera, and a light (9, 3)."""
    y, x = np.mgrid[-1:1:60j, -1:1:60j]
    inside = x**2 + y**2 < 0.95
    normals = np.stack([x, y, -np.sqrt(np.maximum(1.0 - x**2 - y**2, 0.0))], axis=-1)
    sh = np.zeros((N_SH, 3), np.float32)
    sh[0], sh[1], sh[2], sh[3] = 2.6, -0.4, -0.9, [0.5, 0.4, 0.2]
    sh[4:] = 0.1 * np.random.default_rng(0).standard_normal((5, 3))
    return normals[inside].astype(np.float32), sh


def test_the_light_on_a_sphere_is_found(sphere):
    normals, sh = sphere
    irradiance = np.asarray(sh_irradiance(sh, normals))
    light = fit_light(SKIN * irradiance, normals, np.ones(len(normals)))
    mean = irradiance.mean(axis=0)
    np.testing.assert_allclose(light.shading(normals), irradiance / mean, atol=0.02)
    np.testing.assert_allclose(light.skin, SKIN * mean, atol=0.02)


def test_what_is_no_skin_changes_little(sphere):
    """A quarter of the sphere, at one side, is black hair; here and there it shines white."""
    normals, sh = sphere
    irradiance = np.asarray(sh_irradiance(sh, normals))
    colours = SKIN * irradiance
    hair = normals[:, 1] < -0.4
    assert 0.2 < hair.mean() < 0.25
    spoilt = colours.copy()
    spoilt[hair], spoilt[::40] = 0.02, 1.0
    light = fit_light(spoilt, normals, np.ones(len(normals)))
    found = light.shading(normals) * light.skin
    # Where there is only hair the light is not seen at all.
    assert np.abs(found - colours)[~hair].max() < 0.02


def test_points_without_weight_say_nothing(sphere):
    normals, sh = sphere
    colours, weight = SKIN * np.asarray(sh_irradiance(sh, normals)), np.ones(len(normals))
    weight[: len(weight) // 2] = 0.0
    spoilt = np.where(weight[:, None] > 0, colours, [0.0, 1.0, 0.0])
    assert fit_light(spoilt, normals, weight) == fit_light(colours, normals, weight)
    assert fit_light(colours, normals, 0.0 * weight) == no_light()


def test_taking_the_light_off_is_the_inverse_of_putting_it_on(sphere):
    normals, sh = sphere
    light = Light(sh * SKIN, SKIN)
    shading = light.shading(normals)
    gentle = ((shading > 0.65) & (shading < 1.75)).all(axis=-1)
    assert gentle.mean() > 0.3
    np.testing.assert_allclose(
        light.taken_off(SKIN * shading, normals)[gentle], SKIN + 0 * normals[gentle], rtol=1e-5
    )
    # Where hardly any light falls, noise is not made a bright colour.
    assert light.taken_off(np.full_like(normals, 0.1), normals).max() <= 0.1 / 0.6 + 1e-6


@pytest.mark.parametrize(
    ("luma", "exposure"), [(0.175, 0.5), (0.35, 1.0), (0.5, 1.0), (0.65, 1.0), (0.78, 1.2)]
)
def test_exposure_is_one_where_skin_is_as_bright_as_skin_usually_is(luma, exposure):
    light = Light(no_light().sh, np.full(3, luma, np.float32))
    assert light.exposure == pytest.approx(exposure, rel=1e-5)


def test_mixed_goes_from_one_light_to_the_other():
    one, other = no_light(), Light(3.0 * no_light().sh, np.full(3, 0.7, np.float32))
    assert mixed(one, other, 0.0) == one
    half = mixed(one, other, 0.5)
    np.testing.assert_allclose(half.sh, 2.0 * one.sh)
    np.testing.assert_allclose(half.skin, 0.6)
