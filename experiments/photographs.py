"""The labelled photographs of a training and their copies, made once and kept in its workdir."""

import dataclasses
import hashlib
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from data_pipelines.photos.changes import drawn_changes
from data_pipelines.photos.labels import LABELS_VERSION
from data_pipelines.photos.parameters import label_given
from data_pipelines.photos.sets import label_fitted, open_sets, write_labelled
from data_pipelines.photos.shards import ShardedPhotos, open_shards
from data_pipelines.photos.turned import write_turned
from data_pipelines.sources.layouts import with_layout
from dfc_jax.data.lp_model import LPModel
from dfc_jax.errors import ConfigError
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.systems.dfc.template import Template
from dfc_jax.types import ByValue
from experiments.settings import check_ranges

# The most photographs that a share holds out.
MOST_HELD_OUT = 40
# Numbers of a config that are at least 0, and their highest values.
HIGHEST = {
    "turned": math.inf,
    "turned_deg": 120.0,
    "turned_pitch_deg": 90.0,
    "turned_expressions": 1.0,
}


@dataclasses.dataclass(frozen=True)
class PhotographSettings:
    """What a config says about photographs and their copies.

    Attributes:
      turned: copies of each photograph that are turned to a random yaw and pitch.
      turned_deg, turned_pitch_deg, turned_expressions: how far, and the share of them that have
        another expression; see `drawn_changes`.
      held_out: photographs for scores: below 1 a share of them, from 1 on their number.
    """

    turned: int
    turned_deg: float
    turned_pitch_deg: float
    turned_expressions: float
    held_out: float

    def __post_init__(self) -> None:
        """Raises ConfigError: a number is out of range."""
        check_ranges(self, HIGHEST)


def digest_of(*values: Any) -> str:
    """Eight hexadecimal digits of values, nested: text, numbers and arrays."""
    digest = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(values)):
        digest.update(f"{leaf.dtype.str} {leaf.shape} ".encode() + leaf.tobytes())
    return digest.hexdigest()[:8]


def load_photos(
    workdir: Path,
    folders: list[str],
    model: FaceModel,
    template: Template,
    layout: str = "ibug",
    lp: LPModel | None = None,
    copies: int = 0,
) -> ShardedPhotos:
    """Labelled photographs, made once per workdir, layout, list of folders, face model, size of
    the template and `LABELS_VERSION`; what cannot be used is logged and left out. With `lp`
    (`read_lp_model`) the labels are made from the parameters that 300W-LP gives, as in the paper;
    otherwise from a fit to the 68 points. `copies` turned copies of each will follow."""
    split = [with_layout(folder, layout) for folder in folders]
    # As before where a folder has the layout of all.
    paths = [
        ("" if own == layout else f"{own}=") + os.path.abspath(folder) for own, folder in split
    ]
    made_of = layout, paths, lp is None, model if lp is None else lp, template.size
    digest = digest_of(*made_of, LABELS_VERSION)
    folder = workdir / f"photos-{digest}"
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


def with_turned(
    workdir: Path,
    photos: ShardedPhotos,
    model: FaceModel,
    template: Template,
    *,
    copies: int,
    seed: int,
    **ranges: float,
) -> ShardedPhotos:
    """The photographs, and `copies` of each changed as `drawn_changes` draws from these `ranges`,
    but of no profile, which shows too little of the face; made once per workdir, labels of
    `load_photos` and face model."""
    everything, photos = photos, photos.select(np.flatnonzero(~photos.profile))
    if not len(photos):
        return everything
    rng = np.random.default_rng(seed)
    made = []
    places = [f"{file.parent.name}/{file.name}" for file in photos.files], photos.file, photos.row
    for number in range(copies):
        changes = drawn_changes(rng, photos.pose, **ranges)
        digest = digest_of(changes, photos.names, places, model, template.size)
        folder = workdir / f"turned-{number}-{digest}"
        copy = open_shards(folder)
        if copy is None:
            logging.info("turning the photographs, copy %d of %d", number + 1, copies)
            more = (copies - number - 1) * len(photos)
            copy = write_turned(folder, model, template, photos, changes, more)
        made.append(copy)
    return everything.joined(made)


def held_out_count(count: int, held_out: float) -> int:
    """How many of `count` photographs are held out: below 1, `held_out` is a share (rounded up, at
    most `MOST_HELD_OUT` photographs), from 1 on a number of photographs.

    Raises:
      ConfigError: none would be left to train on.
    """
    if held_out < 0 or (held_out > 1 and held_out != int(held_out)):
        raise ConfigError(
            f"config.held_out is {held_out:g}; it must be a share below 1 or a whole number"
        )
    number = int(held_out) if held_out >= 1 else min(MOST_HELD_OUT, math.ceil(held_out * count))
    if number >= count:
        raise ConfigError(
            f"there are {count} usable photographs and {number} are held out, which leaves none to "
            "train on; add --photos or lower config.held_out"
        )
    return number


@dataclasses.dataclass(frozen=True, eq=False)
class Photographs(ByValue):
    """What a training learns from.

    Attributes:
      training: the photographs to train on, and after them their turned copies.
      own: how many of them are photographs.
      held_out: photographs for scores, the same for every run with this seed.
    """

    training: ShardedPhotos
    own: int
    held_out: ShardedPhotos


def labelled(
    settings: PhotographSettings,
    seed: int,
    workdir: Path,
    folders: list[str],
    model: FaceModel,
    template: Template,
    layout: str = "ibug",
    lp: LPModel | None = None,
) -> Photographs:
    """The photographs of a training, labelled and turned, or as its workdir keeps them."""
    photos = load_photos(workdir, folders, model, template, layout, lp, settings.turned)
    count = held_out_count(len(photos), settings.held_out)
    order = np.random.default_rng(seed).permutation(len(photos))
    training, held_out = photos.select(order[count:]), photos.select(order[:count])
    logging.info("%d photographs to train on, %d held out for scores", len(training), count)
    turned = with_turned(
        workdir,
        training,
        model,
        template,
        copies=settings.turned,
        seed=seed,
        yaw_deg=settings.turned_deg,
        pitch_deg=settings.turned_pitch_deg,
        expression_share=settings.turned_expressions,
    )
    return Photographs(turned, len(training), held_out)
