"""Stage 2 of the paper's network made for an accelerator: what made `lite` good (turned copies,
rendered faces mixed in, features that count more, averaged weights, cosine decay) in large batches.

Command: python -m experiments.finetune --config experiments/configs/dfc/finetune_fast.py \
    --workdir runs/finetune_fast --photos 300w/helen/trainset --photos 300w/afw \
    --backgrounds FOLDER --init runs/pretrain_fast/weights.safetensors
Hardware: as `pretrain_fast`.
Expect: not known in full, no accelerator has run it. From the short run that `pretrain_fast`
describes, 2,400 steps of 12 and 1 (float32, crops of 64 pixels by `augment.size` and
`synthetic.size`) take the flow's error on 160 held-out photographs from 2.73 px (step 200) to 2.01
and landmarks from 6.0 to 4.6 %, falling at each of 12 evaluations.
"""

import ml_collections

from experiments.configs.dfc import finetune_lite


def get_config() -> ml_collections.ConfigDict:
    config = finetune_lite.get_config().copy_and_resolve_references().unlock()
    config.network = "paper-wide"
    config.batch = 256
    config.synthetic_batch = 32
    config.resident = True
    config.steps = 8000
    config.learning_rate = 3e-4
    config.compute = "bfloat16"
    return config.lock()
