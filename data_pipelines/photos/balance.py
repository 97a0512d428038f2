"""How often photographs are drawn, so that profiles count as much as frontal faces."""

import numpy as np

# Width of the bins of |yaw|, the last of which is open; and how often a square is drawn at most.
BIN_DEG, BINS, MOST = 15.0, 6, 4.0


def yaw_weights(yaw_deg: np.ndarray, balance: float) -> np.ndarray:
    """How often each square is drawn in an epoch, on average: (N,), with a mean of 1.

    Args:
      yaw_deg: (N,) yaws of the faces.
      balance: 0 draws every square once, 1 draws as many from each bin of |yaw| that holds any;
        between them the weights are mixed. No weight exceeds `MOST`; the others then take over.
    """
    if not len(yaw_deg):
        return np.ones(0)
    bins = np.minimum(np.abs(yaw_deg) // BIN_DEG, BINS - 1).astype(int)
    counts = np.bincount(bins, minlength=BINS)
    equal = len(bins) / (np.count_nonzero(counts) * counts[bins])
    weights = wanted = 1.0 - balance + balance * equal
    for _ in range(BINS):
        capped = weights >= MOST
        left = len(bins) - MOST * np.count_nonzero(capped)
        weights = np.where(capped, MOST, wanted * left / wanted[~capped].sum())
    return weights


def shared(weights: np.ndarray, is_copy: np.ndarray, share: float) -> np.ndarray:
    """The same weights (N,), scaled so that the squares that are copies, `is_copy` (N,), make this
    share of all that are drawn; unchanged where there are no copies or nothing else. Between the
    copies, and between the others, nothing changes; a weight can then exceed `MOST`."""
    copies = weights[is_copy].sum()
    others = weights.sum() - copies
    if not copies or not others:
        return weights
    factors = share / copies, (1.0 - share) / others
    return len(weights) * weights * np.where(is_copy, *factors)


def draw_weights(
    yaw_deg: np.ndarray, own: int, yaw_balance: float, turned_share: float
) -> np.ndarray:
    """How often squares of these yaws (N,) are drawn, (N,) with a mean of 1: the first `own` are
    the photographs, the others their copies. `yaw_weights` balances each of the two, and the copies
    are `turned_share` of all, see `shared`."""
    parts = np.split(yaw_deg, [own])
    weights = np.concatenate([yaw_weights(part, yaw_balance) for part in parts])
    return shared(weights, np.arange(len(yaw_deg)) >= own, turned_share)


def drawn(weights: np.ndarray, start: float) -> np.ndarray:
    """The squares of an epoch, (N,) indices in rising order.

    Each is drawn as often as its weight says, rounded up or down: systematic sampling. With
    weights of 1 every square is drawn once.

    Args:
      weights: (N,) with a mean of 1.
      start: in [0, 1), random; over many epochs it makes up for the rounding.
    """
    n = len(weights)
    index = np.searchsorted(np.cumsum(weights), np.arange(n) + start, side="right")
    return np.minimum(index, n - 1)
