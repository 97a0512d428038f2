"""The results of photographs in a folder: their names, and replacing those of an earlier run.

The results of a photograph are replaced as a whole. Its record (`dfc_jax.export.journal`) goes
first and comes last, so that while it is there, the rest is, at whatever moment a run is killed.
"""

import os
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dfc_jax.errors import ExportError
from dfc_jax.export.camera import camera_record
from dfc_jax.export.journal import Journal, Stamp, is_current
from dfc_jax.export.kinds import FACE_KINDS, PHOTO_KINDS, FaceKind, PhotoKind, Shot, Studio
from dfc_jax.export.obj import ObjSpace
from dfc_jax.export.records import face_record, photo_record
from dfc_jax.files import path_text, safe_stem, written_for

if TYPE_CHECKING:
    from dfc_jax.inference.align import Aligner
    from dfc_jax.inference.face import Face

K = TypeVar("K", FaceKind, PhotoKind)


def _either(kinds: Mapping[str, K]) -> str:
    """A pattern of what follows the names of faces or of photographs in the names of files."""
    return "|".join(re.escape(end) for kind in kinds.values() for end in kind.endings.values())


_RESULT = re.compile(
    rf"(.+)({_either(PHOTO_KINDS)}|_face[1-9]\d*(?:{_either(FACE_KINDS)}))", re.DOTALL
)
_RECORD = re.compile(r"(.+)(\.json)", re.DOTALL)
# Outputs that the record itself holds.
_IN_RECORD = {"json", "camera"}


