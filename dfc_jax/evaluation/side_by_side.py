"""Faces of a set with the points of several systems, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfc_jax.crops import Crop, apply_affine, crop_photo
from dfc_jax.errors import DatasetError
from dfc_jax.evaluation.grid import dots, grid
from dfc_jax.evaluation.page.results import (
    Entry,
    Result,
    by_set,
    check_result,
    points_of,
    protocols_of,
)
from dfc_jax.evaluation.page.worst import crop_of, error_of, photo_of

FACES, EDGE = 8, 224
TRUE, FOUND = (60, 220, 110), (255, 92, 92)
GROUND = 235

Face = Mapping[str, Any]


def side_by_side(
    results: Sequence[Result],
    set_name: str,
    folder: Path | None = None,
    names: Sequence[str] | None = None,
    count: int = FACES,
) -> tuple[np.ndarray, dict[str, Any]]:
    """A picture of faces: a column for each, below each other the true points and each system's.

    Args:
      results: one for each system, with this set.
      set_name: its name.
      folder: of its photographs; on plain ground without.
      names: of the faces; by default `count` of those that all systems know, from the least mean
        error over the systems to the largest, in equal steps of rank; a face without output counts
        as the worst.
      count: see `names`.

    Returns:
      the picture (H, W, 3) uint8 and what it shows, as JSON can hold it.

    Raises:
      DatasetError: a result has no such set, or the set no such face.
    """
    entries = _entries(results, set_name)
    protocol = next(iter(sorted(protocols_of(entries), key=lambda name: name != "inner")), "inner")
    known = [_faces(entry) for entry in entries]
    shared = [name for name in known[0] if all(name in faces for faces in known)]
    if names is None:
        chosen = _spread_out(shared, known, protocol, count)
    else:
        chosen = list(names)
    for name in chosen:
        if name not in shared:
            raise DatasetError(f"{set_name}: not all results have a face {name}; name another")
    if not chosen:
        raise DatasetError(f"{set_name}: {_why_none(known, shared)}")
    columns = [_column([faces[name] for faces in known], folder) for name in chosen]
    errors = [[error_of(faces[name], protocol) for name in chosen] for faces in known]
    told = [[_told(faces[name], protocol) for name in chosen] for faces in known]
    rows = [list(row) for row in zip(*columns, strict=True)]
    sides = ["true", *(entry.system for entry in entries)]
    picture = grid(rows, sides=sides, captions=[chosen, *told])
    systems = {
        entry.system: dict(zip(chosen, row, strict=True))
        for entry, row in zip(entries, errors, strict=True)
    }
    return picture, {"set": set_name, "protocol": protocol, "errors_percent": systems}


def _entries(results: Sequence[Result], set_name: str) -> list[Entry]:
    for result in results:
        check_result(result)
    found = [
        each for (name, _), those in by_set(results).items() if name == set_name for each in those
    ]
    if {entry.rank for entry in found} != set(range(len(results))):
        has = sorted({name for name, _ in by_set(results)})
        raise DatasetError(
            f"{set_name}: not every result has this set; there are {', '.join(has) or 'none'}"
        )
    return found


def _faces(entry: Entry) -> dict[str, Face]:
    return {str(face.get("name")): face for face in entry.scores.get("faces") or []}


def _why_none(known: Sequence[Mapping[str, Face]], shared: Sequence[str]) -> str:
    """Why there is no face to show, and what to do."""
    if not all(known):
        return "a result has no single faces; evaluate without --without-faces"
    if not shared:
        return "the results share no face; evaluate the same set"
    return "no face has an error of landmarks in all results; name faces with --face"


def _spread_out(
    shared: Sequence[str], known: Sequence[Mapping[str, Face]], protocol: str, count: int
) -> list[str]:
    """Names from the easiest to the hardest face that has a truth."""

    def mean_error(name: str) -> float:
        errors = [error_of(faces[name], protocol) for faces in known]
        missed = [faces[name].get("output") is False for faces in known]
        if any(e is None and not m for e, m in zip(errors, missed, strict=True)):
            return np.nan
        return float(np.mean([np.inf if error is None else error for error in errors]))

    ranked = sorted((error, name) for name in shared if not np.isnan(error := mean_error(name)))
    steps = np.linspace(0, len(ranked) - 1, min(count, len(ranked)))
    return [ranked[k][1] for k in np.round(steps).astype(int)]


def _column(faces: Sequence[Face], folder: Path | None) -> list[np.ndarray]:
    """The true points of a face, and below them what each system found."""
    true = points_of(faces[0].get("true"))
    found = [points_of(face.get("predicted")) for face in faces]
    given = [points for points in found if np.isfinite(points).any()]
    crop = crop_of(true, np.concatenate([*given, np.zeros((0, 2))]), EDGE)
    plain = np.full((EDGE, EDGE, 3), GROUND, np.uint8)
    if crop is None:
        return [plain] * (1 + len(faces))
    image = photo_of(faces[0], folder)
    ground = plain if image is None else _cut(image, crop)
    tiles = []
    for points, colour in ((true, TRUE), *((points, FOUND) for points in found)):
        tile = ground.copy()
        dots(tile, apply_affine(crop.to_crop, points), colour)
        tiles.append(tile)
    return tiles


def _cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    return np.round(255.0 * crop_photo(image, crop)).astype(np.uint8)


def _told(face: Face, protocol: str) -> str:
    """What is written below a face: its error, where there are true points."""
    error = error_of(face, protocol)
    if error is None:
        return "no output" if face.get("output") is False else ""
    return f"{error:.2f} %"
