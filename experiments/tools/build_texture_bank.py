"""Make a bank of skin textures from annotated photographs.

    python -m experiments.tools.build_texture_bank --photos 300w/afw --photos 300w/helen/trainset \
        --out bank.npz --light light.npz

Fits the face model to the 68 points of each photograph, samples the skin, divides the light out,
masks what covers the face, and keeps what passes `verdict`, best first. Beside the bank a contact
sheet of the same name (``bank.png``) shows photograph, texture and renders in new light. `--light`
writes the lights of the photographs as a prior for the generator. Banks show people: they belong
to whoever may use the photographs. About half a second a photograph on two idle cores.
"""

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

from data_pipelines.faces.light import LightPrior, save_light_prior
from data_pipelines.faces.textures import (
    Atlas,
    Extracted,
    TextureBank,
    extract,
    make_atlas,
    save_texture_bank,
)
from data_pipelines.photos.labels import fit_points, index_batches
from data_pipelines.photos.squares import STORED_PX, stored_square
from dfc_jax.camera import crop_camera, to_camera
from dfc_jax.crops import apply_affine, crop_photo
from dfc_jax.data.faces import Example
from dfc_jax.data.ibug import read_ibug
from dfc_jax.errors import DatasetError, ExportError, FaceModelError, PhotoError
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.files import escaped
from dfc_jax.fitting import LandmarkSettings, project_landmarks
from dfc_jax.landmarks68 import INNER
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.photo import write_png
from dfc_jax.raster import render
from dfc_jax.systems.dfc.template import frontal_params
from dfc_jax.types import Array, FaceParams

EXPECTED = (DatasetError, ExportError, FaceModelError, PhotoError)
# Pixels of the squares that textures are sampled from; photographs for training keep fewer.
SQUARE_PX = 2 * STORED_PX
BATCH = 8
# A face narrower than this in the photograph has no detail to give.
SMALLEST_FACE_PX = 90.0
LIGHT_DIRECTIONS = 12
# Spherical harmonics that change sign when left and right are exchanged: x, xy, xz.
ODD = np.array([3, 4, 7])
SHEET_PX, SHEET_ROWS, SHEET_COLUMNS = 144, 12, 3


class Found(NamedTuple):
    """What is kept of one photograph: its name, a small picture, and what was extracted."""

    name: str
    thumbnail: np.ndarray
    extracted: Extracted
    quality: float


def read_square(example: Example) -> tuple[np.ndarray, np.ndarray, float]:
    """Square (H, H, 3) uint8, its 68 points (68, 2), and the face's width in photo pixels.

    Raises:
      PhotoError: the photograph cannot be read.
      DatasetError: its points span no face.
    """
    try:
        crop = dataclasses.replace(stored_square(example.points), size=SQUARE_PX)
    except ValueError as error:
        raise DatasetError(f"{example.photo}: its 68 points span no face ({error})") from error
    image = crop_photo(example.image(), crop)
    points = apply_affine(crop.to_crop, example.points).astype(np.float32)
    width = example.landmark_box[2]
    return np.round(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8), points, float(width)


def fit_squares(model: FaceModel, points: np.ndarray) -> tuple[FaceParams, np.ndarray]:
    """The model fitted to points (N, 68, 2) in pixels of the squares, and its NME (N,) at the
    inner points, %."""
    scale = SQUARE_PX / STORED_PX
    stored = ((points + 0.5) / scale - 0.5).astype(np.float32)
    params = fit_points(model, stored, LandmarkSettings(), batch=4 * BATCH).params
    centre = jnp.full(2, (STORED_PX - 1) / 2.0)
    project = jax.jit(jax.vmap(lambda p: project_landmarks(model, p, centre)))
    error = nme_percent(np.asarray(project(params)), stored, INNER)
    return dataclasses.replace(params, focal_px=scale * params.focal_px), error


