"""Stage 1: learn correspondence on pairs of synthetic faces, rendered inside the training step.

    python -m experiments.pretrain --config experiments/configs/dfc/pretrain_lite.py \
        --workdir runs/pretrain_lite
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags, logging
from jax.tree_util import Partial

from data_pipelines.faces.synthetic import (
    SyntheticAssets,
    SyntheticSettings,
    load_assets,
    sample_batch,
)
from dfc_jax.errors import ConfigError
from dfc_jax.morphable.file import load_face_model
from dfc_jax.systems.dfc.networks import NetSpec
from dfc_jax.systems.dfc.pairs import Examples, Pair
from dfc_jax.systems.dfc.task import HeldOut, LossSettings, find_spec, make_task, start_from
from dfc_jax.systems.dfc.template import Template, make_template
from dfc_jax.training import COMPILER_OPTIONS, TrainSettings, TrainState, check_split, own_part
from dfc_jax.training.run import run
from dfc_jax.training.workdir import open_workdir
from experiments import launch
from experiments.settings import check_fields, picked_from, settings_from, train_settings

# Held out by their keys: training draws its keys from another stream.
VALIDATION_SEED = 1_000_003
# Pairs that are made and evaluated at once, and shown of each kind.
CHUNK, PANELS = 16, 4


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """Everything that a config says about this stage.

    Attributes:
      network, spec: name and structure of the network.
      training, loss, faces: see their classes.
      template_targets: examples of a batch whose target is the template.
      grey_background_steps: steps, from the first on, with faces on plain grey alone.
      validation_pairs: held-out pairs of each kind; 0 for no scores.
    """

    network: str
    spec: NetSpec
    training: TrainSettings
    loss: LossSettings
    faces: SyntheticSettings
    template_targets: int
    grey_background_steps: int
    validation_pairs: int

    def __post_init__(self) -> None:
        """Raises ConfigError: the targets do not fit into the batch or split over the devices."""
        if not 0 <= self.template_targets <= self.training.batch:
            raise ConfigError(
                f"config.template_targets is {self.template_targets}; it must be between 0 and "
                f"config.batch ({self.training.batch})"
            )
        # Each part of a batch is an array of its own, and is split over all devices.
        check_split("template_targets", self.template_targets)


def settings_of(config: ml_collections.ConfigDict) -> PretrainSettings:
    """The settings of a config.

    Raises:
      ConfigError: it is of another program, or asks for what does not exist or fit together.
    """
    check_fields(config, needs=("network", "synthetic", "template_targets"))
    return picked_from(
        PretrainSettings,
        config,
        spec=find_spec(config.network),
        training=train_settings(config),
        loss=picked_from(LossSettings, config),
        faces=settings_from(SyntheticSettings, config.synthetic),
    )


def pair_keys(key: jax.Array, pair: jax.Array) -> jax.Array:
    """One key per pair: a fold-in each, so that the batch size does not change the pairs."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(pair)


def batches(
    batch: int, template_targets: int, grey_steps: int
) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Numbers of this process's pairs, and whether on grey; everything else happens on the device.

    "to_template" numbers the sources whose target is the template, "pair" those with a face of
    their own.
    """

    def iterate(step: int) -> Iterator[dict[str, np.ndarray]]:
        numbers = np.arange(batch, dtype=np.uint32)
        for n in itertools.count(step):
            yield {
                "to_template": own_part(numbers[:template_targets]),
                "pair": own_part(numbers[template_targets:]),
                "grey": own_part(np.full(batch, n < grey_steps)),
            }

    return iterate


def as_examples(pairs: Pair) -> Examples:
    """A batch of pairs as what the task learns from."""
    return Examples(pairs.source, pairs.target, pairs.flow, pairs.matchable)


def rendered_examples(
    settings: PretrainSettings, assets: SyntheticAssets, template: Template
) -> Partial:
    """``examples(batch, key)`` for `make_task`: the pairs of a batch of pair numbers; the key of
    the step makes the faces."""
    faces = settings.faces

    def examples(assets: SyntheticAssets, template: Template, batch, key) -> Examples:
        grey: Any = jnp.where(batch["grey"][0], 1.0, faces.background.grey)
        background = dataclasses.replace(faces.background, grey=grey)
        now = dataclasses.replace(faces, background=background)
        keys = pair_keys(key, batch["pair"]), pair_keys(key, batch["to_template"])
        return as_examples(sample_batch(*keys, assets, template, now))

    return Partial(examples, assets, template)


def held_out_pairs(
    count: int, assets: SyntheticAssets, template: Template, faces: SyntheticSettings
) -> list[HeldOut]:
    """A fixed set that training never sees: `count` faces each against another one ("synthetic"),
    and as many against the template ("template"). They are made when they are first asked for."""
    keys = jax.random.split(jax.random.key(VALIDATION_SEED), count)

    @partial(jax.jit, compiler_options=COMPILER_OPTIONS)
    def sample(keys, assets):
        pairs = sample_batch(keys, keys, assets, template, faces)
        return {
            "synthetic": jax.tree.map(lambda leaf: leaf[: len(keys)], pairs),
            "template": jax.tree.map(lambda leaf: leaf[len(keys) :], pairs),
        }

    @cache
    def parts() -> list[dict[str, Pair]]:
        logging.info("compiling the renderer and making %d held-out pairs", count)
        return [jax.device_get(sample(keys[i : i + CHUNK], assets)) for i in range(0, count, CHUNK)]

    def of_kind(kind: str) -> Iterator[Pair]:
        return (part[kind] for part in parts())

    return [
        HeldOut(kind, partial(of_kind, kind), Partial(as_examples))
        for kind in ("synthetic", "template")
    ]


def train(
    config: ml_collections.ConfigDict,
    workdir: Path,
    sources: dict[str, str | None] | None = None,
    init_from: str | None = None,
) -> TrainState:
    """The whole stage; see the flags. `sources` are the files that `load_assets` takes."""
    started = time.monotonic()
    settings, model = settings_of(config), load_face_model()
    init = start_from(init_from, settings.spec, settings.network)
    metadata = {"stage": "pretrain", "network": settings.network, "face_model": model.version}
    opened = open_workdir(workdir, config.to_dict(), metadata)
    assets = load_assets(model, **sources or {})
    template, count = make_template(model, settings.faces.size), settings.validation_pairs
    task = make_task(
        settings.spec,
        settings.loss,
        init=init,
        batches=batches(
            settings.training.batch, settings.template_targets, settings.grey_background_steps
        ),
        examples=rendered_examples(settings, assets, template),
        held_out=held_out_pairs(count, assets, template, settings.faces) if count else (),
        shown=PANELS,
    )
    return run(task, opened, settings.training, started)


def define_flags() -> None:
    """Those of this program."""
    launch.define_flags()
    launch.define_source_flags()
    flags.DEFINE_string("init", None, "weight file to start from")


def train_as_told(values: flags.FlagValues) -> TrainState:
    """`train` with what the command line says."""
    return train(values.config, Path(values.workdir), launch.sources(values), values.init)


if __name__ == "__main__":
    define_flags()
    launch.main(train_as_told)
