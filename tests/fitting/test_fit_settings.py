"""Weights and costs of the priors by the names of expression shapes."""

import numpy as np

from dfc_jax.fitting.settings import (
    DEFAULT,
    PAPER,
    FitSettings,
    exclusive_rows,
    expression_means,
    expression_weights,
)


def test_the_papers_weights_are_a_preset():
    assert (PAPER.identity_weight, PAPER.expression_weight) == (2.5e-5, 1000.0)
    assert not PAPER.noise_scaled and DEFAULT == FitSettings()


def test_special_weights_name_shapes_with_or_without_their_side():
    settings = FitSettings(special_weights=(("eyeBlink", 0.5), ("jawLeft", 9.0)))
    names = ("eyeBlinkLeft", "eyeBlinkRight", "jawLeft", "jawRight", "browDownLeft")
    np.testing.assert_allclose(expression_weights(names, settings), [0.5, 0.5, 9.0, 20.0, 20.0])


def test_a_cost_per_unit_is_a_mean_below_zero():
    settings = FitSettings(expression_weight=5.0, special_weights=(), sparsity=(("jawLeft", 20.0),))
    means = expression_means(("jawLeft", "jawRight"), settings)
    np.testing.assert_allclose(means, [-2.0, 0.0])
    # For x >= 0 the two energies differ by a constant.
    x = np.linspace(0.0, 1.0, 5)
    np.testing.assert_allclose(
        np.ptp(5.0 * (x - means[0]) ** 2 - 5.0 * x**2 - 20.0 * x), 0.0, atol=1e-9
    )


def test_shapes_that_exclude_each_other_are_named_with_or_without_their_sides():
    pairs = (("eyeBlink", "eyeWide", 4.0), ("smile", "pucker", 9.0), ("jawLeft", "jawRight", 1.0))
    names = ("eyeBlinkLeft", "jawLeft", "eyeWideLeft", "smileLeft", "smileRight", "pucker")
    names = (*names, "jawRight", "eyeWideRight", "other")
    rows = exclusive_rows(names, FitSettings(exclusive=pairs))
    # The right eye has no blink among these names.
    costs = {frozenset(np.flatnonzero(row)): row.max() for row in rows}
    assert costs == {
        frozenset({0, 2}): 2.0,
        frozenset({3, 5}): 3.0,
        frozenset({4, 5}): 3.0,
        frozenset({1, 6}): 1.0,
    }
    assert np.count_nonzero(rows) == 8
    assert exclusive_rows(names, FitSettings(exclusive=())).shape == (0, 9)
    assert exclusive_rows((), DEFAULT).shape == (0, 0)
