"""The segmentation `lite` on two CPU cores, from rendered faces alone.

Command: python -m experiments.segmentation --config experiments/configs/segmentation/lite.py \
    --workdir runs/segmentation
"""

import dataclasses

import ml_collections

from data_pipelines.faces.occluders import OccluderSettings
from data_pipelines.faces.synthetic import SyntheticSettings
from experiments.settings import training_config


def get_config() -> ml_collections.ConfigDict:
    config = training_config(
        learning_rate=2e-3,
        steps=20000,
        batch=32,
        warmup_steps=200,
        weight_decay=1e-4,
        clip_norm=10.0,
        ema_decay=0.999,
        log_every=100,
        save_every=1000,
        best_metric="synthetic_loss",
    )
    config.network = "lite"
    config.edge = 1.0
    config.validation_faces = 64
    # More is in front of faces here than where flow is learnt, and half of them are turned away.
    occluders = OccluderSettings(box=0.2, hair=0.5, glasses=0.35, mask=0.15, objects=0.2, hand=0.3)
    faces = SyntheticSettings(wide_yaw=0.5, occluders=occluders)
    config.synthetic = ml_collections.ConfigDict(dataclasses.asdict(faces))
    return config.lock()
