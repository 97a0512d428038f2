"""Synthetic pairs as files: to look at, or to train something else on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from data_pipelines.faces.synthetic import SyntheticAssets, SyntheticSettings, sample_pair
from dfc_jax.files import write_npz
from dfc_jax.photo import write_png
from dfc_jax.systems.dfc.draw import flow_picture
from dfc_jax.systems.dfc.pairs import Pair

BATCH = 16
SHEET_ROWS, SHEET_COLUMNS = 8, 3


def export_pairs(
    out: Path, assets: SyntheticAssets, settings: SyntheticSettings, count: int, seed: int = 0
) -> None:
    """Write `count` pairs as ``pair_NNNNN.npz`` and contact sheets ``sheet_NNN.png``.

    A pair's file holds source and target (S, S, 3) uint8 RGB, flow (S, S, 2) float32 px, matchable
    and occluded (S, S) bool. A sheet shows each pair as source, target, flow (colour is direction,
    black not matchable) and labels (matchable white, occluded there red). Pair n depends on the
    seed and n only.

    Raises:
      ExportError: nothing can be written there.
    """
    shown: list[np.ndarray] = []
    for number, pair in enumerate(_pairs(assets, settings, count, seed)):
        write_npz(
            out / f"pair_{number:05d}.npz",
            source=_bytes(pair.source),
            target=_bytes(pair.target),
            flow=np.asarray(pair.flow),
            matchable=np.asarray(pair.matchable) > 0,
            occluded=np.asarray(pair.occluded) > 0,
        )
        shown.append(_strip(pair))
        if len(shown) == SHEET_ROWS * SHEET_COLUMNS or number == count - 1:
            name = f"sheet_{number // (SHEET_ROWS * SHEET_COLUMNS):03d}.png"
            write_png(out / name, _sheet(shown))
            shown = []


def _pairs(
    assets: SyntheticAssets, settings: SyntheticSettings, count: int, seed: int
) -> Iterator[Pair]:
    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def sample(number: jax.Array, assets: SyntheticAssets) -> Pair:
        return sample_pair(jax.random.fold_in(jax.random.key(seed), number), assets, settings)

    for start in range(0, count, BATCH):
        batch = jax.device_get(sample(start + jnp.arange(BATCH), assets))
        for n in range(min(BATCH, count - start)):
            yield jax.tree.map(lambda leaf, n=n: leaf[n], batch)


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
