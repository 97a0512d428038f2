"""The stages from a photograph to fitted faces, one by one, to time them.

They are the programs that the solver runs, on the same crops, apart from each other.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from dfc_jax.crops import box_of_points, crop_photo
from dfc_jax.errors import OptionError
from dfc_jax.evaluation.runtime import sample_ms, spread
from dfc_jax.inference.align import Aligner
from dfc_jax.inference.face import Face
from dfc_jax.inference.programs import Known, finish_each, fit_each, lift_each, summarise_each
from dfc_jax.inference.solve import Solver

# Crops at once.
BATCH = 16


def stage_times(
    aligner: Aligner,
    photos: Sequence[np.ndarray],
    batch: int = BATCH,
    repeats: int = 50,
    seconds: float = 5.0,
) -> tuple[dict[str, Any], int]:
    """The times of the stages, and how many faces are found.

    Args:
      aligner: of `load`, with a solver of its own.
      photos: (H, W, 3) uint8 RGB each.
      batch: crops at once, of the stages that are named so; 1 for none of them.
      repeats, seconds: of each stage, see `sample_ms`.

    Returns:
      by the name of the stage what `spread` says of it: "crop", "network", "fit" (lifting to
      correspondences, fitting) and "finish" (mesh, completed flow, uncertainty) per face, the last
      three also with `batch` crops at once; "detector" and "total" per photograph, the latter also
      from boxes of the faces and, "many at once", by `Aligner.many`. A total is more than the sum:
      what the detector takes for a face may be none, and a face may be cropped again.

    Raises:
      OptionError: no photograph shows a face.
    """
    solver = aligner.solver
    assert isinstance(solver, Solver)
    found = [aligner(photo) for photo in photos]
    crops = [(p, face.crop) for p, faces in zip(photos, found, strict=True) for face in faces]
    if not crops:
        raise OptionError("no photograph shows a face; time photographs of faces")
    timed = partial(sample_ms, repeats=repeats, seconds=seconds)
    cut = [crop_photo(*each) for each in crops]
    stages = {
        "detector": spread(timed([partial(aligner.detector, p) for p in photos]), "photograph"),
        "crop": spread(timed([partial(crop_photo, *each) for each in crops]), "face"),
    }
    for name, calls in _programs(solver, [crop[None] for crop in cut]).items():
        stages[name] = spread(timed(calls), "face")
    if batch > 1:
        many = np.stack([cut[k % len(cut)] for k in range(batch)])
        for name, calls in _programs(solver, [many]).items():
            stages[f"{name}, {batch} at once"] = spread(timed(calls), "face", batch)
    return {**stages, **_totals(aligner, photos, found, batch, timed)}, len(crops)


def _totals(
    aligner: Aligner,
    photos: Sequence[np.ndarray],
    found: Sequence[Sequence[Face]],
    batch: int,
    timed: Callable[[Sequence[Callable[[], Any]]], np.ndarray],
) -> dict[str, Any]:
    """Times of whole calls: with the detector, from boxes, of many photographs."""
    boxes = [[box_of_points(face.landmarks) for face in faces] for faces in found]
    given = [partial(aligner, photo, own) for photo, own in zip(photos, boxes, strict=True) if own]
    run = [photos[k % len(photos)] for k in range(max(batch, len(photos)))]

    def together() -> list[Sequence[Face]]:
        return [each.faces for each in aligner.many(run)]

    return {
        "total": spread(timed([partial(aligner, photo) for photo in photos]), "photograph"),
        "total, boxes given": spread(timed(given), "photograph"),
        "total, many at once": spread(timed([together]), "photograph", len(run)),
    }


def _programs(solver: Solver, batches: Sequence[np.ndarray]) -> dict[str, list[Callable[[], Any]]]:
    """Calls of network, fit and finish for batches (N, S, S, 3), each with what the one before it
    gives."""
    calls: dict[str, list[Callable[[], Any]]] = {"network": [], "fit": [], "finish": []}
    for crops in batches:
        seen = jax.device_get(solver.network(crops))
        middle = np.full((len(crops), 2), (crops.shape[1] - 1) / 2.0, np.float32)

        def fit(seen=seen, middle=middle) -> Any:
            lifted = lift_each(solver.template, *seen)
            return lifted, fit_each(solver.model, lifted, Known(middle))

        lifted, (params, _) = fit()

        def finish(seen=seen, middle=middle, lifted=lifted, params=params) -> Any:
            _, dense = summarise_each(*seen, lifted, middle, params, solver.model)
            return finish_each(dense, solver.template, solver.model)

        calls["network"].append(partial(solver.network, crops))
        calls["fit"].append(fit)
        calls["finish"].append(finish)
    return calls