@jax.jit
def _extract_batch(
    model: FaceModel, atlas: Atlas, params: FaceParams, images: Array, points: Array
) -> Extracted:
    def one(params: FaceParams, image: Array, points: Array) -> Extracted:
        found = extract(model, atlas, params, image.astype(jnp.float32) / 255.0, points)
        return found._replace(texture=jnp.round(255.0 * found.texture).astype(jnp.uint8))

    return jax.vmap(one)(params, images, points)


def verdict(found: Extracted, error: float, width_px: float) -> str | None:
    """Why a texture is not kept, None for a good one."""
    reasons = {
        "the model does not fit the points": error > 3.0,
        "the face is too small": width_px < SMALLEST_FACE_PX,
        "too little of the face is seen": found.seen_share < 0.45,
        "the picture has no colour": found.colorfulness < 0.08,
        "the light is hard": found.residual > 0.17,
        "the light is coloured": found.colorfulness > 0.9,
        "glasses or hair over the eyes": found.glasses_share > 0.18,
        "something covers the face": found.covered_share > 0.25,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def quality(found: Extracted, error: float, width_px: float) -> float:
    """In [0, 1]: how much is seen, how well light explains it, how well it fits, how fine it is."""
    seen = float(found.seen_share * (1.0 - found.covered_share))
    fine = min(1.0, width_px / (SQUARE_PX / 2.0))
    return seen * fine * float(np.exp(-4.0 * found.residual - 0.1 * error))


def readable(examples: Sequence[Example]) -> Iterator[tuple[Example, tuple]]:
    """The examples that can be read, with their squares; the others are named on stderr."""
    for example in examples:
        try:
            yield example, read_square(example)
        except (PhotoError, DatasetError) as problem:
            tqdm.write(f"left out: {problem}", file=sys.stderr)


def collect(model: FaceModel, atlas: Atlas, examples: Sequence[Example]) -> tuple[list[Found], int]:
    """What the good photographs give, and how many could be read; says why others are dropped.

    Raises:
      DatasetError: no photograph can be read.
    """
    dropped: Counter[str] = Counter()
    found: list[Found] = []
    batch: list[tuple] = []
    n_read = 0
    for number, item in enumerate(readable(tqdm(examples)), start=1):
        batch.append(item)
        n_read = number
        if len(batch) == 4 * BATCH:
            found += _collect_batch(model, atlas, batch, dropped)
            batch = []
    if batch:
        found += _collect_batch(model, atlas, batch, dropped)
    if not n_read:
        raise DatasetError("none of the photographs can be read; see the lines above")
    for reason, n in dropped.most_common():
        print(f"dropped {n:4d}: {reason}")
    return found, n_read


def _collect_batch(
    model: FaceModel, atlas: Atlas, batch: list[tuple], dropped: Counter[str]
) -> list[Found]:
    images, points = (np.stack([square[k] for _, square in batch]) for k in (0, 1))
    params, errors = fit_squares(model, points)
    found = []
    for index in index_batches(len(batch), BATCH):
        some = jax.tree.map(lambda a, index=index: a[index], params)
        results = jax.device_get(_extract_batch(model, atlas, some, images[index], points[index]))
        for row, k in enumerate(np.unique(index)):
            one = jax.tree.map(lambda a, row=row: a[row], results)
            (example, (image, _, width)), error = batch[k], float(errors[k])
            reason = verdict(one, error, width)
            if reason is not None:
                dropped[reason] += 1
                continue
            small = cv2.resize(image, (SHEET_PX, SHEET_PX), interpolation=cv2.INTER_AREA)
            found.append(Found(example.photo.name, small, one, quality(one, error, width)))
    return found


def light_prior(lights: np.ndarray) -> LightPrior:
    """Gaussian of lights (N, 9, 3), as likely from the left as from the right."""
    other = lights.copy()
    other[:, ODD] *= -1.0
    rows = np.concatenate([lights, other]).reshape(-1, 27)
    mean = rows.mean(axis=0)
    _, values, directions = np.linalg.svd(rows - mean, full_matrices=False)
    components = (directions.T * values / np.sqrt(len(rows)))[:, :LIGHT_DIRECTIONS]
    return LightPrior(mean=jnp.asarray(mean), components=jnp.asarray(components))


# Frontal, and from the subject's left: (pose in degrees, spherical harmonics).
_VIEWS = (((0.0, 0.0, 0.0), {0: 2.7, 2: -0.8}), ((-35.0, 0.0, 0.0), {0: 2.3, 3: 1.2, 2: -0.5}))


def contact_sheet(model: FaceModel, found: Sequence[Found]) -> np.ndarray:
    """Photograph, texture (unknown texels dim) and two renders of textures spread over the bank."""
    params = frontal_params(model, SHEET_PX)
    camera = crop_camera(params, SHEET_PX)

    @jax.jit
    def draw(texture: Array, rotation: Array, sh: Array) -> Array:
        turned = dataclasses.replace(params, rotation=rotation)
        vertices = to_camera(turned, model.mean_mm)
        return render(
            vertices, model.triangles, camera, SHEET_PX, uv=model.uv, texture=texture, sh=sh
        ).rgb

    n = min(len(found), SHEET_ROWS * SHEET_COLUMNS)
    strips = []
    for k in np.linspace(0, len(found) - 1, n).round().astype(int):
        texture, known = found[k].extracted.texture, found[k].extracted.known
        dimmed = np.where(known[..., None], texture, texture // 3)
        cells = [found[k].thumbnail, cv2.resize(dimmed, (SHEET_PX, SHEET_PX))]
        for angles, terms in _VIEWS:
            sh = np.zeros((9, 3), np.float32)
            for index, value in terms.items():
                sh[index] = value
            image = draw(texture / np.float32(255.0), angles_to_rotvec(jnp.array(angles)), sh)
            cells.append(np.round(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8))
        strips.append(np.concatenate(cells, axis=1))
    strips += [np.zeros_like(strips[0])] * (-n % SHEET_COLUMNS)
    rows = [strips[i : i + SHEET_COLUMNS] for i in range(0, len(strips), SHEET_COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def build(
    model: FaceModel, folders: Sequence[str], size: int, count: int | None
) -> tuple[TextureBank, list[Found]]:
    """The bank of some folders, and what its textures were made from, in the same order.

    Raises:
      DatasetError: a folder cannot be used, or no photograph gives a texture.
    """
    examples = [example for folder in folders for example in read_ibug(folder)]
    found, n_read = collect(model, make_atlas(model, size), examples)
    if not found:
        raise DatasetError(
            f"{', '.join(folders)}: none of {n_read} photographs gives a good texture; use larger "
            "colour photographs of uncovered faces"
        )
    found = sorted(found, key=lambda f: f.quality, reverse=True)
    print(f"kept {len(found[:count])} of {len(found)} good textures from {len(examples)} faces")
    found = found[:count]
    bank = TextureBank(
        textures=np.stack([f.extracted.texture for f in found]),
        known=np.stack([f.extracted.known for f in found]),
        quality=np.array([f.quality for f in found], np.float32),
        face_model=model.version,
    )
    return bank, found


def main(_) -> None:
    values = flags.FLAGS
    out = Path(values.out)
    try:
        model = load_face_model(values.face_model)
        bank, found = build(model, values.photos, values.size, values.count)
        save_texture_bank(out, bank)
        write_png(out.with_suffix(".png"), contact_sheet(model, found))
        if values.light is not None:
            lights = np.stack([f.extracted.light for f in found])
            save_light_prior(values.light, light_prior(lights))
    except EXPECTED as error:
        print(f"build_texture_bank: {escaped(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_multi_string("photos", None, "folder with .jpg and .pts files", required=True)
    flags.DEFINE_string("out", None, "the bank to write, .npz", required=True)
    flags.DEFINE_string("light", None, "also write the photographs' lights as a prior, .npz")
    flags.DEFINE_integer("size", 256, "texels along an edge", lower_bound=32)
    flags.DEFINE_integer("count", None, "keep this many, the best", lower_bound=1)
    flags.DEFINE_string("face_model", None, "face model (default: the embedded)")
    app.run(main)
