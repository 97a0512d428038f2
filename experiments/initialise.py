"""Another aligner that starts from our landmarks, as the paper starts that of Saragih et al.

    python -m experiments.initialise --set ibug=300w/helen/testset --set cfp=cfp/validation \\
        --set aflw2000=aflw2000 --turntable 30 --out out/initialise

The other aligner is dlib's (see `experiments.starts` for it and its licence). It starts from the
rectangle of its own detector (`own`), from the annotated box (`annotated`), and from our landmarks
(`ours`): from where its detector would draw a rectangle around them, in the photograph turned
upright by our pose; its points are turned back. `alone` are our landmarks as they are. Our aligner
starts from its own detector too, or with ``--boxes gt`` from the annotated boxes. A face without a
detection has no output, and counts as a failure.

``--set`` names a set as `dfc evaluate` does; ``--turntable N`` adds N rendered persons, each at the
seven yaws of `experiments.degrade`, of which it is known what points are visible. Each set is
scored by range of the absolute yaw; yaws that a set does not know are those of our model fitted to
the annotated points. Prints the tables of `dfc compare`, against `own`, and writes

    START.json       scores as of `dfc evaluate`, for `dfc compare`, `dfc report`, `dfc figures`
    SET_START.npz    what was found, which `dfc evaluate --predictions` scores in other ways
    SET.png          some faces: starts and points found red, true points green
    comparison.json  the tables
"""

import dataclasses
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import app, flags
from tqdm import tqdm

import dfc_jax
from data_pipelines.faces.synthetic import load_assets
from data_pipelines.photos.labels import angles_of, fit_any
from data_pipelines.photos.squares import read_square
from dfc_jax.commands.evaluate import face_folders
from dfc_jax.commands.scored import names_of, read_faces
from dfc_jax.crops import apply_affine, crop_of_box, crop_photo, tilt_deg
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.errors import DatasetError, ExportError, OptionError
from dfc_jax.evaluation.comparison import compare, read_evaluation, tables
from dfc_jax.evaluation.grid import dots, grid
from dfc_jax.evaluation.pose import ABS_YAW_BINS, abs_yaw_bins
from dfc_jax.evaluation.predictions import Predictions, write_predictions
from dfc_jax.evaluation.protocols import align_examples
from dfc_jax.evaluation.scores import ScoreSettings, evaluation, set_scores, true_poses
from dfc_jax.evaluation.side_by_side import FOUND, TRUE
from dfc_jax.evaluation.tables import aligned
from dfc_jax.evaluation.trials import Visibility, annotates_visible_points_alone, true_points
from dfc_jax.files import escaped, write_json
from dfc_jax.fitting import LandmarkSettings
from dfc_jax.inference.align import Aligner
from dfc_jax.inference.face import Face
from dfc_jax.landmarks68 import N_LANDMARKS
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.photo import write_png
from dfc_jax.types import ByValue
from experiments import launch
from experiments.degrade import KINDS, person
from experiments.starts import Dlib, Peer, Start, box_start, landmark_start, own_start

# What gives the points, by the name of its files; the others are compared with the first.
STARTS = {
    "own": "dlib, its detector",
    "annotated": "dlib, annotated box",
    "ours": "dlib, our landmarks",
    "alone": "our landmarks alone",
}
# In a picture: faces of each range of yaw, and the edge of a tile in pixels.
SHOWN, TILE = 6, 180
SEED = 0

progress = partial(tqdm, unit="face", disable=None)


@dataclasses.dataclass(frozen=True, eq=False)
class Group(ByValue):
    """n annotated faces of one set whose yaw is known.

    Attributes:
      name, layout: of the set.
      faces: each with a `pose_deg`.
      visible: (n, 68) bool, which points are visible, where that is known of annotated points.
      unusable: names of files of the set besides, which cannot be used.
    """

    name: str
    layout: str
    faces: Sequence[AnnotatedFace]
    visible: np.ndarray | None = None
    unusable: Sequence[str] = ()

    @property
    def stem(self) -> str:
        """Of the names of its files."""
        return self.name.replace("/", "_")

    def some(self, index: Sequence[int]) -> "Group":
        """Those of its faces that `index` names."""
        visible = None if self.visible is None else self.visible[list(index)]
        faces = [self.faces[k] for k in index]
        return dataclasses.replace(self, faces=faces, visible=visible)

    def by_yaw(self) -> dict[str, list[int]]:
        """Which faces are in each range of the absolute yaw that has some."""
        bins = abs_yaw_bins(true_poses(self.faces)[:, 0])
        ranges = {yaws: np.flatnonzero(bins == k).tolist() for k, yaws in enumerate(ABS_YAW_BINS)}
        return {yaws: index for yaws, index in ranges.items() if index}


