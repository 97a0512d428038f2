"""Measures where dlib's detector draws its rectangle around our landmarks.

    python -m experiments.tools.calibrate_starts --photos 300w/helen/trainset --photos 300w/afw

Prints `LANDMARKS` and `BOX` of `experiments.starts`, with standard deviations: the medians over the
faces that both find, in the photograph turned upright by our pose. Use training photographs only.
A quarter of an hour on two cores.
"""

import numpy as np
from absl import app, flags
from tqdm import tqdm

import dfc_jax
from dfc_jax.crops import apply_affine, box_of_points, crop_photo, tilt_deg
from dfc_jax.data.faces import Example
from dfc_jax.data.ibug import read_ibug
from dfc_jax.evaluation.protocols import align_examples
from dfc_jax.inference.detect import Calibration
from dfc_jax.inference.face import Face
from experiments import launch
from experiments.starts import (
    Dlib,
    Peer,
    best_rectangle,
    box_extent,
    calibration_of,
    extent,
    upright_crop,
)


def measured(peer: Peer, example: Example, face: Face) -> list[Calibration] | None:
    """How our landmarks of a face, and their box, lie in the rectangle of its own detector, in the
    upright picture; None without one."""
    crop = upright_crop(face.landmarks, float(tilt_deg(face.rotation)))
    picture = np.round(255.0 * crop_photo(example.image(), crop)).astype(np.uint8)
    landmarks = apply_affine(crop.to_crop, face.landmarks)
    box = box_of_points(landmarks)
    rectangle = best_rectangle(peer.rectangles(picture), box)
    if rectangle is None:
        return None
    return [calibration_of(*each, rectangle) for each in (extent(landmarks), box_extent(box))]


def calibrate(folders: list[str], weights: str | None) -> None:
    peer, aligner = Dlib(), dfc_jax.load(weights)
    examples = [example for folder in folders for example in read_ibug(folder)]
    results = align_examples(aligner, examples, aligner.detector)
    rows = []
    for example, face in zip(tqdm(examples, unit="face"), results, strict=True):
        found = measured(peer, example, face) if isinstance(face, Face) else None
        rows.extend([found] if found else [])
    print(f"{len(rows)} of {len(examples)} faces")
    medians, spread = np.median(rows, axis=0), np.std(rows, axis=0)
    for name, median, deviation in zip(("LANDMARKS", "BOX"), medians, spread, strict=True):
        print(f"{name} = {Calibration(*median.round(3).tolist())}, deviation {deviation.round(3)}")


def main(_: list[str]) -> None:
    values = flags.FLAGS
    launch.run_program(lambda: calibrate(values.photos, values.weights))


if __name__ == "__main__":
    flags.DEFINE_multi_string("photos", None, "folder of annotated photographs", required=True)
    flags.DEFINE_string("weights", None, "name of weights or a file")
    app.run(main)
