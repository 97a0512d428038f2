"""What a nonlinear least-squares problem with known minima is."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Problem:
    """Minimise ``||residual(x, *data)||^2``.

    Attributes:
      residual: x (n,) and `data` to residuals (m,); a function of JAX. Problems of one model share
        it, and so their programs.
      starts: by name, each (n,).
      minima: the published sums of squares, the lowest first.
      data: arrays, passed on to `residual`.
      digits: to which relative error the minima are known.
      others: where solvers also end: local minima that are not published, and limits where
        exponentials vanish.
    """

    residual: Callable
    starts: dict[str, tuple[float, ...]]
    minima: tuple[float, ...]
    data: tuple[np.ndarray, ...] = ()
    digits: float = 1e-6
    others: tuple[float, ...] = ()
