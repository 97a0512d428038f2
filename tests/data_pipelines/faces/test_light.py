"""Light: closed forms against quadrature, and the lights that come out are those of the world."""

import dataclasses
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces.light import (
    ENVIRONMENTS,
    LightPrior,
    LightSettings,
    highlights,
    load_light_prior,
    lobe_irradiance,
    sample_light,
    save_light_prior,
    shadow,
    soft_clip,
)
from dfc_jax.errors import DatasetError
from dfc_jax.raster.shade import sh_basis, sh_irradiance

SETTINGS = LightSettings()
LUMA = np.array([0.299, 0.587, 0.114])
N = 1000


def sphere(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Directions (M, 3) and weights (M,) for integrals over the sphere."""
    z, weight = np.polynomial.legendre.leggauss(n)
    z, phi = np.meshgrid(z, np.arange(2 * n) * np.pi / n, indexing="ij")
    r = np.sqrt(1 - z**2)
    directions = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=-1).reshape(-1, 3)
    return directions, np.repeat(weight, 2 * n) * np.pi / n


DIRECTIONS, WEIGHT = sphere()
NORMALS = jnp.asarray(DIRECTIONS, jnp.float32)
# A head of a sphere, a metre away; its normals are the directions.
HEAD_MM = 90.0 * NORMALS + jnp.array([0.0, 0.0, 1000.0])


@pytest.fixture(scope="module")
def lights() -> dict[str, np.ndarray]:
    """The lights (N, 9, 3) of every environment, and of the default mixture."""
    keys = jax.random.split(jax.random.key(0), N)
    one = jax.jit(
        lambda keys, weight: jax.vmap(
            lambda k: sample_light(k, dataclasses.replace(SETTINGS, environments=weight))
        )(keys)
    )
    made = {"all": one(keys, SETTINGS.environments)}
    for n, name in enumerate(ENVIRONMENTS):
        made[name] = one(keys, tuple(float(n == m) for m in range(len(ENVIRONMENTS))))
    return jax.device_get(made)


def brightness(lights: np.ndarray, normals) -> np.ndarray:
    """(N, M) luma of the light on normals (M, 3)."""
    unit = np.array(normals) / np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.maximum(np.asarray(sh_basis(jnp.asarray(unit))) @ lights @ LUMA, 0.0)


@pytest.mark.parametrize("softness", [0.0, 0.4, 1.0])
def test_a_lobe_is_the_integral_of_its_radiance_under_the_clamped_cosine(softness) -> None:
    """Radiance: the heat kernel on the sphere, as a Legendre series; a point for softness 0."""
    light = np.array([0.36, -0.48, -0.8])
    basis = np.asarray(sh_basis(NORMALS), np.float64)
    cosine = np.maximum(DIRECTIONS @ light, 0.0)
    if softness:
        degree = np.arange(30)
        series = (2 * degree + 1) / (4 * np.pi) * np.exp(-degree * (degree + 1) * softness**2 / 2)
        radiance = np.polynomial.legendre.legval(DIRECTIONS @ light, series)
        assert abs(WEIGHT @ radiance - 1.0) < 1e-6
        cosine = np.maximum(DIRECTIONS @ DIRECTIONS.T, 0.0) @ (WEIGHT * radiance)
    expected = basis.T @ (WEIGHT * cosine)
    found = lobe_irradiance(jnp.asarray(light), jnp.float32(softness))
    np.testing.assert_allclose(found, expected, atol=3e-3)


def test_environments_shine_from_where_they_are(lights) -> None:
    up, side, front = (
        (lights[k] @ LUMA)[:, n] for k, n in (("overcast", 1), ("window", 3), ("flash", 2))
    )
    assert (up < 0).mean() > 0.99, "y points down: an overcast sky has a negative coefficient"
    assert (front < 0).all(), "a flash shines away from the camera"
    assert ((lights["back"] @ LUMA)[:, 2] > 0).mean() > 0.6
    assert abs(np.mean(side > 0) - 0.5) < 0.05 and np.median(np.abs(side)) > 0.3
    assert abs(np.mean(lights["all"] @ LUMA, axis=0)[3]) < 0.05, "more light from one side"


def test_brightness_and_contrast_of_faces_are_those_of_photographs(lights) -> None:
    front = NORMALS[NORMALS[:, 2] < -0.3]
    mean = brightness(lights["all"], front).mean(axis=1)
    low, middle, high = np.quantile(mean, [0.05, 0.5, 0.95])
    assert 0.3 < low < 0.65 and 0.7 < middle < 1.1 and 1.2 < high < 2.0
    left, right = brightness(lights["all"], [[-0.8, 0.0, -0.6], [0.8, 0.0, -0.6]]).T
    ratio = np.maximum(left, right) / np.maximum(np.minimum(left, right), 1e-2)
    assert 0.3 < np.mean(ratio > 2.0) < 0.6 and 0.08 < np.mean(ratio > 4.0) < 0.35
    assert 0.15 < np.mean(ratio < 1.2) < 0.5


def test_coloured_lights_differ_from_side_to_side_and_others_hardly(lights) -> None:
    def cast(name: str) -> float:
        sides = (
            np.asarray(sh_basis(jnp.array([[-0.8, 0.0, -0.6], [0.8, 0.0, -0.6]]))) @ lights[name]
        )
        hue = np.log(np.maximum(sides, 1e-2)) - np.log(np.maximum(sides, 1e-2)).mean(
            axis=2, keepdims=True
        )
        return np.median(np.abs(hue[:, 0] - hue[:, 1]))

    assert cast("coloured") > 0.25 and cast("overcast") < 0.05 and cast("studio") < 0.05
    assert np.isfinite(lights["all"]).all()


def test_light_is_one_and_the_same_where_it_does_not_vary(lights) -> None:
    still = dataclasses.replace(SETTINGS, vary=0.0)
    keys = jax.random.split(jax.random.key(1), 4)
    light = np.asarray(jax.jit(jax.vmap(lambda key: sample_light(key, still)))(keys))
    assert (light == light[0]).all() and not light[0][[1, 3, 4, 5, 6, 7, 8]].any()
    assert (light[0, 2] < 0).all() and np.ptp(light[0], axis=-1).max() == 0.0
    eager = dataclasses.replace(still, shadow=1.0, highlights=1.0)
    gloss = jnp.ones(len(NORMALS))
    cast = jax.jit(lambda key: shadow(key, HEAD_MM, NORMALS, eager))(keys[0])
    shine = jax.jit(lambda key, sh: highlights(key, NORMALS, HEAD_MM, sh, gloss, eager))
    assert (cast == 1.0).all() and not shine(keys[0], light[0]).any()


def test_a_key_gives_the_same_light_alone_and_in_a_batch(lights) -> None:
    key = jax.random.split(jax.random.key(0), N)[7]
    alone = jax.jit(lambda key: sample_light(key, SETTINGS))(key)
    np.testing.assert_allclose(alone, lights["all"][7], atol=1e-5)


@pytest.fixture(scope="module")
def shadows() -> np.ndarray:
    keys = jax.random.split(jax.random.key(2), 300)
    always = dataclasses.replace(SETTINGS, shadow=1.0, shadow_strength=(0.25, 0.85))
    both = jax.jit(
        jax.vmap(
            lambda k: jnp.stack(
                [
                    shadow(k, HEAD_MM, NORMALS, always),
                    shadow(k, HEAD_MM + 500.0, NORMALS, always),
                    shadow(k, HEAD_MM, NORMALS, SETTINGS),
                ]
            )
        )
    )
    return np.asarray(both(keys))


def test_shadows_are_soft_patches_of_bounded_darkness_that_move_with_the_head(shadows) -> None:
    always, moved, default = shadows.transpose(1, 0, 2)
    assert np.isfinite(shadows).all() and shadows.max() <= 1.0 and shadows.min() >= 0.15 - 1e-5
    np.testing.assert_allclose(always, moved, atol=5e-3)
    darkest = always.min(axis=1)
    assert np.mean(np.ptp(always, axis=1) > 0.2) > 0.8, "most shadows cover part of the head"
    # Mostly flat inside and outside, with an edge between.
    depth = (1.0 - always) / np.maximum(1.0 - darkest, 1e-3)[:, None]
    assert 0.3 < depth.mean() < 0.7
    assert 0.02 < np.mean((depth > 0.05) & (depth < 0.95)) < 0.6
    assert abs(np.mean(default.min(axis=1) < 0.99) - SETTINGS.shadow) < 0.08


def test_highlights_lie_where_a_mirror_would_show_the_lamp() -> None:
    lamp = np.array([0.6, -0.48, -0.64])
    tint = jnp.array([1.0, 0.5, 0.25])
    sh = lobe_irradiance(jnp.asarray(lamp), jnp.float32(0.0))[:, None] * tint
    glossy = dataclasses.replace(SETTINGS, highlights=1.0)
    key = jax.random.key(3)
    shine = jax.jit(lambda gloss, sh: highlights(key, NORMALS, HEAD_MM, sh, gloss, glossy))
    added = np.asarray(shine(jnp.ones(len(NORMALS)), sh))
    toward = np.asarray(-HEAD_MM / jnp.linalg.norm(HEAD_MM, axis=-1, keepdims=True))
    mirrored = 2.0 * np.sum(DIRECTIONS * toward, axis=-1, keepdims=True) * DIRECTIONS - toward
    assert mirrored[added[:, 0].argmax()] @ lamp > 0.95
    assert 0.05 < added[:, 0].max() < 5.0 and added.min() >= 0.0
    np.testing.assert_allclose(added, added[:, :1] * tint, rtol=1e-3, atol=1e-6)
    assert not added[DIRECTIONS @ lamp < 0].any(), "it shines on the dark side"
    assert not shine(jnp.zeros(len(NORMALS)), sh).any()
    for hostile in (jnp.zeros((9, 3)), jnp.full((9, 3), -3.0), jnp.full((9, 3), 1e3)):
        assert np.isfinite(shine(jnp.ones(len(NORMALS)), hostile)).all()


def test_soft_clip_keeps_the_middle_and_never_passes_white() -> None:
    x = jnp.linspace(-1.0, 5.0, 601)
    y = np.asarray(soft_clip(x))
    assert y.min() == 0.0 and y.max() <= 1.0 and (np.diff(y) >= 0.0).all()
    middle = (x >= 0) & (x <= 0.7)
    np.testing.assert_allclose(y[middle], x[middle], atol=1e-6)
    assert np.diff(y).max() <= 0.0101, "steeper than the light itself"


def test_a_prior_is_sampled_as_the_gaussian_that_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    prior = LightPrior(
        mean=jnp.asarray(rng.normal(size=27), jnp.float32),
        components=jnp.asarray(rng.normal(size=(27, 2)), jnp.float32),
    )
    save_light_prior(tmp_path / "prior.npz", prior)
    read = load_light_prior(tmp_path / "prior.npz")
    jax.tree.map(np.testing.assert_array_equal, read, prior)
    assert [file.name for file in tmp_path.iterdir()] == ["prior.npz"]
    keys = jax.random.split(jax.random.key(4), 4000)
    draw = jax.jit(jax.vmap(lambda key: sample_light(key, SETTINGS, prior)))(keys)
    assert draw.shape == (4000, 9, 3)
    flat = np.asarray(draw).reshape(4000, 27)
    np.testing.assert_allclose(flat.mean(axis=0), prior.mean, atol=0.15)
    covariance = prior.components @ prior.components.T
    np.testing.assert_allclose(np.cov(flat.T), covariance, atol=0.12 * np.abs(covariance).max())


def test_broken_priors_are_explained_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "prior.npz"
    with pytest.raises(DatasetError, match="prior.npz: no such light prior"):
        load_light_prior(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match="is not a light prior; it needs"):
        load_light_prior(path)
    np.savez(path, mean=np.zeros(27))
    with pytest.raises(DatasetError, match="is not a light prior; it needs"):
        load_light_prior(path)
    np.savez(path, mean=np.zeros(27), components=np.zeros((9, 3)))
    with pytest.raises(DatasetError, match=r"components \(27, k\), not \(27,\) and \(9, 3\)"):
        load_light_prior(path)
    np.savez(path, mean=np.full(27, np.nan), components=np.zeros((27, 3)))
    with pytest.raises(DatasetError, match="is not finite"):
        load_light_prior(path)


@pytest.mark.parametrize("value", [1j, "a", None, 1e300, np.inf])
def test_priors_of_anything_but_finite_numbers_are_refused(tmp_path: Path, value) -> None:
    path = tmp_path / "prior.npz"
    np.savez(path, mean=np.full(27, value), components=np.zeros((27, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DatasetError, match="prior.npz: "):
            load_light_prior(path)


def test_frontal_light_shows_the_albedo_about_as_it_is() -> None:
    still = dataclasses.replace(SETTINGS, vary=0.0)
    light = jax.jit(lambda key: sample_light(key, still))(jax.random.key(0))
    assert 0.95 < float(sh_irradiance(light, jnp.array([0.0, 0.0, -1.0]))[1]) < 1.15
