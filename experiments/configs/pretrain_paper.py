"""The paper's stage 1: tied encoders, batch 12, 1e-4, 100k pairs on grey, then 100k on pictures,
two passes each (400k pairs). Wants an accelerator.

Command: python -m experiments.pretrain --config experiments/configs/pretrain_paper.py \
    --workdir runs/pretrain_paper --backgrounds FOLDER
Expect: not known in full, no accelerator has run it. 2,000 steps on two CPU cores, shrunk to crops
of 32 pixels (`synthetic.size`), all against the template on grey at 5e-4, take the held-out error
against the template from 5.0 px (step 250) to 4.1, and the mask's IoU from 0.67 to 0.70.
"""

import ml_collections

from experiments.configs import pretrain_lite


def get_config() -> ml_collections.ConfigDict:
    config = pretrain_lite.get_config().copy_and_resolve_references().unlock()
    config.network = "paper-tied"
    config.batch = 12
    config.template_targets = 0
    config.steps = 400_000 // 12
    config.grey_background_steps = config.steps // 2
    config.learning_rate = 1e-4
    config.schedule = "constant"
    config.warmup_steps = 0
    config.weight_decay = 0.0
    config.clip_norm = 0.0
    config.ema_decay = 0.0
    config.reduction = "sum"
    config.matchability_weight = 1.0
    config.log_every = 100
    config.save_every = 2000
    return config.lock()
