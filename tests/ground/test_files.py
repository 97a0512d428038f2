"""File names of any bytes become text that terminals, JSON and file systems take."""

import os
import string

import pytest

from dfc_jax.files import MAX_STEM_BYTES, escaped, path_text, safe_stem

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
