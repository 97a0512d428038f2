"""One person of a video: what is known of them from frame to frame."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.crops import Crop, apply_affine
from dfc_jax.fitting import N_IDENTITY, fit_views
from dfc_jax.inference.appearance import Appearance
from dfc_jax.inference.face import Face
from dfc_jax.inference.search import Fit, upright_crop
from dfc_jax.inference.smooth import Smoother, share
from dfc_jax.inference.solve import Known
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.types import Array, Correspondences

# Frames that one identity and focal length are fitted to. They are to differ in pose (1 for so many
# degrees) and expression (1 for so much of the weights' length).
N_KEYFRAMES = 8
_APART_DEG, _APART_WEIGHTS, _APART = 12.0, 0.7, 1.0
# A fit of all keyframes costs as much as several frames: it follows the first after these seconds,
# and every other one after so many times as long as the last, up to the most.
_FIRST_REFIT_S, _LATER, _MOST_REFIT_S = 0.4, 3.0, 10.0
# Seconds between looks at what a face looks like.
_LOOKS_S = 0.2
# How fast a person turns into what a new fit says, so that nothing jumps.
_ADOPT_HZ = 0.3
# A face is looked for where it would be had it moved on, but by no more than this part of the crop.
_MOST_SHIFT = 0.25


class Keyframe(NamedTuple):
    """A frame that the identity is fitted to.

    Attributes:
      correspondences: N of them, in frame pixels.
      rotation: (3, 3) model to camera.
      expression: (E,) weights.
    """

    correspondences: Correspondences
    rotation: np.ndarray
    expression: np.ndarray

    def apart(self, other: "Keyframe") -> float:
        """How different two frames show a face; from 1 on it is worth while to have both."""
        cosine = (np.trace(self.rotation @ other.rotation.T) - 1.0) / 2.0
        turn = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
        weights = np.linalg.norm(self.expression - other.expression)
        return float(np.hypot(turn / _APART_DEG, weights / _APART_WEIGHTS))


class Person:
    """A person, while followed.

    Args:
      number: of the person, from 1 on.
      model: the face model.
      centre: (2,) middle of the frames, pixels: the camera's principal point.
      smooth: whether pose and expression are smoothed.
      looks: of the face that was seen first.

    Attributes:
      looks: what the face looks like.
      face: as last seen, None before; not smoothed.
      seen_s: when that was; long ago before.
    """

    def __init__(
        self,
        number: int,
        model: FaceModel,
        centre: np.ndarray,
        smooth: bool,
        looks: Appearance,
    ) -> None:
        self.number, self.looks = number, looks
        self.face: Face | None = None
        self.seen_s = -np.inf
        self._model, self._centre, self._smooth = model, centre, smooth
        self._keyframes: list[Keyframe] = []
        self._identity: np.ndarray | None = None
        self._log_focal = 0.0
        self._fitted = (np.zeros(0), 0.0)
        self._new_keyframes, self._refit_s, self._wait_s = False, 0.0, _FIRST_REFIT_S
        self._looked_s = -np.inf
        self._speed = np.zeros(2)
        self._smoother: Smoother | None = None

    def known(self, crop: Crop) -> Known:
        """What is known of the face in a crop."""
        centre = apply_affine(crop.to_crop, self._centre)
        if self._identity is None:
            return Known(centre)
        return Known(centre, np.exp(self._log_focal) * crop.scale, self._identity)

    def expected_crop(self, time_s: float) -> Crop:
        """Where to look for the face."""
        assert self.face is not None
        crop = upright_crop(self.face.landmarks, self.face.rotation)
        shift = self._speed * (time_s - self.seen_s)
        shift *= min(1.0, _MOST_SHIFT * crop.side_px / max(float(np.linalg.norm(shift)), 1e-6))
        return Crop(crop.centre + shift, crop.side_px, crop.roll_deg, crop.size)

    def saw(self, time_s: float, face: Face, jumped: bool) -> Face:
        """Take note of the face at a time; `jumped` if it was not seen shortly before.

        Returns:
          the face, smoothed if that is wanted.
        """
        middle = face.landmarks.mean(axis=0)
        elapsed = time_s - self.seen_s
        if jumped or self.face is None:
            self._smoother = Smoother(self._model) if self._smooth else None
            self._speed = np.zeros(2)
        else:
            self._speed = (middle - self.face.landmarks.mean(axis=0)) / elapsed
            self._adopt(elapsed)
        self.face, self.seen_s = face, time_s
        return face if self._smoother is None else self._smoother(time_s, face)

    def learn(self, time_s: float, fit: Fit, face: Face) -> None:
        """Learn identity and focal length of a fit to the person's face, when it is time to."""
        self._collect(_keyframe(fit, face))
        first = self._identity is None
        if first or (self._new_keyframes and time_s - self._refit_s >= self._wait_s):
            if not first:
                self._wait_s = min(_LATER * self._wait_s, _MOST_REFIT_S)
            self._new_keyframes, self._refit_s = False, time_s
            self._fitted = _together(self._model, self._keyframes, self._centre)
            if first or not self._smooth:
                self._identity, self._log_focal = self._fitted

    def remember(self, time_s: float, looks: Callable[[], Appearance], most_apart: float) -> None:
        """Remember what the face looks like, now and then, unless it is as different from what is
        remembered as one that somebody covers."""
        if time_s - self._looked_s >= _LOOKS_S:
            self._looked_s, new = time_s, looks()
            if self.looks.apart(new) < most_apart:
                self.looks = self.looks.with_frame(new)

    def _collect(self, new: Keyframe) -> None:
        """Keep the frame if it differs from all; from one on too many, the two most alike give way
        to one of them."""
        if self._keyframes and min(map(new.apart, self._keyframes)) < _APART:
            return
        self._new_keyframes = True
        self._keyframes.append(new)
        if len(self._keyframes) > N_KEYFRAMES:
            pairs = [
                (one.apart(other), i)
                for i, one in enumerate(self._keyframes)
                for other in self._keyframes[i + 1 :]
            ]
            del self._keyframes[min(pairs)[1]]

    def _adopt(self, elapsed_s: float) -> None:
        if self._identity is None:
            return
        newer = share(elapsed_s, _ADOPT_HZ)
        identity, log_focal = self._fitted
        self._identity = self._identity + newer * (identity - self._identity)
        self._log_focal += float(newer) * (log_focal - self._log_focal)


