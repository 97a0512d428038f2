"""Stage 2: refine on photographs, the template as target, encoders no longer shared.

    python -m experiments.finetune --config experiments/configs/dfc/finetune_lite.py \
        --workdir runs/finetune_lite --photos 300w/helen/trainset --photos 300w/afw \
        --backgrounds FOLDER --init runs/pretrain_lite/weights.safetensors
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from jax.tree_util import Partial

from data_pipelines.faces.synthetic import SyntheticSettings, load_assets, sample_to_template
from data_pipelines.photos.augment import AugmentSettings, Labelled, LabelledPhoto, augment, cut
from data_pipelines.photos.parameters import label_given, read_lp_model
from data_pipelines.photos.sets import label_fitted, open_sets, write_labelled
from data_pipelines.photos.shards import ShardedPhotos, open_shards
from data_pipelines.photos.squares import CROP_PX, STORED_PX
from data_pipelines.photos.turned import write_turned
from data_pipelines.sources.layouts import LAYOUTS
from dfc_jax.evaluation.metrics import flow_metrics, mask_iou, nme_percent
from dfc_jax.landmarks68 import INNER
from dfc_jax.morphable.file import load_face_model
from dfc_jax.ops.sampling import bilinear_sample, pixel_grid
from dfc_jax.systems.dfc.lift import flow_landmarks
from dfc_jax.systems.dfc.networks import apply, matchability
from dfc_jax.systems.dfc.pairs import Pair
from dfc_jax.systems.dfc.panels import panels
from dfc_jax.systems.dfc.template import make_template, template_landmarks
from dfc_jax.training import TrainState, own_part
from experiments import launch, stages
from experiments.workdir import open_workdir

# Held-out photographs that are shown, and the most that a share holds out.
PANELS, MOST_HELD_OUT = 8, 40
# Standard deviation of the surroundings of a landmark that count more, in parts of the crop.
FEATURE_WIDTH = 0.04


def load_photos(
    workdir: Path, folders: list[str], model, template, layout: str = "ibug", lp=None, copies=0
) -> ShardedPhotos:
    """Labelled photographs, made once per workdir, layout and list of folders; what cannot be used
    is logged and left out. With `lp` (`read_lp_model`) the labels are made from the parameters
    that 300W-LP gives, as in the paper; otherwise from a fit to the 68 points. `copies` turned
    copies of each will follow."""
    listed = "\n".join([layout, *(os.path.abspath(folder) for folder in folders)])
    folder = workdir / f"photos-{hashlib.sha256(listed.encode()).hexdigest()[:8]}"
    photos = open_shards(folder)
    if photos is not None:
        return photos
    faces = open_sets(folders, layout)
    if lp is None:
        label_squares = partial(label_fitted, model, template)
    else:
        label_squares = partial(label_given, lp, template)
    photos = write_labelled(folder, faces, label_squares, more=copies * len(faces))
    worst = np.argsort(-photos.error)[:5]
    logging.info(
        "%d photographs, labels leave %.2f %% at the inner points; worst: %s",
        len(photos),
        photos.error.mean(),
        ", ".join(f"{photos.names[i]} {photos.error[i]:.1f} %" for i in worst),
    )
    return photos


def with_turned(workdir: Path, photos: ShardedPhotos, config, model, template) -> ShardedPhotos:
    """The photographs, and `config.turned` copies of each turned to a random yaw; made once per
    workdir."""
    rng = np.random.default_rng(config.seed)
    yaws = rng.uniform(-config.turned_deg, config.turned_deg, (config.turned, len(photos)))
    copies = []
    for number, yaw in enumerate(yaws):
        made_from = hashlib.sha256(yaw.tobytes() + "\n".join(photos.names).encode())
        folder = workdir / f"turned-{number}-{made_from.hexdigest()[:8]}"
        copy = open_shards(folder)
        if copy is None:
            logging.info("turning the photographs, copy %d of %d", number + 1, config.turned)
            more = (config.turned - number - 1) * len(photos)
            copy = write_turned(folder, model, template, photos, yaw, more)
        copies.append(copy)
    return photos.joined(copies)


def held_out_count(count: int, held_out: float) -> int:
    """How many of `count` photographs are held out: below 1, `held_out` is a share (rounded up, at
    most `MOST_HELD_OUT` photographs), from 1 on a number of photographs.

    Raises:
      ConfigError: none would be left to train on.
    """
    if held_out < 0 or (held_out > 1 and held_out != int(held_out)):
        raise stages.ConfigError(
            f"config.held_out is {held_out:g}; it must be a share below 1 or a whole number"
        )
    number = int(held_out) if held_out >= 1 else min(MOST_HELD_OUT, math.ceil(held_out * count))
    if number >= count:
        raise stages.ConfigError(
            f"there are {count} usable photographs and {number} are held out, which leaves none to "
            "train on; add --photos or lower config.held_out"
        )
    return number


def feature_importance(landmarks, size: int, gain: float):
    """What the flow's error counts at each template pixel (size, size): `gain` on the 51 inner
    landmarks (68, 2), 1 far from them, falling like a Gaussian of `FEATURE_WIDTH` of the side."""
    apart = jnp.linalg.norm(pixel_grid(size, size)[..., None, :] - landmarks[INNER], axis=-1)
    near = jnp.exp(-0.5 * (jnp.min(apart, axis=-1) / (FEATURE_WIDTH * size)) ** 2)
    return 1.0 + (gain - 1.0) * near


def batches(photos: ShardedPhotos, config) -> Callable[[int], Iterator[dict]]:
    """Photographs in a new order every epoch, the same for every run with this seed; where they do
    not fill a batch, it holds some of them more than once, cropped in different ways."""
    per_epoch = max(1, len(photos) // config.batch)
    times = math.ceil(config.batch / len(photos))

    def iterate(step: int):
        while True:
            rng = np.random.default_rng((config.seed, step // per_epoch))
            order = np.concatenate([rng.permutation(len(photos)) for _ in range(times)])
            start = step % per_epoch * config.batch
            index = own_part(order[start : start + config.batch])
            yield {"photo": photos.as_example(index), "number": own_part(np.arange(config.batch))}
            step += 1

    return iterate


def make_loss(config, template, importance, assets, augmentation, faces, spec):
    """Loss over augmented photographs and `synthetic_batch` rendered faces; the flow's error
    counts by the `importance` (S, S) of the template's pixels."""

    def loss_fn(assets, template, importance, variables, batch, key):
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(batch["number"])
        crops = jax.vmap(partial(augment, crop_px=CROP_PX, settings=augmentation))(
            keys, batch["photo"]
        )
        if config.synthetic_batch:
            keys = jax.random.split(jax.random.fold_in(key, config.batch), config.synthetic_batch)
            pairs = jax.vmap(lambda k: sample_to_template(k, assets, template, faces))(keys)
            rendered = Labelled(pairs.source, pairs.flow, pairs.matchable)
            crops = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), crops, rendered)
        outputs, state = stages.forward(config, variables, crops.image, template.image[None], spec)
        landing = pixel_grid(template.size, template.size) + crops.flow
        counts = jax.vmap(partial(bilinear_sample, importance[..., None]))(landing)[..., 0]
        loss, parts = stages.batch_loss(config, outputs, crops.flow, crops.matchable, counts)
        return loss, (state, parts)

    return Partial(loss_fn, assets, template, importance)


