"""Train the segmentation of faces on synthetic ones, rendered inside the training step.

    python -m experiments.segmentation --config experiments/configs/segmentation/lite.py \
        --workdir runs/segmentation
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

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
    sample_picture,
)
from dfc_jax.morphable.file import load_face_model
from dfc_jax.systems.segmentation.examples import Examples
from dfc_jax.systems.segmentation.networks import TwoStreamSpec
from dfc_jax.systems.segmentation.task import HeldOut, find_spec, make_task
from dfc_jax.training import COMPILER_OPTIONS, TrainSettings, TrainState, own_part
from dfc_jax.training.run import run
from dfc_jax.training.workdir import open_workdir
from dfc_jax.types import Array
from experiments import launch
from experiments.settings import (
    check_fields,
    check_ranges,
    picked_from,
    settings_from,
    train_settings,
)

# Held out by their keys: training draws its keys from another stream.
VALIDATION_SEED = 1_000_003
# Held-out faces that are made at once.
CHUNK = 16


@dataclasses.dataclass(frozen=True)
class SegmentationSettings:
    """Everything that a config says about this training.

    Attributes:
      network, spec: name and structure of the network.
      training, faces: see their classes.
      edge: see `segmentation_loss`.
      validation_faces: held-out faces; 0 for no scores.
    """

    network: str
    spec: TwoStreamSpec
    training: TrainSettings
    faces: SyntheticSettings
    edge: float
    validation_faces: int

    def __post_init__(self) -> None:
        """Raises ConfigError: a number is out of range."""
        check_ranges(self, {"edge": 1e3, "validation_faces": 1e6})


def settings_of(config: ml_collections.ConfigDict) -> SegmentationSettings:
    """The settings of a config.

    Raises:
      ConfigError: it is of another program, or asks for what does not exist or fit together.
    """
    check_fields(config, needs=("network", "synthetic", "validation_faces"))
    return picked_from(
        SegmentationSettings,
        config,
        spec=find_spec(config.network),
        training=train_settings(config),
        faces=settings_from(SyntheticSettings, config.synthetic),
    )


def batches(batch: int) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Numbers of this process's faces; everything else happens on the device."""

    def iterate(step: int) -> Iterator[dict[str, np.ndarray]]:
        for _ in itertools.count(step):
            yield {"face": own_part(np.arange(batch, dtype=np.uint32))}

    return iterate


def rendered(keys: Array, assets: SyntheticAssets, faces: SyntheticSettings) -> Examples:
    """A face of each key."""

    def one(key: Array) -> Examples:
        picture = sample_picture(key, assets, faces)
        visible = picture.face(assets.model) & (picture.occluded <= 0.0)
        face = visible.astype(jnp.float32)
        return Examples(picture.image, face, jnp.ones_like(face))

    return jax.vmap(one)(keys)


def rendered_examples(assets: SyntheticAssets, faces: SyntheticSettings) -> Partial:
    """``examples(batch, key)`` for `make_task`: the faces of a batch of numbers; the key of the
    step makes them."""

    def examples(assets: SyntheticAssets, batch, key) -> Examples:
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(batch["face"])
        return rendered(keys, assets, faces)

    return Partial(examples, assets)


def held_out_faces(count: int, assets: SyntheticAssets, faces: SyntheticSettings) -> HeldOut:
    """A fixed set that training never sees, made when it is first asked for."""
    keys = jax.random.split(jax.random.key(VALIDATION_SEED), count)
    sample = jax.jit(partial(rendered, faces=faces), compiler_options=COMPILER_OPTIONS)

    @cache
    def parts() -> list[Examples]:
        logging.info("compiling the renderer and making %d held-out faces", count)
        return [jax.device_get(sample(keys[i : i + CHUNK], assets)) for i in range(0, count, CHUNK)]

    return HeldOut("synthetic", lambda: iter(parts()))


def train(
    config: ml_collections.ConfigDict,
    workdir: Path,
    sources: dict[str, str | None] | None = None,
    init_from: str | None = None,
) -> TrainState:
    """The whole training; see the flags. `sources` are the files that `load_assets` takes."""
    started = time.monotonic()
    settings, model = settings_of(config), load_face_model()
    metadata = {"stage": "segmentation", "network": settings.network}
    opened = open_workdir(workdir, config.to_dict(), metadata)
    assets, count = load_assets(model, **sources or {}), settings.validation_faces
    task = make_task(
        settings.spec,
        batches=batches(settings.training.batch),
        examples=rendered_examples(assets, settings.faces),
        edge=settings.edge,
        held_out=[held_out_faces(count, assets, settings.faces)] if count else (),
        init_from=init_from,
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
    launch.main(train_as_told, example="experiments/configs/segmentation/lite.py")
