"""Move the face model's 51 inner landmarks to where annotators put them.

    python -m experiments.tools.calibrate_landmarks --photos 300w/helen/trainset --photos 300w/afw

The landmark vertices of the face model and the habit of the annotators of photographs differ by
a constant, small offset per landmark. Fit the model to annotated photographs, take the median of
what is left over per landmark, move the landmark by that over the surface, and repeat. Left and
right are averaged. With --weights, a network trained with the model as it is first shows how far
all points lie to one side, and they are moved by that, too. Never run it on photographs that are
kept for validation. About three minutes on two cores for 1,200 photographs.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

import dfc_jax
from data_pipelines.photos.labels import fit_points
from data_pipelines.photos.squares import STORED_PX, stored_square
from dfc_jax.crops import apply_affine
from dfc_jax.data.faces import Example
from dfc_jax.data.ibug import read_ibug
from dfc_jax.evaluation.metrics import nme_percent
from dfc_jax.fitting import LandmarkSettings, project_landmarks
from dfc_jax.inference.align import Aligner
from dfc_jax.landmarks68 import INNER, MIRROR, N_JAW
from dfc_jax.morphable.file import load_face_model, save_face_model
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d
from dfc_jax.types import SurfacePoints
from experiments.tools.build_face_model import nearest_surface

FRONTAL_LIMIT_RAD = 0.45
LOWER_LIP = (*range(55, 60), *range(65, 68))
UPPER_LIP = (*range(49, 54), *range(61, 64))
MOUTH_CORNERS = (48, 54, 60, 64)


def leftover_mm(model: FaceModel, points: np.ndarray, settings: LandmarkSettings):
    """Median displacement (68, 2) from projected to annotated points, in the mean face's x and y
    (millimetres, left-right averaged), and the mean error (NME at the inner points, %)."""
    fits = fit_points(model, points, settings)
    centre = jnp.full(2, (STORED_PX - 1) / 2.0)
    projected = np.asarray(
        jax.jit(jax.vmap(lambda params: project_landmarks(model, params, centre)))(fits.params)
    )
    residual = points - projected
    frontal = np.linalg.norm(np.asarray(fits.params.rotation), axis=1) < FRONTAL_LIMIT_RAD
    offset = median_offset_mm(model, projected[frontal], residual[frontal])
    mirrored = offset[MIRROR] * [-1.0, 1.0]
    return (offset + mirrored) / 2.0, nme_percent(projected, points, INNER).mean()


def median_offset_mm(model: FaceModel, seen: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Median (68, 2) over n faces of the displacements `residual` (n, 68, 2) from landmarks `seen`
    (n, 68, 2) in images, in the mean face's x and y (millimetres)."""
    reference = np.asarray(landmarks3d(model, model.mean_mm))[INNER, :2]
    reference = np.column_stack([reference, np.ones(len(reference))])
    offsets = []
    for image, left in zip(seen, residual, strict=True):
        # The affine map from the mean face to the image takes image offsets back to the model.
        affine = np.linalg.lstsq(reference, image[INNER], rcond=None)[0][:2]
        offsets.append(left @ np.linalg.inv(affine))
    return np.median(offsets, axis=0)


def sideways_mm(model: FaceModel, aligner: Aligner, examples: Sequence[Example]) -> float:
    """How far annotators put the inner landmarks towards the face's left, the image's right.

    A fit to their points cannot show a displacement of all of them. A network can that was
    trained on as many mirrored as plain pictures, for it has no side of its own.
    """
    seen, residual = [], []
    for example in tqdm(examples, unit="photo", disable=None):
        for face in aligner(example.image(), boxes=[example.landmark_box]):
            if abs(face.angles_deg["yaw"]) < np.rad2deg(FRONTAL_LIMIT_RAD):
                seen.append(face.landmarks)
                residual.append(example.points - face.landmarks)
    offset = median_offset_mm(model, np.stack(seen), np.stack(residual))
    return float(offset[INNER, 0].mean())


def allowed_triangles(model: FaceModel, landmark: int) -> np.ndarray:
    """Triangles (T,) bool that may carry a landmark: no eyeball, and not the other lip."""
    part = np.asarray(model.triangle_part)
    skin = part != PARTS.index("eyes")
    jaw = np.asarray(model.expression_mm[..., model.expression_names.index("jawOpen")])
    drop = -jaw[np.asarray(model.triangles), 1].mean(axis=1)
    if landmark in LOWER_LIP:
        return skin & (drop > 8.0)
    if landmark in UPPER_LIP:
        return skin & (drop < 8.0)
    return skin


def move_landmarks(model: FaceModel, offset_mm: np.ndarray) -> FaceModel:
    """The model with its inner landmarks moved by offsets (68, 2) over the mean surface."""
    vertices, triangles = np.asarray(model.mean_mm, np.float64), np.asarray(model.triangles)
    position = np.asarray(landmarks3d(model, model.mean_mm), np.float64)
    triangle = np.array(model.landmarks.triangle)
    barycentric = np.array(model.landmarks.barycentric)
    for k in range(N_JAW, len(position)):
        index = np.flatnonzero(allowed_triangles(model, k))
        target = position[k] + [*offset_mm[k], 0.0]
        found, weights = nearest_surface(target[None], vertices, triangles[index])
        triangle[k], barycentric[k] = index[found[0]], weights[0]
    return dataclasses.replace(
        model, landmarks=SurfacePoints(jnp.asarray(triangle), jnp.asarray(barycentric, jnp.float32))
    )


def main(_) -> None:
    model = load_face_model(flags.FLAGS.face_model)
    examples = [example for folder in flags.FLAGS.photos for example in read_ibug(folder)]
    points = np.stack(
        [apply_affine(stored_square(e.points).to_crop, e.points) for e in examples]
    ).astype(np.float32)
    settings = LandmarkSettings()
    if flags.FLAGS.weights:
        # Before the rounds, for the network's landmarks are those of the model that it came with.
        aligner = dfc_jax.load(flags.FLAGS.weights, face_model=flags.FLAGS.face_model)
        sideways = sideways_mm(model, aligner, examples)
        print(f"annotators put the landmarks {sideways:.2f} mm to the image's right")
        model = move_landmarks(model, np.tile([sideways, 0.0], (len(points[0]), 1)))
    for number in range(flags.FLAGS.rounds):
        offset, error = leftover_mm(model, points, settings)
        length = np.linalg.norm(offset[INNER], axis=1)
        print(
            f"round {number}: fit leaves {error:.3f} % of the box; offsets of the landmarks: "
            f"mean {length.mean():.2f} mm, largest {length.max():.2f} mm"
        )
        model = move_landmarks(model, offset)
    _, error = leftover_mm(model, points, settings)
    print(f"after {flags.FLAGS.rounds} rounds: fit leaves {error:.3f} %")
    save_face_model(flags.FLAGS.out, dataclasses.replace(model, version=flags.FLAGS.version))


if __name__ == "__main__":
    flags.DEFINE_multi_string("photos", None, "folder with .jpg and .pts files", required=True)
    flags.DEFINE_string("face_model", None, "face model to start from (default: the embedded)")
    flags.DEFINE_string("out", "dfc_jax/assets/face_model.npz", "file to write")
    flags.DEFINE_string("version", "ict-light-6k-1-ibug", "version name to write")
    flags.DEFINE_integer("rounds", 3, "rounds of fitting and moving")
    flags.DEFINE_string("weights", None, "network that shows how far all points lie to one side")
    app.run(main)
