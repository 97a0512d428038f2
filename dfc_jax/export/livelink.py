"""Expressions and head poses as the CSV that the app Live Link Face records."""

import csv
import os
from collections.abc import Sequence

import numpy as np

from dfc_jax.files import written_aside

_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
_MOUTH_PAIRS = ("Smile", "Frown", "Dimple", "Stretch")
_LOWER_PAIRS = ("Press", "LowerDown", "UpperUp")
# ARKit's 52 shapes in the app's order.
SHAPES = (
    *(f"Eye{what}{side}" for side in ("Left", "Right") for what in _EYE),
    *("JawForward", "JawRight", "JawLeft", "JawOpen"),
    *("MouthClose", "MouthFunnel", "MouthPucker", "MouthRight", "MouthLeft"),
    *(f"Mouth{what}{side}" for what in _MOUTH_PAIRS for side in ("Left", "Right")),
    *("MouthRollLower", "MouthRollUpper", "MouthShrugLower", "MouthShrugUpper"),
    *(f"Mouth{what}{side}" for what in _LOWER_PAIRS for side in ("Left", "Right")),
    *("BrowDownLeft", "BrowDownRight", "BrowInnerUp", "BrowOuterUpLeft", "BrowOuterUpRight"),
    *("CheekPuff", "CheekSquintLeft", "CheekSquintRight", "NoseSneerLeft", "NoseSneerRight"),
    "TongueOut",
)
ANGLES = tuple(
    f"{what}{angle}"
    for what in ("Head", "LeftEye", "RightEye")
    for angle in ("Yaw", "Pitch", "Roll")
)
COLUMNS = ("Timecode", "BlendShapeCount", *SHAPES, *ANGLES)


def write_livelink(
    path: str | os.PathLike[str],
    names: Sequence[str],
    expression: np.ndarray,
    angles_deg: np.ndarray,
    times_s: np.ndarray | None = None,
    fps: float = 60.0,
) -> None:
    """Write F rows: the 52 ARKit shapes, and the head's angles in radians.

    A shape that the model has for the left and for the right alone (browInnerUp, cheekPuff) is
    their mean; one that it has not (tongueOut), and the eyes' angles, are 0: where the eyes look
    is in the shapes. HeadYaw > 0 turns to the subject's right, HeadPitch > 0 lifts the chin,
    HeadRoll > 0 brings the subject's right ear down.

    Args:
      path: of the file.
      names: of the E expression shapes.
      expression: (F, E) weights.
      angles_deg: (F, 3) yaw, pitch, roll as in `dfc_jax.types`, degrees.
      times_s: (F,) seconds; by default one frame after the other.
      fps: frames that a timecode counts in a second.

    Raises:
      ExportError: the file cannot be written.
    """
    expression = np.asarray(expression, np.float64)
    times = np.arange(len(expression)) / fps if times_s is None else np.asarray(times_s)
    weights = arkit_weights(names, expression)
    head = np.deg2rad(np.asarray(angles_deg, np.float64).reshape(-1, 3)) * [1.0, 1.0, -1.0]
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for time, row, angles in zip(times.tolist(), weights, head, strict=True):
            numbers = [f"{value:.6f}" for value in (*row, *angles, *np.zeros(6))]
            rows.writerow([timecode(time, fps), len(numbers), *numbers])


def arkit_weights(names: Sequence[str], expression: np.ndarray) -> np.ndarray:
    """Weights (F, E) of the named shapes as those of `SHAPES`, (F, 52); see `write_livelink`."""
    columns = {name[:1].upper() + name[1:]: expression[:, i] for i, name in enumerate(names)}

    def weight(name: str) -> np.ndarray:
        sides = [columns[side] for side in (f"{name}Left", f"{name}Right") if side in columns]
        found = [columns[name]] if name in columns else sides
        return np.mean(found, axis=0) if found else np.zeros(len(expression))

    return np.stack([weight(name) for name in SHAPES], axis=1)


def timecode(time_s: float, fps: float) -> str:
    """HH:MM:SS:FF.fff, frames and their thousandths."""
    thousandths = round(time_s * fps * 1000.0)
    seconds = int(thousandths / (fps * 1000.0) + 1e-9)
    frame = thousandths - round(seconds * fps * 1000.0)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}:{frame // 1000:02d}.{frame % 1000:03d}"
