"""The calibration of the landmarks' errors finds the constants that errors were drawn with."""

import math

import numpy as np
import pytest

from dfc_jax.fitting.uncertainty import CORRELATED, GROUPS, UNEXPLAINED
from dfc_jax.landmarks68 import N_LANDMARKS
from experiments.tools.calibrate_uncertainty import (
    CORRELATIONS,
    ONE_SIGMA,
    TIMES,
    Errors,
    blended,
    calibrated,
    coverage,
    deviations,
    draw,
)

FACES = 300


def made_up(correlated: float, unexplained: np.ndarray, flow_px: float = 1.0) -> Errors:
    """Normal errors with these constants; some of the landmarks are unknown."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.002, 0.05, (FACES, N_LANDMARKS, 2))
    size = rng.uniform(60.0, 90.0, FACES)
    nothing = np.zeros((FACES, N_LANDMARKS, 2))
    errors = Errors(
        error=nothing,
        variance=base[:, None] * CORRELATIONS[:, None, None],
        size=size,
        flow=flow_px * rng.standard_normal(nothing.shape),
        support=np.full((FACES, N_LANDMARKS), 10.0),
    )
    drawn = deviations(errors, correlated, unexplained) * rng.standard_normal(nothing.shape)
    drawn[:50, :20] = np.nan
    return Errors(drawn, *errors.columns()[1:])


def test_constants_are_found_again():
    unexplained = np.zeros(N_LANDMARKS)
    for number, members in enumerate(GROUPS.values()):
        unexplained[members] = 0.01 + 0.004 * number
    errors = made_up(60.0, unexplained)
    correlated, found = calibrated(errors)
    assert correlated == pytest.approx(60.0, rel=0.15)
    np.testing.assert_allclose(found, unexplained, rtol=0.1)
    share = coverage(errors, correlated, found)
    assert share["within_one"] == pytest.approx(ONE_SIGMA, abs=0.005)
    two = share["shares"][int(np.argmin(np.abs(TIMES - 2.0)))]
    assert two == pytest.approx(0.954, abs=0.01)
    assert share["n"] == FACES
    assert len(draw({"made up": share}).axes) == 1


def test_errors_that_are_larger_than_said_are_seen():
    errors = made_up(CORRELATED, 2.0 * UNEXPLAINED)
    assert coverage(errors, CORRELATED, UNEXPLAINED)["within_one"] < 0.55


def test_blend_lies_between_and_can_be_better():
    errors = made_up(CORRELATED, UNEXPLAINED, flow_px=1.0)
    mesh, flow = blended(errors, math.inf), blended(errors, 1e-9)
    assert blended(errors, 10.0) < min(mesh, flow)
