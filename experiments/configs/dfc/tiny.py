"""Both stages in minutes on a laptop, to see that everything works: `lite` on crops of 64 pixels.
The weights are of no use beyond that. One config serves both programs; each reads its own fields.

Commands: python -m experiments.pretrain --config experiments/configs/dfc/tiny.py --workdir runs/a
    python -m experiments.finetune --config experiments/configs/dfc/tiny.py --workdir runs/b \
        --photos FOLDER --init runs/a/weights.safetensors
Hardware: two CPU cores; 175 and 100 seconds of processor time, most of it to compile. Where other
work took most of both cores this was eight and four minutes.
Expect: a loss that falls from 18 to 11 (pretrain) and, with 20 HELEN photographs, from 11 to 6
(finetune, held-out end-point error 6.1 px at step 100, 5.3 at step 300).
"""

import ml_collections

from experiments.configs.dfc import finetune_lite


def get_config() -> ml_collections.ConfigDict:
    config = finetune_lite.get_config().copy_and_resolve_references().unlock()
    # Of pretraining alone.
    config.template_targets = 4
    config.grey_background_steps = 0
    config.validation_pairs = 0
    # Of refinement alone.
    config.synthetic_batch = 0
    config.turned = 0
    config.held_out = 0.2
    # Of both.
    config.network = "lite-tied"
    config.steps = 300
    config.batch = 8
    config.learning_rate = 1e-3
    config.warmup_steps = 20
    config.ema_decay = 0.98
    config.best_metric = ""
    config.log_every = 20
    config.save_every = 100
    config.augment.size = 64
    config.synthetic.size = 64
    return config.lock()
