"""Pointing'04, also HPID (Gourier, Hall and Crowley, "Estimating Face Orientation from Robust
Detection of Salient Facial Features", ICPR Workshop 2004): 15 persons in 93 known poses, twice.

Folders ``Person01`` to ``Person15`` of photographs ``personne01146+0+0.jpg`` (person 01, series 1,
number 46, tilt +0, pan +0 degrees), each beside a ``.txt`` file of the same name: the photograph's
name, the word ``Face``, and the face's centre x, centre y, width and height in pixels. There are no
points, the box is the annotated one. ``Front`` repeats some photographs and is left out.

A negative tilt looks down, a positive one up; a positive pan turns the face to the image's left, as
in `dfc_jax.types`. The marks that the persons looked at lie on a sphere about them, with the tilts
of +90 and -90 as its poles: tilt is a mark's elevation, and pan its azimuth. The face looks into
``(cos(tilt) sin(pan), sin(tilt), cos(tilt) cos(pan))``: yaw and pitch of `dfc_jax.types` follow,

    sin(yaw) = cos(tilt) sin(pan)        tan(pitch) = tan(tilt) / cos(pan)

They are pan and tilt themselves where one of the two is 0. Roll is unknown. True poses can be ten
degrees off, as the persons turned their heads by feel.
"""

import os
import re
from pathlib import Path

import numpy as np

from dfc_jax.data.faces import AnnotatedFace, FaceSet, refuse_duplicates
from dfc_jax.data.ibug import photo_beside
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import N_LANDMARKS

_NAME, _ANGLE = re.compile(r"person(?:ne)?\d{5}(?:[+-]\d{1,2}){2}"), re.compile(r"[+-]\d+")
_BOX = re.compile(r"Face\s+(-?\d+)\s+(-?\d+)\s+(\d+)\s+(\d+)\s*$")


def pointing04(folder: str | os.PathLike[str]) -> FaceSet[Path]:
    """The faces of Pointing'04, person by person, by name; keys are the ``.txt`` files.

    Raises:
      DatasetError: no such folder, no such files in its folders ``PersonNN``, or two of one name.
    """
    folder = Path(folder)
    files = (path.with_suffix(".txt") for path in folder.glob("Person*/person*.*"))
    found = sorted({path for path in files if _NAME.fullmatch(path.stem)})
    if not found:
        raise DatasetError(
            f"{folder}: holds no PersonNN/personneNNNNN+N+N.jpg; give the folder of Pointing'04"
        )
    refuse_duplicates(folder, (path.stem for path in found))
    return FaceSet(str(folder), found, _read_face)


def _read_face(path: Path) -> AnnotatedFace:
    tilt, pan = map(float, _ANGLE.findall(path.stem))
    return AnnotatedFace(
        photo=photo_beside(path),
        points=np.full((N_LANDMARKS, 2), np.nan),
        name=path.stem,
        pose_deg=np.array([*yaw_pitch_of(pan, tilt), np.nan]),
        box=_read_box(path),
    )


def _read_box(path: Path) -> np.ndarray:
    """(4,) x, y, width, height."""
    try:
        found = _BOX.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read; copy it again") from error
    if found is None:
        raise DatasetError(f"{path}: does not say where the face is; copy it again")
    x, y, width, height = (float(number) for number in found.groups())
    if not (width > 0.0 and height > 0.0):
        raise DatasetError(f"{path}: its box is empty; leave it out")
    return np.array([x - width / 2.0, y - height / 2.0, width, height])


def yaw_pitch_of(pan_deg: float, tilt_deg: float) -> tuple[float, float]:
    """Yaw and pitch in degrees, as in `dfc_jax.types`, of a face that looks at a mark; see the
    module."""
    (cp, ct), (sp, st) = (f(np.deg2rad([pan_deg, tilt_deg])) for f in (np.cos, np.sin))
    # Rounding keeps what is 0 from being 1e-17: its direction would be any.
    up, forward = np.round([st, ct * cp], 9)
    return float(np.rad2deg(np.arcsin(ct * sp))), float(np.rad2deg(np.arctan2(up, forward)))
