"""Stage 1 of the paper's network made for an accelerator: large batches, bfloat16 arithmetic with
float32 state, warm-up and cosine decay, averaged weights, ten steps per call, a wide tail.

Command: python -m experiments.pretrain --config experiments/configs/dfc/pretrain_fast.py \
    --workdir runs/pretrain_fast --backgrounds FOLDER
Hardware: one accelerator with 20 GB or more (the step's arrays take 12); several work as they are.
On less memory halve config.batch and double config.steps. Measured on one H200 with jax 0.11.2, of
`paper-tied`, half of the pairs against the template: 59 ms for a step of 512, 8,600 pairs a second
(in steps of 256: 33 ms, 7,800), so that 400,000 pairs, the paper's first stage, take 47 seconds.
The device is busy for 99 % of that: 28 % render, 24 % are the network forward, 45 % its gradient.
    By XLA's count (`experiments.bench --suite train`, of `paper-wide`, float32, batch 8, two CPU
    cores) a pair takes 11.6 GFLOP and moves 540 MB: rendering 0.2 GFLOP and 107 MB; the network 3.8
    forward, 11.4 and 350 MB with its gradient; the optimizer 72 MB, which larger batches share.
Expect: not known in full, only 23 seconds of it were run there, which is too few: the flow's error
in the loss, 23 px at first, was at 17 px and falling. 4 million pairs, ten times the paper's, are
eight minutes. In a short run on a CPU core (crops of 64 pixels by `synthetic.size`, 4,500 steps of
12 in float32, 8 of them against the template) the held-out error against the template falls at each
of 18 evaluations, from 9.4 px to 4.6, between pairs from 12.0 to 7.4, and the mask's IoU rises from
0.70 to 0.78.
"""

import ml_collections

from experiments.configs.dfc import pretrain_lite


def get_config() -> ml_collections.ConfigDict:
    config = pretrain_lite.get_config().copy_and_resolve_references().unlock()
    config.network = "paper-wide-tied"
    config.batch = 512
    config.template_targets = 256
    config.steps = 8000
    config.steps_per_call = 10
    config.learning_rate = 5e-4
    config.warmup_steps = 200
    config.ema_decay = 0.998
    config.compute = "bfloat16"
    config.log_every = 100
    config.save_every = 1000
    config.validation_pairs = 512
    return config.lock()
