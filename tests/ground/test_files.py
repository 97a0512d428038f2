"""File names of any bytes become text that terminals, JSON and file systems take."""

import os
import string

import pytest

from dfc_jax.files import (
    MAX_STEM_BYTES,
    escaped,
    path_text,
    safe_stem,
    written_aside,
    written_for,
)

STEMS = ["face", "café", "漢字", "two words", "a.b", "😀‍👩", "Screenshot at 1.00 PM", "נוף", "-x"]


@pytest.mark.parametrize("stem", STEMS)
def test_ordinary_names_stay_as_they_are(stem):
    assert escaped(stem) == safe_stem(stem) == path_text(stem) == stem


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[31mred", r"\x1b[31mred"),
        (b"two\nlines\r\t\x00\x7f", r"two\nlines\r\t\x00\x7f"),
        (b"caf\xe9 \xff", r"caf\xe9 \xff"),
        ("\u0085\u009b".encode(), r"\x85\x9b"),
        ("\u202egpj\u2066\u2028".encode(), r"\u202egpj\u2066\u2028"),
    ],
)
def test_what_steers_a_terminal_is_escaped(raw, shown):
    assert escaped(os.fsdecode(raw)) == shown


def test_a_path_is_valid_text_and_keeps_what_is_utf8():
    assert path_text(os.fsdecode(b"a/caf\xe9/\xc3\xa9.jpg")) == r"a/caf\xe9/é.jpg"
    assert path_text("a\x1b.jpg") == "a\x1b.jpg"


@pytest.mark.parametrize(
    ("stem", "start"),
    [
        ("CON", "_CON-"),
        ("nul.tar", "_nul.tar-"),
        ("Lpt1", "_Lpt1-"),
        ("COM\u00b2", "_COM\u00b2-"),
        ("aux ", "aux_-"),
        ("a.", "a_-"),
        ("a ", "a_-"),
        ("12:30", "12_30-"),
        ('what?"<>|*\\', "what_______-"),
    ],
)
def test_names_for_results_are_names_on_windows_too(stem, start):
    name = safe_stem(stem)
    assert name.startswith(start)
    assert len(name) == len(start) + 8


@pytest.mark.parametrize(
    "stem", ["CONTACT", "console", "com", "com10", "nul-1", "auxiliary.x", "a.b"]
)
def test_names_like_those_of_devices_stay(stem):
    assert safe_stem(stem) == stem


def test_what_was_written_aside_is_known_by_its_name(tmp_path):
    for name in ("a.json", "a_face1_texture.jpg", "a.b.json", "plain", "漢字.png", ".hidden.png"):
        with written_aside(tmp_path / name) as aside:
            assert written_for(aside.name) == name
            aside.touch()
    assert written_for("a.json") is written_for(".a.json") is written_for(".a.0123.json") is None


def test_names_for_results_are_short_harmless_and_apart():
    stems = [f"{letter * 300}{end}" for letter in "a漢" for end in string.ascii_lowercase]
    stems += [os.fsdecode(bytes([65, byte])) for byte in range(1, 32)]
    stems += [os.fsdecode(bytes([65, byte])) for byte in range(128, 256)]
    names = [safe_stem(stem) for stem in stems]
    assert len(set(names)) == len(stems)
    for name in names:
        assert len(name.encode("utf-8")) <= MAX_STEM_BYTES
        assert escaped(name) == name
        assert "/" not in name
