"""Cumulative errors over faces: curve, area under it and failure rate (NumPy).

Errors are NMEs in percent, infinite for a face without output: it fails at every limit.
"""

import numpy as np

# A face whose NME is above this is a failure, and the curve is integrated up to it.
FAILURE_PERCENT = 8.0
# Where the curve is given: from 0 to 10 % in steps of 0.1.
CURVE_PERCENT = np.arange(101) / 10.0


def cumulative_shares(errors: np.ndarray, percent: np.ndarray = CURVE_PERCENT) -> np.ndarray:
    """The share (k,) of errors (n,), n > 0, that are at most each of percent (k,)."""
    return np.searchsorted(np.sort(errors), percent, side="right") / len(errors)


def area_under_curve(errors: np.ndarray, limit: float = FAILURE_PERCENT) -> float:
    """The area under the cumulative curve of errors (n,), n > 0, from 0 to the limit, over the
    limit: 1 if every error is 0, 0 if none is below the limit.

    Exact, as the curve is a staircase: the mean of max(0, 1 - error / limit).
    """
    return float(np.mean(np.clip(1.0 - errors / limit, 0.0, 1.0)))


def failure_rate(errors: np.ndarray, limit: float = FAILURE_PERCENT) -> float:
    """The share of errors (n,), n > 0, above the limit."""
    return float(np.mean(errors > limit))
