"""Smoothing over time by the One-Euro filter (NumPy): a low pass whose cutoff rises with speed.

G. Casiez, N. Roussel, D. Vogel, "1 € Filter: a simple speed-based low-pass filter for noisy input
in interactive systems", CHI 2012. What stands still is smoothed much, what moves is hardly late.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from dfc_jax.inference.face import Face, angles_of
from dfc_jax.inference.programs import pose_mesh
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.ops.rotations import FRONTAL, matrix_to_rotvec
from dfc_jax.types import Array, FaceParams


class OneEuro(NamedTuple):
    """Settings of a filter.

    Attributes:
      cutoff_hz: of what stands still; lower is smoother.
      per_speed: by how much the cutoff rises, Hz for each unit a second; higher is less late.
      speed_cutoff_hz: of the speed itself.
    """

    cutoff_hz: float
    per_speed: float
    speed_cutoff_hz: float = 1.0


class Filter:
    """Smooths values that come one after the other.

    Args:
      settings: see `OneEuro`.
      alike: whether one cutoff, of the length of the speed, serves all components; else each has
        its own.
      apart: the way (n,) from an old value to a new one, ``apart(new, old)``.
      moved: the value so far on from an old one, ``moved(old, way)``.
    """

    def __init__(
        self,
        settings: OneEuro,
        alike: bool = True,
        apart: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.subtract,
        moved: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.add,
    ) -> None:
        self._settings, self._alike = settings, alike
        self._apart, self._moved = apart, moved
        self._time_s = 0.0
        self._value: np.ndarray | None = None
        self._speed: np.ndarray = np.zeros(())

    def __call__(self, time_s: float, value: np.ndarray, unit: float = 1.0) -> np.ndarray:
        """The smoothed value, at a time later than those before; speeds are in `unit` a second."""
        if self._value is None:
            self._value = np.asarray(value, np.float64)
        else:
            elapsed = time_s - self._time_s
            # Measured from the smoothed value: being late raises the cutoff, too.
            way = self._apart(value, self._value)
            newer = share(elapsed, self._settings.speed_cutoff_hz)
            self._speed = self._speed + newer * (way / (elapsed * unit) - self._speed)
            speed = np.sqrt(np.sum(self._speed**2)) if self._alike else np.abs(self._speed)
            cutoff = self._settings.cutoff_hz + self._settings.per_speed * speed
            self._value = self._moved(self._value, share(elapsed, cutoff) * way)
        self._time_s = time_s
        return self._value


def share(elapsed_s: float, cutoff_hz: np.ndarray | float) -> np.ndarray:
    """How much of a new value a first-order low pass takes after so many seconds."""
    return 1.0 - np.exp(-2.0 * np.pi * elapsed_s * np.asarray(cutoff_hz))


def rotations(settings: OneEuro) -> Filter:
    """A filter of rotations (3, 3), along the shortest way between them, in rad/s."""
    return Filter(settings, apart=_turn_between, moved=_turned)


def _turn_between(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(new @ old.T).as_rotvec()


def _turned(old: np.ndarray, turn: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(turn).as_matrix() @ old


# What a face does in a second, in these units: radians; its own sizes across the picture; e-folds
# of its size in it; weights of expressions.
TURN, SHIFT = OneEuro(0.7, 3.0), OneEuro(0.7, 8.0)
ZOOM, EXPRESSION = OneEuro(0.5, 5.0), OneEuro(0.7, 2.0)
_FACE_MM = 150.0


class Smoother:
    """Smooths the faces of one person, which are seen by one camera."""

    def __init__(self, model: FaceModel) -> None:
        self._model = model
        self._turn = rotations(TURN)
        self._shift, self._zoom = Filter(SHIFT), Filter(ZOOM)
        self._expression = Filter(EXPRESSION, alike=False)

    def __call__(self, time_s: float, face: Face) -> Face:
        """The face with smooth pose and expression, and the mesh and landmarks that go with them;
        the dense correspondences stay as they are."""
        x, y, depth = face.translation_mm
        scale = face.focal_px / depth
        offset = self._shift(time_s, scale * np.array([x, y]), _FACE_MM * scale)
        scale = float(np.exp(self._zoom(time_s, np.log([scale]))[0]))
        weights = self._expression(time_s, face.weights)
        rotation = self._turn(time_s, face.rotation)
        return moved(self._model, face, rotation, np.append(offset, face.focal_px) / scale, weights)


def moved(
    model: FaceModel,
    face: Face,
    rotation: np.ndarray,
    translation_mm: np.ndarray,
    expression: np.ndarray,
) -> Face:
    """A face in another pose (3, 3), (3,) and with other expression weights (E,)."""
    camera = face.focal_px, face.principal_point
    pose = rotation @ FRONTAL, translation_mm
    numbers = [np.asarray(each, np.float32) for each in (*camera, *pose, face.identity, expression)]
    vertices, landmarks, pixels = map(np.array, _posed(model, *numbers))
    return dataclasses.replace(
        face,
        rotation=rotation.astype(np.float32),
        translation_mm=translation_mm.astype(np.float32),
        angles_deg=angles_of(rotation.astype(np.float32)),
        expression=dict(zip(face.expression, expression.tolist(), strict=True)),
        vertices_mm=vertices,
        landmarks3d_mm=landmarks,
        landmarks=pixels.astype(np.float64),
    )


@jax.jit
def _posed(
    model: FaceModel,
    focal_px: Array,
    principal_point: Array,
    turn: Array,
    translation_mm: Array,
    identity: Array,
    expression: Array,
) -> tuple[Array, Array, Array]:
    rotation = matrix_to_rotvec(turn)
    params = FaceParams(focal_px, rotation, translation_mm, identity, expression)
    return pose_mesh(model, params, principal_point)
