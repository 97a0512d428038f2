"""The people of a video as animated heads (GLB) and as what rigs read (Live Link Face)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dfc_jax.export.gltf import Animation, Head, View, write_glb
from dfc_jax.export.livelink import write_livelink
from dfc_jax.export.texture import Seen, TextureMaker, blended
from dfc_jax.inference.face import Face
from dfc_jax.inference.track import Tracked
from dfc_jax.morphable.linear import FaceModel

# A texture is blended of so many frames, this many seconds apart, that show a face for sure.
_TEXTURE_FRAMES, _TEXTURE_S = 8, 0.5


class _Pose(NamedTuple):
    time_s: float
    expression: np.ndarray
    rotation: np.ndarray
    translation_mm: np.ndarray
    angles_deg: tuple[float, ...]


class _Take:
    """What is kept of one person."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.poses: list[_Pose] = []
        self.seen: list[Seen] = []
        self.textured_s = -np.inf


class Animator:
    """Collects what `Aligner.track` yields.

    Args:
      model: of the faces.
      textured: whether to make textures, for `write_glb`.
    """

    def __init__(self, model: FaceModel, textured: bool = True) -> None:
        self._model = model
        self._textures = TextureMaker(model) if textured else None
        self._takes: dict[int, _Take] = {}
        self._focal_px, self._size = 1.0, (1, 1)

    def add(self, tracked: Tracked) -> None:
        """Take note of a frame."""
        for number, face in tracked.faces.items():
            take = self._takes.setdefault(number, _Take(face))
            take.face = face
            weights = face.weights
            angles = tuple(face.angles_deg[name] for name in ("yaw", "pitch", "roll"))
            pose = face.rotation, face.translation_mm, angles
            take.poses.append(_Pose(tracked.time_s, weights, *pose))
            self._focal_px, self._size = face.focal_px, tracked.image.shape[1::-1]
            self._texture(take, tracked, face)

    def _texture(self, take: _Take, tracked: Tracked, face: Face) -> None:
        waited = tracked.time_s - take.textured_s >= _TEXTURE_S
        if self._textures is None or face.reasons or not waited:
            return
        if len(take.seen) < _TEXTURE_FRAMES:
            take.textured_s = tracked.time_s
            take.seen.append(self._textures.see(tracked.image, face))

    def write_glb(self, path: Path) -> None:
        """All people before the video's camera, each with an animation of weights and pose.

        The identity is the last one that was learnt; where somebody is not seen, they stay between
        where they were before and after.

        Raises:
          ExportError: the file cannot be written.
        """
        heads = []
        for number, take in self._takes.items():
            times, weights, rotations, places, _ = zip(*take.poses, strict=True)
            animation = Animation(*map(np.array, (times, weights, rotations, places)))
            texture = None
            if self._textures is not None and take.seen:
                texture = self._textures.complete(blended(take.seen))
            first = take.poses[0]
            heads.append(
                Head(
                    take.face.identity,
                    first.expression,
                    texture,
                    first.rotation,
                    first.translation_mm,
                    animation,
                    f"person{number}",
                )
            )
        write_glb(path, self._model, heads, View(self._focal_px, *self._size))

    def write_livelink(self, path: Path) -> list[Path]:
        """A table for each person: `path` for the first, ``NAME_personN.csv`` for the others.

        Raises:
          ExportError: a file cannot be written.
        """
        written = []
        for number, take in self._takes.items():
            own = path if number == 1 else path.with_stem(f"{path.stem}_person{number}")
            times, weights, _, _, angles = zip(*take.poses, strict=True)
            tables = np.array(weights), np.array(angles), np.array(times)
            write_livelink(own, self._model.expression_names, *tables)
            written.append(own)
        return written
