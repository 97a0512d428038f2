"""A fitted face as AFLW2000-3D and 300W-LP store theirs (Zhu et al. 2016)."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from dfc_jax.data.lp import N_EXPRESSION, N_SHAPE
from dfc_jax.files import written_aside
from dfc_jax.inference.draw import projected

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face

_UM_PER_MM = 1000.0


def aflw2000_record(face: "Face", height: int) -> dict[str, np.ndarray]:
    """The variables of a ``.mat`` for a face of a photograph of a height in pixels.

    ``pt3d_68`` (3, 68): landmarks, x and y in pixels from 1, and their depth in pixels from the
    model's origin, growing to the viewer. ``Pose_Para`` (1, 7): pitch, yaw, roll in radians, the
    model's origin (pixels from 1, y up from the lower edge; z is 0), and pixels per micrometre:
    the weak perspective that agrees with the fitted camera at the model's origin. ``Shape_Para``
    (199, 1) and ``Exp_Para`` (29, 1) are coefficients of Basel's model, which ours is not: zeros.
    """
    scale = face.focal_px / face.translation_mm[2]  # pixels per millimetre
    depth = scale * (face.translation_mm[2] - face.landmarks3d_mm[:, 2])
    x, y = projected(face, face.translation_mm[None])[0]
    angles = np.deg2rad([face.angles_deg[name] for name in ("pitch", "yaw", "roll")])
    pose = [*angles, x + 1.0, height - y, 0.0, scale / _UM_PER_MM]
    return {
        "pt3d_68": np.vstack([face.landmarks.T + 1.0, depth]).astype(np.float32),
        "Pose_Para": np.array([pose], np.float32),
        "Shape_Para": np.zeros((N_SHAPE, 1)),
        "Exp_Para": np.zeros((N_EXPRESSION, 1)),
    }


def write_aflw2000(path: str | os.PathLike[str], face: "Face", height: int) -> None:
    """Write `aflw2000_record` as a ``.mat``.

    Raises:
      ExportError: the file cannot be written.
    """
    from scipy.io import savemat  # here: slow to import

    record: dict[str, Any] = aflw2000_record(face, height)
    with written_aside(path) as aside:
        savemat(aside, record)
