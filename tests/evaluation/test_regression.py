"""Lines and correlations against pairs worked out by hand."""

import numpy as np
import pytest

from dfc_jax.evaluation.regression import correlation, line


def test_a_line_gives_its_slope_and_bias_back_and_leaves_gaps_out():
    true = np.array([-2.0, 0.0, 1.0, 5.0, np.nan, 3.0])
    found = 0.5 * true + 3.0
    found[5] = np.nan
    fitted = line(found, true)
    assert fitted["n"] == 4
    assert fitted["slope"] == pytest.approx(0.5) and fitted["bias"] == pytest.approx(3.0)


def test_a_line_is_that_of_least_squares():
    fitted = line(np.array([0.0, 2.0, 1.0]), np.array([0.0, 1.0, 2.0]))
    assert fitted["slope"] == pytest.approx(0.5) and fitted["bias"] == pytest.approx(0.5)


def test_without_a_spread_there_is_no_slope_and_without_pairs_nothing():
    same = line(np.array([1.0, 3.0]), np.array([10.0, 10.0]))
    assert same == {"n": 2, "slope": None, "bias": -8.0}
    assert line(np.array([np.nan]), np.array([1.0])) == {"n": 0, "slope": None, "bias": None}


def test_correlation_has_a_sign_and_is_none_where_nothing_changes():
    true = np.array([0.0, 1.0, 2.0, np.nan])
    assert correlation(-3.0 * true, true) == pytest.approx(-1.0)
    assert correlation(np.array([0.0, 1.0, 0.0, 7.0]), true) == pytest.approx(0.0)
    assert correlation(np.ones(4), true) is None
    assert correlation(true[:1], true[:1]) is None
