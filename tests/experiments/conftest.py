"""Fixtures of the tests of the programs."""

import pytest
from tiny import SPECS, noise_batch, noise_pair

from dfc_jax.systems.dfc import networks
from dfc_jax.training import run as run_module
from experiments import finetune, pretrain


@pytest.fixture(scope="module")
def patched():
    """The tiny networks have names, faces are noise, and a loss that was compiled is not compiled
    again."""
    steps = {}

    def make_train_step(loss_fn, *args, **options):
        if loss_fn not in steps:
            steps[loss_fn] = original(loss_fn, *args, **options)
        return steps[loss_fn]

    original = run_module.make_train_step
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in SPECS.items():
            patch.setitem(networks.SPECS, name, spec)
        patch.setattr(run_module, "make_train_step", make_train_step)
        patch.setattr(pretrain, "sample_batch", noise_batch)
        patch.setattr(finetune, "sample_to_template", noise_pair)
        yield patch
