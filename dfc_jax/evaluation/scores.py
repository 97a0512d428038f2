"""The scores of a system on sets of annotated faces, as `dfc evaluate` writes them (NumPy).

`docs/EVALUATE.md` describes every field. NaN and infinity are written as None.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.evaluation.bootstrap import balanced, interval, intervals
from dfc_jax.evaluation.curves import (
    CURVE_PERCENT,
    area_under_curve,
    cumulative_shares,
    failure_rate,
)
from dfc_jax.evaluation.openings import opening_scores
from dfc_jax.evaluation.pose import (
    ABS_YAW_BINS,
    ANGLES,
    PROFILE_DEG,
    abs_yaw_bins,
    nearest_angles,
    over_abs_yaw,
    pose_scores,
    profile_scores,
    yaw_curve,
)
from dfc_jax.evaluation.predictions import Predictions
from dfc_jax.evaluation.trials import (
    PROTOCOLS,
    Trial,
    Visibility,
    face_scales,
    trials,
    true_points,
)
from dfc_jax.files import path_text

SCHEMA = "dfc-evaluation/1.0"
# The ways to read landmarks off a face besides its mesh.
OTHER_LANDMARKS = ("flow", "blend")


@dataclasses.dataclass(frozen=True)
class ScoreSettings:
    """How faces are scored.

    Attributes:
      protocols: which of `trials.PROTOCOLS`, where the truth allows them.
      normalised_by: which of `metrics.NORMALISERS` errors are divided by.
      balanced: whether as many faces of each bin of the absolute true yaw are drawn, where it is
        known.
      seed: of that draw, and of the bootstrap.
    """

    protocols: Sequence[str] = PROTOCOLS
    normalised_by: str = "box"
    balanced: bool = False
    seed: int = 0


def evaluation(
    system: str,
    sets: Sequence[Mapping[str, Any]],
    seed: int,
    versions: Mapping[str, str] | None = None,
    boxes: str | None = None,
) -> dict[str, Any]:
    """The record of a whole evaluation, of the `SCHEMA`.

    Args:
      system: its name.
      sets: one record for each, of `set_scores`, with ``name``, ``layout`` and ``unusable``.
      seed: of `ScoreSettings`.
      versions: of what found the faces.
      boxes: from which it started, ``"gt"`` or ``"detector"``; None for another system's points.
    """
    return {
        "schema": SCHEMA,
        "system": {"name": system, "versions": dict(versions or {}), "boxes": boxes},
        "seed": seed,
        "sets": list(sets),
        "runtime": None,
    }


def set_scores(
    faces: Sequence[AnnotatedFace],
    found: Predictions,
    own: Mapping[str, np.ndarray] | None = None,
    visibility: Visibility | None = None,
    settings: ScoreSettings = ScoreSettings(),
    folder: Path | None = None,
) -> dict[str, Any]:
    """The record of a set of n > 0 faces, without its name, layout and unusable files.

    Args:
      faces: of the set.
      found: in them, in the same order.
      own: what our own aligner gives besides, the other arrays of `protocols.READINGS`.
      visibility: of the 68 points, where it is known.
      settings: how they are scored.
      folder: of the set, to which the paths of the photographs are relative.
    """
    own = own or {}
    scales, true_deg = face_scales(faces), true_poses(faces)
    scale, bins = scales[settings.normalised_by], abs_yaw_bins(true_deg[:, 0])
    measured = trials(faces, found.points, found.points21, visibility)
    # Not those of all protocols: the inner errors over the yaw are reported whatever is asked for.
    inner = measured["inner"].errors(scale) if "inner" in measured else np.full(len(faces), np.nan)
    protocols, errors = _protocols(measured, scale, bins, settings)
    others = {
        name: _protocols(trials(faces, own[name], None, visibility), scale, bins, settings)[0]
        for name in OTHER_LANDMARKS
        if name in own
    }
    nothing = np.full((len(faces), 2), np.nan)
    blink, jaw_open = own.get("blink", nothing), own.get("jaw_open", nothing[:, 0])
    angles = np.full((len(faces), 3), np.nan) if found.angles_deg is None else found.angles_deg
    return {
        "labels": ", ".join(dict.fromkeys(face.labels for face in faces)),
        "n": len(faces),
        "no_output": int((~found.output).sum()),
        "protocols": protocols,
        **_poses(faces, angles, np.where(np.isfinite(inner), inner, np.nan)),
        "openings": opening_scores(found.points, true_points(faces), blink, jaw_open),
        **{name: others.get(name) for name in OTHER_LANDMARKS},
        "mask_iou": _averages(own["mask_iou"]) if "mask_iou" in own else None,
        "dense": _dense(faces, own, scale, settings),
        "faces": _face_records(faces, found, scales, errors, folder),
    }


def _protocols(
    measured: Mapping[str, Trial], scale: np.ndarray, bins: np.ndarray, settings: ScoreSettings
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The records of the protocols that are asked for, and the errors (n,) that count in each."""
    records, counted = {}, {}
    for name, trial in measured.items():
        if name not in settings.protocols:
            continue
        errors = trial.errors(scale)
        balance = settings.balanced and bool((bins[~np.isnan(errors)] >= 0).any())
        if balance:
            drawn = balanced(np.where(np.isnan(errors), -1, bins), settings.seed)
            errors = np.where(drawn, errors, np.nan)
        if np.isnan(errors).all():
            continue
        counted[name] = errors
        records[name] = {
            "points": trial.label,
            "visible": trial.visible,
            "normalised_by": settings.normalised_by,
            "balanced": balance,
            **error_scores(errors, bins, settings.seed),
        }
    return records, counted


