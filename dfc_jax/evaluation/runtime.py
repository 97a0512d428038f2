"""How long things take, and on what machine: the block ``runtime`` of a result."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

# Calls of a function that do not count: the first one compiles.
WARM_UP = 2
LOW, HIGH = 10.0, 90.0


def sample_ms(
    calls: Sequence[Callable[[], Any]], repeats: int = 50, seconds: float = 5.0
) -> np.ndarray:
    """Milliseconds (n,) that calls take until their results are ready, warm-up left out.

    Args:
      calls: taken in turn, over and over; each first runs `WARM_UP` times.
      repeats, seconds: after so many calls, or so long, nothing new is begun; each of the calls
        counts at least once, and three do in all.
    """
    for call in calls:
        for _ in range(WARM_UP):
            jax.block_until_ready(call())
    times: list[float] = []
    least, end = max(3, len(calls)), time.perf_counter() + seconds
    while len(times) < least or (len(times) < repeats and time.perf_counter() < end):
        call = calls[len(times) % len(calls)]
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(1e3 * (time.perf_counter() - start))
    return np.array(times)


def spread(samples_ms: np.ndarray, per: str, count: int = 1) -> dict[str, Any]:
    """A stage of the block: the median and the 10th and 90th percentiles of samples (n,), each of
    which did `count` of what the stage is told `per`."""
    low, median, high = np.percentile(samples_ms / count, [LOW, 50.0, HIGH])
    return {
        "per": per,
        "median_ms": round(float(median), 3),
        "p10_ms": round(float(low), 3),
        "p90_ms": round(float(high), 3),
        "samples": len(samples_ms),
    }


def machine_facts() -> dict[str, Any]:
    """What the times depend on besides the code: device, processor, cores, versions."""
    return {
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": usable_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
