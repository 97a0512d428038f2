"""`dfc info` and `dfc completion`: what is there, and what a shell completes."""

import json
import re
import shutil
import subprocess
from email.message import Message
from importlib import metadata

import jax
import pytest
from command_line import run
from paths import extra_module

import dfc_jax
from dfc_jax import cache
from dfc_jax.commands import info
from dfc_jax.files import WEIGHTS_DIR


def test_info_names_what_runs_here(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "folder_in_use", lambda: tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("a-cache", "deep/b-cache"):
        (tmp_path / name).write_bytes(bytes(1_000_000))
    code, out, _ = run(capsys, "info", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["dfc_jax"] == dfc_jax.__version__
    assert found["packages"]["jax"] == jax.__version__
    assert len(found["devices"]) == len(jax.devices())
    assert found["cache"] == {"folder": str(tmp_path), "bytes": 2_000_000}
    assert set(found["weights"]) == {path.stem for path in WEIGHTS_DIR.iterdir()}
    lite = found["weights"]["lite"]
    assert re.fullmatch(r"lite-[0-9a-f]{8}", lite["version"])
    assert lite["kind"] == "dfc/lite"
    assert 2.6e6 < lite["parameters"] < 2.8e6
    code, out, _ = run(capsys, "info")
    assert code == 0
    for words in (lite["version"], found["detector"]["version"], "2.0 MB", found["face_model"]):
        assert words in out
    for version in found["packages"].values():
        assert version in out


def test_info_survives_what_is_broken_or_not_installed(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.safetensors").write_text("nothing of the kind")
    monkeypatch.setattr(info, "WEIGHTS_DIR", tmp_path)
    monkeypatch.setattr(info, "DISTRIBUTION", "no-such-distribution")
    monkeypatch.setattr(cache, "folder_in_use", lambda: None)
    code, out, _ = run(capsys, "info")
    assert code == 0
    assert "mine.safetensors: cannot be read" in out
    assert re.search(r"^cache +off$", out, re.MULTILINE)
    assert re.search(r"^extras +none$", out, re.MULTILINE)


def test_an_extra_is_there_when_all_that_it_asks_for_is(monkeypatch):
    required = ["jax<1,>=0", 'numpy>=2; extra == "light"', "numpy; extra == 'heavy'"]
    required += ['no-such-thing>=2,<3; extra == "heavy"']
    described = Message()
    for name in ("light", "heavy"):
        described["Provides-Extra"] = name
    monkeypatch.setattr(metadata, "metadata", lambda _: described)
    monkeypatch.setattr(metadata, "requires", lambda _: required)
    assert info._extras() == {"heavy": False, "light": True}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_all_commands_and_options(capsys, shell):
    extra_module("shtab", "completion")
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0
    for word in ("align", "evaluate", "render", "resume", "min-face", "haar"):
        assert word in out


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("al", "align"),
        ("align --summ", "--summary"),
        ("align --detector h", "haar"),
        ("align one", "one.jpg"),
        ("align --out d", "dir"),
    ],
)
def test_bash_completes_commands_options_choices_and_files(tmp_path, capsys, words, completed):
    extra_module("shtab", "completion")
    (tmp_path / "dfc.bash").write_text(run(capsys, "completion", "bash")[1])
    (tmp_path / "one.jpg").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "doc.txt").touch()
    program = f"""
source ./dfc.bash
COMP_WORDS=(dfc {words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
"$(complete -p dfc | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [completed]


def test_without_shtab_completion_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("dfc_jax.commands.completion.find_spec", lambda name: None)
    code, out, err = run(capsys, "completion", "bash")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "dfc-jax[completion]" in err
