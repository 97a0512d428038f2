"""The detector `small` on two CPU cores.

Command: python -m experiments.detector --config experiments/configs/detector/small.py \
    --workdir runs/detector --photos 300w/helen/trainset --photos 300w/afw \
    --photos cfp=cfp/train --backgrounds FOLDER
Hardware: two CPU cores; 0.36 s a step, 170 scenes a second, after two minutes for patches.
Expect: after 9,618 steps (with `--config.schedule=constant`, the rate falling to zero over the last
half) and 9,096 more like them from there (`--init`, `--alarms_of`) a held-out loss of 2.24, and,
calibrated, of 110 test photographs of HELEN all found, of 200 profiles of CFP 191, of 182 heads of
FASSEG all, and a face in 55 of 598 pictures without one, of which the aligner leaves 6.
"""

import dataclasses

import ml_collections

from data_pipelines.faces.synthetic import SyntheticSettings
from data_pipelines.scenes.compose import SceneSettings
from experiments.settings import training_config


def get_config() -> ml_collections.ConfigDict:
    config = training_config(
        learning_rate=1e-2,
        steps=40000,
        batch=64,
        warmup_steps=200,
        weight_decay=1e-4,
        clip_norm=10.0,
        ema_decay=0.999,
        log_every=200,
        save_every=2000,
        best_metric="held_out_loss",
    )
    config.network = "small"
    config.turned = 1
    config.turned_deg = 90.0
    config.turned_pitch_deg = 30.0
    config.turned_expressions = 0.35
    config.held_out = 0.1
    config.rendered = 6000
    # Frontal faces, profiles, turned ones, covered ones, rendered ones, no faces, false alarms.
    config.shares = (0.17, 0.24, 0.12, 0.1, 0.08, 0.19, 0.1)
    config.scenes = ml_collections.ConfigDict(dataclasses.asdict(SceneSettings()))
    faces = SyntheticSettings(wide_yaw=0.6, roll_deg=10.0, wide_roll=0.0, textured=0.0)
    config.synthetic = ml_collections.ConfigDict(dataclasses.asdict(faces))
    return config.lock()
