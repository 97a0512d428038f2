"""The `dfc` command: every mistake is one sentence, never a trace; and what it says of itself."""

import argparse
import os
import re
import shlex
import subprocess
import sys

import pytest
from command_line import photo, run
from paths import ROOT

import dfc_jax
from dfc_jax import cli

ALIGN = ["align", "a.png", "--out", "o"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["align"], "required"),
        (["align", "a.png"], "--out"),
        (["align", "a.png", "--out", "o", "--detector", "hog"], "invalid choice: 'hog'"),
        (["align", "a.png", "--out", "o", "--detector", "yunet"], "needs a model file"),
        ([*ALIGN, "--detector", "haar", "--detector-model", "x"], "takes no model file"),
        ([*ALIGN, "--detector-model", "x"], "x: there is no such detector model"),
        (
            [*ALIGN, "--detector", "haar", "--min-face", "20"],
            "haar has no --min-face; use dfc with",
        ),
        ([*ALIGN, "--detector", "none", "--max-faces", "2"], "none has no --max-faces; use dfc"),
        ([*ALIGN, "--detector", "haar", "--min-score", "0.5"], "use dfc or yunet with it"),
        ([*ALIGN, "--detector", "dfc", "--min-face", "0"], "'0' is not a number from 1 on"),
        ([*ALIGN, "--detector", "dfc", "--max-faces", "0"], "whole number from 1"),
        (
            [*ALIGN, "--detector", "dfc", "--min-score", "1"],
            "'1' is not a number from 0.01 to 0.99",
        ),
        (["align", "a.png", "--out", "o", "--box", "1,2,3"], "x,y,width,height"),
        (["align", "a.png", "--out", "o", "--box", "1,2,0,4"], "x,y,width,height"),
        (["align", "a.png", "b.png", "--out", "o", "--box", "1,2,3,4"], "one photograph"),
        (["align", "a.png", "--out", "o", "--face-model", "no.npz"], "no.npz: no such"),
        (["evaluate", "--layout", "wflw"], "invalid choice: 'wflw'"),
        (["evaluate", "--layout", "ibug", "--data", "no", "--json", "-"], "no: there is no such"),
        (["model", "info", "no.npz"], "no.npz: no such"),
        (["model", "render", "--out", "m.png", "--expression", "smirk=1"], "no such expression"),
        (["model", "render", "--out", "m.png", "--expression", "jawOpen"], "NAME=NUMBER"),
        (["model", "render", "--out", "m.png", "--expression", "jawOpen=9"], "lies in [0, 1]"),
        (["model", "render", "--out", "m.png", "--expression", "jawOpen=-1"], "lies in [0, 1]"),
        (["model", "render", "--out", "m.png", "--expression", "jawOpen=nan"], "NAME=NUMBER"),
        (["model", "render", "--out", "m.png", "--identity", "0=50"], "lies in [-5, 5]"),
        (["model", "render", "--out", "m.png", "--identity", "0=inf"], "NAME=NUMBER"),
        (["model", "render", "--out", "m.png", "--identity", "7000=1"], "no such identity"),
        (["model", "render", "--out", "m.png", "--yaw", "abc"], "'abc' is not a finite number"),
        (["model", "render", "--out", "m.png", "--size", "0"], "16 to 2048"),
        (["model", "render", "--out", "m.png", "--size", "\u00b2"], "16 to 2048"),
        (["model", "render", "--out", "m.gif"], "end it in .png, .jpg, .jpeg, .webp"),
        (["model", "render", "--out", "none/m.png"], "none: there is no such folder"),
        (["synth", "--out", "o", "--count", "0"], "whole number from 1"),
        (["synth", "--out", "o", "--seed", "abc"], "'abc' is not a whole number from 0"),
        (["synth", "--out", "o", "--backgrounds", "none"], "none: there is no such folder"),
        (["synth", "--out", "o", "--light", "none.npz"], "none.npz: there is no such file"),
        (["align", "a.png", "--out", "o", "--recrop", "x"], "whole number from 0 to 3"),
        (["align", "a.png", "--out", "o", "--outputs", "json,stl"], "'stl' is none of json, "),
        (["align", "a.png", "--out", "o", "--outputs", ""], "'' is none of json, "),
        (["align", "a.png", "--out", "o", "--obj-space", "world"], "invalid choice: 'world'"),
        (
            ["align", "a.png", "--out", "o", "--weights", "lite.jpg"],
            "lite.jpg: no such weight file",
        ),
        (["align", "a.png", "--out", "o", "--weights", "light"], "dfc: light: no such weight file"),
        (["align", "a.png", "--out", "o"], "a.png: there is no such file"),
        (["align", "."], "--out"),
        (["align", "--out", "o"], "no photographs are given; name some, a folder, or"),
        (["align", ".", "--out", "o"], ".: no photographs are in this folder"),
        (["align", "*.png", "--out", "o"], "*.png: nothing matches this pattern"),
        (["align", "--from-file", "no.txt", "--out", "o"], "no.txt: this list of photographs"),
        ([*ALIGN, "--shard", "3"], "'3' is no part such as 3/16"),
        ([*ALIGN, "--shard", "0/4"], "'0/4' is no part such as 3/16"),
        ([*ALIGN, "--shard", "5/4"], "'5/4' is no part such as 3/16"),
        ([*ALIGN, "--summary", "t.xlsx"], "t.xlsx: is no name of a table; end it in .csv or"),
        ([*ALIGN, "--quiet", "--verbose"], "not allowed with argument"),
        (["fly"], "invalid choice"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_what_is_missing_or_cannot_be_written_is_found_before_anything_is_loaded(tmp_path):
    """Not even JAX is imported."""
    for name in ("a.png", "weights.jpg"):
        photo(tmp_path / name)
    (tmp_path / "data").mkdir()
    render = ["model", "render", "--out"]
    evaluate = ["evaluate", "--layout", "ibug", "--data", "data", "--json"]
    commands = [
        ["align", "no.png", "gone.png", "--out", "o"],
        ["align", "a.png", "--out", "a.png"],
        ["align", "a.png", "--out", "/proc/none/o"],
        ["align", "a.png", "--out", "/proc"],
        ["align", "a.png", "--out", "o/o", "--detector", "yunet", "--detector-model", "no.onnx"],
        ["align", "a.png", "--out", "o/o", "--weights", "no.safetensors"],
        ["align", "a.png", "--out", "o/o", "--face-model", "no.npz"],
        [*evaluate, "no/s.json"],
        [*evaluate, "data"],
        [*evaluate, "-", "--predictions-out", "no/p.npz"],
        ["evaluate", "--layout", "ibug", "--data", "no", "--json", "-"],
        [*render, "no/m.png"],
        ["model", "info", "no.npz"],
        ["synth", "--out", "a.png"],
        ["synth", "--out", "o", "--textures", "no.npz"],
    ]
    code = f"""
import sys
from dfc_jax import cli
for command in {commands}:
    assert cli.main(command) == 2, command
    assert "jax" not in sys.modules, command
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(commands) + 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "weights.jpg", "data"}


def test_version(capsys):
    assert run(capsys, "version")[1].strip() == dfc_jax.__version__
    assert run(capsys, "--version")[:2] == (0, f"dfc {dfc_jax.__version__}\n")


def parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert all(choice.help for choice in action._choices_actions)
            for child in action.choices.values():
                yield from parsers(child)


def test_every_argument_has_help():
    for parser in parsers(cli._parser()):
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                assert action.help, f"{parser.prog}: {action.dest}"


def test_every_help_ends_with_examples_that_are_taken_and_the_exit_codes(capsys):
    for parser in parsers(cli._parser()):
        examples, codes = parser.format_help().split("examples:\n")[1].split("\n\n")
        assert codes.startswith("exit codes: 0 all went well")
        for line in examples.splitlines():
            # Of a pipeline, what dfc is given.
            (command,) = re.findall(r'\bdfc (?:[^|>)"]|"[^"]*")*', line)
            try:
                cli._parser().parse_args(shlex.split(command)[1:])
            except SystemExit as stop:
                assert stop.code == 0, (line, capsys.readouterr().err)


def test_every_command_of_the_readme_is_one_that_dfc_takes():
    root = ROOT
    lines = (root / "README.md").read_text().splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("dfc ")]
    shown = {
        "align",
        "video",
        "webcam",
        "composite",
        "evaluate",
        "compare",
        "info",
        "model",
        "synth",
    }
    assert {command[1] for command in commands} == shown
    for command in commands:
        cli._parser().parse_args(command[1:])
    assert "source .venv/bin/activate" in "\n".join(lines)
    # What `make demo` says last, word for word.
    (last,) = re.findall(r'@echo "    \$\(BIN\)/dfc (.*)"', (root / "Makefile").read_text())
    cli._parser().parse_args(shlex.split(last))


def test_help_names_the_exit_codes(capsys):
    for command in ((), ("align",), ("evaluate",)):
        code, out, _ = run(capsys, *command, "--help")
        assert code == 0
        assert "exit codes: 0 all went well" in out


def test_help_does_not_import_jax():
    code = "import sys, dfc_jax.cli; assert not {'jax', 'numpy', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_command_whose_output_nobody_reads_any_more_ends_without_a_trace() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "dfc_jax.cli", "version"]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
