"""How an aligner fares where evaluations seldom look: wrong boxes, tilted heads, profiles.

    python -m experiments.robustness --photos 300w/helen/testset --out out/robustness

Annotated photographs are aligned from boxes that are displaced and scaled by up to 15 % of their
longer edge (without a second crop and with one), turned in the plane by full rounds, and turned to
larger yaws by `data_pipelines.photos.turned`; rendered faces that no training saw are sorted by
their yaw. There, only the landmarks that the head shows count. Errors are of the 51 inner points,
in % of sqrt(width * height) of the landmark box. The poses of turned and rendered faces are known,
and those of photographs where the set gives them. Writes `robustness.json`, also with the error of
every photograph, `robustness.png` (the curves), `pose.png` (found against true yaw), `faces.png`
and `turned.png` (meshes and masks); everything random is seeded.
"""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from tqdm import tqdm

import dfc_jax
from data_pipelines.faces.synthetic import SyntheticSettings, load_assets, sample_picture
from data_pipelines.photos.labels import fit_points
from data_pipelines.photos.squares import STORED_SCALE, read_square
from data_pipelines.photos.turned import ATLAS_PX, turn
from data_pipelines.sources.layouts import LAYOUTS, open_faces
from dfc_jax.crops import CROP_SCALE, apply_affine, box_of_points, crop_of_box, crop_photo
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.errors import DatasetError, ExportError, PhotoError, WeightsError
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.evaluation.pose import ANGLES, nearest_angles, pose_scores, yaw_curve
from dfc_jax.files import escaped, write_json, written_aside
from dfc_jax.fitting import LandmarkSettings
from dfc_jax.inference.align import Aligner
from dfc_jax.inference.draw import overlay
from dfc_jax.inference.face import Face
from dfc_jax.landmarks68 import INNER, N_LANDMARKS
from dfc_jax.morphable.linear import landmarks3d
from dfc_jax.ops.rotations import head_rotation, matrix_to_angles, rotvec_to_matrix
from dfc_jax.photo import write_png
from dfc_jax.raster.flow import is_visible
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.texture.atlas import make_atlas
from dfc_jax.types import Array, ByValue, FaceParams
from experiments.pretrain import VALIDATION_SEED

SEED = 0
BOX_PART = 0.15
ROTATIONS_DEG = tuple(range(0, 360, 30))
ROTATED = 20
YAWS_DEG = (30, 45, 60, 75, 90)
# Renders, and how far from a yaw of the list one may be to count for it.
RENDERS, YAW_WIDTH_DEG = 400, 7.5
# Room around a face for wrong boxes and rotations: longer edges of its box, pixels.
WIDE_SCALE, WIDE_PX = 3.0, 384
TILE, COLUMNS, DRAWN = 192, 10, 60
EXPECTED = (DatasetError, ExportError, PhotoError, WeightsError)

progress = partial(tqdm, unit="face", disable=None)


@dataclasses.dataclass(frozen=True, eq=False)
class View(ByValue):
    """A picture of one face: image (H, W, 3) uint8, true points (68, 2) and which of them count,
    the landmark box that the aligner is given, and the true yaw, pitch and roll (3,), NaN where
    unknown."""

    image: np.ndarray
    points: np.ndarray
    counts: np.ndarray
    box: np.ndarray
    pose_deg: np.ndarray = dataclasses.field(default_factory=lambda: np.full(len(ANGLES), np.nan))


# A picture and the face that was found in it.
Pair: TypeAlias = tuple[View, Face | None]


def view_of(image: np.ndarray, points: np.ndarray, counts: np.ndarray | None = None) -> View:
    """With the tight box of the points; by default the inner points count, those that are there.
    The pose is unknown."""
    inner = np.zeros(N_LANDMARKS, bool)
    seen = np.isfinite(points).all(axis=-1)
    inner[INNER] = seen[INNER] if counts is None else (counts & seen)[INNER]
    return View(image, points, inner, box_of_points(points))


def wide(example: AnnotatedFace) -> View:
    """A photograph cut to the surroundings of its face."""
    crop = crop_of_box(example.landmark_box, WIDE_PX)
    crop = dataclasses.replace(crop, side_px=WIDE_SCALE / CROP_SCALE * crop.side_px)
    image = np.round(255.0 * crop_photo(example.image(), crop)).astype(np.uint8)
    corner, size = example.landmark_box.reshape(2, 2)
    box = np.concatenate([apply_affine(crop.to_crop, corner), crop.scale * size])
    view = view_of(image, apply_affine(crop.to_crop, example.points))
    pose = view.pose_deg if example.pose_deg is None else example.pose_deg
    return dataclasses.replace(view, box=box, pose_deg=pose)


