"""The paper's stage 1: tied encoders, batch 12, 1e-4, 100k pairs on grey, then 100k on pictures,
two passes each (400k pairs). Wants an accelerator.

Command: python -m experiments.pretrain --config experiments/configs/dfc/pretrain_paper.py \
    --workdir runs/pretrain_paper --backgrounds FOLDER
Expect: not known in full, no accelerator has run it. In a short run on a CPU core (crops of 64
pixels by `synthetic.size`, 2,000 steps, all against the template, grey, 5e-4, averaged over 100
steps) the held-out error against the template falls from 10.1 px (step 250) to 6.4, between pairs
from 12.8 to 10.5, and the mask's IoU rises from 0.69 to 0.73.
"""

import ml_collections

from experiments.configs.dfc import pretrain_lite


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
