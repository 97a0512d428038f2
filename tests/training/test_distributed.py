"""Training as real processes: killed, stopped and resumed, alone and two together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from paths import ROOT
from tiny import scalars

from dfc_jax.nets import weights

pytestmark = pytest.mark.slow

STEPS = 8


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """One device, quick compilation, and what one process compiled the next one reads."""
    # Without a cache of the tests, one of their own.
    own = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}
    inherited = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    return own | inherited | settings


class Run:
    """A training process; what it says goes to a file."""

    def __init__(self, workdir: Path, environment: dict[str, str], *flags: str) -> None:
        self._log = workdir.parent / f"{workdir.name}.{time.time_ns()}.log"
        program = ["tests/tiny.py", "--config=tests/tiny.py", f"--workdir={workdir}"]
        command = [sys.executable, *program, f"--config.steps={STEPS}", *flags]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)

    def said(self) -> str:
        return self._log.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert self.process.poll() is None, self.said()
            time.sleep(0.01)

    def finish(self) -> str:
        """What it said until it ended well."""
        assert self.process.wait(timeout=300) == 0, self.said()
        return self.said()


def pair_of_runs(workdir: Path, environment: dict[str, str], *flags: str) -> list[Run]:
    """Two processes that train together, with two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = environment | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    # Gloo waits 30 s for the other process, and only one of the two would find its programs here.
    del environment["JAX_COMPILATION_CACHE_DIR"]
    flags = [*flags, f"--coordinator=localhost:{port}", "--num_processes=2"]
    return [Run(workdir, environment, *flags, f"--process_id={n}") for n in range(2)]


def saved(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit())


def losses(workdir: Path) -> dict[int, float]:
    return {step: loss for (name, step), loss in scalars(workdir).items() if name == "loss"}


@pytest.fixture(scope="module")
def unbroken(environment, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    Run(workdir, environment).finish()
    found = losses(workdir)
    assert [*found] == [*range(1, STEPS + 1)] and len({*found.values()}) == STEPS
    return workdir


def test_killed_and_stopped_runs_resume_bit_for_bit(unbroken, environment, tmp_path) -> None:
    workdir = tmp_path / "run"
    run = Run(workdir, environment | {"GATE": "6"})
    # The kill comes while step 4 is being written.
    run.wait_until(lambda: any(workdir.glob("checkpoints/4*")))
    run.process.kill()
    assert run.process.wait() == -signal.SIGKILL
    kept = saved(workdir)
    assert kept and max(kept) in (2, 4)

    run = Run(workdir, environment | {"GATE": "7"})
    run.wait_until(lambda: "step 5 " in run.said())
    run.process.terminate()
    (workdir / "go").touch()
    said = run.finish()
    (stopped,) = saved(workdir)
    assert f"resumed from step {max(kept)}" in said
    assert f"stopped by a signal after step {stopped} of {STEPS}; its checkpoint is saved" in said
    assert stopped in (6, 7) and not (workdir / "weights.safetensors").exists()

    Run(workdir, environment).finish()
    # What was logged within a second before the kill may be lost.
    found, expected = losses(workdir), losses(unbroken)
    assert found == {step: expected[step] for step in found}
    assert {*range(max(kept) + 1, STEPS + 1)} <= found.keys()
    ours, theirs = (weights.load(path / "weights.safetensors")[0] for path in (workdir, unbroken))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_two_processes_train_as_one(unbroken, environment, tmp_path) -> None:
    """The same pairs and, up to the order of sums, the same losses; a signal to one of the two
    stops both at the same step, and where that step is damaged both go back to the same one."""
    workdir = tmp_path / "run"
    keep = "--config.keep_last=2"
    first, second = pair_of_runs(workdir, environment | {"GATE": "4"}, keep)
    first.wait_until(lambda: "step 2 " in first.said())
    second.process.terminate()
    (workdir / "go").touch()
    said = [run.finish() for run in (first, second)]
    before, stopped = saved(workdir)
    assert f"stopped by a signal after step {stopped} of {STEPS}" in said[0]
    assert "2 processes, 4 devices" in said[0]
    assert "step 1 " in said[0] and "step 1 " not in said[1]
    assert stopped in (3, 4) and not (workdir / "weights.safetensors").exists()

    for file in workdir.glob(f"checkpoints/{stopped}/default/d/*"):
        file.write_bytes(b"")
    said = [run.finish() for run in pair_of_runs(workdir, environment, keep)]
    assert f"step {stopped} is damaged" in said[0] and "Traceback" not in "".join(said)
    assert f"going back to step {before}" in said[0] and f"resumed from step {before}" in said[0]
    assert saved(workdir) == [STEPS - 2, STEPS]
    assert (workdir / "checkpoints" / f"damaged-{stopped}").is_dir()
    assert len(list(workdir.glob("events.*"))) == 2, "both processes wrote curves"
    found, expected = losses(workdir), losses(unbroken)
    assert found.keys() == expected.keys()
    for step, loss in found.items():
        np.testing.assert_allclose(loss, expected[step], rtol=1e-5)
    assert weights.load(workdir / "weights.safetensors")[2]["steps"] == STEPS
