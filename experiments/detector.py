"""Train the face detector on faces of photographs and rendered ones, pasted over backgrounds.

    python -m experiments.detector --config experiments/configs/detector/small.py \
        --workdir runs/detector --photos 300w/helen/trainset --photos 300w/afw \
        --photos cfp=cfp/train --backgrounds FOLDER
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import jax
import ml_collections
import numpy as np
from absl import flags, logging
from jax.tree_util import Partial

from data_pipelines.bank import Bank, bank_of
from data_pipelines.faces.synthetic import SyntheticAssets, SyntheticSettings, load_assets
from data_pipelines.photos.shards import ShardedPhotos
from data_pipelines.scenes.compose import SceneSettings, sample_scene, turned_too
from data_pipelines.scenes.patches import (
    Patches,
    no_patches,
    of_alarms,
    of_photographs,
    of_rendered,
    of_things,
)
from dfc_jax.errors import ConfigError
from dfc_jax.morphable.file import load_face_model
from dfc_jax.systems.detector.networks import DetectorSpec
from dfc_jax.systems.detector.scenes import Scenes
from dfc_jax.systems.detector.task import find_spec, make_task
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.training import TrainSettings, TrainState, own_part
from dfc_jax.training.run import run
from dfc_jax.training.workdir import open_workdir
from experiments import launch
from experiments.photographs import PhotographSettings, labelled
from experiments.settings import (
    check_fields,
    check_ranges,
    picked_from,
    settings_from,
    train_settings,
)

# Of patches, see `DetectorSettings.shares`.
GROUPS = 7
# Held out by their keys: training draws its keys from another stream.
VALIDATION_SEED = 1_000_003
# Scenes for scores; of the backgrounds, every so many is kept for them.
SCENES, EVERY = 256, 12
# From this score on, a detector's false alarm is worth learning.
ALARM = 0.1
# The labels of photographs are those of the refinement of `dfc`.
TEMPLATE_PX = 128


@dataclasses.dataclass(frozen=True)
class DetectorSettings(PhotographSettings):
    """Everything that a config says about this training.

    Attributes:
      network, spec: name and structure of the network.
      training, scenes, faces: see their classes; of the faces, the size is that of a patch.
      rendered: faces that are rendered before the training starts.
      shares: how often a frontal face, a profile, a turned face, one with something before it, a
        rendered one, no face, and a false alarm is pasted, relative to each other.
    """

    network: str
    spec: DetectorSpec
    training: TrainSettings
    scenes: SceneSettings
    faces: SyntheticSettings
    rendered: int
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ConfigError: a number is out of range."""
        super().__post_init__()
        check_ranges(self, {"rendered": 1e6})
        if self.training.batch % 2:
            raise ConfigError(f"config.batch is {self.training.batch}; it must be even")
        if len(self.shares) != GROUPS or min(self.shares) < 0.0 or not sum(self.shares) > 0.0:
            raise ConfigError(
                f"config.shares needs {GROUPS} numbers that are at least 0, and one above"
            )


def settings_of(config: ml_collections.ConfigDict) -> DetectorSettings:
    """The settings of a config.

    Raises:
      ConfigError: it is of another program, or asks for what does not exist or fit together.
    """
    check_fields(config, needs=("network", "scenes", "rendered"))
    return picked_from(
        DetectorSettings,
        config,
        spec=find_spec(config.network),
        training=train_settings(config),
        scenes=settings_from(SceneSettings, config.scenes),
        faces=settings_from(SyntheticSettings, config.synthetic),
        shares=tuple(config.shares),
    )


