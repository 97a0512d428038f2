"""Train the segmentation of faces on rendered ones, on photographs and on masks.

    python -m experiments.segmentation --config experiments/configs/segmentation/lite.py \
        --workdir runs/segmentation --photos 300w/helen/trainset --photos 300w/afw \
        --photos cfp=cfp/train --masks "fasseg=fasseg/multipose/p0[123]*.png" \
        --masks fasseg=fasseg/frontal --backgrounds FOLDER
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags, logging
from jax.tree_util import Partial

from data_pipelines.bank import Bank, bank_of
from data_pipelines.faces.synthetic import SyntheticAssets, SyntheticSettings, load_assets
from data_pipelines.masks.compose import MaskSettings, sample_examples
from data_pipelines.masks.squares import (
    MaskSquares,
    of_masks,
    of_nothing,
    of_photographs,
    of_rendered,
)
from data_pipelines.sources.layouts import open_faces, with_layout
from dfc_jax.errors import ConfigError
from dfc_jax.files import load_arrays, write_npz
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.systems.segmentation.examples import Examples
from dfc_jax.systems.segmentation.networks import TwoStreamSpec
from dfc_jax.systems.segmentation.task import HeldOut, find_spec, make_task
from dfc_jax.training import TrainSettings, TrainState, own_part
from dfc_jax.training.run import run
from dfc_jax.training.workdir import open_workdir
from experiments import launch
from experiments.photographs import PhotographSettings, digest_of, labelled
from experiments.settings import (
    check_fields,
    check_ranges,
    picked_from,
    settings_from,
    train_settings,
)

# Of squares, see `SegmentationSettings.shares`.
GROUPS = 5
# Held out by their keys: training draws its keys from another stream.
VALIDATION_SEED = 1_000_003
# Crops for scores of each kind, and how many are made at once; of the backgrounds, every so many is
# kept for them.
CROPS, CHUNK, EVERY = 256, 32, 12
# The labels of photographs are those of the refinement of `dfc`.
TEMPLATE_PX = 128


@dataclasses.dataclass(frozen=True)
class SegmentationSettings(PhotographSettings):
    """Everything that a config says about this training.

    Attributes:
      network, spec: name and structure of the network.
      training, faces, crops: see their classes; of the faces, the size is that of a stored square.
      edge: see `segmentation_loss`.
      rendered: faces that are rendered before the training starts.
      shares: how often a rendered face, a photograph, one of a profile, one with a mask, and a
        picture without a face is drawn, relative to each other.
    """

    network: str
    spec: TwoStreamSpec
    training: TrainSettings
    faces: SyntheticSettings
    crops: MaskSettings
    edge: float
    rendered: int
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ConfigError: a number is out of range."""
        super().__post_init__()
        check_ranges(self, {"edge": 1e3, "rendered": 1e6})
        if len(self.shares) != GROUPS or min(self.shares) < 0.0 or not sum(self.shares) > 0.0:
            raise ConfigError(
                f"config.shares needs {GROUPS} numbers that are at least 0, and one above"
            )


def settings_of(config: ml_collections.ConfigDict) -> SegmentationSettings:
    """The settings of a config.

    Raises:
      ConfigError: it is of another program, or asks for what does not exist or fit together.
    """
    check_fields(config, needs=("network", "synthetic", "crops", "edge"))
    return picked_from(
        SegmentationSettings,
        config,
        spec=find_spec(config.network),
        training=train_settings(config),
        faces=settings_from(SyntheticSettings, config.synthetic),
        crops=settings_from(MaskSettings, config.crops),
        shares=tuple(config.shares),
    )


def batches(batch: int) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Numbers of this process's crops; everything else happens on the device."""

    def iterate(step: int) -> Iterator[dict[str, np.ndarray]]:
        for _ in itertools.count(step):
            yield {"crop": own_part(np.arange(batch, dtype=np.uint32))}

    return iterate


def sampled_examples(bank: Bank[MaskSquares], settings: MaskSettings) -> Partial:
    """``examples(batch, key)`` for `make_task`: a crop for each number of a batch; the key of the
    step makes them."""

    def examples(bank: Bank[MaskSquares], batch, key) -> Examples:
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(batch["crop"])
        return sample_examples(keys, bank, settings)

    return Partial(examples, bank)


