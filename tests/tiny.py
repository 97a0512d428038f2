"""Training programs shrunk to seconds. As a program: pretraining with a tiny network on pairs of
noise instead of faces, which compile quickly.

python tests/tiny.py --config=tests/tiny.py --workdir=FOLDER [any flag of experiments.pretrain]
"""

import dataclasses
import importlib
import os
import runpy
import struct
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from tensorboardX.proto.event_pb2 import Event

from data_pipelines.faces import synthetic
from dfc_jax.systems.dfc import networks as variants
from dfc_jax.systems.dfc import template
from dfc_jax.training import run as run_module

SIZE, STEPS = 32, 4
TINY = variants.LiteSpec(
    widths=(4, 4, 8, 8),
    depths=(0,) * 4,
    decoder_depths=(0,) * 4,
    descriptors=4,
    details=2,
    refinements=1,
    edges=2,
)
SPECS = {"tiny": TINY, "tiny-tied": dataclasses.replace(TINY, tied=True)}


def config_of(name: str) -> ConfigDict:
    return importlib.import_module(f"experiments.configs.dfc.{name}").get_config()


def tiny_config(name: str, network: str) -> ConfigDict:
    """A config of the repository, shrunk."""
    config = config_of(name)
    config.network = network
    config.steps, config.batch, config.warmup_steps = STEPS, 2, 1
    config.log_every, config.save_every, config.keep_last = 1, 2, 1
    config.synthetic.size = SIZE
    if "augment" in config:
        config.augment.size = SIZE
        config.held_out, config.synthetic_batch, config.turned = 2, 1, 0
    else:
        config.validation_pairs = 2
        config.template_targets = 1
    return config


def get_config() -> ConfigDict:
    """Of the program."""
    config = tiny_config("pretrain_lite", "tiny-tied").unlock()
    config.batch, config.template_targets, config.validation_pairs = 8, 4, 0
    config.steps, config.steps_per_call = 8, 1
    return config.lock()


def noise_pair(key, *rest):
    """Stands in for `sample_pair` and `sample_to_template`, and compiles in no time."""
    keys, size = jax.random.split(key, 5), rest[-1].size

    def mask(key):
        return jax.random.bernoulli(key, shape=(size, size)).astype(jnp.float32)

    return synthetic.Pair(
        source=jax.random.uniform(keys[0], (size, size, 3)),
        target=jax.random.uniform(keys[1], (size, size, 3)),
        flow=3.0 * jax.random.normal(keys[2], (size, size, 2)),
        matchable=mask(keys[3]),
        occluded=mask(keys[4]),
    )


def noise_batch(pair_keys, template_keys, *rest):
    """Stands in for `sample_batch`."""
    keys = jnp.concatenate([pair_keys, template_keys])
    return jax.vmap(lambda key: noise_pair(key, *rest))(keys)


def scalars(workdir: Path) -> dict[tuple[str, int], float]:
    """What the TensorBoard files of a run hold, in the order of writing."""
    found = {}
    for file in sorted(workdir.glob("events.out.tfevents.*")):
        data, start = file.read_bytes(), 0
        while start < len(data):
            (length,) = struct.unpack_from("<Q", data, start)
            event = Event.FromString(data[start + 12 : start + 12 + length])
            start += 16 + length
            found.update({(v.tag, event.step): v.simple_value for v in event.summary.value})
    return found


def gated(batches, gate: int, file: Path):
    """The same batches; that of step `gate` and those after it wait until a file is there."""

    def iterate(step: int):
        for number, batch in enumerate(batches(step), start=step + 1):
            while number >= gate and not file.exists():
                time.sleep(0.01)
            yield batch

    return iterate


def run(task, workdir, settings, started):
    """`run` that waits before the step $GATE for the file ``go`` in its folder."""
    gate = int(os.environ.get("GATE", settings.steps + 1))
    batches = gated(task.batches, gate, workdir.path / "go")
    return original_run(dataclasses.replace(task, batches=batches), workdir, settings, started)


if __name__ == "__main__":
    original_run, run_module.run = run_module.run, run
    variants.SPECS.update(SPECS)
    synthetic.sample_batch = noise_batch
    synthetic.load_assets = template.make_template = lambda *_, **__: None
    runpy.run_module("experiments.pretrain", run_name="__main__")
