"""Medians of the time that calls take."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.bench.compiles import compiles


class Stopwatch:
    """Medians of at most `repeats` calls or `seconds` each, but of three calls at least.

    Attributes:
      samples: calls behind the median that has the fewest.
      compiles_again: programs that were compiled in any but the first call of a function.
    """

    def __init__(self, repeats: int = 50, seconds: float = 5.0) -> None:
        self.repeats, self.seconds = repeats, seconds
        self.samples = repeats
        self.compiles_again = 0

    def median_ms(self, function: Callable[..., Any], *args: Any) -> float:
        """Milliseconds of a call whose result is ready; the first two calls do not count."""
        jax.block_until_ready(function(*args))
        compiled = compiles()
        jax.block_until_ready(function(*args))
        times: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(times) < self.repeats and (len(times) < 3 or time.perf_counter() < end):
            start = time.perf_counter()
            jax.block_until_ready(function(*args))
            times.append(time.perf_counter() - start)
        self.samples = min(self.samples, len(times))
        self.compiles_again += compiles() - compiled
        return round(1e3 * float(np.median(times)), 3)