@dataclasses.dataclass(frozen=True, eq=False)
class Results(ByValue):
    """What is found in the n faces of a group.

    Attributes:
      group: the faces.
      points: (n, 68, 2) by name in `STARTS`, photo pixels; NaN without a detection.
      corners: (n, 4, 2) of the rectangles, likewise.
    """

    group: Group
    points: dict[str, np.ndarray]
    corners: dict[str, np.ndarray]

    def predictions(self, name: str) -> Predictions:
        """Those of one of the `STARTS`."""
        names = tuple(face.name for face in self.group.faces)
        return Predictions(STARTS[name], names, self.points[name])


def read_group(text: str, model: FaceModel) -> Group:
    """The set that LAYOUT=DIR names.

    Raises:
      UserError: it cannot be read, or has faces without any of the 68 points.
    """
    (folder,) = face_folders(Namespace(layout=None, data=None, sets=[text]))
    faces, problems = read_faces(folder)
    if not np.isfinite(true_points(faces)).any(axis=(1, 2)).all():
        raise DatasetError(f"{folder.folder}: has faces without points to score; give another set")
    posed, unusable = with_poses(faces, model), names_of(problems)
    return Group(folder.name, folder.layout, posed, unusable=unusable)


def with_poses(faces: Sequence[AnnotatedFace], model: FaceModel) -> list[AnnotatedFace]:
    """The same faces; a pose whose yaw is not known becomes that of `model`, fitted to the
    annotated points."""
    posed, unknown = list(faces), np.flatnonzero(~np.isfinite(true_poses(faces)[:, 0])).tolist()
    if unknown:
        points = np.stack([read_square(faces[k]).points for k in unknown])
        contour = np.array([faces[k].jaw == "contour" for k in unknown])
        profile = np.array([faces[k].profile for k in unknown])
        angles = angles_of(fit_any(model, points, LandmarkSettings(), contour, profile))
        for k, pose in zip(unknown, angles, strict=True):
            posed[k] = dataclasses.replace(faces[k], pose_deg=pose)
    return posed


def turntable(model: FaceModel, persons: int) -> Group:
    """Rendered persons at the yaws of `experiments.degrade`."""
    assets, how = load_assets(model), KINDS["yaw"]
    cases = [(person(number), yaw) for yaw in how.levels for number in range(persons)]
    faces, visible = [], []
    for one, yaw in progress(cases, desc="turntable, drawn"):
        view = how.view(assets, one, yaw)
        _, png = cv2.imencode(".png", cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR))
        name, pose = f"{one.number}_{yaw:g}", np.array([one.side * yaw, 0.0, 0.0])
        photo = Path(f"{name}.png")
        face = AnnotatedFace(photo, view.points, name, "surface", None, None, png.tobytes(), pose)
        faces.append(face)
        visible.append(view.counts)
    return Group("turntable", "render", faces, np.stack(visible))


def run(peer: Peer, aligner: Aligner, group: Group, boxes: str = "detector") -> Results:
    """All points that are found in a group.

    Args:
      peer: the other aligner.
      aligner: ours.
      group: the faces.
      boxes: where ours starts: ``"detector"``, at its own, or ``"gt"``, at the annotated boxes.

    Raises:
      Exception: a photograph cannot be read.
    """
    detector = aligner.detector if boxes == "detector" else None
    results = align_examples(aligner, group.faces, detector)
    pairs = zip(group.faces, results, strict=True)
    points: dict[str, list[np.ndarray]] = {name: [] for name in STARTS}
    corners: dict[str, list[np.ndarray]] = {name: [] for name in STARTS}
    for face, found in progress(pairs, desc=group.name, total=len(group.faces)):
        if isinstance(found, Exception):
            raise found
        for name, start in starts_of(peer, face, found).items():
            points[name].append(start.points(peer) if start else _nothing(N_LANDMARKS))
            corners[name].append(start.corners if start else _nothing(4))
        points["alone"].append(_nothing(N_LANDMARKS) if found is None else found.landmarks)
        corners["alone"].append(_nothing(4))
    stacked = ({name: np.stack(rows) for name, rows in each.items()} for each in (points, corners))
    return Results(group, *stacked)


def _nothing(count: int) -> np.ndarray:
    return np.full((count, 2), np.nan)


def starts_of(peer: Peer, face: AnnotatedFace, found: Face | None) -> dict[str, Start | None]:
    """Where the other aligner starts in an annotated face, by name in `STARTS`; `found` is the face
    as our aligner finds it. None where there is no detection."""
    image, box = face.image(), face.landmark_box
    ours = None
    if found is not None:
        ours = landmark_start(image, found.landmarks, float(tilt_deg(found.rotation)))
    return {"own": own_start(peer, image, box), "annotated": box_start(image, box), "ours": ours}


