"""Our own face detector: its network over a pyramid of the picture."""

import math
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dfc_jax.errors import OptionError
from dfc_jax.files import DETECTOR_FILE, file_version
from dfc_jax.inference.detect import Detection
from dfc_jax.inference.pyramid import (
    GAP_PX,
    LAST_EDGE_PX,
    Tile,
    canvases,
    paint,
    plan,
    to_picture,
    within,
)
from dfc_jax.nets import weights
from dfc_jax.systems.detector.cells import decode
from dfc_jax.systems.detector.networks import DetectorSpec, Outputs, apply
from dfc_jax.systems.detector.scenes import PAD, Boxes

# Pixels of a face, on a level of the pyramid, that the network finds reliably.
FACE_PX = 16.0
# Pictures up to this edge are searched as they are. Of larger ones the smallest faces are seldom
# wanted: where a picture is 8 times as large, those that are looked for are twice as large.
WHOLE_EDGE = 328
# The most canvases that one picture may take.
MOST_CANVASES = 24
# A picture is made so much smaller if it then needs a single canvas.
_SQUEEZE = 0.74
# Of 620 turned and upright views of 31 training photographs 87 % are found with 0.5, 90 % with 0.4;
# the aligner leaves out what then is no face.
MIN_SCORE = 0.4
# Boxes whose middles lie within this part of the larger edge, and whose edges differ by less than
# this factor, are of one face.
_SAME, _SAME_ZOOM = 0.5, math.log(2.0)
# Among them, those of about the size of the surest are averaged.
_ALIKE_ZOOM = 0.35


class FaceDetector:
    """Finds faces from 16 px on, of every yaw and roll.

    Args:
      file: weights of a `DetectorSpec`, such as `experiments.detector` makes; None for those of
        the package.
      min_face_px: longer edge of the smallest landmark box to look for; None for 16 px in pictures
        up to `WHOLE_EDGE` and the more the larger a picture is (20 px for 640 x 480, 42 px for
        6000 x 4000). Less than 16 is not found.
      max_faces: the most faces of a picture, the surest ones; None for all.
      min_score: probability below which a face is none; None for `MIN_SCORE`.

    Attributes:
      version: the name of the weight file, and eight digits of its content.

    Raises:
      OptionError: a number is out of range.
      WeightsError: the file cannot be used.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None = None,
        min_face_px: float | None = None,
        max_faces: int | None = None,
        min_score: float | None = None,
    ) -> None:
        min_score = MIN_SCORE if min_score is None else min_score
        if min_face_px is not None and not 1.0 <= min_face_px < math.inf:
            raise OptionError(f"min_face_px needs a number from 1 on; got {min_face_px!r}")
        if max_faces is not None and not (isinstance(max_faces, int) and max_faces >= 1):
            raise OptionError(f"max_faces needs a whole number from 1 on; got {max_faces!r}")
        if not 0.0 < min_score < 1.0:
            raise OptionError(f"min_score needs a number between 0 and 1; got {min_score!r}")
        path = DETECTOR_FILE if file is None else Path(file)
        self._variables, self._spec, _ = weights.load(path, DetectorSpec)
        self.version = file_version(path)
        self._min_face_px, self._max_faces, self._min_score = min_face_px, max_faces, min_score
        self._ready: Future[list[Detection]] | None = None

    def start(self) -> None:
        """Compile the network in a thread, inside `dfc_jax.cache.compiled_programs` for the next
        process too; else the first picture takes half a second longer."""
        if self._ready is None:
            pool = ThreadPoolExecutor(1, thread_name_prefix="dfc-detector")
            self._ready = pool.submit(self, np.zeros((LAST_EDGE_PX, LAST_EDGE_PX, 3), np.uint8))
            pool.shutdown(wait=False)

    def wait(self) -> None:
        """Return when what `start` began is done."""
        if self._ready is not None:
            self._ready.result()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": None}

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """The faces of a picture (H, W, 3) uint8 RGB, largest first."""
        tiles = self._plan(*image.shape[1::-1])
        painted = paint(image, tiles, PAD)
        # All are under way before the first is waited for.
        answers = [apply(self._variables, canvas[None], self._spec) for canvas in painted]
        found = [self._on(tiles, number, answer) for number, answer in enumerate(answers)]
        surest = merge(*jax.tree.map(lambda *parts: np.concatenate(parts), *found))
        return sorted(surest[: self._max_faces], key=lambda detection: -detection.box[2])

    def _plan(self, width: int, height: int) -> list[Tile]:
        edge = max(width, height)
        usual = min(1.0, (WHOLE_EDGE / edge) ** (1.0 / 3.0))
        scale = min(1.0, FACE_PX / self._min_face_px) if self._min_face_px else usual
        tiles = plan(width, height, scale)
        if self._min_face_px is None and canvases(tiles) > 1:
            squeezed = plan(width, height, _SQUEEZE * scale)
            tiles = squeezed if canvases(squeezed) == 1 else tiles
        while canvases(tiles) > MOST_CANVASES:
            scale *= 0.9
            tiles = plan(width, height, scale)
        return tiles

    def _on(self, tiles: list[Tile], canvas: int, answer: Outputs) -> tuple[Boxes, np.ndarray]:
        """What is found on a canvas, in pixels of the picture."""
        # In NumPy, where taking the first needs no program.
        first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], answer)
        boxes, score = decode(first, self._min_score)
        parts = [(Boxes(np.zeros((0, 2)), np.zeros(0), np.zeros(0)), np.zeros(0))]
        for tile in (tile for tile in tiles if tile.canvas == canvas):
            on = within(tile, np.asarray(boxes.middle), GAP_PX / 2.0)
            middle = to_picture(tile, np.asarray(boxes.middle[on]))
            edge = boxes.edge[on] / math.sqrt(tile.scale[0] * tile.scale[1])
            parts.append((Boxes(middle, edge, boxes.roll_deg[on]), score[on]))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def merge(boxes: Boxes, score: np.ndarray) -> list[Detection]:
    """One detection for each face that the cells' boxes (N,) show, the surest first.

    A face is the mean of all boxes that lie where the surest of them does, each as heavy as its
    score (N,); its score is that of the surest.
    """
    found = []
    left = np.ones(len(score), bool)
    for best in np.argsort(-score):
        if not left[best]:
            continue
        apart = np.linalg.norm(boxes.middle - boxes.middle[best], axis=-1)
        zoom = np.abs(np.log(boxes.edge / boxes.edge[best]))
        near = apart < _SAME * np.maximum(boxes.edge, boxes.edge[best])
        same = left & near & (zoom < _SAME_ZOOM)
        left &= ~same
        weight = np.where(same & (zoom < _ALIKE_ZOOM), score, 0.0)
        weight /= weight.sum()
        roll = np.deg2rad(boxes.roll_deg)
        turn = np.arctan2(weight @ np.sin(roll), weight @ np.cos(roll))
        edge = np.exp(weight @ np.log(boxes.edge))
        box = np.append(weight @ boxes.middle - edge / 2.0, [edge, edge])
        found.append(Detection(box, float(score[best]), "dfc", float(np.rad2deg(turn))))
    return found
