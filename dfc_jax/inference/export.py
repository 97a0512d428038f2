"""Writing what was found: JSON (docs/ALIGN_SCHEMA.md), NumPy archives, meshes, pictures.

Every file is written aside and renamed, so that a file under its final name is whole.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from dfc_jax.inference.align import Face

SCHEMA_VERSION = "1.1"
# Camera space (y down, z forward) to the frame of mesh viewers (y up, z towards the viewer).
_TO_VIEWER = np.array([1.0, -1.0, -1.0])


class ExportError(ValueError):
    """A result cannot be written; the message is one sentence that names the place."""


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` on success, removed on failure.

    Raises:
      ExportError: the folder cannot be written to.
    """
    path = Path(path)
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        try:
            yield aside
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error


def output_names(photos: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A name for each photograph's results: its stem, made different where stems repeat.

    Photographs that share a stem get their folder's name in front, and a number if that is
    still not enough. Names are compared as on file systems that ignore case.
    """
    paths = [Path(photo) for photo in photos]
    stems = [path.stem.casefold() for path in paths]
    counts = Counter(stems)
    taken = {stem for stem in stems if counts[stem] == 1}
    names = []
    for path, stem in zip(paths, stems, strict=True):
        if stem in taken:
            names.append(path.stem)
            continue
        parent = path.resolve().parent.name
        base = f"{parent}_{path.stem}" if parent else path.stem
        name, number = base, 2
        while name.casefold() in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def face_record(face: "Face", files: dict[str, str] | None = None) -> dict[str, Any]:
    """One face as the JSON-ready dict of docs/ALIGN_SCHEMA.md."""
    return {
        "status": face.status,
        "box": _rounded(face.box, 2),
        "detector": {"kind": face.detector, "score": _rounded(face.score, 4)},
        "crop": {
            "centre": _rounded(face.crop.centre, 3),
            "side_px": _rounded(face.crop.side_px, 3),
            "roll_deg": _rounded(face.crop.roll_deg, 3),
        },
        "landmarks_px": _rounded(face.landmarks, 2),
        "landmarks3d_mm": _rounded(face.landmarks3d_mm, 2),
        "angles_deg": {name: _rounded(v, 3) for name, v in face.angles_deg.items()},
        "rotation": _rounded(face.rotation, 6),
        "translation_mm": _rounded(face.translation_mm, 3),
        "focal_px": _rounded(face.focal_px, 3),
        "principal_point_px": _rounded(face.principal_point, 3),
        "identity": _rounded(face.identity, 4),
        "expression": {name: _rounded(w, 4) for name, w in face.expression.items()},
        "residual_px": _rounded(face.residual_px, 3),
        "residual_crop_px": _rounded(face.residual_crop_px, 3),
        "matchable_share": _rounded(face.matchable_share, 4),
        "files": files or {},
    }


def photo_record(
    file: str, size: tuple[int, int], faces: Sequence[dict[str, Any]], versions: dict[str, str]
) -> dict[str, Any]:
    """One photograph of `size` (width, height) as the JSON-ready dict of docs/ALIGN_SCHEMA.md."""
    return {
        "schema_version": SCHEMA_VERSION,
        "photo": {"file": file, "width": size[0], "height": size[1]},
        "status": "ok" if faces else "no_face",
        "versions": versions,
        "faces": list(faces),
    }


def _rounded(value: Any, digits: int) -> Any:
    """Floats and arrays as rounded Python numbers; raises on what JSON cannot hold."""
    array = np.asarray(value, np.float64)
    if not np.isfinite(array).all():
        raise ExportError(
            "a result is not finite and was not written; please report the photograph"
        )
    return np.round(array, digits).tolist()


def write_json(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Write a record as strict JSON (no NaN)."""
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    with written_aside(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def write_npz(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
    """Write arrays to a compressed ``.npz``."""
    with written_aside(path) as aside:
        named: dict[str, Any] = {**arrays}
        np.savez_compressed(aside, **named)


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write an RGB (H, W, 3) or grey (H, W) uint8 image."""
    coded = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1]
    with written_aside(path) as aside:
        aside.write_bytes(coded.tobytes())


def write_obj(
    path: str | os.PathLike[str],
    vertices_mm: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray | None = None,
) -> None:
    """Write a mesh of camera-space vertices (V, 3), triangles (T, 3) and uv (V, 2) as OBJ.

    Millimetres; y up and z towards the viewer, so that a viewer shows the face as the photograph
    does. Uv coordinates share the vertices' indices.
    """
    vertices = np.asarray(vertices_mm, np.float64) * _TO_VIEWER
    # Not by trimesh's exporter: it keeps the order of the vertices, but with uv it always names a
    # material file, which viewers then miss, and it has one number of digits for mm and for uv.
    text = [_lines("v %.3f %.3f %.3f", vertices)]
    corner = "%d"
    ids = np.asarray(triangles) + 1
    if uv is not None:
        text.append(_lines("vt %.5f %.5f", np.asarray(uv, np.float64)))
        corner, ids = "%d/%d", np.repeat(ids, 2, axis=1)
    text.append(_lines("f " + " ".join([corner] * 3), ids))
    with written_aside(path) as aside:
        aside.write_text("# millimetres, y up, z towards the viewer\n" + "".join(text))


def _lines(pattern: str, rows: np.ndarray) -> str:
    return (pattern + "\n") * len(rows) % tuple(rows.ravel().tolist())


def write_face(
    folder: Path, name: str, face: "Face", triangles: np.ndarray, uv: np.ndarray
) -> dict[str, str]:
    """Write a face's arrays, mesh, flow and mask; returns kind -> file name.

    The ``.npz`` holds what the JSON leaves out: ``flow`` (S, S, 2) and ``mask`` (S, S) of the
    crop, both completed from the fitted mesh (``refined_flow``, ``refined_mask``),
    ``crop_to_photo`` (2, 3), and ``vertices_mm`` (V, 3) in camera space.
    """
    from dfc_jax.inference import draw

    files = {
        "npz": f"{name}.npz",
        "obj": f"{name}.obj",
        "flow": f"{name}_flow.png",
        "mask": f"{name}_mask.png",
    }
    write_npz(
        folder / files["npz"],
        flow=face.flow,
        mask=face.mask,
        refined_flow=face.refined_flow,
        refined_mask=face.refined_mask,
        crop_to_photo=face.crop.to_photo,
        vertices_mm=face.vertices_mm,
        landmarks_px=face.landmarks,
    )
    write_obj(folder / files["obj"], face.vertices_mm, triangles, uv)
    write_png(folder / files["flow"], draw.flow_picture(face.flow, face.mask))
    write_png(folder / files["mask"], draw.mask_picture(face.mask))
    return files
