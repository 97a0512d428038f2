"""How fast training pairs are made, in which stage the time goes, and how far from the floor.

All times are milliseconds per batch of B pairs, that is of 2 B faces:

    sample_ms   parameters and shapes
    raster_ms   which triangle each pixel sees
    shade_ms    skin, light, what is behind the face
    augment_ms  occluders and the camera's own effects
    label_ms    flow and matchability (once per pair)
    total_ms    `sample_pair`, all of it in one call

Each stage runs alone, so their sum leaves out what a compiler gains by seeing all of them.

The floor is the time that this device needs for the least work that makes B pairs in stages:
the larger of bytes / bandwidth and operations / matrix-product rate, both rates measured in the
same run. With V vertices, T triangles, K directions and s x s pixels, the bytes are those of
arrays that one stage hands to the next (written once, read once by each stage that needs them)
and of what all faces share (read once per batch):

    shared    model 4 * 3 V (K + 1), triangles 4 * 3 T
    per face  vertices, written, read to rasterize and to shade      3 * 4 * 3 V
              colours of vertices, written, read                     2 * 4 * 3 V
              index, depth and three weights per pixel, written, read   2 * 4 * 5 s^2
              picture, written, read, written again                  3 * 4 * 3 s^2
    per pair  flow, matchability, occlusion, written                 4 * 4 s^2

and the operations those of the blend of shapes, 2 * 3 V K per face, of projection, normals and
second-order light, 100 per vertex, of three edge functions and a depth for every pixel of the
triangles' boxes (twice the image), 2 * 30 s^2, and of blending and changing colours, 60 s^2.
What cannot be counted so plainly (random numbers, searches, scatters) counts as nothing: the
floor is low, and `times_floor` an upper bound of what could be gained. `xla_*` are the compiler's
own estimates for the program as it is; loops of unknown length count once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from data_pipelines.faces.synthetic import (
    SyntheticAssets,
    SyntheticSettings,
    load_assets,
    rasterize_scene,
    sample_pair,
    sample_scene,
    shade_scene,
    take_photograph,
)
from dfc_jax.morphable.file import load_face_model
from dfc_jax.raster.flow import ground_truth_flow
from dfc_jax.types import Array
from experiments.bench.stopwatch import Stopwatch

PAIRS = 16
# Floats in the array that measures bandwidth, edge of the matrices that measure the rate.
BANDWIDTH_FLOATS, MATRIX_EDGE = (1 << 24, 1 << 28), (1024, 8192)  # on a CPU, elsewhere

Figures = dict[str, Any]


def synthetic_suite(watch: Stopwatch, batch: int | None = None) -> Figures:
    """Pairs per second, the stages, and the floor; see the module."""
    batch = batch or PAIRS
    settings, assets = SyntheticSettings(), load_assets(load_face_model())
    keys = jax.random.split(jax.random.key(0), batch)
    whole = _batched(lambda key, assets: sample_pair(key, assets, settings))
    whole = whole.lower(keys, assets).compile()
    total_ms = watch.median_ms(whole, keys, assets)
    estimate = whole.cost_analysis() or {}
    return {
        "pairs_per_s": short(1e3 * batch / total_ms),
        "batch": batch,
        "total_ms": total_ms,
        **stage_figures(watch, jax.random.split(keys[0], 2 * batch), assets, settings),
        **floor_figures(watch, assets, settings, batch, total_ms),
        "xla_mflop_per_pair": short(estimate.get("flops", 0.0) / batch / 1e6),
        "xla_mbyte_per_pair": short(estimate.get("bytes accessed", 0.0) / batch / 1e6),
    }


def short(value: float) -> float:
    """Four digits of a figure."""
    return float(f"{value:.4g}")


def stage_figures(
    watch: Stopwatch, keys: Array, assets: SyntheticAssets, settings: SyntheticSettings
) -> Figures:
    """Each stage alone, on the faces of 2 B keys; the second half are the first half's targets."""
    triangles, n_vertices = assets.model.triangles, len(assets.model.mean_mm)

    def label(source: Any, target: Any, scene: Any, _: SyntheticAssets) -> tuple[Array, Array]:
        vertices = scene.vertices_mm[:n_vertices]
        return ground_truth_flow(source, target, vertices, scene.camera, triangles)

    sample = _batched(lambda key, assets: sample_scene(key, assets, settings))
    raster = _batched(lambda scene, assets: rasterize_scene(scene, assets, settings))
    shade = _batched(
        lambda key, scene, seen, assets: shade_scene(key, scene, seen, assets, settings)
    )
    augment = _batched(
        lambda key, image, scene, _: take_photograph(key, image, scene.landmarks_px, settings)
    )
    scenes = sample(keys, assets)
    seen = raster(scenes, assets)
    images = shade(keys, scenes, seen, assets)
    half = len(keys) // 2
    source, (target, there) = (
        jax.tree.map(lambda leaf: leaf[:half], seen),
        jax.tree.map(lambda leaf: leaf[half:], (seen, scenes)),
    )
    return {
        "sample_ms": watch.median_ms(sample, keys, assets),
        "raster_ms": watch.median_ms(raster, scenes, assets),
        "shade_ms": watch.median_ms(shade, keys, scenes, seen, assets),
        "augment_ms": watch.median_ms(augment, keys, images, scenes, assets),
        "label_ms": watch.median_ms(_batched(label), source, target, there, assets),
    }


