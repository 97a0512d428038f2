"""Do the labels land on the faces? Draw and measure how well a set's 68 points are reprojected.

    python -m experiments.tools.check_labels --photos 300w/helen/trainset --photos 300w/afw \
        --layout ibug --count 50 --out out/check_helen_afw
    python -m experiments.tools.check_labels --photos 300W_LP --layout 300w-lp --basel BASEL \
        --out DIR
    python -m experiments.tools.check_labels --photos ~/tensorflow_datasets \
        --layout tfds:the300w_lp --count 200 --out DIR

The face model is fitted to the points, as it is to make training labels; with `--basel`, 300W-LP's
own parameters are used instead. Writes `labels.json`, the distance from annotated to reprojected
points per set, and `labels.png`, the worst faces and some others: annotated points green,
reprojected points red, the mesh's outline yellow. Files that cannot be used are listed and passed
over.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

from data_pipelines.photos.labels import fit_any, index_batches, is_half
from data_pipelines.photos.parameters import posed_fragments, posed_landmarks, stack
from data_pipelines.photos.squares import STORED_PX, Square, read_square
from data_pipelines.sources.layouts import LAYOUTS, open_faces, with_layout
from dfc_jax.camera import project, to_camera
from dfc_jax.data.faces import FaceSet, collect
from dfc_jax.data.lp_model import LPModel, posed, read_lp_model
from dfc_jax.errors import DatasetError, ExportError, FaceModelError, PhotoError
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.files import escaped, write_json
from dfc_jax.fitting import LandmarkSettings, profile_landmarks, project_landmarks
from dfc_jax.landmarks68 import INNER
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d, shape, surface_positions
from dfc_jax.photo import write_png
from dfc_jax.raster.flow import fragments_of
from dfc_jax.types import Array, Camera, FaceParams

BATCH = 16
TILE, COLUMNS, ROWS = 320, 6, 2
GREEN, RED, YELLOW, WHITE = (60, 255, 90), (255, 60, 60), (255, 215, 60), (255, 255, 255)
CENTRE = (STORED_PX - 1) / 2.0
# What a user can put right; anything else is ours and keeps its traceback.
EXPECTED = (DatasetError, ExportError, FaceModelError, PhotoError)

# Reprojected points (n, 68, 2) and the mesh's mask (n, S, S) for squares.
Reprojection = tuple[np.ndarray, np.ndarray]


def read_squares(
    folders: Sequence[str], layout: str, count: int | None = None
) -> tuple[list[str], list[Square], list[str]]:
    """The squares of several folders, in memory.

    Args:
      folders: read one after the other.
      layout: of all of them but those like ``cfp=FOLDER``, one of `LAYOUTS`.
      count: faces of each folder, evenly spaced; None for all.

    Returns:
      the set of each square, the squares, and one sentence for each face that cannot be used.

    Raises:
      DatasetError: a folder is not of this layout, or nothing in them can be used.
    """
    names, squares, problems = [], [], []
    for folder in folders:
        faces = open_faces(*with_layout(folder, layout))
        faces = faces[:: max(1, len(faces) // count)][:count] if count else faces
        some, broken = collect(faces, read_square, partial(tqdm, unit="photo", disable=None))
        names += [_set_name(faces, square) for square in some]
        squares += some
        problems += broken
    if not squares:
        raise DatasetError(f"nothing can be used; first of {len(problems)}: {problems[0]}")
    return names, squares, problems


def _set_name(faces: FaceSet, square: Square) -> str:
    """The folder, with that inside it where a set is made of several."""
    inner = Path(square.face.name).parent
    return faces.name if faces.name.startswith("tfds:") else str(Path(faces.name) / inner)


def in_batches(function, items: Sequence[Any]) -> Reprojection:
    """`function` of lists of `BATCH` items, the last one filled up, results joined."""
    parts = []
    batches = list(index_batches(len(items), BATCH))
    for index in tqdm(batches, unit="batch", disable=None):
        parts.append(jax.device_get(function([items[i] for i in index])))
    joined = [np.concatenate(arrays)[: len(items)] for arrays in zip(*parts, strict=True)]
    return joined[0], joined[1]


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, 0, 0))
def _draw(
    model: FaceModel, params: FaceParams, jaw_slides: Array, profile: Array
) -> tuple[Array, Array]:
    vertices = shape(model, params.identity, params.expression)
    camera = Camera(params.focal_px, jnp.full(2, CENTRE))
    bone = surface_positions(vertices, model.triangles, profile_landmarks(model))
    places = jnp.where(profile, bone, landmarks3d(model, vertices))
    on_surface = project(camera, to_camera(params, places))
    sliding = project_landmarks(model, params, camera.principal_point)
    drawn = fragments_of(to_camera(params, vertices), model.triangles, camera, STORED_PX)
    neck = model.triangle_part[jnp.maximum(drawn.pix_to_face, 0)] == PARTS.index("neck")
    return jnp.where(jaw_slides, sliding, on_surface), (drawn.pix_to_face >= 0) & ~neck


def fitted(model: FaceModel, squares: Sequence[Square]) -> Reprojection:
    """The model fitted to the points, as training labels are made."""
    points = np.stack([square.points for square in squares])
    slides = np.array([square.face.jaw == "contour" for square in squares])
    profile = np.array([square.face.profile for square in squares]) & is_half(points)
    fits = fit_any(model, points, LandmarkSettings(), slides, profile)

    def some(batch: list[int]) -> tuple[Array, Array]:
        index = np.array(batch)
        params = jax.tree.map(lambda leaf: leaf[index], fits)
        return _draw(model, params, jnp.asarray(slides[index]), jnp.asarray(profile[index]))

    return in_batches(some, range(len(squares)))


def given(lp: LPModel, squares: Sequence[Square]) -> Reprojection:
    """300W-LP's model in the pose and shape of its parameters."""

    @jax.jit
    @jax.vmap
    def draw(face) -> tuple[Array, Array]:
        mask = posed_fragments(lp.model, face, STORED_PX).pix_to_face >= 0
        return posed_landmarks(lp.model, face), mask

    without = [s.face.name for s in squares if s.face.parameters is None]
    if without:
        raise DatasetError(f"{without[0]}: comes without parameters; leave out --basel")
    faces = [
        posed(lp, square.face.parameters, square.to_square)
        for square in squares
        if square.face.parameters is not None
    ]
    return in_batches(lambda batch: draw(stack(batch)), faces)