def middle_crop(size: int) -> tuple[float, float]:
    """Scale and offset from pixels of a crop to those of a stored square, without augmentation."""
    scale = CROP_PX / size
    return scale, (STORED_PX - 1) / 2.0 - scale * (size - 1) / 2.0


def cut_middle(photos: LabelledPhoto, size: int) -> Labelled:
    """The crops (B, size, size) of a batch of photographs, without augmentation."""
    scale, offset = middle_crop(size)
    matrix = jnp.array([[scale, 0.0, offset], [0.0, scale, offset]])
    return jax.vmap(lambda photo: cut(photo, matrix, size))(photos)


def make_evaluate(photos: ShardedPhotos, model, template, spec):
    """Scores on held-out training photographs: dense labels, and landmarks straight from the
    flow (NME in % of the landmark box)."""
    scale, offset = middle_crop(template.size)
    wanted = template_landmarks(model, template)

    @jax.jit
    def scores(variables, batch):
        crops, points = cut_middle(batch, template.size), batch.points
        outputs = apply(variables, crops.image, template.image[None], spec)
        probability = matchability(outputs.logits)
        found, _ = jax.vmap(lambda f, m: flow_landmarks(f, m, wanted))(outputs.flow, probability)
        return {
            **flow_metrics(outputs.flow, crops.flow, crops.matchable),
            "iou": mask_iou(probability > 0.5, crops.matchable > 0.5),
            "nme": nme_percent(found * scale + offset, points, INNER),
        }

    def evaluate(variables):
        index = [np.arange(i, min(i + 20, len(photos))) for i in range(0, len(photos), 20)]
        parts = [scores(variables, photos.as_example(i)) for i in index]
        joined = jax.tree.map(lambda *a: float(jnp.mean(jnp.concatenate(a))), *parts)
        return {f"held_out_{name}": value for name, value in joined.items()}

    return evaluate


