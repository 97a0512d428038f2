"""The results of photographs in a folder: their names, and replacing those of an earlier run.

The results of a photograph are replaced as a whole. Its record (`dfc_jax.export.journal`) goes
first and comes last, so that while it is there, the rest is, at whatever moment a run is killed.
"""

import os
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfc_jax.errors import ExportError
from dfc_jax.export.journal import Journal, Stamp, is_current
from dfc_jax.export.obj import ObjSpace, write_mtl, write_obj
from dfc_jax.export.records import face_record, photo_record
from dfc_jax.files import path_text, safe_stem, write_npz, written_for
from dfc_jax.photo import write_picture, write_png

if TYPE_CHECKING:
    from dfc_jax.inference.align import Aligner
    from dfc_jax.inference.draw import MeshView
    from dfc_jax.inference.face import Face

# What follows the name of a photograph in the names of the files of one of its faces.
_FACE_FILES = {
    "npz": ".npz",
    "obj": ".obj",
    "mtl": ".mtl",
    "texture": "_texture.jpg",
    "flow": "_flow.png",
    "mask": "_mask.png",
}
# Files that are there for another's sake.
_ASKED_BY = {"mtl": "obj", "texture": "obj"}
_FACE_ENDINGS = "|".join(map(re.escape, _FACE_FILES.values()))
_RESULT = re.compile(rf"(.+)(_overlay\.png|_face[1-9]\d*(?:{_FACE_ENDINGS}))", re.DOTALL)
_RECORD = re.compile(r"(.+)(\.json)", re.DOTALL)


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
      outputs: which to write of "json", "overlay", "flow", "mask", "npz" and "obj".
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
        from dfc_jax.export.texture import TextureMaker
        from dfc_jax.morphable.linear import PARTS

        self.folder, self.outputs, self.obj_space = folder, outputs, obj_space
        self.versions = aligner.versions
        self.settings = {"outputs": sorted(outputs), "obj_space": obj_space} | (settings or {})
        self.journal = Journal(folder, shown="json" in outputs)
        self.triangles, self.uv = aligner.model.triangles, np.asarray(aligner.model.uv)
        # The neck is there for renders; over a photograph it would hide collars and hair.
        self._shown = np.asarray(aligner.model.triangle_part) != PARTS.index("neck")
        self._texture = TextureMaker(aligner.model) if "obj" in outputs else None
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
        wanted = {file for face in record["faces"] for file in face["files"].values()}
        if record["faces"] and "overlay" in self.outputs:
            wanted.add(f"{name}_overlay.png")
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
        from dfc_jax.inference import draw

        self._clear(name)
        records, views = [], []
        if {"overlay", "obj"}.intersection(self.outputs):
            views = [draw.look_at(face, self.triangles, self._shown) for face in faces]
        for number, face in enumerate(faces, start=1):
            view = views[number - 1] if views else None
            files = self._write_face(f"{name}_face{number}", image, face, view)
            records.append(face_record(face, files))
        if faces and "overlay" in self.outputs:
            picture = draw.overlay(image, faces, self.triangles, views)
            write_png(self.folder / f"{name}_overlay.png", picture)
        size = (image.shape[1], image.shape[0])
        record = photo_record(path_text(photo), size, records, self.versions, self.settings, stamp)
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

    def _write_face(
        self, name: str, image: np.ndarray, face: "Face", view: "MeshView | None"
    ) -> dict[str, str]:
        """Write what was asked for of a face; returns kind -> file name.

        The ``.npz`` holds what the JSON leaves out: ``flow`` (S, S, 2) and ``mask`` (S, S) of the
        crop, both completed from the fitted mesh (``refined_flow``, ``refined_mask``),
        ``crop_to_photo`` (2, 3), and ``vertices_mm`` (V, 3) in camera space.
        """
        from dfc_jax.systems.dfc.draw import flow_picture, mask_picture

        wanted = [kind for kind in _FACE_FILES if _ASKED_BY.get(kind, kind) in self.outputs]
        files = {kind: f"{name}{_FACE_FILES[kind]}" for kind in wanted}
        places = {kind: self.folder / file for kind, file in files.items()}
        if "npz" in places:
            write_npz(
                places["npz"],
                flow=face.flow,
                mask=face.matchability,
                refined_flow=face.refined_flow,
                refined_mask=face.refined_mask,
                crop_to_photo=face.crop.to_photo,
                vertices_mm=face.vertices_mm,
                landmarks_px=face.landmarks,
            )
        if self._texture is not None and view is not None:
            self._write_mesh(places, face, view)
            write_mtl(places["mtl"], files["texture"])
            write_picture(places["texture"], self._texture(image, face, view))
        if "flow" in places:
            write_png(places["flow"], flow_picture(face.flow, face.matchability))
        if "mask" in places:
            write_png(places["mask"], mask_picture(face.matchability))
        return files

    def _write_mesh(self, places: dict[str, Path], face: "Face", view: "MeshView") -> None:
        vertices, normals = face.vertices_mm, np.asarray(view.normals)
        if self.obj_space == "model":
            vertices = (vertices - face.translation_mm) @ face.rotation
            normals = normals @ face.rotation
        write_obj(
            places["obj"],
            vertices,
            np.asarray(self.triangles),
            self.uv,
            normals,
            places["mtl"].name,
            self.obj_space,
        )


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
