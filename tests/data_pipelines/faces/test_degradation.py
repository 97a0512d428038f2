"""The camera: every effect against its closed form, harmless at zero, and nothing moves."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces import degradation as module
from data_pipelines.faces.degradation import (
    DegradationSettings,
    colors,
    degrade,
    enlarging,
    motion_blur,
    sensor_noise,
    shrinking,
)

SIZE = 64
SETTINGS = DegradationSettings()
NOTHING = dataclasses.replace(
    SETTINGS,
    exposure=0.0,
    cast=0.0,
    contrast=0.0,
    gamma=0.0,
    saturation=0.0,
    grey=0.0,
    degraded=0.0,
)
# Of colours nothing, of the rest all, at every draw.
WORN = dataclasses.replace(
    NOTHING, degraded=1.0, defocus=1.0, motion=1.0, coarse=1.0, noise=1.0, jpeg=1.0
)
KEYS = jax.random.split(jax.random.key(1), 32)
jpeg = jax.jit(module.jpeg)
shrink = jax.jit(shrinking, static_argnums=(0, 1))
enlarge = jax.jit(enlarging, static_argnums=(0, 1))


@jax.jit
def _photographs(keys, image, strengths):
    return jax.vmap(lambda key: degrade(key, image, DegradationSettings(*strengths)))(keys)


def photographs(keys, image, settings: DegradationSettings) -> np.ndarray:
    """One picture as many cameras see it; one program for all settings."""
    return np.asarray(_photographs(keys, image, dataclasses.astuple(settings)))


def smooth_picture(seed: int = 0) -> np.ndarray:
    """(SIZE, SIZE, 3) float32 with detail at every scale."""
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE, 3)).astype(np.float32)
    layers = [cv2.GaussianBlur(noise, (0, 0), s) * s * w for s, w in ((1, 0.2), (4, 0.6), (12, 1))]
    return np.clip(0.5 + 0.5 * sum(layers), 0.0, 1.0).astype(np.float32)


def rows_of(image: np.ndarray) -> jnp.ndarray:
    return jnp.asarray(image).swapaxes(1, 2)


@pytest.mark.parametrize("size", [64, 44])
def test_zero_strength_leaves_the_picture_as_it_is(size) -> None:
    image = smooth_picture()[:size, :size]
    found = photographs(KEYS, image, NOTHING)
    np.testing.assert_allclose(found, np.broadcast_to(image, found.shape), atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1.0, None])
def test_hostile_pictures_stay_finite_and_in_range(level) -> None:
    shape = (SIZE, SIZE, 3)
    image = jax.random.bernoulli(KEYS[0], 0.5, shape).astype(jnp.float32)
    image = image if level is None else jnp.full(shape, level)
    for settings in (SETTINGS, WORN):
        found = photographs(KEYS, image, settings)
        assert np.isfinite(found).all() and found.min() >= 0.0 and found.max() <= 1.0
        assert found.shape == (32, *shape) and found.dtype == np.float32


def test_a_key_gives_the_same_picture_alone_and_in_a_batch() -> None:
    image = smooth_picture()
    many = photographs(KEYS, image, SETTINGS)
    alone = np.asarray(jax.jit(degrade, static_argnums=2)(KEYS[4], image, SETTINGS))
    # Rounding errors may tip a coefficient over to the next step of the quantisation.
    assert np.mean(np.abs(alone - many[4]) > 1e-3) < 0.05
    assert np.abs(many[4] - many[3]).mean() > 0.01


def test_a_good_part_of_the_pictures_keeps_its_sharpness() -> None:
    plain = dataclasses.replace(NOTHING, degraded=SETTINGS.degraded)
    image = smooth_picture()
    found = [photographs(keys, image, plain) for keys in jax.random.split(KEYS[0], (4, 32))]
    change = np.abs(np.concatenate(found) - image).max(axis=(1, 2, 3))
    assert 0.35 < np.mean(change < 1e-4) < 0.6


def test_nothing_moves() -> None:
    """A bright spot on grey keeps its centre through everything at once."""
    y, x = np.mgrid[:SIZE, :SIZE]
    spot = np.exp(-0.5 * ((x - 37.0) ** 2 + (y - 22.0) ** 2) / 5.0**2)
    image = np.repeat(spot[..., None], 3, axis=-1).astype(np.float32)
    mild = dataclasses.replace(WORN, noise=0.0, jpeg=0.0, coarse_factor=4.0)
    found = photographs(KEYS, image, mild)[..., 1]
    mass = found.sum(axis=(1, 2))
    centre = np.stack([(found * c).sum(axis=(1, 2)) / mass for c in (x, y)], axis=-1)
    assert np.abs(centre - [37.0, 22.0]).max() < 0.3
    assert found.max(axis=(1, 2)).min() < 0.9 * spot.max(), "nothing was blurred at all"


def test_operators_keep_constants_and_straight_lines() -> None:
    place = np.arange(SIZE)
    for factor, blur, shift in ((1.0, 0.0, 0.0), (1.0, 2.0, 0.0), (2.5, 0.0, 3.3), (6.0, 1.0, 8.0)):
        down = np.asarray(shrink(SIZE, 72, factor, blur, shift))
        for sharpness in (-0.75, -0.5, 0.0):
            up = np.asarray(enlarge(72, SIZE, factor, shift, sharpness))
            both = up @ down
            np.testing.assert_allclose(both.sum(axis=1), 1.0, atol=1e-5)
            edge = int(4 * factor + 4 * blur) + 1
            inner = slice(edge, -edge) if factor < 6 else slice(30, 34)
            if sharpness == -0.5:  # the only one of Keys' kernels that is exact on a line
                np.testing.assert_allclose((both @ place)[inner], place[inner], atol=0.05)
    np.testing.assert_allclose(enlarge(64, 64, 1.0, 0.0, -0.5), np.eye(64), atol=1e-6)
    np.testing.assert_allclose(shrink(64, 64, 1.0, 0.0, 0.0), np.eye(64), atol=1e-6)


def test_blur_is_as_wide_as_it_says() -> None:
    for factor, blur in ((1.0, 1.5), (1.0, 3.0), (3.0, 1.0)):
        down = np.asarray(shrink(SIZE, SIZE, factor, blur, 0.0))
        row = down[int(32 / factor)]
        centre = row @ np.arange(SIZE)
        variance = row @ (np.arange(SIZE) - centre) ** 2
        np.testing.assert_allclose(variance, blur**2 + (factor**2 - 1) / 4.0, rtol=0.02)


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 2.4])
def test_motion_draws_a_centred_trail_in_its_direction(angle) -> None:
    image = np.zeros((SIZE, 3, SIZE), np.float32)
    image[32, :, 30] = 1.0
    found = np.asarray(jax.jit(motion_blur)(jnp.asarray(image), 16.0, angle))[:, 0]
    y, x = np.mgrid[:SIZE, :SIZE]
    np.testing.assert_allclose(found.sum(), 1.0, atol=1e-6)
    np.testing.assert_allclose([(found * x).sum(), (found * y).sum()], [30.0, 32.0], atol=1e-4)
    along = (x - 30) * np.cos(angle) + (y - 32) * np.sin(angle)
    across = (y - 32) * np.cos(angle) - (x - 30) * np.sin(angle)
    trail = found > 0
    assert np.abs(across[trail]).max() < 1.5 and 5.0 < np.abs(along[trail]).max() < 9.0
    still = jax.jit(motion_blur)(jnp.asarray(image), 0.0, angle)
    np.testing.assert_array_equal(still, image)


@pytest.mark.parametrize("quality", [15, 50, 85])
def test_jpeg_does_what_libjpeg_does(quality) -> None:
    grey = np.repeat(smooth_picture()[..., :1], 3, axis=-1)
    eight_bits = np.round(255.0 * grey).astype(np.uint8)
    _, code = cv2.imencode(".jpg", eight_bits[..., 0], [cv2.IMWRITE_JPEG_QUALITY, quality])
    theirs = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE) / 255.0
    ours = np.clip(jpeg(rows_of(eight_bits / np.float32(255.0)), jnp.float32(quality)), 0.0, 1.0)
    damage = np.abs(theirs - grey[..., 0]).mean()
    assert np.ptp(ours, axis=1).max() < 1e-3
    assert np.abs(ours[:, 0] - theirs).mean() < 0.35 * damage
    assert abs(np.abs(ours[:, 0] - grey[..., 0]).mean() / damage - 1.0) < 0.1


def test_jpeg_loses_more_the_lower_its_quality_and_colour_first() -> None:
    image = smooth_picture(1)
    loss = []
    for quality in (np.inf, 100.0, 90.0, 50.0, 10.0):
        found = jpeg(rows_of(image), jnp.float32(quality)).swapaxes(1, 2)
        loss.append(np.abs(np.asarray(found) - image).mean())
    assert loss[0] == 0.0 and loss[1] < 0.003 and (np.diff(loss) > 0).all() and loss[4] > 0.02
    worst = np.asarray(jpeg(rows_of(image), jnp.float32(3.0))).swapaxes(1, 2)
    steps = np.abs(np.diff(worst, axis=1)).mean(axis=(0, 2))
    border = np.arange(7, SIZE - 1, 8)
    assert steps[border].mean() > 2.0 * np.delete(steps, border).mean(), "no blocks to be seen"


def test_noise_is_white_grows_with_the_light_and_has_its_strength() -> None:
    level = jnp.linspace(0.3, 0.7, 2)[:, None, None, None] * jnp.ones((128, 3, 128))
    noise = jax.jit(jax.vmap(lambda rows: sensor_noise(jax.random.key(5), rows, 0.05)))
    found = np.asarray(noise(level) - level)
    for part, brightness in zip(found, (0.3, 0.7), strict=True):
        expected = 0.05 * np.sqrt(0.04 + 0.96 * brightness)
        np.testing.assert_allclose(part.std(), expected, rtol=0.03)
        assert abs(part.mean()) < 0.02 * expected
        channels = part.transpose(1, 0, 2).reshape(3, -1)
        assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.03
        neighbours = np.corrcoef(part[:, 1, 1:].ravel(), part[:, 1, :-1].ravel())[0, 1]
        assert abs(neighbours) < 0.03
        assert 2.4 < np.mean(part**4) / np.mean(part**2) ** 2 < 3.3, "not bell-shaped"


def test_colours_change_as_told() -> None:
    rows = rows_of(smooth_picture(2))
    keys = jax.random.split(jax.random.key(6), 64)

    @jax.jit
    def change(strengths):
        return jax.vmap(lambda key: colors(key, rows, DegradationSettings(*strengths)))(keys)

    def draw(**strengths: float) -> np.ndarray:
        return np.asarray(change(dataclasses.astuple(dataclasses.replace(NOTHING, **strengths))))

    assert np.ptp(draw(grey=1.0), axis=2).max() < 1e-5
    np.testing.assert_allclose(draw(), np.broadcast_to(rows, (64, *rows.shape)), atol=1e-5)
    mean = draw(exposure=0.3).mean(axis=(1, 2, 3))
    assert mean.min() < 0.8 * rows.mean() and mean.max() > 1.2 * rows.mean()
    casts = draw(cast=0.2).mean(axis=(1, 3)) / np.asarray(rows).mean(axis=(0, 2))
    assert 0.1 < np.ptp(casts, axis=1).mean() < 0.6
    contrast = draw(contrast=0.3)
    assert np.ptp(contrast.std(axis=(1, 2, 3))) > 0.05
    assert np.abs(contrast.mean(axis=(1, 2, 3)) - rows.mean()).max() < 0.05
    gamma = draw(gamma=0.3)
    middle = (0.01 < np.asarray(rows)) & (np.asarray(rows) < 0.99)
    exponent = np.log(gamma[:, middle]) / np.log(np.asarray(rows)[middle])
    np.testing.assert_allclose(exponent, exponent[:, :1] * np.ones(middle.sum()), rtol=0.02)
    assert 0.2 < np.log(exponent[:, 0]).std() < 0.4
    share = np.mean(np.ptp(draw(grey=0.4), axis=2).max(axis=(1, 2)) < 1e-5)
    assert 0.2 < share < 0.6
