"""The segmentation `lite` on two CPU cores.

Command: python -m experiments.segmentation --config experiments/configs/segmentation/lite.py \
    --workdir runs/segmentation --photos 300w/helen/trainset --photos 300w/afw \
    --photos cfp=cfp/train --masks "fasseg=fasseg/multipose/p0[123]*.png" \
    --masks fasseg=fasseg/frontal --backgrounds FOLDER
"""

import dataclasses

import ml_collections

from data_pipelines.faces.degradation import DegradationSettings
from data_pipelines.faces.occluders import OccluderSettings
from data_pipelines.faces.synthetic import SyntheticSettings
from data_pipelines.masks.compose import MaskSettings
from data_pipelines.photos.augment import AugmentSettings
from experiments.settings import training_config


def get_config() -> ml_collections.ConfigDict:
    config = training_config(
        learning_rate=2e-3,
        steps=40000,
        batch=32,
        warmup_steps=200,
        weight_decay=1e-4,
        clip_norm=10.0,
        ema_decay=0.999,
        log_every=100,
        save_every=1000,
        best_metric="photos_loss",
    )
    config.network = "lite"
    config.edge = 1.0
    # No copies: turned photographs have no hair.
    config.turned = 0
    config.turned_deg = 0.0
    config.turned_pitch_deg = 0.0
    config.turned_expressions = 0.0
    config.held_out = 0.05
    config.rendered = 4000
    # Rendered faces, photographs, profiles, masked photographs, pictures without a face.
    config.shares = (0.35, 0.27, 0.12, 0.16, 0.1)
    # The cameras of `crops` follow.
    faces = SyntheticSettings(
        wide_yaw=0.5,
        crop_scale=1.0,
        crop_shift=0.0,
        occluders=OccluderSettings(
            box=0.0, hair=0.5, glasses=0.35, mask=0.1, objects=0.0, hand=0.0
        ),
        degradation=DegradationSettings(degraded=0.0, grey=0.0),
    )
    config.synthetic = ml_collections.ConfigDict(dataclasses.asdict(faces))
    # Crops are as wrong as those of a tracker, and more is in front of faces than in photographs.
    crops = MaskSettings(
        augment=AugmentSettings(
            scale=1.35,
            translation=0.18,
            occluders=OccluderSettings(
                box=0.15,
                hair=0.1,
                glasses=0.15,
                mask=0.12,
                hat=0.05,
                hood=0.03,
                objects=0.2,
                hand=0.35,
            ),
            degradation=DegradationSettings(exposure=0.2, contrast=0.2, degraded=0.5),
        )
    )
    config.crops = ml_collections.ConfigDict(dataclasses.asdict(crops))
    return config.lock()