def scored(results: Results, name: str) -> Iterator[dict[str, Any]]:
    """The scores of one of the `STARTS` in each range of yaw, as records of `dfc evaluate`, of the
    points that are visible, where that is known."""
    group, predictions = results.group, results.predictions(name)
    known = group.visible is not None or annotates_visible_points_alone(true_points(group.faces))
    settings = ScoreSettings(("visible-inner" if known else "inner",), seed=SEED)
    for yaws, index in group.by_yaw().items():
        part = group.some(index)
        mask = part.visible
        visibility = None if mask is None else Visibility(mask, "ground-truth mesh")
        found = predictions.of([face.name for face in part.faces])
        scores = set_scores(part.faces, found, None, visibility, settings)
        about = {"name": f"{group.name} {yaws}", "layout": group.layout}
        yield {**about, **scores, "unusable": list(group.unusable)}


def picture(results: Results) -> np.ndarray:
    """Some faces of each range of yaw, what comes of the start `own` above that of `ours`."""
    rows, sides = [], []
    for yaws, index in results.group.by_yaw().items():
        chosen = np.linspace(0, len(index) - 1, min(SHOWN, len(index))).round().astype(int)
        for name in ("own", "ours"):
            rows.append([tile(results, index[k], name) for k in chosen])
            sides.append(f"{yaws} {name}")
    return grid(rows, sides=sides)


def tile(results: Results, index: int, name: str) -> np.ndarray:
    """The surroundings of a face (TILE, TILE, 3), with a start and the points that come of it."""
    face = results.group.faces[index]
    crop = crop_of_box(face.landmark_box, TILE)
    crop = dataclasses.replace(crop, side_px=1.3 * crop.side_px)
    drawn = np.round(255.0 * crop_photo(face.image(), crop)).astype(np.uint8)
    points, corners = (each[name][index] for each in (results.points, results.corners))
    if np.isfinite(corners).all():
        outline = np.round(16.0 * apply_affine(crop.to_crop, corners)).astype(np.int32)
        cv2.polylines(drawn, [outline], True, FOUND, 1, cv2.LINE_AA, 4)
    dots(drawn, apply_affine(crop.to_crop, face.points), TRUE, 1.2)
    dots(drawn, apply_affine(crop.to_crop, points), FOUND, 1.2)
    return drawn


def measure(
    peer: Peer, sets: Sequence[str], out: Path, persons: int, weights: str | None, boxes: str
) -> dict[str, Any]:
    """The whole program with another aligner; see the flags. The record of the comparison.

    Raises:
      UserError: there is nothing to measure on, a set cannot be used, or `out` not written to.
    """
    if not (sets or persons):
        raise OptionError("there are no faces; give --set LAYOUT=DIR or --turntable N")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out}: this folder cannot be made ({error.strerror})") from error
    aligner = dfc_jax.load(weights)
    groups = [read_group(text, aligner.model) for text in sets]
    groups += [turntable(aligner.model, persons)] if persons else []
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in STARTS}
    for group in groups:
        results = run(peer, aligner, group, boxes)
        for name, those in records.items():
            write_predictions(out / f"{group.stem}_{name}.npz", results.predictions(name))
            those.extend(scored(results, name))
        write_png(out / f"{group.stem}.png", picture(results))
    files = {name: out / f"{name}.json" for name in STARTS}
    for name, those in records.items():
        scores = evaluation(STARTS[name], those, SEED, aligner.versions, boxes)
        write_json(files[name], scores)
    comparison = compare([read_evaluation(file) for file in files.values()], SEED)
    write_json(out / "comparison.json", comparison)
    return comparison


def as_told(values: flags.FlagValues) -> None:
    """`measure` with dlib, and print the tables of scores."""
    sets, persons = values.set, values.turntable
    given = Path(values.out), persons, values.weights, values.boxes
    for title, rows in tables(measure(Dlib(), sets, *given)):
        if rows[0][0] == "system":
            for line in (title, *aligned(rows).splitlines(), ""):
                print(escaped(line))


def define_flags() -> None:
    flags.DEFINE_multi_string("set", [], "LAYOUT=DIR, a set of annotated faces; may be repeated")
    flags.DEFINE_integer("turntable", 0, "so many rendered persons besides", lower_bound=0)
    flags.DEFINE_enum("boxes", "detector", ["detector", "gt"], "where our aligner starts")
    flags.DEFINE_string("out", None, "folder to write to", required=True)
    flags.DEFINE_string("weights", None, "name of weights or a file")


if __name__ == "__main__":
    define_flags()
    app.run(
        lambda _: launch.run_program(lambda: as_told(flags.FLAGS)),
        flags_parser=partial(launch.parse_flags, example=""),
    )
