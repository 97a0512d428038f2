"""Writing what was found: JSON (docs/ALIGN_SCHEMA.md), NumPy archives, meshes, pictures.

Every file is written aside and renamed, so that a file under its final name is whole.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face

SCHEMA_VERSION = "1.2"
# Camera space (y down, z forward) to the frame of mesh viewers (y up, z towards the viewer).
_TO_VIEWER = np.array([1.0, -1.0, -1.0])
_MATERIAL = "face"

ObjSpace = Literal["model", "camera"]


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


def face_record(face: "Face", files: dict[str, str] | None = None) -> dict[str, Any]:
    """One face as the JSON-ready dict of docs/ALIGN_SCHEMA.md."""
    return {
        "status": face.status,
        "reasons": list(face.reasons),
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
    named: dict[str, Any] = {**arrays}
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **named)


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write an RGB (H, W, 3) or grey (H, W) uint8 image."""
    _write_coded(path, image, ".png")


def write_picture(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """The same, in the format of the path's suffix: ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``."""
    _write_coded(path, image, Path(path).suffix.lower())


def _write_coded(path: str | os.PathLike[str], image: np.ndarray, suffix: str) -> None:
    coded = cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image)[1]
    with written_aside(path) as aside:
        aside.write_bytes(coded.tobytes())


def write_obj(
    path: str | os.PathLike[str],
    vertices_mm: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    material: str | None = None,
    space: ObjSpace = "camera",
) -> None:
    """Write a mesh of vertices (V, 3), mm, and triangles (T, 3) as OBJ: y up, z to the viewer.

    Args:
      path: of the file.
      vertices_mm: (V, 3); those of camera space are turned, so that a viewer shows the face as the
        photograph does.
      triangles: (T, 3).
      uv: (V, 2), v up.
      normals: (V, 3), unit, in the space of the vertices.
      material: name of a file of `write_mtl`, in the same folder.
      space: which one the vertices are in.
    """
    # Not by trimesh's exporter: it has one number of digits for mm and for uv, and its own names
    # for the material's files.
    turned = _TO_VIEWER if space == "camera" else np.ones(3)
    text = [f"# millimetres, {space} space, y up, z towards the viewer\n"]
    if material is not None:
        text.append(f"mtllib {material}\nusemtl {_MATERIAL}\n")
    text.append(_lines("v %.3f %.3f %.3f", np.asarray(vertices_mm, np.float64) * turned))
    corner = "{0}"
    if uv is not None:
        text.append(_lines("vt %.5f %.5f", np.asarray(uv, np.float64)))
        corner = "{0}/{0}"
    if normals is not None:
        text.append(_lines("vn %.3f %.3f %.3f", np.asarray(normals, np.float64) * turned))
        corner = "{0}/{0}/{0}" if uv is not None else "{0}//{0}"
    corners = (corner.format("%d") for _ in range(3))
    repeats = corner.count("{0}")
    ids = np.repeat(np.asarray(triangles) + 1, repeats, axis=1)
    text.append(_lines("f " + " ".join(corners), ids))
    with written_aside(path) as aside:
        aside.write_text("".join(text), encoding="utf-8")


def write_mtl(path: str | os.PathLike[str], texture: str) -> None:
    """Write the material of `write_obj`: matt, with the colours of a picture in the same folder."""
    lines = (f"newmtl {_MATERIAL}", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "illum 1")
    with written_aside(path) as aside:
        aside.write_text("\n".join([*lines, f"map_Kd {texture}", ""]), encoding="utf-8")


def _lines(pattern: str, rows: np.ndarray) -> str:
    return (pattern + "\n") * len(rows) % tuple(rows.ravel().tolist())