def misplaced(view: View, rng: np.random.Generator, part: float = BOX_PART) -> View:
    """The same picture with its box displaced and scaled by up to `part`, evenly at random."""
    dx, dy, growth = rng.uniform(-part, part, 3)
    size = (1.0 + growth) * view.box[2:]
    middle = view.box[:2] + view.box[2:] / 2.0 + max(view.box[2:]) * np.array([dx, dy])
    return dataclasses.replace(view, box=np.concatenate([middle - size / 2.0, size]))


def rotated(view: View, angle_deg: float) -> View:
    """The picture turned in its plane about the middle of the face."""
    middle = view.box[:2] + view.box[2:] / 2.0
    matrix = cv2.getRotationMatrix2D(middle.tolist(), angle_deg, 1.0)
    size = view.image.shape[1], view.image.shape[0]
    image = cv2.warpAffine(view.image, matrix, size, flags=cv2.INTER_LINEAR)
    return view_of(image, apply_affine(matrix, view.points), view.counts)


def turned(examples: Sequence[AnnotatedFace], aligner: Aligner) -> dict[int, list[View]]:
    """Every photograph turned to each of `YAWS_DEG`, every other one to the other side."""
    model = aligner.model
    template, atlas = make_template(model), make_atlas(model, ATLAS_PX)
    squares = [read_square(example) for example in examples]
    points = np.stack([s.points for s in squares])
    params = fit_points(model, points, LandmarkSettings()).params
    views: dict[int, list[View]] = {}
    for yaw in YAWS_DEG:
        views[yaw] = []
        for n, square in enumerate(progress(squares, desc=f"yaw {yaw}")):
            image, side = jnp.asarray(square.image, jnp.float32) / 255.0, (-1.0) ** n
            own = jax.tree.map(lambda leaf, n=n: leaf[n], params)
            given = image, jnp.asarray(square.points), own, side * yaw
            face = turn(model, atlas, template, *given, STORED_SCALE)
            picture = np.round(255.0 * np.asarray(face.image)).astype(np.uint8)
            seen = np.asarray(face.visible)
            view = view_of(picture, np.asarray(face.points, np.float64), seen)
            middle = jnp.full(2, (picture.shape[0] - 1) / 2.0)
            pose = angles_towards(middle, face.params, face.principal_point)
            views[yaw].append(dataclasses.replace(view, pose_deg=np.asarray(pose)))
    return views


@jax.jit
def angles_towards(pixel: Array, params: FaceParams, principal_point: Array) -> Array:
    """Yaw, pitch and roll (3,) of a face for a camera that looks at a pixel (2,): a crop knows no
    other camera than the one that looks at its middle."""
    ray = jnp.append((pixel - principal_point) / params.focal_px, 1.0)
    axis = jnp.cross(ray, jnp.array([0.0, 0.0, 1.0]))
    sine = jnp.linalg.norm(axis) + 1e-12
    turn = rotvec_to_matrix(axis / sine * jnp.arctan2(sine, 1.0))
    return matrix_to_angles(turn @ head_rotation(params.rotation))


def rendered(aligner: Aligner, count: int, seed: int = VALIDATION_SEED) -> dict[int, list[View]]:
    """Faces of the synthetic held-out set, made of yaws in all of `YAWS_DEG`, by yaw."""
    assets = load_assets(aligner.model)
    settings = dataclasses.replace(
        SyntheticSettings(), wide_yaw=1.0, crop_scale=1.0, crop_shift=0.0
    )

    @jax.jit
    def draw(key, assets):
        seen = sample_picture(key, assets, settings)
        scene = seen.scene
        depth = landmarks3d(assets.model, scene.vertices_mm)[:, 2]
        visible = is_visible(seen.fragments.zbuf, scene.landmarks_px, depth)
        x, y = jnp.clip(jnp.round(scene.landmarks_px), 0, settings.size - 1).astype(int).T
        angles = matrix_to_angles(head_rotation(scene.params.rotation))
        return seen.image, scene.landmarks_px, visible & (seen.occluded[y, x] < 0.5), angles

    views: dict[int, list[View]] = {yaw: [] for yaw in YAWS_DEG}
    keys = jax.random.split(jax.random.key(seed), count)
    for key in progress(keys, desc="renders"):
        image, points, seen, angles = jax.device_get(draw(key, assets))
        yaw = abs(angles[0])
        nearest = min(YAWS_DEG, key=lambda each: abs(yaw - each))
        if abs(yaw - nearest) <= YAW_WIDTH_DEG and seen[INNER].any():
            picture = np.round(255.0 * image).astype(np.uint8)
            view = view_of(picture, points.astype(np.float64), seen)
            views[nearest].append(dataclasses.replace(view, pose_deg=angles))
    return views


def align(aligner: Aligner, views: Iterable[View], desc: str) -> list[Face | None]:
    """The face of each view, None where the aligner gives none."""
    found = (aligner(view.image, boxes=[view.box]) for view in progress(views, desc=desc))
    return [faces[0] if faces else None for faces in found]


