"""Curves, areas and failures of a few errors, worked out by hand."""

import numpy as np
import pytest

from dfc_jax.evaluation.curves import (
    CURVE_PERCENT,
    area_under_curve,
    cumulative_shares,
    failure_rate,
)

# One face has no output.
ERRORS = np.array([2.0, np.inf, 8.0, 4.0])


def test_the_curve_is_the_share_of_faces_up_to_an_error_those_without_output_counted_in():
    shares = cumulative_shares(ERRORS, np.array([0.0, 1.9, 2.0, 4.0, 8.0, 1e9]))
    np.testing.assert_allclose(shares, [0.0, 0.0, 0.25, 0.5, 0.75, 0.75])
    assert CURVE_PERCENT[[0, 1, -1]].tolist() == [0.0, 0.1, 10.0]
    assert len(cumulative_shares(ERRORS)) == 101


def test_the_area_is_that_under_the_staircase_up_to_the_limit():
    # Steps at 2 and 4 of 8: 2 * 0.25 + 4 * 0.5 over 8.
    assert area_under_curve(ERRORS) == pytest.approx((2.0 * 0.25 + 4.0 * 0.5) / 8.0)
    fine = np.linspace(0.0, 8.0, 80_001)
    numeric = np.trapezoid(cumulative_shares(ERRORS, fine), fine) / 8.0
    assert area_under_curve(ERRORS) == pytest.approx(numeric, abs=1e-4)
    assert area_under_curve(np.zeros(3)) == 1.0
    assert area_under_curve(np.full(3, np.inf)) == 0.0


def test_a_failure_is_above_the_limit_or_has_no_output():
    assert failure_rate(ERRORS) == 0.25
    assert failure_rate(ERRORS, limit=3.0) == 0.75
