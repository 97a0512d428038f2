"""What was found as JSON (docs/ALIGN_SCHEMA.md)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dfc_jax.errors import ExportError

if TYPE_CHECKING:
    from dfc_jax.export.journal import Stamp
    from dfc_jax.inference.face import Face

SCHEMA_VERSION = "1.5"


def face_record(face: "Face", files: dict[str, str] | None = None) -> dict[str, Any]:
    """One face as the JSON-ready dict of docs/ALIGN_SCHEMA.md."""
    shown = face.evidence.visible_share
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
        "covered": None if face.covered is None else face.covered.tolist(),
        "occluded_share": None if shown is None else _rounded(1.0 - shown, 4),
        "standard_deviations": _deviations(face),
        "files": files or {},
    }


def _deviations(face: "Face") -> dict[str, Any] | None:
    """Standard deviations of what was found; None where the fit knows none."""
    sure = face.uncertainty
    landmarks = np.sqrt(np.trace(sure.landmarks_px, axis1=1, axis2=2) / 2.0)
    found = {
        "landmarks_px": (landmarks, 3),
        "rotation_deg": (np.rad2deg(np.sqrt(np.diag(sure.rotation))), 3),
        "translation_mm": (np.sqrt(np.diag(sure.translation_mm)), 3),
        "focal_px": (face.focal_px * sure.log_focal, 3),
        "identity": (sure.identity, 4),
        "expression": (sure.expression, 4),
    }
    if not all(np.isfinite(values).all() for values, _ in found.values()):
        return None
    record = {name: _rounded(*values) for name, values in found.items()}
    return record | {"expression": dict(zip(face.expression, record["expression"], strict=True))}


def photo_record(
    file: str,
    size: tuple[int, int],
    faces: Sequence[dict[str, Any]],
    versions: dict[str, str],
    settings: dict[str, Any] | None = None,
    stamp: "Stamp | None" = None,
    files: dict[str, str] | None = None,
    camera: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One photograph of `size` (width, height) as the JSON-ready dict of docs/ALIGN_SCHEMA.md."""
    photo: dict[str, Any] = {"file": file, "width": size[0], "height": size[1]}
    if stamp is not None:
        photo |= stamp._asdict()
    return {
        "schema_version": SCHEMA_VERSION,
        "photo": photo,
        "status": "ok" if faces else "no_face",
        "versions": versions,
        "files": files or {},
        "camera": camera,
        "settings": settings or {},
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
