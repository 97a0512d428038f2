"""How long a new process takes to its first aligned photograph, beside a bare start of JAX."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dfc_jax.cache import VARIABLE

ROUNDS = 3
BARE = "import jax; jax.jit(lambda x: x + 1)(1.0).block_until_ready()"


class StartError(RuntimeError):
    """A process that is measured failed; the message is what it said."""


def start_figures(photo: Path, rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds from the start of ``dfc align`` to its end, and their ratios to a bare start of JAX.

    The three are run in turns, `rounds` times, and their medians taken: `bare_jax_s` imports jax
    and compiles one addition, `cold_start_s` aligns `photo` without a cache of compiled programs,
    `cold_start_cached_s` with one that an earlier process filled.

    Raises:
      StartError: one of them failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        align = ["-m", "dfc_jax.cli", "align", str(photo), "--out", str(Path(folder) / "out")]
        commands = {
            "bare_jax_s": (["-c", BARE], "off"),
            "cold_start_s": (align, "off"),
            "cold_start_cached_s": (align, str(Path(folder) / "cache")),
        }
        _seconds(*commands["cold_start_cached_s"])
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(_seconds(*command))
    figures = {name: round(statistics.median(seconds), 3) for name, seconds in times.items()}
    for name in ("cold_start", "cold_start_cached"):
        figures[f"{name}_ratio"] = round(figures[f"{name}_s"] / figures["bare_jax_s"], 2)
    return figures


def _seconds(arguments: list[str], cache: str) -> float:
    kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**kept, VARIABLE: cache},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise StartError(f"{' '.join(arguments[:3])} failed: {done.stderr.strip()}")
    return seconds
