"""The error over how far a head is turned, how much of it is covered, and how it is lit.

    python -m experiments.degrade --out out/degrade
    python -m experiments.degrade --kind light --faces 20 --weights paper --out out/degrade

Rendered persons whom no training saw are turned to profile (figure 7 of the paper), covered by a
rectangle (figure 8), lit from the side, and photographed with ever less light (figure 9), all else
alike. The aligner starts from the box of the true landmarks. Errors are of the inner points that
the mesh does not hide from the camera, under a rectangle too, in % of sqrt(width * height) of that
box. Writes for each kind `KIND.json`, `KIND.png` (the curves) and `KIND_faces.png` (true points
green, found ones red); everything random is seeded. The persons are of the generator that the
weights were trained with: on photographs errors are larger, and what is compared are the levels.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

import dfc_jax
from data_pipelines.faces.light import LightPrior, LightSettings, lobe_irradiance
from data_pipelines.faces.mouth import mouth_vertices
from data_pipelines.faces.synthetic import (
    Scene,
    SyntheticAssets,
    SyntheticSettings,
    load_assets,
    rasterize_scene,
    sample_params,
    shade_scene,
)
from dfc_jax.camera import project, to_camera
from dfc_jax.crops import apply_affine, crop_of_box, crop_photo
from dfc_jax.errors import ExportError
from dfc_jax.evaluation.grid import dots, grid
from dfc_jax.evaluation.side_by_side import FOUND, TRUE
from dfc_jax.files import escaped, write_json, written_aside
from dfc_jax.inference.align import Aligner
from dfc_jax.inference.face import Face
from dfc_jax.morphable.linear import landmarks3d, shape
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.photo import write_png
from dfc_jax.raster.flow import is_visible
from dfc_jax.types import Array, Camera
from experiments.pretrain import VALIDATION_SEED
from experiments.robustness import EXPECTED, View, align, errors, progress, score, view_of

FACES, SHOWN, TILE = 60, 3, 150
# The picture, pixels; a face at this distance and focal length fills about half of it.
SETTINGS = SyntheticSettings(size=256, light=LightSettings(shadow=0.0))
DISTANCE_MM, FOCAL_PX = 700.0, 480.0
# How persons look into the camera where they are not turned: standard deviations, degrees.
CASUAL_DEG = np.array([10.0, 6.0, 4.0])
# Irradiance of the lamp on what faces it, of the light from everywhere, and the lamp's softness in
# radians.
LAMP, AMBIENT, SOFTNESS = 1.3, 0.07, 0.2
# Photons of a white pixel in full light, and the noise of reading it out, in photons.
PHOTONS, READ_NOISE = 2000.0, 2.0
GAMMA = 2.2
DEGREES = "\N{DEGREE SIGN}"


@dataclasses.dataclass(frozen=True)
class Person:
    """A person of a seed, and what the same seed says of how to disturb the picture.

    Attributes:
      number: from 0 on.
      side: the way they turn, or the lamp stands: -1 or 1.
      angles_deg: yaw, pitch and roll where they are not turned.
    """

    number: int
    side: int
    angles_deg: tuple[float, float, float]

    @property
    def key(self) -> Array:
        """Who they are."""
        return jax.random.fold_in(jax.random.key(VALIDATION_SEED), self.number)

    @property
    def rng(self) -> np.random.Generator:
        """The same at every level."""
        return np.random.default_rng([VALIDATION_SEED, self.number])


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One way to make it harder.

    Attributes:
      axis: what the levels are, with their unit.
      unit: behind a level.
      levels: from the easiest on.
      view: a person's picture at a level.
    """

    axis: str
    unit: str
    levels: tuple[float, ...]
    view: Callable[[SyntheticAssets, Person, float], View]


def person(number: int) -> Person:
    """The person of a number."""
    angles = np.random.default_rng([VALIDATION_SEED, number, 1]).normal(0.0, CASUAL_DEG)
    yaw, pitch, roll = angles.tolist()
    return Person(number, 1 - 2 * (number % 2), (yaw, pitch, roll))


@jax.jit
def render_portrait(
    key: Array, angles_deg: Array, assets: SyntheticAssets
) -> tuple[Array, Array, Array]:
    """The picture (S, S, 3) of a random person in a given pose, the landmarks (68, 2) and which of
    them (68,) the mesh does not hide."""
    who, skin, around = jax.random.split(key, 3)
    params = dataclasses.replace(
        sample_params(who, assets.model, SETTINGS),
        focal_px=jnp.float32(FOCAL_PX),
        rotation=angles_to_rotvec(angles_deg),
        translation_mm=jnp.array([0.0, 0.0, DISTANCE_MM]),
    )
    coefficients = params.identity, params.expression
    face = shape(assets.model, *coefficients)
    # The middle of the landmarks' box is the middle of the picture.
    centred = to_camera(params, landmarks3d(assets.model, face))
    middle = (centred.min(axis=0) + centred.max(axis=0)) / 2.0
    shift = jnp.array([middle[0], middle[1], 0.0])
    params = dataclasses.replace(params, translation_mm=params.translation_mm - shift)
    both = jnp.concatenate([face, mouth_vertices(assets.mouth, *coefficients)])
    vertices = to_camera(params, both)
    camera = Camera(params.focal_px, jnp.full(2, (SETTINGS.size - 1) / 2.0))
    landmarks_mm = landmarks3d(assets.model, vertices)
    scene = Scene(vertices, camera, project(camera, landmarks_mm), params)
    seen = rasterize_scene(scene, assets, SETTINGS)
    image = shade_scene(around, scene, seen, assets, SETTINGS, skin)
    visible = is_visible(seen.zbuf, scene.landmarks_px, landmarks_mm[:, 2])
    return image, scene.landmarks_px, visible


