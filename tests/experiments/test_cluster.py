"""SLURM's script, with stand-ins for srun, scontrol and the program."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from paths import ROOT


@pytest.mark.parametrize(
    ("program", "send", "requeued"),
    [
        ("trap 'exit 0' TERM; touch $W/ready; while :; do sleep 0.05; done", True, True),
        ("trap 'exit 1' TERM; touch $W/ready; while :; do sleep 0.05; done", True, False),
        ("exit 0", False, True),
        ("touch $W/weights.safetensors", False, False),
        ("exit 3", False, False),
    ],
    ids=["stopped", "failed when stopped", "only the step stopped", "finished", "failed"],
)
def test_slurm_requeues_what_was_stopped(program, send, requeued, tmp_path: Path) -> None:
    """With stand-ins for srun, scontrol and the program."""
    stubs = {
        "srun": 'echo "$@" > $W/started; shift; exec "$@"',
        "scontrol": 'echo "$@" > $W/requeued',
        "python": program,
    }
    for name, text in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": str(tmp_path / "python"),
        "SLURM_JOB_ID": "42",
        "W": str(tmp_path),
    }
    script = ["bash", "experiments/cluster/slurm.sh", "pretrain", f"--workdir={tmp_path}"]
    job = subprocess.Popen(script, cwd=ROOT, env=environment)
    while send and not (tmp_path / "ready").exists():
        time.sleep(0.01)
    if send:
        job.terminate()
    code = job.wait(timeout=60)
    assert code == {"exit 3": 3}.get(program, 0 if requeued or not send else 1)
    assert f"-m experiments.pretrain --workdir={tmp_path}" in (tmp_path / "started").read_text()
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 42\n"


def test_slurm_asks_for_the_signal_that_the_programs_wait_for() -> None:
    script = (ROOT / "experiments/cluster/slurm.sh").read_text()
    assert re.search(r"^#SBATCH --signal=B:TERM@\d+$", script, re.MULTILINE)
    assert "#SBATCH --requeue" in script and "#SBATCH --open-mode=append" in script
    processes = re.search(r"--ntasks-per-node=(\d+)", script)[1]
    assert f"--gpus-per-node={processes}" in script, "JAX gives each task one GPU"