def batches(batch: int) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Numbers of this process's scenes, of which each is learnt twice; everything else happens on
    the device."""

    def iterate(step: int) -> Iterator[dict[str, np.ndarray]]:
        for _ in itertools.count(step):
            yield {"scene": own_part(np.arange(batch // 2, dtype=np.uint32))}

    return iterate


def sampled_scenes(bank: Bank[Patches], backgrounds: jax.Array, settings: SceneSettings) -> Partial:
    """``scenes(batch, key)`` for `make_task`: twice as many as the batch has numbers, see
    `turned_too`."""

    def scenes(bank: Bank[Patches], backgrounds: jax.Array, batch, key) -> Scenes:
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(batch["scene"])
        made = jax.vmap(lambda key: sample_scene(key, bank, backgrounds, settings))(keys)
        return turned_too(key, made)

    return Partial(scenes, bank, backgrounds)


def false_alarms(file: str | None, backgrounds: jax.Array) -> Patches:
    """What the weights of a detector find on backgrounds; without a file nothing."""
    if file is None:
        return no_patches()
    from dfc_jax.inference.find import FaceDetector  # here: it needs OpenCV

    detector = FaceDetector(file, min_score=ALARM)
    return of_alarms(lambda picture: [one.box for one in detector(picture)], backgrounds)


def make_bank(
    settings: DetectorSettings,
    photos: ShardedPhotos,
    own: int,
    assets: SyntheticAssets,
    count: int,
    seed: int,
    alarms_of: str | None = None,
) -> Bank[Patches]:
    """All that is pasted, in the groups of `DetectorSettings.shares`: the first `own` photographs
    are no copies, `count` faces are rendered, and false alarms are those that the weights
    `alarms_of` give on the backgrounds, or none."""
    rendering, covering = jax.random.split(jax.random.key(seed))
    photographs, copies = photos.select(np.arange(own)), photos.select(np.arange(own, len(photos)))
    groups = [
        of_photographs(photographs.select(np.flatnonzero(~photographs.profile))),
        of_photographs(photographs.select(np.flatnonzero(photographs.profile))),
        of_photographs(copies),
        of_photographs(photographs, covering),
        of_rendered(rendering, count, assets, settings.faces),
        of_things(seed, photographs, assets.backgrounds, max(count, own)),
        false_alarms(alarms_of, assets.backgrounds),
    ]
    logging.info("patches of each group: %s", [len(group.face) for group in groups])
    return bank_of(groups, settings.shares)


def held_out_scenes(
    settings: DetectorSettings, photos: ShardedPhotos, assets: SyntheticAssets
) -> Callable[[], Scenes]:
    """`SCENES` fixed ones with faces and backgrounds that training never sees."""

    @cache
    def scenes() -> Scenes:
        few = min(settings.rendered, SCENES)
        bank = make_bank(settings, photos, len(photos), assets, few, VALIDATION_SEED)
        sampled = sampled_scenes(bank, assets.backgrounds, settings.scenes)
        batch = {"scene": np.arange(SCENES // 2, dtype=np.uint32)}
        return jax.device_get(jax.jit(sampled)(batch, jax.random.key(VALIDATION_SEED)))

    return scenes


def train(
    config: ml_collections.ConfigDict,
    workdir: Path,
    folders: list[str],
    sources: dict[str, str | None] | None = None,
    init_from: str | None = None,
    layout: str = "ibug",
    alarms_of: str | None = None,
) -> TrainState:
    """The whole training; see the flags. `sources` are the files that `load_assets` takes."""
    started = time.monotonic()
    settings, model = settings_of(config), load_face_model()
    seed = settings.training.seed
    metadata = {"stage": "detector", "network": settings.network}
    opened = open_workdir(workdir, config.to_dict(), metadata)
    template = make_template(model, TEMPLATE_PX)
    photos = labelled(settings, seed, workdir, folders, model, template, layout)
    assets = load_assets(model, **sources or {})
    kept = np.arange(len(assets.backgrounds)) % EVERY == 0
    learnt, unseen = (
        dataclasses.replace(assets, backgrounds=assets.backgrounds[np.flatnonzero(part)])
        for part in (~kept, kept)
    )
    rendered = settings.rendered
    bank = make_bank(settings, photos.training, photos.own, learnt, rendered, seed, alarms_of)
    task = make_task(
        settings.spec,
        batches=batches(settings.training.batch),
        scenes=sampled_scenes(bank, learnt.backgrounds, settings.scenes),
        held_out=held_out_scenes(settings, photos.held_out, unseen) if photos.held_out else None,
        init_from=init_from,
    )
    return run(task, opened, settings.training, started)


def define_flags() -> None:
    """Those of this program."""
    launch.define_flags()
    launch.define_source_flags()
    launch.define_photograph_flags()
    flags.DEFINE_string("init", None, "weight file to start from")
    flags.DEFINE_string(
        "alarms_of", None, "weights of a detector, whose false alarms on the backgrounds are learnt"
    )


def train_as_told(values: flags.FlagValues) -> TrainState:
    """`train` with what the command line says."""
    return train(
        values.config,
        Path(values.workdir),
        values.photos,
        launch.sources(values),
        values.init,
        values.layout,
        values.alarms_of,
    )


if __name__ == "__main__":
    define_flags()
    launch.main(train_as_told, example="experiments/configs/detector/small.py")
