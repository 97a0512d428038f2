"""Makes the scores of a detector's weights probabilities, and its boxes as large as the faces.

    python -m experiments.tools.calibrate_detector --weights runs/detector/weights.safetensors \
        --photos 300w/helen/trainset --photos 300w/afw --photos cfp=cfp/train \
        --backgrounds FOLDER --out detector.safetensors

In training a face is as likely as nowhere else. Here photographs are pasted over pictures as
`precision_recall` does it, and of the boxes found those that show a face are told from the others:
by logistic regression on the logit of the score (Platt 1999). The median ratio of edges gives the
growth of the boxes. Both go into the last layer. Use photographs of the training only.
"""

from functools import partial

import numpy as np
from absl import app, flags
from scipy.optimize import minimize

from data_pipelines.faces.backgrounds import load_backgrounds
from data_pipelines.sources.layouts import open_faces, with_layout
from dfc_jax.errors import DatasetError
from dfc_jax.inference.find import FaceDetector
from dfc_jax.nets import weights
from dfc_jax.systems.detector.networks import DetectorSpec, calibrated
from experiments import launch
from experiments.tools.precision_recall import SEED, Found, found_in, pictures

MIN_SCORE = 0.02


def fitted(logit: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Gain and shift with which ``sigmoid(gain * logit + shift)`` is the probability of `right`
    (N,), by maximum likelihood."""
    # Platt's targets, with which two classes that are apart have finite answers, too.
    ones = right.sum()
    low, high = 1.0 / (len(right) - ones + 2.0), (ones + 1.0) / (ones + 2.0)
    target = np.where(right, high, low)

    def loss(factors: np.ndarray) -> float:
        says = factors[0] * logit + factors[1]
        return float(np.mean(np.logaddexp(0.0, says) - target * says))

    gain, shift = minimize(loss, np.array([1.0, 0.0])).x
    return float(gain), float(shift)


def calibrate(found: Found) -> tuple[float, float, float]:
    """Gain and shift of the logits, and growth of the edges, for `networks.calibrated`.

    Raises:
      DatasetError: no face was found, or nothing else.
    """
    if found.right.all() or not found.right.any():
        raise DatasetError("the detector finds no faces, or nothing else; train it for longer")
    score = np.clip(found.score, 1e-6, 1.0 - 1e-6)
    gain, shift = fitted(np.log(score / (1.0 - score)), found.right)
    return gain, shift, float(np.exp(-np.median(found.log_ratio[found.right])))


def define_flags() -> None:
    """Those of this program."""
    flags.DEFINE_string("weights", None, "weight file of a detector", required=True)
    flags.DEFINE_multi_string("photos", None, "annotated photographs, or LAYOUT=FOLDER")
    flags.mark_flag_as_required("photos")
    flags.DEFINE_string("backgrounds", None, "folder of pictures without faces", required=True)
    flags.DEFINE_string("out", None, "file for the calibrated weights", required=True)


def calibrate_as_told(values: flags.FlagValues) -> None:
    """`calibrate` with what the command line says."""
    variables, spec, metadata = weights.load(values.weights, DetectorSpec)
    faces = [face for given in values.photos for face in open_faces(*with_layout(given, "ibug"))]
    if not faces:
        raise DatasetError(f"{', '.join(values.photos)}: no photograph is there to be pasted")
    rng = np.random.default_rng(SEED)
    shown = pictures(faces, np.asarray(load_backgrounds(values.backgrounds)), rng)
    found = found_in(FaceDetector(values.weights, min_score=MIN_SCORE), list(shown))
    gain, shift, growth = calibrate(found)
    print(f"{len(faces)} faces, {len(found.score)} boxes, {found.right.sum()} of them right")
    print(f"logit = {gain:.3f} logit {shift:+.3f}; edges {growth:.3f} times as long")
    metadata["calibration"] = {"gain": gain, "shift": shift, "growth": growth}
    weights.save(values.out, calibrated(variables, gain, shift, growth), spec, metadata)


if __name__ == "__main__":
    define_flags()
    app.run(
        lambda _: launch.run_program(lambda: calibrate_as_told(flags.FLAGS)),
        flags_parser=partial(launch.parse_flags, example=""),
    )
