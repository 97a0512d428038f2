"""Synthetic pairs as files: to look at, or to train something else on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from data_pipelines.faces.synthetic import (
    Picture,
    SyntheticAssets,
    SyntheticSettings,
    sample_pair_and_source,
)
from dfc_jax.files import write_npz
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.ops.rotations import head_rotation, matrix_to_angles
from dfc_jax.photo import write_png
from dfc_jax.systems.dfc.draw import flow_picture
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.systems.dfc.pairs import Pair
from dfc_jax.systems.dfc.template import Template, make_template

BATCH = 16
SHEET_ROWS, SHEET_COLUMNS = 8, 3


def export_pairs(
    out: Path, assets: SyntheticAssets, settings: SyntheticSettings, count: int, seed: int = 0
) -> None:
    """Write `count` pairs as ``pair_NNNNN.npz`` and contact sheets ``sheet_NNN.png``.

    A pair's file holds source and target (S, S, 3) uint8 RGB, flow (S, S, 2) float32 px, matchable
    and occluded (S, S) bool. Of the source it also holds points (68, 2) px, which the head may
    hide, angles_deg (3,), face (S, S) bool, which has no neck, and the exact flow to the template
    of the face model, template_flow (S, S, 2) float32 px and template_matchable (S, S) bool.

    A sheet shows each pair as source, target, flow (colour is direction, black not matchable) and
    labels (matchable white, occluded there red). Pair n depends on the seed and n only.

    Raises:
      ExportError: nothing can be written there.
    """
    shown: list[np.ndarray] = []
    for number, (pair, truth) in enumerate(_pairs(assets, settings, count, seed)):
        write_npz(
            out / f"pair_{number:05d}.npz",
            source=_bytes(pair.source),
            target=_bytes(pair.target),
            flow=np.asarray(pair.flow),
            matchable=np.asarray(pair.matchable) > 0,
            occluded=np.asarray(pair.occluded) > 0,
            **truth,
        )
        shown.append(_strip(pair))
        if len(shown) == SHEET_ROWS * SHEET_COLUMNS or number == count - 1:
            name = f"sheet_{number // (SHEET_ROWS * SHEET_COLUMNS):03d}.png"
            write_png(out / name, _sheet(shown))
            shown = []


def _pairs(
    assets: SyntheticAssets, settings: SyntheticSettings, count: int, seed: int
) -> Iterator[tuple[Pair, dict[str, np.ndarray]]]:
    """Each pair, and by name what is known of its source."""

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None))
    def sample(
        number: jax.Array, assets: SyntheticAssets, template: Template
    ) -> tuple[Pair, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), number)
        pair, source = sample_pair_and_source(key, assets, settings)
        return pair, _truth(source, assets.model, template)

    template = make_template(assets.model, settings.size)
    for start in range(0, count, BATCH):
        batch = jax.device_get(sample(start + jnp.arange(BATCH), assets, template))
        for n in range(min(BATCH, count - start)):
            yield jax.tree.map(lambda leaf, n=n: leaf[n], batch)


def _truth(source: Picture, model: FaceModel, template: Template) -> dict[str, jax.Array]:
    flow, matchable = flow_to_template(source.fragments, template)
    return {
        "points": source.scene.landmarks_px,
        "angles_deg": matrix_to_angles(head_rotation(source.scene.params.rotation)),
        "face": source.face(model),
        "template_flow": flow,
        "template_matchable": matchable,
    }


def _bytes(image: ArrayLike) -> np.ndarray:
    return np.round(255.0 * np.asarray(image)).astype(np.uint8)


def _strip(pair: Pair) -> np.ndarray:
    """Source, target, flow and labels side by side: (S, 4 S, 3) uint8."""
    matchable, occluded = np.asarray(pair.matchable) > 0, np.asarray(pair.occluded) > 0
    labels = np.where(matchable[..., None], np.uint8(255), np.uint8(40)).repeat(3, axis=-1)
    labels[occluded, 1:] //= 3
    flow = flow_picture(np.asarray(pair.flow), np.asarray(pair.matchable), edge=len(matchable))
    return np.concatenate([_bytes(pair.source), _bytes(pair.target), flow, labels], axis=1)


def _sheet(strips: list[np.ndarray]) -> np.ndarray:
    """Strips in rows of `SHEET_COLUMNS`, the last row filled up with black."""
    missing = -len(strips) % SHEET_COLUMNS
    padded = [*strips, *[np.zeros_like(strips[0])] * missing]
    rows = [padded[i : i + SHEET_COLUMNS] for i in range(0, len(padded), SHEET_COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])
