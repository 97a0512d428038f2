"""Results of evaluations, made by hand: two systems, two sets, null wherever it may stand."""

import copy
from typing import Any

import numpy as np

HOSTILE = '<script>alert("1")</script> & \u202e|x'
PERCENT = [round(0.1 * k, 1) for k in range(101)]


def curve(median: float) -> dict[str, list[float]]:
    """Shares of faces below errors, half of them below the median."""
    return {"percent": PERCENT, "share": [p**3 / (p**3 + median**3) for p in PERCENT]}


def protocol(mean: float, **given: Any) -> dict[str, Any]:
    """Scores by a protocol of 200 faces, three of them without output."""
    scores = {
        "points": "51 inner of 68",
        "visible": None,
        "normalised_by": "box",
        "balanced": False,
        "n": 200,
        "no_output": 3,
        "mean": mean,
        "ci95": [mean - 0.11, mean + 0.12],
        "median": mean - 0.31,
        "median_ci95": [mean - 0.4, mean - 0.2],
        "failure_8": 0.085,
        "auc_8": 0.6789,
        "curve": curve(mean - 0.31),
        "bins": {
            "0-30": {"n": 120, "mean": mean - 0.7, "ci95": [mean - 0.8, mean - 0.6]},
            "30-60": {"n": 50, "mean": mean + 0.9, "ci95": [mean + 0.5, mean + 1.3]},
            "60-90": {"n": 0, "mean": None, "ci95": [None, None]},
        },
    }
    return scores | given


NOTHING = protocol(0.0) | dict.fromkeys(
    ("mean", "ci95", "median", "median_ci95", "failure_8", "auc_8", "curve", "bins")
)


def face_points(seed: int, spread: float = 0.0) -> list[list[float]]:
    """68 points on an oval, in photo pixels, off by so many."""
    rng = np.random.default_rng(seed)
    turn = np.linspace(0.0, 2.0 * np.pi, 68)
    points = np.stack([100.0 + 40.0 * np.cos(turn), 90.0 + 50.0 * np.sin(turn)], axis=1)
    return (points + spread * rng.normal(size=points.shape)).round(2).tolist()


def faces(spread: float) -> list[dict[str, Any]]:
    """Nine faces, one of a hostile name, one without output, one whose points are hidden."""
    made: list[dict[str, Any]] = [
        {
            "name": f"face{k}",
            "photo": f"face{k}.png",
            "yaw_deg": 10.0 * k,
            "scale_px": {"box": 90.0, "box-diagonal": 130.0, "inter-ocular": None},
            "errors": {"inner": spread + k, "all68": None},
            "output": True,
            "predicted": face_points(k, spread),
            "true": face_points(k),
        }
        for k in range(9)
    ]
    made[8]["name"] = HOSTILE
    made[7] |= {"predicted": None, "output": False, "errors": {"inner": None}, "name": "unfound"}
    made[6]["true"][:20] = [None] * 20
    made[5] |= {"true": None, "photo": None, "yaw_deg": None}
    return made


def pose(slope: float) -> dict[str, Any]:
    """Scores of angles; that of the pitch has no slope."""
    whole = {"n": 190, "slope": slope, "bias": -1.25, "mean": 6.54, "median": 4.32}
    rotation = {"n": 0, "mean": None, "median": None}
    return {"yaw": whole, "pitch": whole | {"slope": None}, "roll": whole, "rotation": rotation}


def result(system: str, mean: float) -> dict[str, Any]:
    """A result whose inner error on the first set is `mean`."""
    yaws = range(-90, 91, 30)
    first = {
        "name": "cfp/validation",
        "layout": "cfp",
        "labels": "original",
        "n": 200,
        "no_output": 3,
        "unusable": ["broken.jpg", HOSTILE],
        "protocols": {
            "inner": protocol(mean),
            "visible-inner": protocol(mean - 0.2, visible="ground-truth mesh", balanced=True),
        },
        "pose": pose(0.87),
        "yaw": {str(y): {"n": 20, "true": 1.0 * y, "found": 0.8 * y} for y in yaws},
        "abs_yaw": None,
        "profiles": {"n": 12, "median_abs_yaw": 71.5},
        "openings": {"eyes": {"n": 20, "correlation": 0.81, "slope": None}, "mouth": None},
        "flow": {"inner": {"mean": 3.33}, "all68": {"mean": None}},
        "blend": None,
        "mask_iou": {"n": 50, "mean": 0.912, "median": 0.934},
        "dense": {"n": 40, "no_output": 1, "epe": 2.22, "nme": None},
        "faces": faces(mean),
    }
    second = {
        "name": HOSTILE,
        "labels": "reannotated",
        "n": 5,
        "no_output": 5,
        "protocols": {"points21": NOTHING | {"points": "21 of AFLW", "normalised_by": "box"}},
        **dict.fromkeys(("layout", "unusable", "pose", "yaw", "profiles", "openings", "flow")),
        **dict.fromkeys(("mask_iou", "dense", "faces", "blend", "abs_yaw")),
    }
    return {
        "schema": "dfc-evaluation/1.0",
        "system": {"name": system, "versions": {"dfc_jax": "0.1.0"}, "boxes": "gt"},
        "seed": 0,
        "sets": [first, second],
        "runtime": None,
    }


def two_results() -> list[dict[str, Any]]:
    """Two systems; the second one knows its runtime, and not its versions."""
    one, other = result("dfc_jax lite", 3.17), copy.deepcopy(result("other & <b>", 4.06))
    other["system"] |= {"versions": None, "boxes": None}
    stage = {"per": "face", "median_ms": 12.345, "p10_ms": 11.1, "p90_ms": 15.55, "samples": 50}
    other["runtime"] = {
        "device": "cpu",
        "cores": 2,
        "load_s": 14.2,
        "first_s": None,
        "stages": {"network": stage, "fit": stage | {"p10_ms": None, "per": None}},
    }
    return [one, other]
