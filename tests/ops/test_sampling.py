"""Reading images between their pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.ops.sampling import bilinear_sample, sample_features


def test_features_and_their_gradient_are_those_of_bilinear_samples() -> None:
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(5, 7, 3)), jnp.float32)
    xy = jnp.asarray(rng.uniform(-2.0, 8.0, (40, 2)), jnp.float32)
    pull = jnp.asarray(rng.normal(size=(40, 3)), jnp.float32)
    found, expected = (
        jax.value_and_grad(lambda image, read=read: jnp.sum(pull * read(image, xy)))(features)
        for read in (sample_features, bilinear_sample)
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
    apart = jax.grad(lambda at: jnp.sum(sample_features(features, at)))(xy)
    np.testing.assert_array_equal(apart, 0.0)
