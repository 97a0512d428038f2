"""Stage 1 of `lite` on two CPU cores: pairs of synthetic faces, tied encoders.

Command: python -m experiments.pretrain --config experiments/configs/dfc/pretrain_lite.py \
    --workdir runs/pretrain_lite
Hardware: two CPU cores, 60 minutes beside other work; 0.6 s a step alone, 100 s to compile.
Expect (the network had no correction and no edges then): held-out pairs, end-point error 7.7 px and
mask IoU 0.74; against the template 4.8 px and 0.84; `dfc evaluate` on the 110 HELEN test faces
3.7 % (51 inner points). The weights `lite-synthetic` went on from there, see their model card. No
photograph takes part; --backgrounds would bring some in.
"""

import dataclasses

import ml_collections

from data_pipelines.faces.synthetic import SyntheticSettings
from experiments.settings import training_config


def get_config() -> ml_collections.ConfigDict:
    config = training_config(
        learning_rate=1e-3,
        steps=5000,
        batch=16,
        warmup_steps=100,
        weight_decay=1e-4,
        clip_norm=10.0,
        ema_decay=0.998,
        log_every=50,
        save_every=500,
        best_metric="synthetic_epe",
    )
    config.network = "lite-tied"
    config.template_targets = 8
    config.compute = "float32"
    config.norm = "l2"
    config.reduction = "mean"
    config.frame = "target"
    config.matchability_weight = 5.0
    config.grey_background_steps = 0
    config.validation_pairs = 128
    config.synthetic = ml_collections.ConfigDict(dataclasses.asdict(SyntheticSettings()))
    return config.lock()
