"""Stage 1 of the paper's network made for an accelerator: large batches, bfloat16 arithmetic with
float32 state, warm-up and cosine decay, averaged weights, ten steps per call, a wide tail.

Command: python -m experiments.pretrain --config experiments/configs/dfc/pretrain_fast.py \
    --workdir runs/pretrain_fast --backgrounds FOLDER
Hardware: one accelerator with 80 GB or more; several work as they are. On less memory halve
config.batch and config.learning_rate and double config.steps.
    By XLA's count (`experiments.bench --suite train`, float32, batch 8, two CPU cores) a pair takes
    11.6 GFLOP and moves 540 MB: rendering 0.2 GFLOP and 107 MB; the network 3.8 forward, 11.4 and
    350 MB with its gradient; the optimizer 72 MB, which larger batches share. In refinement, whose
    target is one picture, a photograph takes 10.5 GFLOP. 89 % of its step, and 83 % of a pair's,
    are the network's. So 5,000 pairs a second need 58 TFLOP/s.
Expect: not known in full, no accelerator has run it; 4 million pairs, ten times the paper's. In a
short run on a CPU core (crops of 64 pixels by `synthetic.size`, 4,500 steps of 12 in float32, 8 of
them against the template) the held-out error against the template falls at each of 18 evaluations,
from 9.4 px to 4.6, between pairs from 12.0 to 7.4, and the mask's IoU rises from 0.70 to 0.78.
"""

import ml_collections

from experiments.configs.dfc import pretrain_lite


def get_config() -> ml_collections.ConfigDict:
    config = pretrain_lite.get_config().copy_and_resolve_references().unlock()
    config.network = "paper-wide-tied"
    config.batch = 1024
    config.template_targets = 256
    config.steps = 4000
    config.steps_per_call = 10
    config.learning_rate = 5e-4
    config.warmup_steps = 400
    config.ema_decay = 0.998
    config.compute = "bfloat16"
    config.log_every = 50
    config.save_every = 500
    config.validation_pairs = 512
    return config.lock()
