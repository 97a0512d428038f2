"""Stage 2 of `base` made for an accelerator, from fresh weights: photographs and rendered faces to
the template at once, a constant rate, averaged weights and a fall of the rate at the end.

Command: python -m experiments.finetune --config experiments/configs/dfc/finetune_base.py \
    --workdir runs/finetune_base --photos 300w/helen/trainset --photos 300w/afw \
    --backgrounds FOLDER
"""

import ml_collections

from experiments.configs.dfc import finetune_lite


def get_config() -> ml_collections.ConfigDict:
    config = finetune_lite.get_config().copy_and_resolve_references().unlock()
    config.network = "base"
    config.batch = 256
    config.synthetic_batch = 32
    config.turned = 4
    config.resident = True
    config.compute = "bfloat16"
    config.steps = 14000
    config.steps_per_call = 20
    config.learning_rate = 1.5e-3
    config.schedule = "constant"
    config.warmup_steps = 500
    config.decay_steps = 5000
    config.log_every = 100
    config.save_every = 2000
    return config.lock()
