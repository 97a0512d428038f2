"""Stage 1: learn correspondence on pairs of synthetic faces, rendered inside the training step.

    python -m experiments.pretrain --config experiments/configs/dfc/pretrain_lite.py \
        --workdir runs/pretrain_lite
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.tree_util import Partial

from data_pipelines.faces.synthetic import (
    SyntheticSettings,
    load_assets,
    sample_pair,
    sample_to_template,
)
from dfc_jax.evaluation.metrics import flow_metrics, mask_iou
from dfc_jax.morphable.file import load_face_model
from dfc_jax.systems.dfc.networks import apply, matchability
from dfc_jax.systems.dfc.pairs import Pair
from dfc_jax.systems.dfc.panels import panels
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.training import TrainState, own_part
from experiments import launch, stages
from experiments.workdir import open_workdir

# Held out by their keys: training draws its keys from another stream.
VALIDATION_SEED = 1_000_003
# Pairs that are made and evaluated at once, and shown of each kind.
CHUNK, PANELS = 16, 4


def pair_keys(key: jax.Array, pair: jax.Array) -> jax.Array:
    """One key per pair: a fold-in each, so that the batch size does not change the pairs."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(pair)


def batches(config) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Numbers of this process's pairs, and whether on grey; everything else happens on the device.

    "to_template" numbers the sources whose target is the template, "pair" those with a face of
    their own.
    """

    def iterate(step: int):
        numbers = np.arange(config.batch, dtype=np.uint32)
        for n in itertools.count(step):
            yield {
                "to_template": own_part(numbers[: config.template_targets]),
                "pair": own_part(numbers[config.template_targets :]),
                "grey": own_part(np.full(config.batch, n < config.grey_background_steps)),
            }

    return iterate


def make_loss(config, assets, template, settings, spec):
    """Loss over a batch of pair numbers; the key of the step makes the faces."""

    def loss_fn(assets, template, variables, batch, key):
        grey = jnp.where(batch["grey"][0], 1.0, settings.background.grey)
        background = dataclasses.replace(settings.background, grey=grey)
        now = dataclasses.replace(settings, background=background)
        pairs = jax.vmap(lambda one: sample_pair(one, assets, now))(pair_keys(key, batch["pair"]))
        if config.template_targets:
            keys = pair_keys(key, batch["to_template"])
            singles = jax.vmap(lambda one: sample_to_template(one, assets, template, now))(keys)
            pairs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), pairs, singles)
        outputs, state = stages.forward(config, variables, pairs.source, pairs.target, spec)
        loss, parts = stages.batch_loss(config, outputs, pairs.flow, pairs.matchable)
        return loss, (state, parts)

    return Partial(loss_fn, assets, template)


def held_out_pairs(config, assets, template, settings) -> dict[str, Pair]:
    """A fixed set that training never sees, as NumPy: each face against another one
    ("synthetic"), and as many against the template ("template")."""
    keys = jax.random.split(jax.random.key(VALIDATION_SEED), config.validation_pairs)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def sample(key, assets):
        return {
            "synthetic": sample_pair(key, assets, settings),
            "template": sample_to_template(key, assets, template, settings),
        }

    parts = [jax.device_get(sample(keys[i : i + CHUNK], assets)) for i in _chunks(len(keys))]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _chunks(count: int) -> range:
    return range(0, count, CHUNK)


def make_evaluate(held_out: dict[str, Pair], spec):
    """Scores on `held_out_pairs`: end-point error, shares of pixels, mask IoU of each kind."""

    @jax.jit
    def scores(variables, pairs):
        outputs = apply(variables, pairs.source, pairs.target, spec)
        predicted = matchability(outputs.logits) > 0.5
        return {
            **flow_metrics(outputs.flow, pairs.flow, pairs.matchable),
            "iou": mask_iou(predicted, pairs.matchable > 0.5),
        }

    def evaluate(variables):
        found = {}
        for kind, pairs in held_out.items():
            starts = _chunks(len(pairs.source))
            parts = [scores(variables, some(pairs, slice(i, i + CHUNK))) for i in starts]
            means = jax.tree.map(lambda *a: float(jnp.mean(jnp.concatenate(a))), *parts)
            found |= {f"{kind}_{name}": value for name, value in means.items()}
        return found

    return evaluate


def make_draw(held_out: dict[str, Pair], spec):
    """Panels of the first `PANELS` held-out pairs of each kind."""

    def draw(variables) -> np.ndarray:
        rows = []
        for pairs in held_out.values():
            first = some(pairs, slice(PANELS))
            rows.append(panels(first, apply(variables, first.source, first.target, spec)))
        return np.concatenate(rows)

    return draw


def some(pairs: Pair, index: slice) -> Pair:
    return jax.tree.map(lambda leaf: leaf[index], pairs)


def train(
    config,
    workdir: Path,
    sources: dict[str, str | None] | None = None,
    init_from: str | None = None,
) -> TrainState:
    """The whole stage; see the flags. `sources` are the files that `load_assets` takes."""
    stages.check_config(config, needs=("template_targets", "validation_pairs"))
    model, spec = load_face_model(), stages.spec_of(config)
    settings = stages.settings_from(SyntheticSettings, config.synthetic)
    variables = stages.initial_variables(config, spec, init_from)
    metadata = {"stage": "pretrain", "network": config.network, "face_model": model.version}
    open_workdir(workdir, config, metadata)
    assets, template = load_assets(model, **sources or {}), make_template(model, settings.size)
    held_out = None
    if config.validation_pairs:
        logging.info("compiling the renderer and making %d held-out pairs", config.validation_pairs)
        held_out = held_out_pairs(config, assets, template, settings)
    return stages.run(
        config,
        workdir,
        spec,
        variables,
        batches(config),
        make_loss(config, assets, template, settings, spec),
        make_evaluate(held_out, spec) if held_out else None,
        make_draw(held_out, spec) if held_out else None,
        metadata,
    )


if __name__ == "__main__":
    launch.define_flags()
    launch.main(
        lambda values: train(
            values.config, Path(values.workdir), launch.sources(values), values.init
        )
    )