def portrait(assets: SyntheticAssets, one: Person, angles_deg: Sequence[float]) -> View:
    """`render_portrait` as a view whose visible inner points count."""
    given = one.key, jnp.asarray(angles_deg, jnp.float32), assets
    image, points, visible = jax.device_get(render_portrait(*given))
    return view_of(_bytes(image), points.astype(np.float64), visible)


def turned(assets: SyntheticAssets, one: Person, yaw_deg: float) -> View:
    """Turned by a yaw to the person's side, and neither bowed nor tilted."""
    return portrait(assets, one, (one.side * yaw_deg, 0.0, 0.0))


def covered(assets: SyntheticAssets, one: Person, percent: float) -> View:
    """With a rectangle of one colour over so much of the landmarks' box."""
    view = portrait(assets, one, one.angles_deg)
    return dataclasses.replace(view, image=cover(view.image, view.box, percent / 100.0, one.rng))


def cover(image: np.ndarray, box: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A picture (H, W, 3) uint8 with a rectangle somewhere in a box (x, y, width, height), over a
    share of its area; drawn from one generator, those of different shares have the same colour and
    shape, as far as the box allows, and lie at the same place relative to the room they have."""
    aspect, place, colour = 2.0 ** rng.uniform(-0.7, 0.7), rng.uniform(size=2), rng.uniform(size=3)
    wide = np.clip(np.sqrt(share * aspect), share, 1.0)
    part = np.array([wide, share / wide if share else 0.0])
    low = box[:2] + place * (1.0 - part) * box[2:]
    (left, top), (right, bottom) = np.round([low, low + part * box[2:]]).astype(int)
    drawn = image.copy()
    drawn[max(top, 0) : bottom, max(left, 0) : right] = np.round(255.0 * colour)
    return drawn


def lit_from(assets: SyntheticAssets, one: Person, angle_deg: float) -> View:
    """Lit by one lamp at an angle from the camera's axis: 0 beside the camera, 90 at the side."""
    lamp = LightPrior(jnp.asarray(lamp_light(one.side * angle_deg).reshape(-1)), jnp.zeros((27, 1)))
    return portrait(dataclasses.replace(assets, light=lamp), one, one.angles_deg)


def lamp_light(angle_deg: float) -> np.ndarray:
    """(9, 3) light of a lamp, positive angles to the picture's right, a little above the face."""
    angle = np.deg2rad(angle_deg)
    direction = np.array([np.sin(angle), -0.25, -np.cos(angle)])
    lobe = lobe_irradiance(jnp.asarray(direction / np.linalg.norm(direction)), jnp.array(SOFTNESS))
    ambient = np.sqrt(4.0 * np.pi) * np.eye(9)[0]
    return np.repeat((LAMP * np.asarray(lobe) + AMBIENT * ambient)[:, None], 3, axis=1)


def darkened(assets: SyntheticAssets, one: Person, stops: float) -> View:
    """With 2^-stops of the light, and the noise of the photons that are left."""
    view = portrait(assets, one, one.angles_deg)
    return dataclasses.replace(view, image=dim(view.image, stops, one.rng))


def dim(image: np.ndarray, stops: float, rng: np.random.Generator) -> np.ndarray:
    """A picture (H, W, 3) uint8 of 2^-stops of its light."""
    photons = PHOTONS * (image / 255.0) ** GAMMA * 2.0**-stops
    counted = rng.poisson(photons) + READ_NOISE * rng.normal(size=image.shape)
    return _bytes(np.maximum(counted / PHOTONS, 0.0) ** (1.0 / GAMMA))


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.round(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)


KINDS: dict[str, Sweep] = {
    "yaw": Sweep("yaw, degrees", DEGREES, tuple(map(float, range(0, 91, 15))), turned),
    "occlusion": Sweep("covered, % of the box", " %", tuple(map(float, range(0, 71, 10))), covered),
    "side_light": Sweep(
        "lamp off the axis, degrees", DEGREES, tuple(map(float, range(0, 151, 25))), lit_from
    ),
    "darkness": Sweep("stops less light", " stops", tuple(map(float, range(0, 11, 2))), darkened),
}
# Names that stand for several kinds.
GROUPS = {"light": ("side_light", "darkness"), "all": tuple(KINDS)}


def sweep(
    aligner: Aligner, assets: SyntheticAssets, kind: str, faces: int = FACES
) -> tuple[dict[str, Any], np.ndarray]:
    """What is found at each level, as JSON can hold it, and a picture of some of the faces."""
    how = KINDS[kind]
    people = [person(number) for number in range(faces)]
    levels, columns, captions = {}, [], []
    for level in how.levels:
        make = partial(how.view, assets)
        desc = f"{kind} {level:g}"
        views = [make(one, level) for one in progress(people, desc=f"{desc}, drawn")]
        found = align(aligner, views, desc)
        values = errors(views, found)
        levels[f"{level:g}"] = {"n": faces, **score(values), **quartiles(values)}
        shown = list(zip(views, found, strict=True))[:SHOWN]
        columns.append([tile(view, face) for view, face in shown])
        captions.append([f"{value:.1f} %" for value in values[:SHOWN]])
    rows, told = ([list(row) for row in zip(*each, strict=True)] for each in (columns, captions))
    heads = [f"{level:g}{how.unit}" for level in how.levels]
    record = {"kind": kind, "axis": how.axis, "faces": faces, "levels": levels}
    return record, grid(rows, heads, captions=told)


def quartiles(values: np.ndarray) -> dict[str, float | None]:
    """The 25th and 75th percentiles of errors (n,), None where they are infinite."""
    # As NumPy's "linear" would make NaN of infinite neighbours.
    low, high = np.percentile(values, [25.0, 75.0], method="nearest")
    return {
        name: float(value) if np.isfinite(value) else None
        for name, value in (("lower_quartile", low), ("upper_quartile", high))
    }


def tile(view: View, face: Face | None) -> np.ndarray:
    """The surroundings of the face (TILE, TILE, 3), with the inner points."""
    crop = crop_of_box(view.box, TILE)
    drawn = _bytes(crop_photo(view.image, crop))
    dots(drawn, apply_affine(crop.to_crop, view.points[view.counts]), TRUE, 1.2)
    if face is not None:
        dots(drawn, apply_affine(crop.to_crop, face.landmarks[view.counts]), FOUND, 1.2)
    return drawn


def draw(record: dict[str, Any]) -> Figure:
    """Errors and failures over the levels."""
    figure = Figure(figsize=(7.5, 2.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    levels = [float(level) for level in record["levels"]]
    rows = list(record["levels"].values())

    def values(name: str) -> list[float]:
        return [np.nan if row[name] is None else row[name] for row in rows]

    quarters = values("lower_quartile"), values("upper_quartile")
    left.fill_between(levels, *quarters, color="#1768ac", alpha=0.15, lw=0, label="middle half")
    left.plot(levels, values("median"), "o-", color="#1768ac", ms=3.5, label="median")
    left.plot(levels, values("mean"), "s--", color="#c8591a", ms=3.5, label="mean")
    left.set_ylabel("inner NME, %")
    left.legend(frameon=False, fontsize=8)
    right.plot(levels, 100.0 * np.array(values("over_8")), "o-", color="#1d2126", ms=3.5)
    right.set_ylabel("faces over 8 %, %")
    right.set_ylim(-2.0, 102.0)
    left.set_ylim(bottom=0.0)
    for axes in (left, right):
        axes.set_xlabel(record["axis"])
        axes.set_xticks(levels)
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def measure(kinds: Sequence[str], out: Path, faces: int, weights: str | None = None) -> dict:
    """The whole program; see the flags."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out}: this folder cannot be made ({error.strerror})") from error
    aligner = dfc_jax.load(weights)
    assets = load_assets(aligner.model)
    records = {}
    for kind in kinds:
        record, picture = sweep(aligner, assets, kind, faces)
        records[kind] = {**record, "versions": aligner.versions, "seed": VALIDATION_SEED}
        write_json(out / f"{kind}.json", records[kind])
        write_png(out / f"{kind}_faces.png", picture)
        with written_aside(out / f"{kind}.png") as aside:
            draw(record).savefig(aside)
    return records


def main(_) -> None:
    values = flags.FLAGS
    kinds = GROUPS.get(values.kind, (values.kind,))
    try:
        records = measure(kinds, Path(values.out), values.faces, values.weights)
    except EXPECTED as error:
        print(f"degrade: {escaped(error)}", file=sys.stderr)
        sys.exit(1)
    for kind, record in records.items():
        for level, scores in record["levels"].items():
            mean = "none found" if scores["mean"] is None else f"mean {scores['mean']:.2f}"
            print(f"{kind} {level}: {mean}, over 8 %: {100.0 * scores['over_8']:.0f} %")


if __name__ == "__main__":
    flags.DEFINE_enum("kind", "all", [*KINDS, *GROUPS], "what gets harder")
    flags.DEFINE_string("out", None, "folder to write to", required=True)
    flags.DEFINE_integer("faces", FACES, "so many persons", lower_bound=1)
    flags.DEFINE_string("weights", None, "name of weights or a file")
    app.run(main)