def make_draw(photos: ShardedPhotos, template, spec):
    """Panels of the first `PANELS` held-out photographs."""
    first = photos.as_example(np.arange(min(PANELS, len(photos))))
    crops = jax.jit(cut_middle, static_argnums=1)(first, template.size)
    targets = jnp.broadcast_to(template.image, crops.image.shape)
    pairs = Pair(crops.image, targets, crops.flow, crops.matchable, jnp.zeros_like(crops.matchable))
    return lambda variables: panels(pairs, apply(variables, pairs.source, targets, spec))


def train(
    config,
    workdir: Path,
    folders: list[str],
    sources: dict[str, str | None] | None = None,
    init_from: str | None = None,
    layout: str = "ibug",
    basel: str | None = None,
) -> TrainState:
    """The whole stage; see the flags. The template is as large as the crops; `sources` are the
    files that `load_assets` takes."""
    stages.check_config(config, needs=("augment", "held_out", "synthetic_batch", "turned"))
    if basel and (config.synthetic_batch or config.turned):
        raise stages.ConfigError(
            "the Basel model has no uv atlas to render or to turn faces with; with --basel set "
            "config.synthetic_batch and config.turned to 0"
        )
    lp = read_lp_model(basel) if basel else None
    model, spec = lp.model if lp else load_face_model(), stages.spec_of(config)
    augmentation = stages.settings_from(AugmentSettings, config.augment)
    faces = stages.settings_from(SyntheticSettings, config.synthetic)
    if config.synthetic_batch and faces.size != augmentation.size:
        raise stages.ConfigError(
            f"config.augment.size is {augmentation.size} and config.synthetic.size {faces.size}; "
            "photographs and rendered faces share a batch, so they need one size"
        )
    variables = stages.initial_variables(config, spec, init_from)
    metadata = {"stage": "refine", "network": config.network, "face_model": model.version}
    open_workdir(workdir, config, metadata)
    assets = load_assets(model, **sources or {}) if config.synthetic_batch else None
    template = make_template(model, augmentation.size)
    landmarks = template_landmarks(model, template)
    importance = feature_importance(landmarks, template.size, config.feature_gain)
    photos = load_photos(workdir, folders, model, template, layout, lp, config.turned)
    count = held_out_count(len(photos), config.held_out)
    order = np.random.default_rng(config.seed).permutation(len(photos))
    training, held_out = photos.select(order[count:]), photos.select(order[:count])
    logging.info("%d photographs to train on, %d held out for scores", len(training), count)
    training = with_turned(workdir, training, config, model, template)
    return stages.run(
        config,
        workdir,
        spec,
        variables,
        batches(training, config),
        make_loss(config, template, importance, assets, augmentation, faces, spec),
        make_evaluate(held_out, model, template, spec) if len(held_out) else None,
        make_draw(held_out, template, spec) if len(held_out) else None,
        metadata,
    )


if __name__ == "__main__":
    launch.define_flags()
    flags.DEFINE_multi_string("photos", None, "folder of annotated photographs", required=True)
    flags.DEFINE_enum("layout", "ibug", LAYOUTS, "how the folders are laid out")
    flags.DEFINE_string("basel", None, "folder of the Basel model: use 300W-LP's parameters")
    launch.main(
        lambda values: train(
            values.config,
            Path(values.workdir),
            values.photos,
            launch.sources(values),
            values.init,
            values.layout,
            values.basel,
        )
    )