def errors(views: Sequence[View], faces: Sequence[Face | None]) -> np.ndarray:
    """NME (n,) of the points that count, %; infinite without a face."""
    found = np.full(len(views), np.inf)
    for n, (view, face) in enumerate(zip(views, faces, strict=True)):
        if face is not None:
            found[n] = nme_percent(face.landmarks, view.points, view.counts)
    return found


def score(values: np.ndarray) -> dict[str, float | None]:
    """Mean over the faces found, median and share over 8 % over all."""
    return {
        "mean": float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else None,
        "median": float(np.median(values)),
        "over_8": float(np.mean(values > 8.0)),
    }


def score_yaws(
    aligner: Aligner, views: dict[int, list[View]], desc: str
) -> tuple[dict[str, Any], list[list[Pair]]]:
    """Scores of the views of each yaw that has some, and these views with their faces."""
    scores, pairs = {}, []
    for yaw, those in views.items():
        if those:
            faces = align(aligner, those, f"{desc} {yaw}")
            scores[str(yaw)] = {"n": len(those), **score(errors(those, faces))}
            pairs.append(list(zip(those, faces, strict=True)))
    return scores, pairs


def poses(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Angles found and true angles (n, 3), degrees; NaN where there is no face or no truth."""
    missing = np.full(len(ANGLES), np.nan)
    found = [
        missing if face is None else np.array([face.angles_deg[angle] for angle in ANGLES])
        for _, face in pairs
    ]
    return np.stack(found), np.stack([view.pose_deg for view, _ in pairs])


def pose_errors(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """`pose_scores`, and the `yaw_curve` as ``curve``; None where no pose is known."""
    if not any(np.isfinite(view.pose_deg).any() for view, _ in pairs):
        return None
    found, true = poses(pairs)
    return {**pose_scores(found, true), "curve": yaw_curve(found, true)}


def drawn(view: View, face: Face | None, triangles: Array, caption: str) -> np.ndarray:
    """The crop that the aligner saw, once with the mesh and once with the mask, side by side."""
    crop = crop_of_box(view.box, TILE)

    def cut(image: np.ndarray) -> np.ndarray:
        colors = crop_photo(image, dataclasses.replace(crop, side_px=1.2 * crop.side_px))
        return np.round(255.0 * colors).astype(np.uint8)

    if face is None:
        return np.concatenate([cut(view.image)] * 2, axis=1)
    # The overlay is made larger, by whole pixels, when the picture is small.
    meshed = overlay(view.image, [face], triangles)
    size = view.image.shape[1], view.image.shape[0]
    meshed = cut(cv2.resize(meshed, size, interpolation=cv2.INTER_AREA))
    back = face.crop.to_crop
    mask = cv2.warpAffine(
        face.matchability.astype(np.float32),
        back,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )[..., None]
    green = np.array([60, 255, 90])
    masked = cut((view.image * (1 - 0.5 * mask) + 0.5 * mask * green).astype(np.uint8))
    pair = np.concatenate([meshed, masked], axis=1)
    cv2.putText(pair, caption, (4, TILE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    return pair


def sheet(views: Sequence[View], faces: Sequence[Face | None], triangles: Array) -> np.ndarray:
    """`drawn` of every view, with its error, `COLUMNS` pictures in a row."""
    found = errors(views, faces)
    tiles = [
        drawn(view, face, triangles, f"{n}: {error:.2f} %")
        for n, (view, face, error) in enumerate(zip(views, faces, found, strict=True))
    ]
    per_row = COLUMNS // 2
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % per_row)
    rows = [np.concatenate(tiles[i : i + per_row], 1) for i in range(0, len(tiles), per_row)]
    return np.concatenate(rows)


def draw_curves(found: dict[str, Any], path: Path) -> None:
    """Error over rotation and over yaw, as a PNG file."""
    figure = Figure(figsize=(9, 3), dpi=120, layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, ("rotation", "yaw"), strict=True):
        degrees = [float(key) for key in found[name]]
        for kind in ("mean", "median"):
            axis.plot(degrees, [value[kind] for value in found[name].values()], label=kind)
        axis.set_xlabel(f"{name}, degrees")
        axis.set_ylim(bottom=0.0)
    axes[0].set_ylabel("inner NME, %")
    axes[1].legend()
    with written_aside(path) as aside:
        figure.savefig(aside)


def draw_poses(posed: dict[str, list[Pair]], path: Path) -> None:
    """Found against true yaw of each kind of picture whose pose is known, as a PNG file."""
    known = {name: pairs for name, pairs in posed.items() if pose_errors(pairs)}
    figure = Figure(figsize=(4.5 * max(1, len(known)), 4), dpi=120, layout="constrained")
    for axis, (name, pairs) in zip(
        np.ravel(figure.subplots(1, max(1, len(known)))), known.items(), strict=False
    ):
        found, true = poses(pairs)
        curve = yaw_curve(found, true).values()
        axis.plot([-90, 90], [-90, 90], color="0.8", label="true")
        axis.scatter(true[:, 0], nearest_angles(found, true)[:, 0], s=4, alpha=0.4)
        axis.plot(*([each[k] for each in curve] for k in ("true", "found")), "o-", label="median")
        axis.set(title=name, xlabel="true yaw, degrees", ylabel="found yaw", xlim=(-100, 100))
        axis.set_ylim(-100, 100)
        axis.legend()
    with written_aside(path) as aside:
        figure.savefig(aside)


def measure(
    photos: str,
    out: Path,
    weights: str | None = None,
    count: int | None = None,
    layout: str = "ibug",
) -> dict:
    """The whole program; see the flags."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out}: this folder cannot be made ({error.strerror})") from error
    aligner = dfc_jax.load(weights)
    once = Aligner(aligner.solver, aligner.model, aligner.detector, aligner.versions, recrop=0)
    examples = list(open_faces(layout, photos)[:count])
    if not all(np.isfinite(example.points).any() for example in examples):
        raise DatasetError(f"{photos}: has no points to score; score its poses with dfc evaluate")
    views = [wide(example) for example in progress(examples, desc="photographs")]
    rng = np.random.default_rng(SEED)
    wrong = [misplaced(view, rng) for view in views]
    faces = align(aligner, views, "true, cropped again")
    found: dict[str, Any] = {
        "n": len(views),
        "weights": aligner.versions["weights"],
        "boxes": {
            "true": score(errors(views, align(once, views, "true boxes"))),
            "true_recropped": score(errors(views, faces)),
            "wrong": score(errors(wrong, align(once, wrong, "wrong boxes"))),
            "wrong_recropped": score(errors(wrong, align(aligner, wrong, "wrong, cropped again"))),
        },
        "rotation": {},
        "photographs": {
            example.name: float(error)
            for example, error in zip(examples, errors(views, faces), strict=True)
        },
    }
    for angle in ROTATIONS_DEG:
        tilted = [rotated(view, angle) for view in views[:ROTATED]]
        found["rotation"][str(angle)] = score(
            errors(tilted, align(aligner, tilted, f"rotated by {angle}"))
        )
    found["yaw"], of_turned = score_yaws(aligner, turned(examples, aligner), "yaw")
    of_renders = rendered(aligner, RENDERS)
    found["rendered_yaw"], of_rendered = score_yaws(aligner, of_renders, "rendered at")
    posed: dict[str, list[Pair]] = {
        "photographs": list(zip(views, faces, strict=True)),
        "turned": list(chain(*of_turned)),
        "rendered": list(chain(*of_rendered)),
    }
    found["pose"] = {name: pose_errors(pairs) for name, pairs in posed.items()}
    triangles = aligner.model.triangles
    write_png(out / "faces.png", sheet(views[:DRAWN], faces[:DRAWN], triangles))
    some = (pairs[: DRAWN // len(YAWS_DEG)] for pairs in of_turned)
    seen, fitted = zip(*chain(*some), strict=True)
    write_png(out / "turned.png", sheet(seen, fitted, triangles))
    draw_curves(found, out / "robustness.png")
    draw_poses(posed, out / "pose.png")
    write_json(out / "robustness.json", found)
    return found


def main(_) -> None:
    values = flags.FLAGS
    try:
        found = measure(
            values.photos, Path(values.out), values.weights, values.count, values.layout
        )
    except EXPECTED as error:
        print(f"robustness: {escaped(error)}", file=sys.stderr)
        sys.exit(1)
    for part in ("boxes", "rotation", "yaw", "rendered_yaw"):
        for name, values in found[part].items():
            print(f"{part} {name}: mean {values['mean']:.2f} median {values['median']:.2f}")
    for name, scores in found["pose"].items():
        for angle in ANGLES if scores else ():
            mean, slope, bias = (scores[angle][k] for k in ("mean", "slope", "bias"))
            if slope is not None:
                print(f"{angle} {name}: mean error {mean:.2f}, slope {slope:.2f}, bias {bias:.2f}")


def define_flags() -> None:
    flags.DEFINE_string("photos", None, "folder of annotated photographs", required=True)
    flags.DEFINE_enum("layout", "ibug", LAYOUTS, "how the folder is laid out")
    flags.DEFINE_string("out", None, "folder to write to", required=True)
    flags.DEFINE_string("weights", None, "name of weights or a file")
    flags.DEFINE_integer("count", None, "use the first so many photographs only", lower_bound=1)


if __name__ == "__main__":
    define_flags()
    app.run(main)
