"""Stage 2: refine on photographs, the template as target, encoders no longer shared.

    python -m experiments.finetune --config experiments/configs/dfc/finetune_lite.py \
        --workdir runs/finetune_lite --photos 300w/helen/trainset --photos 300w/afw \
        --backgrounds FOLDER --init runs/pretrain_lite/weights.safetensors
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
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
    sample_to_template,
)
from data_pipelines.photos.augment import AugmentSettings, Labelled, LabelledPhoto, augment, cut
from data_pipelines.photos.balance import draw_weights, drawn
from data_pipelines.photos.shards import ShardedPhotos
from data_pipelines.photos.squares import CROP_PX, STORED_PX
from dfc_jax.data.lp_model import LPModel, read_lp_model
from dfc_jax.errors import ConfigError
from dfc_jax.landmarks68 import EYES, INNER, MOUTH
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.systems.dfc.networks import NetSpec, Variables
from dfc_jax.systems.dfc.pairs import Examples
from dfc_jax.systems.dfc.task import HeldOut, LossSettings, find_spec, make_task, start_from
from dfc_jax.systems.dfc.template import Template, make_template, template_landmarks
from dfc_jax.training import Task, TrainSettings, TrainState, own_part
from dfc_jax.training.run import compile_ahead, run
from dfc_jax.training.workdir import open_workdir
from experiments import launch
from experiments.photographs import Photographs, PhotographSettings, labelled
from experiments.settings import (
    check_fields,
    check_ranges,
    picked_from,
    settings_from,
    train_settings,
)

# Held-out photographs that are shown, and those scored at once.
PANELS, CHUNK = 8, 20
# Numbers of a config that are at least 0, and their highest values.
HIGHEST = {
    **dict.fromkeys(("yaw_balance", "turned_share"), 1.0),
    **dict.fromkeys(("synthetic_batch", "feature_gain", "eyes_mouth_gain"), math.inf),
}
# Standard deviation of the surroundings of a landmark that count more, in parts of the crop.
FEATURE_WIDTH = 0.04


@dataclasses.dataclass(frozen=True)
class FinetuneSettings(PhotographSettings):
    """Everything that a config says about this stage.

    Attributes:
      network, spec: name and structure of the network.
      training, loss: see their classes.
      augmentation: of the photographs.
      faces: the rendered faces.
      synthetic_batch: rendered faces beside the photographs of each batch.
      turned_share: share of them among the photographs that are drawn.
      yaw_balance: among the photographs, and among the copies: 0 to draw every square once an
        epoch, 1 for as many from each bin of |yaw|, or between them; see `yaw_weights`.
      feature_gain: what the flow's error counts on the inner landmarks; 1 for the same everywhere.
      eyes_mouth_gain: the same on those of eyes and mouth, if it is more.
      resident: keep all photographs in the device's memory (0.3 MB each) instead of reading each
        batch from disk.
    """

    network: str
    spec: NetSpec
    training: TrainSettings
    loss: LossSettings
    augmentation: AugmentSettings
    faces: SyntheticSettings
    synthetic_batch: int
    turned_share: float
    yaw_balance: float
    feature_gain: float
    eyes_mouth_gain: float
    resident: bool

    def __post_init__(self) -> None:
        """Raises ConfigError: photographs and rendered faces of one batch have two sizes, or a
        number is out of range."""
        super().__post_init__()
        check_ranges(self, HIGHEST)
        if self.synthetic_batch and self.faces.size != self.augmentation.size:
            raise ConfigError(
                f"config.augment.size is {self.augmentation.size} and config.synthetic.size "
                f"{self.faces.size}; photographs and rendered faces share a batch, so they need "
                "one size"
            )


def settings_of(config: ml_collections.ConfigDict) -> FinetuneSettings:
    """The settings of a config.

    Raises:
      ConfigError: it is of another program, or asks for what does not exist or fit together.
    """
    check_fields(config, needs=("network", "synthetic", "augment"))
    return picked_from(
        FinetuneSettings,
        config,
        spec=find_spec(config.network),
        training=train_settings(config),
        loss=picked_from(LossSettings, config),
        augmentation=settings_from(AugmentSettings, config.augment),
        faces=settings_from(SyntheticSettings, config.synthetic),
    )


def feature_importance(
    landmarks: jax.Array, size: int, gain: float, eyes_mouth_gain: float = 1.0
) -> jax.Array:
    """What the flow's error counts at each template pixel (size, size): `gain` on the 51 inner
    landmarks (68, 2), `eyes_mouth_gain` (if more) on those of eyes and mouth, 1 far from them,
    falling like a Gaussian of `FEATURE_WIDTH` of the side."""
    apart = jnp.linalg.norm(pixel_grid(size, size)[..., None, :] - landmarks, axis=-1)
    near = jnp.exp(-0.5 * (apart / (FEATURE_WIDTH * size)) ** 2)
    inner = (gain - 1.0) * jnp.max(near[..., INNER], axis=-1)
    small = (eyes_mouth_gain - 1.0) * jnp.max(near[..., np.r_[EYES, MOUTH]], axis=-1)
    return 1.0 + jnp.maximum(inner, small)


def batches(
    photos: ShardedPhotos,
    batch: int,
    seed: int,
    weights: np.ndarray | None = None,
    resident: bool = False,
) -> Callable[[int], Iterator[dict[str, Any]]]:
    """Photographs in a new order every epoch, the same for every run with this seed; where they do
    not fill a batch, it holds some of them more than once, cropped in different ways. Each is drawn
    as often as its weight (N,) says, see `drawn`; without weights once. A batch of photographs that
    are `resident` on the device holds their indices."""
    per_epoch = max(1, len(photos) // batch)
    times = math.ceil(batch / len(photos))
    weights = np.ones(len(photos)) if weights is None else weights

    def iterate(step: int) -> Iterator[dict[str, Any]]:
        while True:
            rng = np.random.default_rng((seed, step // per_epoch))
            order = np.concatenate([rng.permutation(len(photos)) for _ in range(times)])
            order = drawn(weights, rng.random())[order]
            start = step % per_epoch * batch
            index = own_part(order[start : start + batch])
            photo = index if resident else photos.as_example(index)
            yield {"photo": photo, "number": own_part(np.arange(batch))}
            step += 1

    return iterate


def photo_examples(
    settings: FinetuneSettings,
    template: Template,
    importance: jax.Array,
    assets: SyntheticAssets | None,
    resident: LabelledPhoto | None = None,
) -> Partial:
    """``examples(batch, key)`` for `make_task`: augmented photographs and `synthetic_batch`
    rendered faces; the flow's error counts by the `importance` (S, S) of the template's pixels. A
    batch holds photographs, or the indices of those that are `resident`."""
    faces, batch_size = settings.faces, settings.training.batch
    cropped = partial(augment, crop_px=CROP_PX, settings=settings.augmentation)

    def examples(assets, template, importance, resident, batch, key) -> Examples:
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(batch["number"])
        photos = batch["photo"]
        if resident is not None:
            photos = jax.tree.map(lambda leaf: leaf[photos], resident)
        crops = jax.vmap(cropped)(keys, photos)
        if settings.synthetic_batch:
            keys = jax.random.split(jax.random.fold_in(key, batch_size), settings.synthetic_batch)
            pairs = jax.vmap(lambda k: sample_to_template(k, assets, template, faces))(keys)
            rendered = Labelled(pairs.source, pairs.flow, pairs.matchable)
            crops = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), crops, rendered)
        coords = pixel_grid(template.size, template.size) + crops.flow
        counts = jax.vmap(partial(bilinear_sample, importance[..., None]))(coords)[..., 0]
        return Examples(crops.image, template.image[None], crops.flow, crops.matchable, counts)

    return Partial(examples, assets, template, importance, resident)


def held_out_examples(template: Template, photos: LabelledPhoto) -> Examples:
    """The middles of a batch of photographs, as large as the template, without augmentation."""
    size = template.size
    scale = CROP_PX / size
    offset = (STORED_PX - 1) / 2.0 - scale * (size - 1) / 2.0
    matrix = jnp.array([[scale, 0.0, offset], [0.0, scale, offset]])
    crops = jax.vmap(lambda photo: cut(photo, matrix, size))(photos)
    points = (jnp.where(photos.annotated[..., None], photos.points, jnp.nan) - offset) / scale
    return Examples(crops.image, template.image[None], crops.flow, crops.matchable, points=points)


def held_out_photos(photos: ShardedPhotos, template: Template) -> list[HeldOut]:
    """Photographs for scores; none if there are none."""

    def parts() -> Iterator[LabelledPhoto]:
        for start in range(0, len(photos), CHUNK):
            yield photos.as_example(np.arange(start, min(start + CHUNK, len(photos))))

    some = HeldOut("held_out", parts, Partial(held_out_examples, template))
    return [some] if len(photos) else []


def read_given(basel: str | None, settings: FinetuneSettings) -> LPModel | None:
    """The model of the parameters that come with 300W-LP, None without a folder of it.

    Raises:
      ConfigError: the settings ask for what that model cannot do.
      FaceModelError: see `read_lp_model`.
    """
    if basel and (settings.synthetic_batch or settings.turned):
        raise ConfigError(
            "the Basel model has no charts to render or to turn faces with; with --basel set "
            "config.synthetic_batch and config.turned to 0"
        )
    return read_lp_model(basel) if basel else None


def refinement(
    settings: FinetuneSettings,
    model: FaceModel,
    template: Template,
    photos: Photographs,
    sources: dict[str, str | None] | None = None,
    init: Callable[[jax.Array], Variables] | None = None,
) -> Task:
    """The task of this stage; it starts from fresh variables if `init` is None."""
    assets = load_assets(model, **sources or {}) if settings.synthetic_batch else None
    landmarks = template_landmarks(template)
    gains = settings.feature_gain, settings.eyes_mouth_gain
    importance = feature_importance(landmarks, template.size, *gains)
    training = photos.training
    weights = draw_weights(
        training.pose[:, 0], photos.own, settings.yaw_balance, settings.turned_share
    )
    resident = training.as_example(np.arange(len(training))) if settings.resident else None
    size, seed = settings.training.batch, settings.training.seed
    return make_task(
        settings.spec,
        settings.loss,
        init=init or start_from(None, settings.spec, settings.network),
        batches=batches(training, size, seed, weights, settings.resident),
        examples=photo_examples(settings, template, importance, assets, resident),
        held_out=held_out_photos(photos.held_out, template),
        landmarks=landmarks,
        shown=PANELS,
    )


def task_of(
    settings: FinetuneSettings,
    workdir: Path,
    folders: list[str],
    model: FaceModel,
    sources: dict[str, str | None] | None,
    init: Callable[[jax.Array], Variables] | None = None,
    **given: Any,
) -> Task:
    """The task of this stage and all that it learns from; see `labelled`, which takes what is
    `given`, and `refinement`. The template is as large as the crops."""
    template = make_template(model, settings.augmentation.size)
    photos = labelled(settings, settings.training.seed, workdir, folders, model, template, **given)
    return refinement(settings, model, template, photos, sources, init)


def prepare(
    config: ml_collections.ConfigDict,
    workdir: Path,
    folders: list[str],
    sources: dict[str, str | None] | None = None,
) -> None:
    """What takes `train` long before its first step: label and turn the photographs, which it
    finds in its workdir, and compile the step for JAX's cache of compiled programs."""
    settings = settings_of(config)
    workdir.mkdir(parents=True, exist_ok=True)
    task = task_of(settings, workdir, folders, load_face_model(), sources)
    compile_ahead(task, settings.training)
    logging.info("prepared %s", workdir)


