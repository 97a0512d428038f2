"""Measures where each detector draws its box relative to the box of the 68 landmarks.

Prints the table `CALIBRATIONS` of `dfc_jax/inference/detect.py`. Each attempt of the Haar
detector runs alone over the photographs; the detections that show the annotated face give the
medians of scale, dx and dy. Use training photographs only.

    python -m experiments.tools.calibrate_detectors --data helen/trainset --data afw \
        --yunet yunet_n_320_320.onnx                # about ten minutes on one core
"""

from collections import defaultdict

import numpy as np
from absl import app, flags
from tqdm import tqdm

from dfc_jax.data.faces import Example
from dfc_jax.data.ibug import read_ibug
from dfc_jax.evaluation.protocols import intersection_over_union
from dfc_jax.inference import detect

_DATA = flags.DEFINE_multi_string("data", None, "Folder of annotated photographs.", required=True)
_YUNET = flags.DEFINE_string("yunet", None, "YuNet model file, to calibrate it as well.")
_EVERY = flags.DEFINE_integer("every", 1, "Use every n-th photograph.", lower_bound=1)


def detectors() -> list[detect.Detector]:
    """One detector per kind of box."""
    upright = [a for attempts in detect.HAAR_ROUNDS for a in attempts if not a.turn_deg]
    attempts = {a.kind: a for a in reversed(upright)}
    found: list[detect.Detector] = [detect.HaarDetector(rounds=((a,),)) for a in attempts.values()]
    return found + ([detect.YuNetDetector(_YUNET.value)] if _YUNET.value else [])


def measure(example: Example, detection: detect.Detection) -> tuple[float, float, float]:
    """Scale, dx and dy (see `detect.Calibration`) of one detection of an annotated face."""
    true = example.landmark_box
    size = detection.box[2:]
    offset = (true[:2] + true[2:] / 2.0 - detection.box[:2] - size / 2.0) / size
    return float(max(true[2:]) / np.sqrt(size.prod())), float(offset[0]), float(offset[1])


def main(_: list[str]) -> None:
    samples = defaultdict(list)
    searchers = detectors()
    examples = [e for folder in _DATA.value for e in read_ibug(folder)][:: _EVERY.value]
    for example in tqdm(examples):
        image, true = example.image(), example.landmark_box
        for detector in searchers:
            for detection in detector(image):
                if intersection_over_union(detection.box, true) > 0.3:
                    samples[detection.kind].append(measure(example, detection))
    for kind, rows in samples.items():
        scale, dx, dy = np.median(rows, axis=0)
        spread = np.std(rows, axis=0)
        print(f'    "{kind}": Calibration({scale:.3f}, {dx:.3f}, {dy:.3f}),', end="")
        print(f"  # {len(rows)} of {len(examples)} faces, deviation {np.round(spread, 3)}")


if __name__ == "__main__":
    app.run(main)