def masked_squares(folders: Sequence[str], model: FaceModel) -> MaskSquares:
    """Photographs with masks of several folders, ``LAYOUT=FOLDER``; what cannot be used is logged
    and left out.

    Raises:
      ConfigError: a folder has no layout.
      DatasetError: it is not of its layout.
    """
    parts = [of_nothing(np.zeros((0, 1, 1, 3), np.uint8), model)]
    for folder in folders:
        layout, place = with_layout(folder, "")
        if not layout:
            raise ConfigError(f"--masks={folder}: must be LAYOUT=FOLDER, as fasseg={folder}")
        squares, problems = of_masks(open_faces(layout, place), model)
        for problem in problems:
            logging.warning("left out: %s", problem)
        parts.append(squares)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def rendered_squares(
    workdir: Path, seed: int, count: int, assets: SyntheticAssets, faces: SyntheticSettings
) -> MaskSquares:
    """Rendered faces, made once per workdir, seed, number, settings and assets."""
    digest = digest_of(seed, count, repr(faces), assets)
    file, names = workdir / f"rendered-{digest}.npz", ("images", "regions", "points")
    if file.is_file():
        return MaskSquares(**load_arrays(file, names, max_bytes=2**40))
    logging.info("rendering %d faces", count)
    squares = of_rendered(jax.random.key(seed), count, assets, faces)
    write_npz(file, False, **{name: getattr(squares, name) for name in names})
    return squares


# One program for all sets: a bank of `CHUNK` squares has one shape, and is handed to it.
_sample = jax.jit(sample_examples, static_argnames="settings")


def held_out_crops(name: str, squares: MaskSquares, settings: MaskSettings) -> HeldOut:
    """Fixed crops of squares that training never sees, made when they are first asked for."""

    @cache
    def parts() -> list[Examples]:
        made = []
        for number in range(CROPS // CHUNK):
            index = np.arange(number * CHUNK, (number + 1) * CHUNK) % len(squares.images)
            bank = bank_of([jax.tree.map(lambda leaf, i=index: leaf[i], squares)], (1.0,))
            key = jax.random.fold_in(jax.random.key(VALIDATION_SEED), number)
            made.append(jax.device_get(_sample(jax.random.split(key, CHUNK), bank, settings)))
        return made

    return HeldOut(name, lambda: iter(parts()))


def train(
    config: ml_collections.ConfigDict,
    workdir: Path,
    folders: list[str],
    masks: Sequence[str] = (),
    sources: dict[str, str | None] | None = None,
    init_from: str | None = None,
    layout: str = "ibug",
) -> TrainState:
    """The whole training; see the flags. `sources` are the files that `load_assets` takes."""
    started = time.monotonic()
    settings, model = settings_of(config), load_face_model()
    seed, count, faces = settings.training.seed, settings.rendered, settings.faces
    metadata = {"stage": "segmentation", "network": settings.network}
    opened = open_workdir(workdir, config.to_dict(), metadata)
    masked = masked_squares(masks, model)
    template = make_template(model, TEMPLATE_PX)
    photos = labelled(settings, seed, workdir, folders, model, template, layout)
    assets = load_assets(model, **sources or {})
    kept = np.arange(len(assets.backgrounds)) % EVERY == 0
    learnt, unseen = (
        dataclasses.replace(assets, backgrounds=assets.backgrounds[np.flatnonzero(part)])
        for part in (~kept, kept)
    )
    profile = photos.training.profile
    groups = [
        rendered_squares(workdir, seed, count, learnt, faces),
        *(
            of_photographs(photos.training.select(np.flatnonzero(some)), model, template)
            for some in (~profile, profile)
        ),
        masked,
        of_nothing(np.asarray(learnt.backgrounds), model),
    ]
    logging.info("squares of each group: %s", [len(group.images) for group in groups])
    few = rendered_squares(workdir, VALIDATION_SEED, min(count, CROPS), unseen, faces)
    held_out = {"rendered": few, "photos": of_photographs(photos.held_out, model, template)}
    task = make_task(
        settings.spec,
        batches=batches(settings.training.batch),
        examples=sampled_examples(
            jax.tree.map(jnp.asarray, bank_of(groups, settings.shares)), settings.crops
        ),
        edge=settings.edge,
        held_out=[
            held_out_crops(name, squares, settings.crops)
            for name, squares in held_out.items()
            if len(squares.images)
        ],
        init_from=init_from,
    )
    return run(task, opened, settings.training, started)


def define_flags() -> None:
    """Those of this program."""
    launch.define_flags()
    launch.define_source_flags()
    launch.define_photograph_flags()
    flags.DEFINE_multi_string(
        "masks", [], "photographs with masks of the face, LAYOUT=FOLDER, as fasseg=fasseg/frontal"
    )
    flags.DEFINE_string("init", None, "weight file to start from")


def train_as_told(values: flags.FlagValues) -> TrainState:
    """`train` with what the command line says."""
    return train(
        values.config,
        Path(values.workdir),
        values.photos,
        values.masks,
        launch.sources(values),
        values.init,
        values.layout,
    )


if __name__ == "__main__":
    define_flags()
    launch.main(train_as_told, example="experiments/configs/segmentation/lite.py")
