"""One person of a video: where they are, and what is known of them."""

import numpy as np

from dfc_jax.crops import Crop, apply_affine
from dfc_jax.inference.learn import Learner, Memory
from dfc_jax.inference.programs import Known
from dfc_jax.inference.search import Fit

# A face is looked for where it would be had it moved on, but by no more than this part of the crop.
_MOST_SHIFT = 0.25


class Person:
    """A person, while followed.

    Args:
      number: of the person, from 1 on.
      centre: (2,) middle of the frames, pixels: the camera's principal point.
      learner: learns of the person.

    Attributes:
      memory: what of that is used by now; `adopt` brings it up to date.
      fit: as last seen, None before.
      seen_s: when that was; long ago before.
    """

    def __init__(self, number: int, centre: np.ndarray, learner: Learner) -> None:
        self.number, self.learner = number, learner
        self.memory: Memory = learner.memory
        self.fit: Fit | None = None
        self.seen_s = -np.inf
        self._centre = centre
        self._speed = np.zeros(2)

    def adopt(self) -> None:
        """Use what the learner knows by now."""
        self.memory = self.learner.memory

    def known(self, crop: Crop) -> Known:
        """What is known of the face in a crop."""
        centre = apply_affine(crop.to_crop, self._centre)
        return Known(centre, np.exp(self.memory.log_focal) * crop.scale, self.memory.identity)

    def expected_crop(self, time_s: float) -> Crop:
        """Where to look for the face."""
        assert self.fit is not None
        crop = self.fit.upright_crop
        shift = self._speed * (time_s - self.seen_s)
        shift *= min(1.0, _MOST_SHIFT * crop.side_px / max(float(np.linalg.norm(shift)), 1e-6))
        return Crop(crop.centre + shift, crop.side_px, crop.roll_deg, crop.size)

    def saw(self, time_s: float, fit: Fit, jumped: bool) -> None:
        """Take note of where the face is at a time; `jumped` if it was not seen shortly before."""
        if jumped or self.fit is None:
            self._speed = np.zeros(2)
        else:
            way = fit.landmarks.mean(axis=0) - self.fit.landmarks.mean(axis=0)
            self._speed = way / (time_s - self.seen_s)
        self.fit, self.seen_s = fit, time_s
