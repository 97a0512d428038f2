"""Stage 2 of `base` made for an accelerator, from fresh weights: photographs and rendered faces to
the template at once, a constant rate, averaged weights and a fall of the rate at the end.

Command: python -m experiments.finetune --config experiments/configs/dfc/finetune_base.py \
    --workdir runs/finetune_base --photos 300w/helen/trainset --photos 300w/afw \
    --photos cfp=cfp/train --backgrounds FOLDER
Hardware: one accelerator with 20 GB or more.
Expect: the weights `base` are those of a run of `config.minutes` 9.2, of which labels, turned
copies and compilation took 3.1, and of `config.decay_minutes` 3.2, on one H200 with jax 0.11.2:
4,020 steps, 868,000 examples. The flow's error in the loss stood at 4.8 px until the rate fell, and
was 3.1 px at the end, still falling: a lower rate and more steps will do better. The step took 27
ms at first and 100 ms later, which has been mended since (`sample_features`): that of `lite` stays
as quick as it starts.
"""

import ml_collections

from experiments.configs.dfc import finetune_lite_accelerator


def get_config() -> ml_collections.ConfigDict:
    config = finetune_lite_accelerator.get_config().copy_and_resolve_references().unlock()
    config.network = "base"
    config.batch = 192
    config.synthetic_batch = 24
    config.turned = 5
    config.turned_share = 0.5
    config.eyes_mouth_gain = 6.0
    config.steps = 40000
    config.learning_rate = 1.3e-3
    config.schedule = "constant"
    config.warmup_steps = 500
    config.decay_steps = 14000
    return config.lock()
