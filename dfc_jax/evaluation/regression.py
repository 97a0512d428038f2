"""How what is found follows what is true: least-squares lines and correlation (NumPy)."""

import numpy as np


def line(found: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
    """The line ``found = slope * true + bias`` of least squares through values (n,).

    Where the true values are all the same there is no slope, and the bias is the mean difference.

    Returns:
      ``n``, how many pairs are finite, and of those ``slope`` and ``bias``, None without enough.
    """
    found, true = _pairs(found, true)
    if len(true) == 0:
        return {"n": 0, "slope": None, "bias": None}
    spread = true - true.mean()
    if not spread.any():
        return {"n": len(true), "slope": None, "bias": float(np.mean(found - true))}
    slope = spread @ found / (spread @ spread)
    return {
        "n": len(true),
        "slope": float(slope),
        "bias": float(found.mean() - slope * true.mean()),
    }


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson's, of the pairs of values (n,) that are finite; None where one side never changes."""
    one, other = _pairs(one, other)
    if len(one) < 2 or np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _pairs(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(one) & np.isfinite(other)
    return np.asarray(one, float)[known], np.asarray(other, float)[known]
