"""Ctrl-C ends the `dfc` command whatever it is busy with, and nobody else's process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ASTRONAUT, ROOT

from dfc_jax import cli

# What stands for a compilation takes many minutes, and no signal interrupts it.
PROGRAM = """
import gc, hashlib, os, signal, sys, time

def compile(*_):
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

{patch}
from dfc_jax import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
sys.argv[0] = "dfc"
sys.exit(cli.main())
"""
IN_A_THREAD = """
from dfc_jax.inference import solve
solve.Solver.__init__ = compile
"""
IN_THE_MAIN_THREAD = """
from dfc_jax import cli
cli._version = compile
"""
# KeyboardInterrupt is lost in a callback of the garbage collector, such as JAX has.
IN_A_CALLBACK = """
from dfc_jax import cli
def wait(*_):
    gc.callbacks.clear()
    print("busy", flush=True)
    time.sleep(600)
def collect(_):
    gc.callbacks.append(wait)
    gc.collect()
    compile()
cli._version = collect
"""
# The first interrupt is taken, and putting things in order takes for ever.
AGAIN = """
from dfc_jax import cli
def again(_):
    try:
        print("busy", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        compile()
cli._version = again
"""


def started(patch: str, *arguments: str) -> subprocess.Popen:
    """A `dfc` command that has said that it is busy."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(patch=patch), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    heard_that_it_is_busy(process)
    return process


def heard_that_it_is_busy(process: subprocess.Popen) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    time.sleep(0.3)  # it says so just before


def interrupted(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and standard error, if it ends at all."""
    process.send_signal(signal.SIGINT)
    try:
        error = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    return process.returncode, error


@pytest.mark.slow
def test_an_interrupt_does_not_wait_for_what_a_thread_compiles(tmp_path: Path) -> None:
    process = started(IN_A_THREAD, "align", str(ASTRONAUT), "--out", str(tmp_path))
    assert interrupted(process) == (130, "dfc: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("patch", [IN_THE_MAIN_THREAD, IN_A_CALLBACK], ids=["busy", "callback"])
def test_an_interrupt_ends_a_command_whose_main_thread_does_not_notice(patch: str) -> None:
    assert interrupted(started(patch, "version")) == (130, "dfc: interrupted\n")


@pytest.mark.slow
def test_a_second_interrupt_ends_a_command_that_is_still_busy_after_the_first() -> None:
    process = started(AGAIN, "version")
    process.send_signal(signal.SIGINT)
    heard_that_it_is_busy(process)
    code, error = interrupted(process)
    assert code == 130
    assert "Traceback" not in error


def test_who_calls_the_command_is_not_ended_by_an_interrupt(monkeypatch, capsys) -> None:
    def interrupt(_):
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(cli, "_version", interrupt)
        assert cli.main(["version"]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "dfc: interrupted\n"
