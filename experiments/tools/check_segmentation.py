"""How well weights of the segmentation find the face: intersection over union with true masks.

    python -m experiments.tools.check_segmentation --weights runs/segmentation/weights.safetensors \
        --masks facesynthetics=FOLDER --masks "fasseg=fasseg/multipose/p0[4567]*.png" \
        --photos 300w/helen/testset --draw sheet.png --json -

``--masks``: sets with masks, in their photographs, from crops about their landmark boxes; by yaw
where it is known. What of a mask counts its reader says. ``inside`` counts the crop alone: nothing
can be found beyond it.

``--photos``: annotated photographs, each once with each kind of occluder in front, see `KINDS`, and
once without. True is what the mesh that is fitted to the points says, see `of_photographs`, without
the occluder; the rest of the head, where hair may hang, does not count.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from data_pipelines.faces.degradation import DegradationSettings
from data_pipelines.faces.occluders import OccluderSettings
from data_pipelines.masks.compose import MaskSettings, cover, cut_out
from data_pipelines.masks.squares import MaskSquares, of_photographs
from data_pipelines.photos.augment import AugmentSettings
from data_pipelines.photos.labels import index_batches
from data_pipelines.photos.sets import label_fitted, open_sets
from data_pipelines.photos.squares import read_square
from data_pipelines.sources.layouts import LAYOUTS, open_faces, with_layout
from dfc_jax.crops import Crop, crop_of_box, crop_photo
from dfc_jax.data.faces import AnnotatedFace, collect
from dfc_jax.errors import DatasetError
from dfc_jax.evaluation.bootstrap import interval
from dfc_jax.evaluation.grid import grid
from dfc_jax.evaluation.protocols import photo_iou
from dfc_jax.files import print_or_write_json
from dfc_jax.inference.segmentation import load_segmentation, segment
from dfc_jax.morphable.file import load_face_model
from dfc_jax.photo import write_png
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.systems.segmentation.examples import Examples
from dfc_jax.systems.segmentation.loss import intersection_over_union
from dfc_jax.types import Array
from experiments import launch

# Crops (B, S, S, 3) to probabilities (B, S, S).
Segment = Callable[[np.ndarray], np.ndarray]
_NOTHING = OccluderSettings(
    boxes=0, box=0.0, hair=0.0, glasses=0.0, mask=0.0, hat=0.0, hood=0.0, objects=0.0, hand=0.0
)
# What is put in front of every face, one kind at a time.
KINDS = {
    "nothing": _NOTHING,
    "hands": dataclasses.replace(_NOTHING, hand=1.0),
    "masks": dataclasses.replace(_NOTHING, mask=1.0),
    "sunglasses": dataclasses.replace(_NOTHING, glasses=1.0, sunglasses=1.0),
    "hair": dataclasses.replace(_NOTHING, hair=1.0),
    "objects": dataclasses.replace(_NOTHING, objects=1.0),
    "boxes": dataclasses.replace(_NOTHING, boxes=2, box=1.0),
}
# The crops are those of a right box, as the photograph is.
_RIGHT = AugmentSettings(
    rotation_deg=0.0,
    wide_rotation=0.0,
    scale=1.0,
    translation=0.0,
    flip=0.0,
    degradation=DegradationSettings(0.0, 0.0, 0.0, 0.0, 0.0, grey=0.0, degraded=0.0),
)
BATCH, TEMPLATE_PX, COLUMNS = 32, 128, 6


def segmentation(file: str) -> Segment:
    """The probability of the face by weights in a file.

    Raises:
      WeightsError: they cannot be read, or are of another network.
    """
    network = load_segmentation(file)
    return lambda crops: np.asarray(segment(jnp.asarray(crops), network))


def summary(ious: np.ndarray) -> dict[str, Any]:
    """Mean of IoUs (n,), its interval, and the least."""
    return {
        "n": len(ious),
        "mean": float(ious.mean()),
        "ci95": interval(ious),
        "least": float(ious.min()),
    }


def check_masks(segment: Segment, folder: str) -> tuple[dict[str, Any], np.ndarray]:
    """Scores of a set with masks, ``LAYOUT=FOLDER``, and a sheet of its worst faces.

    Raises:
      DatasetError: it is no such folder, or has no masks.
    """
    faces = open_faces(*with_layout(folder, ""))
    rows, problems = collect(faces, partial(measured, segment))
    if not rows:
        raise DatasetError(f"{folder}: has no face with a mask; {problems[0]}")
    ious, yaws = (np.array([row[i] for row in rows]) for i in (0, 1))
    known = np.unique(yaws[np.isfinite(yaws)])
    by_yaw = {f"{yaw:g}": float(ious[yaws == yaw, 0].mean()) for yaw in known}
    found = {"photo": summary(ious[:, 0]), "inside": summary(ious[:, 1]), "by_yaw": by_yaw}
    worst = np.argsort(ious[:, 0], kind="stable")[: 3 * COLUMNS]
    sheet = [
        row
        for start in range(0, len(worst), COLUMNS)
        for row in pictured([rows[i][2] for i in worst[start : start + COLUMNS]])
    ]
    return {**found, "problems": problems}, grid(sheet)


def measured(
    segment: Segment, face: AnnotatedFace
) -> tuple[tuple[float, float], float, tuple[np.ndarray, np.ndarray]]:
    """IoU of a face in its photograph and inside its crop, its yaw in degrees, NaN where that is
    not known, and its crop with what is found there.

    Raises:
      DatasetError: it has no mask, or one that cannot be read.
      PhotoError: the photograph cannot be read.
    """
    if face.mask is None:
        raise DatasetError(f"{face.photo}: has no mask; give a set with masks")
    true, counted = face.mask()
    crop = crop_of_box(face.landmark_box)
    picture = crop_photo(face.image(), crop)
    (probability,) = segment(picture[None])
    ious = [
        photo_iou(probability, crop, true, where)
        for where in (counted, inside(crop, true) & counted)
    ]
    yaw = np.nan if face.pose_deg is None else float(face.pose_deg[0])
    return (ious[0], ious[1]), yaw, (picture, probability)


def inside(crop: Crop, photo: np.ndarray) -> np.ndarray:
    """Where in a photograph (H, W) a crop lies: bool."""
    whole = np.ones((crop.size, crop.size), np.float32)
    return cv2.warpAffine(whole, crop.to_photo, photo.shape[::-1]) > 0.5


def pictured(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[list[np.ndarray]]:
    """Crops (S, S, 3) in [0, 1] in a row, and below it what is found in each (S, S)."""
    rows = [
        [picture for picture, _ in pairs],
        [picture * (0.25 + 0.75 * found[..., None]) for picture, found in pairs],
    ]
    return [[np.round(255.0 * np.clip(one, 0.0, 1.0)).astype(np.uint8) for one in r] for r in rows]


def check_photos(
    segment: Segment, folders: Sequence[str], layout: str
) -> tuple[dict[str, Any], np.ndarray]:
    """Scores of annotated photographs by kind of occluder, and a sheet of some.

    Raises:
      DatasetError: a folder is not of this layout, or nothing in them can be used.
    """
    model = load_face_model()
    template = make_template(model, TEMPLATE_PX)
    squares, problems = collect(open_sets(folders, layout), read_square)
    if not squares:
        raise DatasetError(f"{', '.join(folders)}: nothing can be used; {problems[0]}")
    known = of_photographs(label_fitted(model, template, squares), model, template)
    found: dict[str, Any] = {}
    rows: list[list[np.ndarray]] = []
    for number, (kind, occluders) in enumerate(KINDS.items()):
        some = covered(jax.random.key(number), known, occluders)
        images = np.asarray(some.image)
        probability = np.concatenate(
            [segment(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        )
        logits = jnp.asarray(probability) - 0.5
        ious = intersection_over_union(logits, some.face, some.counted)
        found[kind] = summary(np.asarray(ious))
        rows += pictured(list(zip(images, probability, strict=True))[:COLUMNS])
    mean = float(np.mean([found[kind]["mean"] for kind in KINDS if kind != "nothing"]))
    return {"kinds": found, "occluded": mean, "problems": problems}, grid(rows)


def covered(key: Array, known: MaskSquares, occluders: OccluderSettings) -> Examples:
    """The crops of squares in their order, with something in front of them."""
    settings = MaskSettings(dataclasses.replace(_RIGHT, occluders=occluders), piece=0.0, bare=0.0)

    @jax.jit
    @jax.vmap
    def make(keys: Array, square: MaskSquares) -> Examples:
        crop = cut_out(keys[0], square, settings.augment)
        return cover(keys[1:], crop, crop.image, settings)

    parts = []
    for index in index_batches(len(known.images), BATCH):
        keys = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(key, number), 4))(index)
        some = jax.tree.map(lambda leaf, index=index: leaf[index], known)
        parts.append(jax.device_get(make(keys, some)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(known.images)], *parts)


def check(values: flags.FlagValues) -> None:
    """The whole program; see the flags."""
    segment = segmentation(values.weights)
    found = {folder: check_masks(segment, folder) for folder in values.masks}
    if values.photos:
        found["photos"] = check_photos(segment, values.photos, values.layout)
    if values.draw:
        path = Path(values.draw)
        for number, (_, sheet) in enumerate(found.values()):
            write_png(path.with_name(f"{path.stem}_{number}.png"), sheet)
    print_or_write_json(values.json, {name: scores for name, (scores, _) in found.items()})


def define_flags() -> None:
    """Those of this program."""
    flags.DEFINE_string("weights", None, "of the segmentation", required=True)
    flags.DEFINE_multi_string("masks", [], "set with masks, LAYOUT=FOLDER")
    flags.DEFINE_multi_string("photos", [], "folder of annotated photographs, or LAYOUT=FOLDER")
    flags.DEFINE_enum("layout", "ibug", LAYOUTS, "how folders without LAYOUT= are laid out")
    flags.DEFINE_string("draw", None, "a sheet of each set, NAME_0.png and so on")
    flags.DEFINE_string("json", "-", "file for the scores, - for the standard output")


if __name__ == "__main__":
    define_flags()
    app.run(
        lambda _: launch.run_program(lambda: check(flags.FLAGS)),
        flags_parser=partial(launch.parse_flags, example=""),
    )
