"""What the frames of a video teach of a person: identity, focal length and looks."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.crops import apply_affine, crop_photo
from dfc_jax.fitting import N_IDENTITY, fit_views
from dfc_jax.inference.appearance import Appearance, appearance
from dfc_jax.inference.face import Face
from dfc_jax.inference.search import Fit
from dfc_jax.inference.segmentation import visible
from dfc_jax.inference.smooth import Smoother, share
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
# Mean difference of colours from which two faces are of two people; the same face in other light
# stays below. From half of it on, somebody may cover the face.
OTHER = 0.12


class Memory(NamedTuple):
    """What is known of a person.

    Attributes:
      looks: what the face looks like.
      identity: (K,) standard deviations.
      log_focal: natural logarithm of the focal length in frame pixels.
    """

    looks: Appearance
    identity: np.ndarray
    log_focal: float


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


class Learner:
    """Learns of a person, frame by frame, and smooths their face.

    Args:
      model: the face model.
      centre: (2,) middle of the frames, pixels: the camera's principal point.
      smooth: whether pose, expression, and what is learnt, are smoothed over time.
      time_s, image, fit: the face that is seen first, and the frame (H, W, 3) uint8 RGB.

    Attributes:
      memory: what is known by now; a new one for each frame.
    """

    def __init__(
        self,
        model: FaceModel,
        centre: np.ndarray,
        smooth: bool,
        time_s: float,
        image: np.ndarray,
        fit: Fit,
    ) -> None:
        self._model, self._centre, self._smooth = model, centre, smooth
        self._smoother: Smoother | None = None
        self._keyframes: list[Keyframe] = []
        self._collect(_keyframe(fit))
        self._seen_s = self._refit_s = time_s
        self._new_keyframes, self._wait_s = False, _FIRST_REFIT_S
        self._fitted = _together(model, self._keyframes, centre)
        self._looked_s = -np.inf
        self.memory = Memory(looks_of(image, fit), *self._fitted)

    def __call__(
        self, time_s: float, image: np.ndarray, fit: Fit, face: Face, jumped: bool
    ) -> Face:
        """Learn from a frame (H, W, 3) in which a fit became a face.

        Args:
          time_s: of the frame, later than those before.
          image, fit, face: the frame, and what was found.
          jumped: whether the person was not seen in the frame before.

        Returns:
          the face, smoothed if that is wanted.
        """
        if not face.reasons:
            self._learn(time_s, fit)
            self._remember(time_s, image, fit)
        if jumped:
            self._smoother = Smoother(self._model) if self._smooth else None
        else:
            self._adopt(time_s - self._seen_s)
        self._seen_s = time_s
        return face if self._smoother is None else self._smoother(time_s, face)

    def _learn(self, time_s: float, fit: Fit) -> None:
        """Fit identity and focal length anew, when it is time to."""
        self._collect(_keyframe(fit))
        if self._new_keyframes and time_s - self._refit_s >= self._wait_s:
            self._new_keyframes, self._refit_s = False, time_s
            self._wait_s = min(_LATER * self._wait_s, _MOST_REFIT_S)
            self._fitted = _together(self._model, self._keyframes, self._centre)
            if not self._smooth:
                self.memory = Memory(self.memory.looks, *self._fitted)

    def _remember(self, time_s: float, image: np.ndarray, fit: Fit) -> None:
        """Look at the face, now and then."""
        if time_s - self._looked_s >= _LOOKS_S:
            self._looked_s, new = time_s, looks_of(image, fit)
            old = self.memory.looks
            if old.apart(new) < OTHER / 2.0:
                self.memory = self.memory._replace(looks=old.with_frame(new))

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
        newer = share(elapsed_s, _ADOPT_HZ)
        looks, identity, log_focal = self.memory
        self.memory = Memory(
            looks,
            identity + newer * (self._fitted[0] - identity),
            log_focal + float(newer) * (self._fitted[1] - log_focal),
        )


def looks_of(image: np.ndarray, fit: Fit) -> Appearance:
    """What a fitted face in a frame (H, W, 3) uint8 RGB looks like."""
    dense = fit.estimate.dense
    seen = np.asarray(visible(dense.matchability, dense.segmentation))
    return appearance(crop_photo(image, fit.crop), np.asarray(dense.flow), seen)


def _keyframe(fit: Fit) -> Keyframe:
    dense = fit.estimate.dense
    seen = dense.correspondences
    points = apply_affine(fit.crop.to_photo, np.asarray(seen.points_px, np.float64))
    in_frame = dataclasses.replace(seen, points_px=points.astype(np.float32))
    return Keyframe(in_frame, fit.rotation, np.asarray(dense.params.expression, np.float64))


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