def output_names(photos: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A name for each photograph's results: its stem, made different where stems repeat.

    Photographs that share a stem get their folder's name in front, and a number if that is
    still not enough, in the order of their sorted paths: names do not depend on the order given.
    They are compared as on file systems that ignore case and how letters are composed. See
    `dfc_jax.files.safe_stem` for those that a file system or a terminal would not take.
    """
    texts = [os.fspath(photo) for photo in photos]
    stems = [safe_stem(_stem(text)) for text in texts]
    counts = Counter(map(_compared, stems))
    taken = {stem for stem, count in counts.items() if count == 1}
    parents: dict[str, str] = {}
    # Where to go on counting, so that a thousand of one name are not a million comparisons.
    numbers: defaultdict[str, int] = defaultdict(lambda: 2)
    names = list(stems)
    for i in sorted(range(len(texts)), key=texts.__getitem__):
        if counts[_compared(stems[i])] == 1:
            continue
        folder = os.path.dirname(texts[i])
        if folder not in parents:
            parents[folder] = os.path.basename(os.path.realpath(folder))
        base = name = stems[i]
        if parents[folder]:
            base = name = safe_stem(f"{parents[folder]}_{_stem(texts[i])}")
        while _compared(name) in taken:
            name = safe_stem(f"{base}-{numbers[base]}")
            numbers[base] += 1
        taken.add(_compared(name))
        names[i] = name
    return names


def _stem(photo: str) -> str:
    return os.path.splitext(os.path.basename(photo))[0]


def _compared(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def is_result(file: str) -> bool:
    """Whether a file is called as results are, other than records."""
    return _RESULT.fullmatch(file) is not None


def overwritten(
    folder: Path, photos: Iterable[str | os.PathLike[str]], names: Collection[str]
) -> list[str | os.PathLike[str]]:
    """The photographs that lie where results of photographs of these names go."""
    folder, names = folder.resolve(), set(names)
    found = []
    for photo in photos:
        # What a link leads to is what would be lost; following all paths takes long.
        path = os.path.realpath(photo) if os.path.islink(photo) else os.fspath(photo)
        result = _RESULT.fullmatch(os.path.basename(path))
        if result and result[1] in names and Path(path).resolve().parent == folder:
            found.append(photo)
    return found


class Results:
    """Writes into a folder what was found in photographs.

    Args:
      folder: exists.
      aligner: what found the faces.
      outputs: which to write: "json", "camera" (the JSON with its `camera`), and names of
        `dfc_jax.export.kinds`.
      obj_space: the space of the meshes, see `docs/ALIGN_SCHEMA.md`.
      settings: what else the results depend on, for the records; JSON can hold it.
    """

    def __init__(
        self,
        folder: Path,
        aligner: "Aligner",
        outputs: Collection[str],
        obj_space: ObjSpace = "model",
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.outputs, self.versions = folder, outputs, aligner.versions
        self.settings = {"outputs": sorted(outputs), "obj_space": obj_space} | (settings or {})
        self.journal = Journal(folder, shown=not _IN_RECORD.isdisjoint(outputs))
        self._studio = Studio(aligner.model, obj_space)
        self._earlier, self._left = _index(folder)

    def done(
        self, name: str, photo: str | os.PathLike[str], stamp: Stamp | None
    ) -> dict[str, Any] | None:
        """The record of a photograph whose results are there and would be the same again.

        Args:
          name, photo: as of `write`.
          stamp: of the photograph as it is now.

        Returns:
          None if it was never aligned to the end, or has changed, or if versions or settings are
          others, or if files are missing.
        """
        record = self.journal.read(name)
        if record is None or not is_current(
            record, path_text(photo), stamp, self.versions, self.settings
        ):
            return None
        owners = [record, *record["faces"]]
        wanted = {file for owner in owners for file in owner["files"].values()}
        there = {f"{name}{ending}" for ending in self._earlier.get(name, ())}
        return record if wanted <= there else None

    def write(
        self,
        name: str,
        photo: str | os.PathLike[str],
        image: np.ndarray,
        faces: Sequence["Face"],
        stamp: Stamp | None = None,
    ) -> None:
        """Write the results of a photograph (H, W, 3) uint8 RGB in place of its earlier ones.

        Args:
          name: of its files, see `output_names`.
          photo: its file, for the record.
          image: its pixels.
          faces: that were found in it.
          stamp: of the file, from before it was read; without one, `done` does not know it again.

        Raises:
          ExportError: something cannot be written or replaced.
        """
        self._clear(name)
        shot = Shot(self._studio, image, faces)
        own = [self._write_face(f"{name}_face{i + 1}", shot, i) for i in range(len(faces))]
        files = self._write_photo(name, shot) if faces else {}
        camera = camera_record(shot.scene) if faces and "camera" in self.outputs else None
        record = photo_record(
            path_text(photo),
            shot.size,
            [face_record(face, listed) for face, listed in zip(faces, own, strict=True)],
            self.versions,
            self.settings,
            stamp,
            files,
            camera,
        )
        self.journal.write(name, record)

    def _clear(self, name: str) -> None:
        """Remove the results of an earlier run, and what a killed one left."""
        try:
            self.journal.remove(name)
            for ending in self._earlier.pop(name, ()):
                (self.folder / f"{name}{ending}").unlink(missing_ok=True)
            for file in self._left.pop(name, ()):
                (self.folder / file).unlink(missing_ok=True)
        except OSError as error:
            raise ExportError(
                f"{error.filename}: earlier results cannot be removed ({error.strerror})"
            ) from error

    def _write_face(self, name: str, shot: Shot, index: int) -> dict[str, str]:
        """Write what was asked for of a face; returns name in the JSON -> file name."""
        files: dict[str, str] = {}
        for kind in self._wanted(FACE_KINDS):
            if not kind.applies(shot.faces[index]):
                continue
            own = _named(name, kind.endings)
            kind.write(shot, index, self._places(own))
            files |= own
        return files

    def _write_photo(self, name: str, shot: Shot) -> dict[str, str]:
        """The same of a photograph with faces."""
        files: dict[str, str] = {}
        for kind in self._wanted(PHOTO_KINDS):
            own = _named(name, kind.endings)
            kind.write(shot, self._places(own))
            files |= own
        return files

    def _wanted(self, kinds: Mapping[str, K]) -> list[K]:
        return [kind for name, kind in kinds.items() if name in self.outputs]

    def _places(self, files: dict[str, str]) -> dict[str, Path]:
        return {key: self.folder / file for key, file in files.items()}


def _named(name: str, endings: dict[str, str]) -> dict[str, str]:
    return {key: f"{name}{ending}" for key, ending in endings.items()}


def _index(folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What is in a folder, by the names of photographs: the endings of their results, and the files
    that were written aside for them and never renamed. Endings are shared: there may be millions.
    """
    earlier: defaultdict[str, list[str]] = defaultdict(list)
    left: defaultdict[str, list[str]] = defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in entries:
            if result := _RESULT.fullmatch(entry.name):
                earlier[result[1]].append(sys.intern(result[2]))
            elif meant := written_for(entry.name):
                result = _RESULT.fullmatch(meant) or _RECORD.fullmatch(meant)
                if result:
                    left[result[1]].append(entry.name)
    return dict(earlier), dict(left)
