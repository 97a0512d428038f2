"""What got worse than in a baseline, which is the JSON of an earlier run.

Times are compared loosely, as ratios to a matrix product of the same run, so that a slower clock
changes nothing; accuracy and the numbers of compiled programs hardly vary, and are held tightly.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from dfc_jax.errors import UserError
from experiments.bench.synthetic import Figures

REFERENCE = "reference_ms"
# On a machine that does other things too, medians relative to the matrix product differ by a third
# from run to run: they do not lose time to the same things. Half more, and again when measured
# again, is a change of the code.
TIME_FACTOR = 1.5
# The same program gives the same error on the same kind of machine, another compiler's one in the
# third digit.
NME_FACTOR = 1.02
# Mean distance in the photograph, whose face is about 100 pixels wide.
PHOTO_PX = 0.1
# Figures mean the same only where these agree.
SAME = ("suite", "device", "cores", "batch", "network", "pretrain_batch", "refine_batch")
LANDMARKS, NME, COUNTS = "photo_landmarks_px", "rendered_nme_percent", "compiles_"
# Times of a start are ratios already, to a bare start of JAX.
RATIOS = ("cold_start_ratio", "cold_start_cached_ratio")


class BaselineError(UserError):
    """The baseline cannot be read, or was measured elsewhere; the message names it."""


def read_baseline(path: Path) -> Figures:
    """The figures of a baseline.

    Raises:
      BaselineError: the file is missing or is no JSON of this program.
    """
    remedy = f"make it with: python -m experiments.bench --suite cpu --json {path}"
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaselineError(f"{path}: cannot be read as a baseline; {remedy}") from error
    if not isinstance(figures, dict) or not _is_number(figures.get(REFERENCE)):
        raise BaselineError(f"{path}: holds no figures of this program; {remedy}")
    return figures


def check_comparable(path: Path, baseline: Figures, figures: Figures) -> None:
    """Raises BaselineError where `figures` were not measured as those of the baseline were."""
    for name in SAME:
        if baseline.get(name) != figures.get(name):
            raise BaselineError(
                f"{path}: was measured with {name} {baseline.get(name)}, and this run with "
                f"{figures.get(name)}; compare with a baseline of the same {name}"
            )


def regressions(baseline: Figures, figures: Figures, *again: Figures) -> list[str]:
    """A sentence for each figure of the baseline that is worse now, or missing.

    Of a time the best of `figures` and of the runs after it counts: what else a machine does makes
    a run slower and never quicker. All that is no time is that of `figures`.
    """
    before, now = comparable(baseline), comparable(figures)
    for run in map(comparable, again):
        now |= {name: min(now[name], run[name]) for name in now if _is_time(name) and name in run}
    sentences = (_regression(name, value, now.get(name)) for name, value in before.items())
    return [sentence for sentence in sentences if sentence]


def comparable(figures: Figures) -> Figures:
    """The figures that the gate looks at; times in units of the matrix product."""
    chosen = {}
    for name, value in figures.items():
        if name != REFERENCE and (name.endswith("_ms") or "_ms_per_" in name):
            chosen[f"{name} / {REFERENCE}"] = value / figures[REFERENCE]
        elif name in (LANDMARKS, NME, *RATIOS) or name.startswith(COUNTS):
            chosen[name] = value
    return chosen


def _is_time(name: str) -> bool:
    return name.endswith(REFERENCE) or name in RATIOS


def _regression(name: str, before: Any, now: Any) -> str:
    """What is worse, "" if nothing is; NaN is."""
    if now is None:
        return f"{name} is missing"
    if name == LANDMARKS:
        return _moved(np.array(before, float), np.array(now, float))
    factor = NME_FACTOR if name == NME else 1.0 if name.startswith(COUNTS) else TIME_FACTOR
    if now <= factor * before:
        return ""
    return f"{name} is {now:.4g}, more than {factor:g} times the {before:.4g} of the baseline"


def _moved(before: np.ndarray, now: np.ndarray) -> str:
    if before.shape != now.shape:
        return f"{LANDMARKS} are {len(now)} points, and {len(before)} in the baseline"
    distance = float(np.linalg.norm(now - before, axis=-1).mean())
    if distance <= PHOTO_PX:
        return ""
    return f"{LANDMARKS} moved by {distance:.3g} pixels on average, more than {PHOTO_PX:g}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
