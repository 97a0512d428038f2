"""The benchmark of videos."""

import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

from experiments.bench.video import rate


def run(*words):
    command = [sys.executable, "-m", "experiments.bench.video", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_rate_leaves_out_the_first_second():
    slow_start = [0.0, 0.9, *(1.0 + np.arange(101) / 25.0)]
    assert rate(slow_start) == pytest.approx(25.0, rel=0.02)
    assert rate([0.0, 0.1, 0.2]) == pytest.approx(10.0)


@pytest.mark.slow
def test_mistakes_are_one_sentence(tmp_path):
    done = run(tmp_path / "none.mp4", "--json", "-")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("there is no such file; check the path")
    done = run("--json", "-")
    assert done.returncode == 1 and done.stderr.strip() == "video: give one video, and --json"
