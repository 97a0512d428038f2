"""Compiled programs outlive a process, and nobody else's settings are touched."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from dfc_jax import cache

PROGRAM = """
import jax
from jax import monitoring
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name.rsplit("/", 1)[-1]))
from dfc_jax.cache import compiled_programs
jax.jit(lambda x: x - 1.0)(1.0)  # JAX has looked at its settings by now
with compiled_programs():
    print(jax.jit(lambda x: x + 1.0)(2.0))
jax.jit(lambda x: x * 3.0)(1.0)
print(events.count("cache_hits"), events.count("cache_misses"))
"""


def run(folder: Path, **environment: str) -> list[str]:
    return run_program(PROGRAM, folder, **environment)


def run_program(program: str, folder: Path, **environment: str) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "DFC_CACHE": str(folder), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*-cache"))


@pytest.mark.slow
def test_a_second_process_reads_what_the_first_one_compiled(tmp_path: Path) -> None:
    assert run(tmp_path) == ["3.0", "0", "1"]
    assert len(files(tmp_path)) == 1, "what is compiled outside is not kept"
    assert run(tmp_path) == ["3.0", "1", "0"]


@pytest.mark.slow
def test_a_damaged_program_is_compiled_again(tmp_path: Path) -> None:
    run(tmp_path)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    assert run(tmp_path)[0] == "3.0"


@pytest.mark.slow
def test_what_may_be_half_written_is_removed_and_the_rest_is_kept(tmp_path: Path) -> None:
    run(tmp_path)
    (file,) = files(tmp_path)
    older = file.with_name("older-cache")
    older.write_bytes(file.read_bytes())
    os.utime(older, (0, 0))
    # However long the second process takes to start, this one is of the last seconds.
    os.utime(file, (time.time() + 600.0,) * 2)
    forget = "from dfc_jax.cache import forget_latest; forget_latest()"
    run_program(forget, tmp_path)
    assert files(tmp_path) == [older]


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "cache") == ["3.0", "0", "0"]


@pytest.mark.slow
def test_the_cache_can_be_switched_off(tmp_path: Path) -> None:
    assert run(Path("off"), XDG_CACHE_HOME=str(tmp_path)) == ["3.0", "0", "0"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cache_that_is_set_up_already_is_used_instead(tmp_path: Path) -> None:
    own = tmp_path / "own"
    settings = {"JAX_COMPILATION_CACHE_DIR": str(own)}
    settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    run(tmp_path / "dfc", **settings)
    assert len(files(own)) == 3 and not (tmp_path / "dfc").exists()


def test_settings_are_as_before_also_after_an_error(tmp_path: Path, monkeypatch) -> None:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    monkeypatch.setenv("DFC_CACHE", str(tmp_path))
    outside = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        before = [getattr(jax.config, name) for name in names]
        with pytest.raises(KeyError), cache.compiled_programs():
            assert jax.config.jax_compilation_cache_dir == str(cache.cache_folder())
            raise KeyError
        assert [getattr(jax.config, name) for name in names] == before
    finally:
        jax.config.update("jax_compilation_cache_dir", outside)


def test_programs_can_be_compiled_although_they_are_kept(tmp_path: Path) -> None:
    kept = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in kept}
    cache._configure(kept)
    try:
        with cache.without_kept_programs():
            jax.jit(lambda x: x + 1.0).lower(1.0).compile()
        assert not files(tmp_path)
        assert jax.config.jax_compilation_cache_dir == str(tmp_path)
        jax.jit(lambda x: x + 1.0).lower(1.0).compile()
        assert len(files(tmp_path)) == 1
    finally:
        cache._configure(before)


def test_the_folder_is_the_users_and_one_for_each_processor(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DFC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    first = cache.cache_folder()
    assert first is not None and first.parent == tmp_path / "dfc_jax"
    monkeypatch.setattr(cache, "_processor", lambda: "another one")
    assert cache.cache_folder() != first
