"""How sure a mean is, and a difference of two systems on the same faces (NumPy).

Intervals are the percentile bootstrap's (Efron, 1979): the statistic of `RESAMPLES` samples, each
drawn with replacement from the values, lies between the two ends in 95 % of them. The same seed
draws the same samples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 5000
CONFIDENCE = 0.95
# Values that are drawn at once: 32 MiB.
_MOST_AT_ONCE = 2**22


def interval(values: np.ndarray, statistic: Any = np.mean, seed: int = 0) -> list[float] | None:
    """The 95 % interval [low, high] of a statistic of finite values (n,); None of fewer than
    two, which say nothing of how far they are spread.

    Args:
      values: (n,).
      statistic: takes samples (k, n) and an axis: `np.mean`, `np.median`.
      seed: of the samples.
    """
    return intervals(values, [statistic], seed)[0]


def intervals(
    values: np.ndarray, statistics: Sequence[Any], seed: int = 0
) -> list[list[float] | None]:
    """`interval` for each of several statistics, of the same samples."""
    if values.size < 2:
        return [None] * len(statistics)
    rng, size = np.random.default_rng(seed), len(values)
    rows = max(1, min(RESAMPLES, _MOST_AT_ONCE // size))
    found: list[list[np.ndarray]] = [[] for _ in statistics]
    for start in range(0, RESAMPLES, rows):
        drawn = values[rng.integers(size, size=(min(rows, RESAMPLES - start), size))]
        for each, statistic in zip(found, statistics, strict=True):
            each.append(statistic(drawn, axis=-1))
    tail = (1.0 - CONFIDENCE) / 2.0
    ends = [np.quantile(np.concatenate(each), [tail, 1.0 - tail]) for each in found]
    return [end.tolist() for end in ends]


def paired(errors: np.ndarray, reference: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """How errors (n,) of a system differ from those of a reference on the same faces.

    Infinite stands for no output: the other system wins that face, and it takes no part in the
    mean and the test.

    Returns:
      ``n``, the faces that both have, and over these ``mean_difference`` (errors - reference) with
      its interval ``ci95`` and ``p_wilcoxon``, the two-sided p-value of the signed-rank test
      (Wilcoxon, 1945; 1 where no face differs), all None without any; and over all faces ``wins``
      of the system, ``losses`` and ``ties``.
    """
    counts = {
        "wins": int((errors < reference).sum()),
        "losses": int((errors > reference).sum()),
        "ties": int((errors == reference).sum()),
    }
    both = np.isfinite(errors) & np.isfinite(reference)
    difference = errors[both] - reference[both]
    return {
        "n": len(difference),
        "mean_difference": float(difference.mean()) if difference.size else None,
        "ci95": interval(difference, seed=seed),
        "p_wilcoxon": _p_wilcoxon(difference) if difference.size else None,
        **counts,
    }


def balanced(bins: np.ndarray, seed: int = 0) -> np.ndarray:
    """A mask (n,) bool of as many faces of each bin as the smallest bin has.

    They are drawn without replacement; a bin without any face is passed over.

    Args:
      bins: (n,) int; faces of a negative bin are never drawn.
      seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(bins == k) for k in np.unique(bins[bins >= 0])]
    size = min(map(len, members), default=0)
    drawn = np.zeros(len(bins), bool)
    for each in members:
        drawn[rng.choice(each, size, replace=False)] = True
    return drawn


def _p_wilcoxon(difference: np.ndarray) -> float:
    if not difference.any():
        return 1.0
    from scipy.stats import wilcoxon  # here: slow to import

    return float(wilcoxon(difference).pvalue)