def error_scores(errors: np.ndarray, bins: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """The scores of errors (n,) in percent, infinite without output, NaN where a face does not
    count; and of those in each bin (n,) of the absolute yaw, if some is known (>= 0).

    Mean, median and their intervals are over the finite errors, the other scores over all.
    """
    taken = ~np.isnan(errors)
    errors, bins = errors[taken], bins[taken]
    finite = errors[np.isfinite(errors)]
    mean_ci95, median_ci95 = intervals(finite, [np.mean, np.median], seed)
    return {
        "n": len(errors),
        "no_output": len(errors) - len(finite),
        "mean": float(finite.mean()) if finite.size else None,
        "ci95": mean_ci95,
        "median": float(np.median(finite)) if finite.size else None,
        "median_ci95": median_ci95,
        "failure_8": failure_rate(errors),
        "auc_8": area_under_curve(errors),
        "curve": {
            "percent": CURVE_PERCENT.tolist(),
            "share": cumulative_shares(errors).tolist(),
        },
        "bins": _bins(errors, bins, seed) if (bins >= 0).any() else None,
    }


def _bins(errors: np.ndarray, bins: np.ndarray, seed: int) -> dict[str, Any]:
    records = {}
    for k, name in enumerate(ABS_YAW_BINS):
        here = errors[bins == k]
        finite = here[np.isfinite(here)]
        records[name] = {
            "n": len(here),
            "no_output": len(here) - len(finite),
            "mean": float(finite.mean()) if finite.size else None,
            "ci95": interval(finite, seed=seed),
        }
    return records


def true_poses(faces: Sequence[AnnotatedFace]) -> np.ndarray:
    """True yaw, pitch and roll (n, 3), NaN where unknown."""
    unknown = np.full(len(ANGLES), np.nan)
    return np.stack([unknown if face.pose_deg is None else face.pose_deg for face in faces])


def _poses(
    faces: Sequence[AnnotatedFace], found_deg: np.ndarray, errors: np.ndarray
) -> dict[str, Any]:
    true_deg = true_poses(faces)
    known = bool(np.isfinite(true_deg).any())
    profile = np.array([face.profile for face in faces]) | (np.abs(true_deg[:, 0]) >= PROFILE_DEG)
    yaw_deg = nearest_angles(found_deg, true_deg)[:, 0]
    return {
        "pose": pose_scores(found_deg, true_deg) if known else None,
        "yaw": yaw_curve(found_deg, true_deg) if known else None,
        "abs_yaw": over_abs_yaw(errors, true_deg[:, 0]) if known else None,
        "profiles": profile_scores(yaw_deg, profile) if profile.any() else None,
    }


def _dense(
    faces: Sequence[AnnotatedFace],
    own: Mapping[str, np.ndarray],
    scale: np.ndarray,
    settings: ScoreSettings,
) -> dict[str, Any] | None:
    """Of the flow in template pixels, of the mesh in percent of the lengths (n,)."""
    known = np.array([face.dense is not None for face in faces])
    if not known.any() or "dense_flow_px" not in own:
        return None
    flow_px, nme = own["dense_flow_px"][known], 100.0 * (own["dense_mesh_px"] / scale)[known]
    found = np.isfinite(flow_px) & np.isfinite(nme)
    scores: dict[str, Any] = {"n": len(found), "no_output": int((~found).sum())}
    for name, values in (("epe", flow_px[found]), ("nme", nme[found])):
        scores[name] = float(values.mean()) if values.size else None
        scores[f"{name}_ci95"] = interval(values, seed=settings.seed)
        scores[f"{name}_median"] = float(np.median(values)) if values.size else None
    return {**scores, "normalised_by": settings.normalised_by}


def _averages(values: np.ndarray) -> dict[str, Any] | None:
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    return {"n": len(values), "mean": float(values.mean()), "median": float(np.median(values))}


def _face_records(
    faces: Sequence[AnnotatedFace],
    found: Predictions,
    scales: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    folder: Path | None,
) -> list[dict[str, Any]]:
    yaw_deg, output = true_poses(faces)[:, 0], found.output
    return [
        {
            "name": path_text(face.name),
            "photo": _relative(face.photo, folder),
            "yaw_deg": _number(yaw_deg[k]),
            "scale_px": {name: _number(scale[k]) for name, scale in scales.items()},
            "errors": {name: _number(values[k]) for name, values in errors.items()},
            "output": bool(output[k]),
            "predicted": _point_list(found.points[k]),
            "true": _point_list(face.points),
        }
        for k, face in enumerate(faces)
    ]


def _relative(photo: Path, folder: Path | None) -> str:
    if folder is not None and photo.absolute().is_relative_to(folder.absolute()):
        photo = photo.absolute().relative_to(folder.absolute())
    return path_text(photo)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _point_list(points: np.ndarray) -> list[list[float] | None] | None:
    """Points (N, 2) to a hundredth of a pixel, None where they are not finite; None without any."""
    known: Iterable[bool] = np.isfinite(points).all(axis=-1).tolist()
    rounded = zip(points.round(2).tolist(), known, strict=True)
    listed = [point if there else None for point, there in rounded]
    return listed if any(point is not None for point in listed) else None
