"""The results of photographs in a folder: their names, and replacing those of an earlier run.

The results of a photograph are replaced as a whole. Its JSON goes first and comes last, so that
while it is there, the rest is, at whatever moment a run is killed.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dfc_jax.errors import ExportError
from dfc_jax.export.camera import camera_record
from dfc_jax.export.kinds import FACE_KINDS, PHOTO_KINDS, FaceKind, PhotoKind, Shot, Studio
from dfc_jax.export.obj import ObjSpace
from dfc_jax.export.records import face_record, photo_record
from dfc_jax.files import path_text, safe_stem, write_json

if TYPE_CHECKING:
    from dfc_jax.inference.align import Aligner
    from dfc_jax.inference.face import Face

K = TypeVar("K", FaceKind, PhotoKind)


def _either(kinds: Mapping[str, K]) -> str:
    """A pattern of what follows the names of faces or of photographs in the names of files."""
    return "|".join(re.escape(end) for kind in kinds.values() for end in kind.endings.values())


_RESULT = re.compile(
    rf"(.+)(?:{_either(PHOTO_KINDS)}|_face[1-9]\d*(?:{_either(FACE_KINDS)}))", re.DOTALL
)


def output_names(photos: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A name for each photograph's results: its stem, made different where stems repeat.

    Photographs that share a stem get their folder's name in front, and a number if that is
    still not enough. Names are compared as on file systems that ignore case. See
    `dfc_jax.files.safe_stem` for those that a file system or a terminal would not take.
    """
    paths = [Path(photo) for photo in photos]
    stems = [safe_stem(path.stem) for path in paths]
    counts = Counter(stem.casefold() for stem in stems)
    taken = {stem for stem, count in counts.items() if count == 1}
    names = []
    for path, stem in zip(paths, stems, strict=True):
        name, number = stem, 2
        if counts[stem.casefold()] > 1:
            parent = path.resolve().parent.name
            base = name = safe_stem(f"{parent}_{path.stem}") if parent else stem
            while name.casefold() in taken:
                name, number = safe_stem(f"{base}-{number}"), number + 1
            taken.add(name.casefold())
        names.append(name)
    return names


def overwritten(
    folder: Path, photos: Iterable[str | os.PathLike[str]], names: Collection[str]
) -> list[str | os.PathLike[str]]:
    """The photographs that lie where results of photographs of these names go."""
    folder, names = folder.resolve(), set(names)
    found = []
    for photo in photos:
        path = Path(photo).resolve()
        result = _RESULT.fullmatch(path.name)
        if path.parent == folder and result and result[1] in names:
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
    """

    def __init__(
        self,
        folder: Path,
        aligner: "Aligner",
        outputs: Collection[str],
        obj_space: ObjSpace = "model",
    ) -> None:
        self.folder, self.outputs, self.versions = folder, outputs, aligner.versions
        self._studio = Studio(aligner.model, obj_space)
        self._earlier: dict[str, list[Path]] = defaultdict(list)
        for path in folder.iterdir():
            result = _RESULT.fullmatch(path.name)
            if result:
                self._earlier[result[1]].append(path)

    def write(
        self,
        name: str,
        photo: str | os.PathLike[str],
        image: np.ndarray,
        faces: Sequence["Face"],
    ) -> None:
        """Write the results of a photograph (H, W, 3) uint8 RGB in place of its earlier ones.

        Args:
          name: of its files, see `output_names`.
          photo: its file, for the record.
          image: its pixels.
          faces: that were found in it.

        Raises:
          ExportError: something cannot be written or replaced.
        """
        self._clear(name)
        shot = Shot(self._studio, image, faces)
        own = [self._write_face(f"{name}_face{i + 1}", shot, i) for i in range(len(faces))]
        files = self._write_photo(name, shot) if faces else {}
        if not {"json", "camera"}.isdisjoint(self.outputs):
            camera = camera_record(shot.scene) if faces and "camera" in self.outputs else None
            records = [face_record(face, listed) for face, listed in zip(faces, own, strict=True)]
            text = path_text(photo)
            record = photo_record(text, shot.size, records, self.versions, files, camera)
            write_json(self.folder / f"{name}.json", record)

    def _clear(self, name: str) -> None:
        """Remove the results of an earlier run."""
        record = self.folder / f"{name}.json"
        try:
            if _is_record(record):
                record.unlink()
            for path in self._earlier.pop(name, ()):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise ExportError(
                f"{error.filename}: earlier results cannot be removed ({error.strerror})"
            ) from error

    def _write_face(self, name: str, shot: Shot, index: int) -> dict[str, str]:
        """Write what was asked for of a face; returns name in the JSON -> file name."""
        files: dict[str, str] = {}
        for kind in self._wanted(FACE_KINDS):
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


def _is_record(path: Path) -> bool:
    """Whether a file is a JSON of ours; others of this name are none of our business."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "schema_version" in record
