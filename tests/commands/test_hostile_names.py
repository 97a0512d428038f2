"""File names of any bytes: results have valid names, and nothing reaches the terminal raw."""

import io
import json
import os
import sys
from pathlib import Path

from command_line import photo, run

from dfc_jax import cli

# Bytes that are no UTF-8, what steers a terminal, what turns its text, and what is too long.
HOSTILE = [b"caf\xe9", b"\xff\xfe", b"red\x1b[31m", b"two\nlines", "\u202egpj".encode(), b"w" * 240]
HOSTILE += [b"w" * 239 + b"x", "\u6f22".encode() * 80, "c\u0085".encode()]


def hostile_photos(folder, stems=HOSTILE):
    paths = [Path(os.fsdecode(os.fsencode(folder) + b"/" + stem + b".png")) for stem in stems]
    return [photo(path) for path in paths]


def assert_harmless(text):
    text.encode("utf-8")
    assert all(c.isprintable() or c == "\n" for c in text), ascii(text)


def test_file_names_of_any_bytes_give_results_whose_names_and_json_are_valid(
    tmp_path, fake, capsys
):
    photos = hostile_photos(tmp_path)
    code, _, err = run(capsys, "align", *photos, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    written = os.listdir(tmp_path / "out")
    records = [name for name in written if name.endswith(".json")]
    assert len(records) == len(photos)
    files = {
        json.loads((tmp_path / "out" / name).read_bytes())["photo"]["file"] for name in records
    }
    assert len(files) == len(photos)
    assert str(tmp_path / r"caf\xe9.png") in files
    for name in (*written, *files):
        name.encode("utf-8")
    for name in written:
        assert_harmless(name)
        assert len(name.encode()) <= 255


def test_names_never_reach_the_terminal_raw(tmp_path, fake, capsys):
    stems = [stem for stem in HOSTILE if len(stem) < 99]
    photos = hostile_photos(tmp_path, stems)
    for path in photos[::2]:
        path.write_text("no photograph")
    for path in photos[1::2]:
        path.unlink()
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/o\x1b[2J\xff"))
    for command in (
        ["align", *photos, photo(tmp_path / "a.png"), "--out", folder],
        ["align", "a.png", "--out", folder, "--weights", "w\x1b[2J"],
        ["align", "a.png", "--out", folder, "--detector", "\x1b[2J\u202e"],
        ["align", "a.png", "--out", folder, "--\x1b[2J\u202e"],
        ["model", "render", "--out", "\x1b[2J"],
    ):
        code, out, err = run(capsys, *command)
        assert code in (1, 2)
        assert_harmless(out)
        assert_harmless(err)
        assert len(err.splitlines()) == (len(photos) if code == 1 else 1)
    code, _, err = run(capsys, "align", photos[0], "--out", folder)
    assert r"caf\xe9.png: not an image" in err


def test_names_that_the_terminal_has_no_letters_for_are_no_mistake(tmp_path, fake, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert (
        cli.main(["align", str(photo(tmp_path / "a.png")), "--out", str(tmp_path / "\u6f22")]) == 0
    )
    sys.stdout.flush()
    assert rb"\u6f22" in written.getvalue()
