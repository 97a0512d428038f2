"""Several devices on a machine without."""

import os
import subprocess
import sys

from paths import ROOT


def printed_on_devices(count: int, code: str) -> str:
    """What Python code prints where the CPU is so many devices; the test fails if it raises."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