def _keyframe(fit: Fit, face: Face) -> Keyframe:
    seen = fit.estimate.dense.correspondences
    points = apply_affine(fit.crop.to_photo, np.asarray(seen.points_px, np.float64))
    in_frame = dataclasses.replace(seen, points_px=points.astype(np.float32))
    return Keyframe(in_frame, face.rotation, face.weights)


def _together(
    model: FaceModel, keyframes: list[Keyframe], centre: np.ndarray
) -> tuple[np.ndarray, float]:
    """The identity (K,) and the logarithm of the focal length of all keyframes."""
    seen = [keyframe.correspondences for keyframe in keyframes]
    blind = dataclasses.replace(seen[0], weight=jnp.zeros_like(seen[0].weight))
    # Filled up, so that one program serves all.
    seen += [blind] * (N_KEYFRAMES - len(seen))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *seen)
    identity, focal = _fit_together(model, stacked, centre.astype(np.float32))
    return np.asarray(identity, np.float64), float(np.log(focal))


@jax.jit
def _fit_together(
    model: FaceModel, correspondences: Correspondences, centre: Array
) -> tuple[Array, Array]:
    centres = jnp.tile(centre, (N_KEYFRAMES, 1))
    params = fit_views(model, correspondences, centres, one_camera=True).params
    return params.identity[0, :N_IDENTITY], params.focal_px[0]
