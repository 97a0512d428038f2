"""How much nearer to a person's shape several photographs come than one: part of `check_fit`.

Synthetic persons, each one identity and one skin, are rendered in other poses, expressions, lights
and places, seen through the network, and fitted: every picture alone (`fit`), and the first 1, 2,
3, 5 and 10 together (`fit_views`). The figure is ``mm``, the mean distance of the face's vertices
(no neck, ears, eyeballs), without expression, from the true ones, after the similarity transform
that fits best; ``mean_face_mm`` is that of the mean face, which an estimate has to be below to be
worth anything.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import dfc_jax
from data_pipelines.faces.synthetic import (
    SyntheticAssets,
    SyntheticSettings,
    load_assets,
    rasterize_scene,
    sample_scene,
    shade_scene,
    take_photograph,
)
from dfc_jax.fitting import DEFAULT, FitSettings, fit, fit_views
from dfc_jax.inference.programs import correspond, lift_each
from dfc_jax.inference.solve import Solver
from dfc_jax.morphable.linear import PARTS, FaceModel, shape
from dfc_jax.types import Array
from experiments.pretrain import VALIDATION_SEED

VIEWS = (1, 2, 3, 5, 10)
# Of these, the fits alone are compared with the one together.
PHOTOGRAPHS = 5
NOT_FACE = ("eyes", "ears", "neck")
# Crops as the aligner makes them, around a face that it has found.
SETTINGS = SyntheticSettings(crop_scale=1.0, crop_shift=0.0)


def face_vertices(model: FaceModel) -> np.ndarray:
    """Indices of the vertices of the face: no neck, ears, eyeballs."""
    excluded = [PARTS.index(part) for part in NOT_FACE]
    kept = ~np.isin(np.asarray(model.triangle_part), excluded)
    return np.unique(np.asarray(model.triangles)[kept])


def photograph(key: Array, identity: Array, skin_key: Array, assets: SyntheticAssets) -> Array:
    """A picture (S, S, 3) of a person; the rest of it is random."""
    geometry, appearance = jax.random.split(key)
    scene = sample_scene(geometry, assets, SETTINGS, identity)
    seen = rasterize_scene(scene, assets, SETTINGS)
    image = shade_scene(appearance, scene, seen, assets, SETTINGS, skin_key)
    return take_photograph(appearance, image, scene.landmarks_px, SETTINGS)[0]


@jax.jit
def photographs(key: Array, assets: SyntheticAssets) -> tuple[Array, Array]:
    """A random person's identity (K,) and `VIEWS[-1]` pictures (F, S, S, 3) of it."""
    born, skin, shots = jax.random.split(key, 3)
    identity = SETTINGS.identity_std * jax.random.normal(born, (assets.model.n_identity,))
    keys = jax.random.split(shots, VIEWS[-1])
    images = jax.lax.map(lambda shot: photograph(shot, identity, skin, assets), keys)
    return identity, images


def aligned(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Points (N, 3) after the similarity transform that brings them nearest to others (Umeyama,
    "Least-squares estimation of transformation parameters", PAMI 13, 1991)."""
    middle, target = points.mean(axis=0), onto.mean(axis=0)
    left, singular, right = np.linalg.svd((onto - target).T @ (points - middle))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    scale = np.sum(signs * singular) / np.sum((points - middle) ** 2)
    return np.asarray(target + scale * (points - middle) @ ((left * signs) @ right).T)


def shape_error_mm(model: FaceModel, identity: Array, truth: Array) -> float:
    """The figure of the module for an estimate (k,) of an identity (K,)."""
    still = jnp.zeros(model.n_expression)
    found, true = (
        np.asarray(shape(model, one, still), np.float64)[face_vertices(model)]
        for one in (identity, truth)
    )
    return float(np.linalg.norm(aligned(found, true) - true, axis=1).mean())


def person_errors(
    solver: Solver, images: Array, truth: Array, settings: FitSettings = DEFAULT
) -> tuple[list[float], list[float]]:
    """Errors of the fits alone to each of F pictures, and of those of the first `VIEWS` together,
    as far as there are so many."""
    centre = solver.template.camera.principal_point
    seen = [
        lift_each(
            solver.template,
            *correspond(image[None], solver.variables, solver.code, solver.spec, solver.flip_test),
        )
        for image in images
    ]
    points = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *seen)
    alone, together = [], []
    for i in range(len(images)):
        found = fit(solver.model, jax.tree.map(lambda leaf, i=i: leaf[i], points), centre)
        alone.append(shape_error_mm(solver.model, found.params.identity, truth))
    for count in VIEWS:
        if count <= len(images):
            first = jax.tree.map(lambda leaf, count=count: leaf[:count], points)
            joint = fit_views(solver.model, first, jnp.tile(centre, (count, 1)), settings)
            together.append(shape_error_mm(solver.model, joint.params.identity[0], truth))
    return alone, together


def persons_report(alone: np.ndarray, together: np.ndarray, mean_face: np.ndarray) -> dict:
    """Of errors (n, F) of fits alone, (n, len(VIEWS)) together, (n,) of the mean face, mm."""
    single = alone[:, :PHOTOGRAPHS].mean(axis=1)
    joint = together[:, VIEWS.index(PHOTOGRAPHS)]
    return {
        "persons": len(alone),
        "mean_face_mm": round(float(mean_face.mean()), 3),
        "alone_mm": round(float(single.mean()), 3),
        "together_mm": round(float(joint.mean()), 3),
        "lower": round(float(1.0 - joint.mean() / single.mean()), 4),
        "persons_nearer": int((joint < single).sum()),
        "together_mm_by_views": {
            str(n): round(float(mm), 3) for n, mm in zip(VIEWS, together.mean(axis=0), strict=True)
        },
        "by_person": [
            {"alone_mm": round(float(one), 3), "together_mm": round(float(other), 3)}
            for one, other in zip(single, joint, strict=True)
        ],
    }


def check_persons(weights: str | None, persons: int, seed: int = VALIDATION_SEED) -> dict[str, Any]:
    """The report on so many persons, seen with these weights (None for the default ones)."""
    solver = dfc_jax.load(weights, detector="none").solver
    assert isinstance(solver, Solver)
    assets = load_assets(solver.model)
    alone, together, mean_face = [], [], []
    for key in tqdm(jax.random.split(jax.random.key(seed), persons), "persons", disable=None):
        truth, images = photographs(key, assets)
        one, all_of_them = person_errors(solver, images, truth)
        alone.append(one)
        together.append(all_of_them)
        mean_face.append(shape_error_mm(solver.model, jnp.zeros(1), truth))
    return persons_report(*map(np.array, (alone, together, mean_face)))