def _batched(function: Callable[..., Any]) -> Any:
    """Compiled over a leading axis of all arguments but the last, the assets."""

    def over_batch(*args: Any) -> Any:
        return jax.vmap(lambda *each: function(*each, args[-1]))(*args[:-1])

    return jax.jit(over_batch)


def floor_figures(
    watch: Stopwatch,
    assets: SyntheticAssets,
    settings: SyntheticSettings,
    batch: int,
    total_ms: float,
) -> Figures:
    """The least work, the rates of the device, and the time that follows."""
    model = assets.model
    vertices, triangles = len(model.mean_mm), len(model.triangles)
    directions = model.n_identity + model.n_expression
    nbytes, operations = least_work(vertices, triangles, directions, settings.size, batch)
    bytes_per_ms, operations_per_ms = bandwidth(watch), matmul_rate(watch)
    floor_ms = max(nbytes / bytes_per_ms, operations / operations_per_ms)
    return {
        "floor_ms": short(floor_ms),
        "times_floor": short(total_ms / floor_ms),
        "mbyte_per_pair": short(nbytes / batch / 1e6),
        "mflop_per_pair": short(operations / batch / 1e6),
        "bandwidth_gbyte_per_s": short(bytes_per_ms / 1e6),
        "matmul_gflop_per_s": short(operations_per_ms / 1e6),
    }


def least_work(
    vertices: int, triangles: int, directions: int, size: int, pairs: int
) -> tuple[int, int]:
    """Bytes to move and operations to do for a batch of pairs; see the module for the terms."""
    pixels = size**2
    shared = 4 * 3 * vertices * (directions + 1) + 4 * 3 * triangles
    face = (3 + 2) * 4 * 3 * vertices + (2 * 4 * 5 + 3 * 4 * 3) * pixels
    nbytes = shared + pairs * (2 * face + 4 * 4 * pixels)
    per_face = 2 * 3 * vertices * directions + 100 * vertices + (2 * 30 + 60) * pixels
    return nbytes, pairs * 2 * per_face


def bandwidth(watch: Stopwatch) -> float:
    """Bytes per millisecond that adding 1 to a large array reads and writes."""
    values = jnp.zeros(BANDWIDTH_FLOATS[jax.default_backend() != "cpu"])
    return 2 * values.nbytes / watch.median_ms(jax.jit(lambda array: array + 1.0), values)


def matmul_rate(watch: Stopwatch) -> float:
    """Operations per millisecond of a float32 matrix product at JAX's default precision."""
    return 2 * matrix_edge() ** 3 / matmul_ms(watch)


def matmul_ms(watch: Stopwatch) -> float:
    """Milliseconds of the product of two matrices of `matrix_edge`."""
    matrix = jnp.ones((matrix_edge(), matrix_edge()))
    return watch.median_ms(jax.jit(jnp.matmul), matrix, matrix)


def matrix_edge() -> int:
    """Rows and columns of the matrices that measure the rate of this device."""
    return MATRIX_EDGE[jax.default_backend() != "cpu"]