def train(
    config: ml_collections.ConfigDict,
    workdir: Path,
    folders: list[str],
    sources: dict[str, str | None] | None = None,
    init_from: str | None = None,
    layout: str = "ibug",
    basel: str | None = None,
) -> TrainState:
    """The whole stage; see the flags. `sources` are the files that `load_assets` takes."""
    started = time.monotonic()
    settings = settings_of(config)
    lp = read_given(basel, settings)
    model = lp.model if lp else load_face_model()
    init = start_from(init_from, settings.spec, settings.network)
    metadata = {"stage": "refine", "network": settings.network, "face_model": model.version}
    opened = open_workdir(workdir, config.to_dict(), metadata)
    task = task_of(settings, workdir, folders, model, sources, init, layout=layout, lp=lp)
    return run(task, opened, settings.training, started)


def define_flags() -> None:
    """Those of this program."""
    launch.define_flags()
    launch.define_source_flags()
    launch.define_photograph_flags()
    flags.DEFINE_string("init", None, "weight file to start from")
    flags.DEFINE_string("basel", None, "folder of the Basel model: use 300W-LP's parameters")


def train_as_told(values: flags.FlagValues) -> TrainState:
    """`train` with what the command line says."""
    return train(
        values.config,
        Path(values.workdir),
        values.photos,
        launch.sources(values),
        values.init,
        values.layout,
        values.basel,
    )


if __name__ == "__main__":
    define_flags()
    launch.main(train_as_told)
