"""Stage 2 of `lite` on two CPU cores: photographs and some rendered faces to the template, untied
encoders.

Command: python -m experiments.finetune --config experiments/configs/dfc/finetune_lite.py \
    --workdir runs/finetune_lite --photos 300w/helen/trainset --photos 300w/afw \
    --photos cfp=cfp/train --backgrounds FOLDER --init runs/pretrain_lite/weights.safetensors
Hardware: two CPU cores; 0.4 s a step, 0.7 s beside other work, after four minutes for labels and
turned copies. A training that goes on for as long as there is time, and is continued later, has
`--config.schedule=constant` and ends by the clock (`config.minutes`, `config.decay_minutes`).
Expect: the weights `lite` took hours of this from `lite-synthetic`, see their model card;
`finetune_lite_accelerator` gets as far in minutes.
"""

import dataclasses

import ml_collections

from data_pipelines.faces.synthetic import SyntheticSettings
from data_pipelines.photos.augment import AugmentSettings
from experiments.settings import training_config


def get_config() -> ml_collections.ConfigDict:
    config = training_config(
        learning_rate=2e-4,
        steps=12500,
        batch=16,
        warmup_steps=50,
        weight_decay=1e-4,
        clip_norm=10.0,
        ema_decay=0.999,
        log_every=100,
        save_every=500,
        best_metric="held_out_nme",
    )
    config.network = "lite"
    config.synthetic_batch = 1
    config.turned = 1
    config.turned_deg = 90.0
    config.turned_pitch_deg = 30.0
    # Share of the copies that calm down, and of those that close their eyes.
    config.turned_expressions = 0.35
    config.turned_share = 0.35
    # 0 draws every square once an epoch, 1 as many from each bin of |yaw|.
    config.yaw_balance = 0.0
    config.feature_gain = 3.0
    config.eyes_mouth_gain = 12.0
    config.resident = False
    config.compute = "float32"
    config.norm = "l2"
    config.reduction = "mean"
    config.frame = "target"
    config.matchability_weight = 5.0
    # Photographs for scores: below 1 a share of them, at most 40; from 1 on their number.
    config.held_out = 0.1
    config.augment = ml_collections.ConfigDict(dataclasses.asdict(AugmentSettings()))
    config.synthetic = ml_collections.ConfigDict(dataclasses.asdict(SyntheticSettings()))
    return config.lock()
