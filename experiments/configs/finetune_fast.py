"""Stage 2 of the paper's network made for an accelerator: what made `lite` good (turned copies,
rendered faces mixed in, features that count more, averaged weights, cosine decay) in large batches.

Command: python -m experiments.finetune --config experiments/configs/finetune_fast.py \
    --workdir runs/finetune_fast --photos 300w/helen/trainset --photos 300w/afw \
    --backgrounds FOLDER --init runs/pretrain_fast/weights.safetensors
Hardware: as `pretrain_fast`.
Expect: not known yet, no accelerator has run it.
"""

import ml_collections

from experiments.configs import finetune_lite


def get_config() -> ml_collections.ConfigDict:
    config = finetune_lite.get_config().copy_and_resolve_references().unlock()
    config.network = "paper-wide"
    config.batch = 256
    config.synthetic_batch = 32
    config.steps = 8000
    config.learning_rate = 3e-4
    config.compute = "bfloat16"
    return config.lock()
