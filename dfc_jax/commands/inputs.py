"""The photographs that a command is given: files, folders, patterns, lists of names.

Names are text, not `Path`s, which take several times the memory; of 100,000 photographs they are
all that is held at once, because the names of results have to be apart.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from dfc_jax.commands.arguments import UsageError

# By what `dfc_jax.photo` reads; files of other names are read when they are named themselves.
PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_PATTERN = re.compile(r"[*?\[]")
Identity = tuple[int, int]


class Inputs(NamedTuple):
    """What there is to do.

    Attributes:
      photos: their names, each once, in the order given; those of a folder or a pattern sorted.
        The absent ones are among them.
      absent: those that are not there, with a sentence each.
      problems: these sentences, and one for each folder or pattern that gives none.
    """

    photos: list[str]
    absent: dict[str, str]
    problems: list[str]


def add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="JPEG, PNG, WebP ...; a folder, with all that is below it; a pattern in quotes, such "
        'as "photos/**/*.jpg"; - for a list of names on the standard input',
    )
    parser.add_argument(
        "--from-file",
        metavar="LIST|-",
        help="a file with names of photographs, one a line, or separated by NULs as find -print0 "
        "does; - for the standard input",
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="K/N",
        help="only the K-th of N parts, such as 3/16, of the same photographs; names of results do "
        "not depend on it, and parts may be done at the same time, into one folder",
    )


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no part such as 3/16, the third of sixteen, from 1/16 to 16/16"
        )
    return number, count


def part_of(photos: Iterable[str], shard: tuple[int, int] | None) -> list[str]:
    """The photographs of a shard (its number from 1, how many there are); all without one.

    They are every N-th of the sorted photographs, so that each shard has as many large ones.
    """
    if shard is None:
        return list(photos)
    number, count = shard
    return sorted(photos)[number - 1 :: count]


def find_photos(
    given: Sequence[str], list_file: str | None, is_result: Callable[[str], bool], out: Path
) -> Inputs:
    """All photographs that a command is given.

    Args:
      given: files, folders, patterns, or ``-``.
      list_file: a file of names, or ``-``.
      is_result: whether a file of this name, in the folder `out`, is a result.
      out: where results go; folders are searched without it.

    Raises:
      UsageError: nothing is given, or a list cannot be read or names nothing.
    """
    if not given and list_file is None:
        raise UsageError("no photographs are given; name some, a folder, or --from-file LIST")
    search = _Search(is_result, out)
    for name in given:
        if name != "-":
            search.take(name)
    for each in dict.fromkeys(("-" if "-" in given else None, list_file)):
        for photo in () if each is None else _listed(each):
            search.add(photo)
    return Inputs(list(search.photos.values()), search.absent, search.problems)


def _listed(list_file: str) -> Iterator[str]:
    """The names in a file, or on the standard input; what is missing is found when it is read."""
    where = "the standard input" if list_file == "-" else list_file
    try:
        content = sys.stdin.buffer.read() if list_file == "-" else Path(list_file).read_bytes()
    except OSError as error:
        raise UsageError(
            f"{where}: this list of photographs cannot be read ({error.strerror}); check the path"
        ) from error
    if b"\0" in content:
        names = content.split(b"\0")
    else:
        names = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    if not any(names):
        raise UsageError(f"{where}: this list names no photograph; write one name a line")
    return (os.fsdecode(name) for name in names if name)


class _Search:
    """Collects photographs; each is taken once, however often and by whatever path it is given."""

    def __init__(self, is_result: Callable[[str], bool], out: Path) -> None:
        self.photos: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self.problems: list[str] = []
        self._is_result = is_result
        self._out = _identity(out)
        self._here = os.getcwd()
        self._seen: set[Identity] = set()

    def add(self, photo: str) -> str:
        """Add a file."""
        photo = str(Path(photo))
        return self.photos.setdefault(os.path.join(self._here, photo), photo)

    def take(self, name: str) -> None:
        """Add what a name on the command line stands for."""
        if os.path.isdir(name):
            self._take_folder(name)
        elif os.path.lexists(name):
            self.add(name)
        elif _PATTERN.search(name):
            found = sorted(set(_matching("", Path(name).parts)))
            if not found:
                self.problems.append(f"{name}: nothing matches this pattern; check it")
            for path in found:
                self.take(path)
        else:
            photo = self.add(name)
            self.absent[photo] = f"{photo}: there is no such file; check the path"
            self.problems.append(self.absent[photo])

    def _take_folder(self, folder: str) -> None:
        known = _identity(folder) in self._seen
        found = sorted(self._below(str(Path(folder))))
        for photo in found:
            self.add(photo)
        if not found and not known:
            self.problems.append(f"{folder}: no photographs are in this folder; check the path")

    def _below(self, root: str) -> Iterator[str]:
        """The photographs in and below a folder; of those that links lead to again, once."""
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            identity = _identity(folder)
            is_out = identity is not None and identity == self._out
            if identity in self._seen or (is_out and folder != root):
                continue
            if identity is not None:
                self._seen.add(identity)
            for entry in self._entries(folder):
                if _is_folder(entry):
                    waiting.append(entry.path)
                elif _is_photo(entry) and not (is_out and self._is_result(entry.name)):
                    yield entry.path

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            return _visible(folder)
        except OSError as error:
            self.problems.append(f"{folder}: this folder cannot be read ({error.strerror})")
            return []


def _identity(path: str | Path) -> Identity | None:
    """What tells a folder from others, by whatever path one comes to it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _visible(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted, without hidden files such as those of other systems."""
    with os.scandir(folder or os.curdir) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(shown, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to where one may not look
        return False


def _is_photo(entry: os.DirEntry[str]) -> bool:
    """By its name; not a pipe, which would be waited for. A link that leads nowhere is one, and is
    named when it is read."""
    is_file = entry.is_symlink() or entry.is_file()
    return is_file and entry.name.lower().endswith(PHOTO_SUFFIXES)


def _readable(folder: str) -> list[os.DirEntry[str]]:
    """The same; nothing of a folder that cannot be read, as in a shell."""
    try:
        return _visible(folder)
    except OSError:
        return []


def _matching(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """The paths below a folder ("" is the current one) that match a pattern's parts."""
    if not parts:
        yield folder or os.curdir
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        for below in _folders(folder):
            yield from _matching(below, rest)
    elif not _PATTERN.search(first):
        if os.path.lexists(path := os.path.join(folder, first)):
            yield from _matching(path, rest)
    elif os.path.isdir(folder or os.curdir):
        for entry in _readable(folder):
            if fnmatchcase(entry.name, first) and (not rest or _is_folder(entry)):
                yield from _matching(os.path.join(folder, entry.name), rest)


def _folders(root: str) -> Iterator[str]:
    """A folder and all below it; each once, also where links lead back."""
    seen: set[Identity | None] = {None}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        identity = _identity(folder or os.curdir)
        if identity not in seen:
            seen.add(identity)
            yield folder
            inside = _readable(folder)
            waiting += [os.path.join(folder, each.name) for each in inside if _is_folder(each)]
