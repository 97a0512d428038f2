"""Compiled programs kept between processes, in the user's cache folder.

`dfc_jax.load` and the ``dfc`` command compile inside `compiled_programs`, so that the next process
reads what this one compiled. The environment variable ``DFC_CACHE`` names another folder, or "off".
"""

import hashlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

VARIABLE, FOLDER_SETTING = "DFC_CACHE", "jax_compilation_cache_dir"
# Programs as new as this may still be being written.
LATEST_S = 2.0


def cache_folder() -> Path | None:
    """Where this machine's programs are kept; None where ``DFC_CACHE`` is "off".

    A cache on a disk that several machines share has a folder for each kind of processor, because
    XLA compiles for the instructions of the one it runs on.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() == "off":
        return None
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("dfc_jax", False)
    machine = hashlib.sha256(f"{platform.machine()} {_processor()}".encode()).hexdigest()[:8]
    return folder.absolute() / f"jaxlib-{version('jaxlib')}-{machine}"


def folder_in_use() -> Path | None:
    """The same, or the folder of a cache that is set up already, which is used instead."""
    set_up = getattr(jax.config, FOLDER_SETTING)
    return Path(set_up) if set_up else cache_folder()


def _processor() -> str:
    """The processor's name and instructions, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    told = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))


@contextmanager
def compiled_programs() -> Iterator[None]:
    """Inside, programs are read from the cache folder, and written there when compiled.

    JAX's settings are as before afterwards. A cache that is set up already (by
    ``JAX_COMPILATION_CACHE_DIR``, or in code) is used instead. A folder that cannot be written, or
    a damaged file in it, costs time but is no error.
    """
    folder = cache_folder()
    settings = {
        FOLDER_SETTING: str(folder),
        # Dozens of small programs would otherwise be compiled anew each time.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    if folder is None or before[FOLDER_SETTING] or not _made(folder):
        yield
        return
    try:
        _configure(settings)
        yield
    finally:
        _configure(before)


@contextmanager
def without_kept_programs() -> Iterator[None]:
    """Inside, every program is compiled: none is read from a cache folder, and none kept there."""
    before = {FOLDER_SETTING: getattr(jax.config, FOLDER_SETTING)}
    try:
        _configure({FOLDER_SETTING: None})
        yield
    finally:
        _configure(before)


def forget_latest() -> None:
    """Remove the programs that were kept in the last seconds, before this process is cut off.

    One of them may be half written, and JAX never writes a file of the cache again.
    """
    folder = folder_in_use()
    if folder is None:
        return
    for path in folder.glob("*-cache"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < LATEST_S:
                path.unlink()


def _configure(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    # JAX looks at its settings when it first compiles, and then no more.
    compilation_cache.reset_cache()


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