def summary(inner: np.ndarray, all68: np.ndarray) -> dict[str, Any]:
    """Mean, median and worst of errors (n,) in % of sqrt(width * height) of the landmark box."""
    return {
        "n": len(inner),
        **{
            name: {
                "mean": float(errors.mean()),
                "median": float(np.median(errors)),
                "worst": float(errors.max()),
            }
            for name, errors in (("inner", inner), ("all68", all68))
        },
    }


def tile(square: Square, projected: np.ndarray, mask: np.ndarray, caption: str) -> np.ndarray:
    """One face of the sheet, (TILE, TILE, 3) uint8 RGB."""
    zoom = TILE / STORED_PX
    picture = cv2.resize(square.image, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
    large = cv2.resize(mask.astype(np.uint8), (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    outline, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outline, -1, YELLOW, 1, cv2.LINE_AA)

    def fixed(points: np.ndarray) -> list[list[int]]:
        return np.round((zoom * (points + 0.5) - 0.5) * 16).astype(int).tolist()

    seen = np.isfinite(square.points).all(axis=-1)
    for true, found in zip(fixed(square.points[seen]), fixed(projected[seen]), strict=True):
        cv2.line(picture, true, found, WHITE, 1, cv2.LINE_AA, 4)
        cv2.circle(picture, true, 2 * 16, GREEN, -1, cv2.LINE_AA, 4)
        cv2.circle(picture, found, 28, RED, 1, cv2.LINE_AA, 4)
    for width, colour in ((3, (0, 0, 0)), (1, WHITE)):
        at = (5, TILE - 8)
        cv2.putText(
            picture, caption, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, width, cv2.LINE_AA
        )
    return picture


def sheet(squares: Sequence[Square], drawn: Reprojection, inner: np.ndarray) -> np.ndarray:
    """The worst faces, then as many others at random: up to `COLUMNS` in a row, uint8 RGB."""
    by_error = np.argsort(-inner, kind="stable")
    worst, rest = np.split(by_error, [min(COLUMNS * ROWS, len(by_error))])
    chosen = np.random.default_rng(0).permutation(rest)[: COLUMNS * ROWS]
    order = np.concatenate([worst, chosen])
    tiles = [
        tile(squares[i], drawn[0][i], drawn[1][i], f"{squares[i].face.name} {inner[i]:.2f} %")
        for i in order
    ]
    columns = min(COLUMNS, len(tiles))
    tiles += [np.zeros((TILE, TILE, 3), np.uint8)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def report(
    names: Sequence[str], squares: Sequence[Square], drawn: Reprojection, problems: Sequence[str]
) -> tuple[dict[str, Any], np.ndarray]:
    """What `labels.json` holds, and the inner error (n,) of each face."""
    true = np.stack([square.points for square in squares])
    inner, all68 = nme_percent(drawn[0], true, INNER), nme_percent(drawn[0], true)
    per_set = np.array(names)
    sets = {
        name: summary(inner[per_set == name], all68[per_set == name])
        for name in dict.fromkeys(names)
    }
    worst = [
        {"set": names[i], "name": squares[i].face.name, "inner": float(inner[i])}
        for i in np.argsort(-inner, kind="stable")[:20]
    ]
    return {"sets": sets, "worst": worst, "problems": list(problems)}, inner


def check(
    folders: Sequence[str],
    layout: str,
    out: Path,
    count: int | None = None,
    face_model: str | None = None,
    basel: str | None = None,
) -> dict[str, Any]:
    """The whole program; see the flags."""
    lp = read_lp_model(basel) if basel else None
    names, squares, problems = read_squares(folders, layout, count)
    drawn = given(lp, squares) if lp else fitted(load_face_model(face_model), squares)
    found, inner = report(names, squares, drawn, problems)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{out}: this folder cannot be made ({error.strerror})") from error
    write_json(out / "labels.json", found)
    write_png(out / "labels.png", sheet(squares, drawn, inner))
    return found


def main(_) -> None:
    values = flags.FLAGS
    try:
        found = check(
            values.photos,
            values.layout,
            Path(values.out),
            values.count,
            values.face_model,
            values.basel,
        )
    except EXPECTED as error:
        print(f"check_labels: {escaped(error)}", file=sys.stderr)
        sys.exit(1)
    for problem in found["problems"]:
        print(escaped(problem), file=sys.stderr)
    for name, scores in found["sets"].items():
        errors = ", ".join(
            f"{part} mean {e['mean']:.2f} median {e['median']:.2f} worst {e['worst']:.2f} %"
            for part, e in scores.items()
            if part != "n"
        )
        print(f"{name}: {scores['n']} faces, {errors}")


if __name__ == "__main__":
    flags.DEFINE_multi_string("photos", None, "folder of the data set", required=True)
    flags.DEFINE_enum("layout", "ibug", LAYOUTS, "how the folder is laid out")
    flags.DEFINE_integer("count", None, "faces of each folder (default: all)", lower_bound=1)
    flags.DEFINE_string("out", None, "folder for labels.json and labels.png", required=True)
    flags.DEFINE_string("face_model", None, "face model to fit (default: the embedded)")
    flags.DEFINE_string("basel", None, "folder of the Basel model: use 300W-LP's parameters")
    app.run(main)
