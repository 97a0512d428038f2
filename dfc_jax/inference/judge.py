"""Whether a fit shows a face: what speaks for it, and what gives reason to doubt.

The network answers for any crop, and the fit follows it, so a box without a face gives a mesh too.
Such a fit shows in what network and mesh say of each other.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np

from dfc_jax.crops import Crop, apply_affine, box_of_points
from dfc_jax.inference.detect import Detection, merge_overlaps
from dfc_jax.inference.segmentation import SHOWN
from dfc_jax.inference.solve import Estimate, Solution

if TYPE_CHECKING:
    from dfc_jax.inference.face import Face


class Evidence(NamedTuple):
    """What speaks for a fit, or against it.

    Attributes:
      matchable_share: share of the crop's pixels that are matchable.
      certainty: mean probability of being matchable over these pixels.
      agreement: share of the pixels on the photograph where the fitted mesh is matchable that
        are.
      residual_crop_px: root mean square distance of the correspondences from the mesh.
      visible_share: share of the pixels on the photograph where the fitted mesh is matchable that
        show this face, by the segmentation; None without such a network.
    """

    matchable_share: float
    certainty: float
    agreement: float
    residual_crop_px: float
    visible_share: float | None = None

    @property
    def confidence(self) -> float:
        """The higher, the more a fit is to be trusted among several to one face."""
        return confidence(self.certainty, self.residual_crop_px)


class HasConfidence(Protocol):
    """A fit that can be held against others."""

    @property
    def confidence(self) -> float: ...


Ranked = TypeVar("Ranked", bound=HasConfidence)

# Bounds for a fit without doubts, from experiments/tools/calibrate_judgement.py; but for the share,
# which it would set to 0.284: a face of which the photograph shows only a part has less.
MIN_MATCHABLE_SHARE = 0.08
MIN_CERTAINTY = 0.897
MIN_AGREEMENT = 0.826
MAX_RESIDUAL_CROP_PX = 1.18
# Provisional, until there are weights to measure it with: a mask over nose, mouth and chin, or a
# hand, leaves about half of a fitted face to see or more; what is no face shows little more of one
# than what a network takes for skin by mistake.
MIN_VISIBLE_SHARE = 0.4

# Less confidence shows that what a detector found is no face: of 862 right fits to training
# photographs, profiles, turned, dark, blurred and half covered faces among them, the least has
# 0.820; of 88 false alarms, 77 have less than this bound.
NO_FACE_CONFIDENCE = 0.8

# Fits as certain as this are clearly right: upside down, faces of 40 training photographs reach
# 0.942, and nine of ten upright ones more than this.
CLEAR_CERTAINTY = 0.945
# What a crop pixel of residual is worth in certainty. With it every right fit to a face of these
# photographs is ahead of the wrong ones, turned in steps of 45 degrees.
RESIDUAL_WEIGHT = 0.1
# What a face found in a turned photograph needs: seven more looks give as many more false alarms,
# and 99.5 % of the boxes without a face stay below.
TURNED_CONFIDENCE = 0.83
# By how much a fit to the turned picture has to be surer, so that a right one stays as it is.
TURN_GAIN = 0.01
# Fits whose landmarks share more than this part of the smaller box are to one head: one of them may
# lie on the forehead, upside down. Two people cheek to cheek share less.
SAME_HEAD = 0.2


def confidence(certainty: float, residual_crop_px: float) -> float:
    """See `Evidence`."""
    return certainty - RESIDUAL_WEIGHT * residual_crop_px


def weigh(
    estimate: Estimate, solution: Solution, crop: Crop, photo_shape: Sequence[int]
) -> Evidence:
    """The evidence in what was found in a crop of a photograph of shape (height, width, ...).

    Args:
      estimate: of the face.
      solution: made of this estimate.
      crop: where both were found.
      photo_shape: of the photograph.
    """
    matchable = np.asarray(solution.matchability) > 0.5
    fitted = np.asarray(solution.fitted_mask) & on_photo(crop, photo_shape)
    share = None
    if solution.segmentation is not None:
        shown = (np.asarray(solution.segmentation) > SHOWN) & fitted
        share = float(shown.sum() / max(int(fitted.sum()), 1))
    return Evidence(
        matchable_share=estimate.matchable_share,
        certainty=estimate.certainty,
        agreement=float((matchable & fitted).sum() / max(int(fitted.sum()), 1)),
        residual_crop_px=estimate.residual_px,
        visible_share=share,
    )


def on_photo(crop: Crop, photo_shape: Sequence[int]) -> np.ndarray:
    """Where a crop shows a photograph of shape (height, width, ...): bool (S, S)."""
    pixels = np.stack(np.meshgrid(*[np.arange(crop.size)] * 2), axis=-1)
    places = apply_affine(crop.to_photo, pixels)
    inside = (places > -0.5) & (places < np.array(photo_shape[1::-1]) - 0.5)
    return inside[..., 0] & inside[..., 1]


def doubts(evidence: Evidence) -> tuple[str, ...]:
    """Why a fit is uncertain, nothing if it is not.

    "little_matched", "unsure_mask", "mask_disagrees", "large_residual", "little_visible": the
    fields of `Evidence`, in this order, each beyond its bound. What is not known gives no doubts.
    """
    share = evidence.visible_share
    beyond = {
        "little_matched": evidence.matchable_share < MIN_MATCHABLE_SHARE,
        "unsure_mask": evidence.certainty < MIN_CERTAINTY,
        "mask_disagrees": evidence.agreement < MIN_AGREEMENT,
        "large_residual": evidence.residual_crop_px > MAX_RESIDUAL_CROP_PX,
        "little_visible": share is not None and share < MIN_VISIBLE_SHARE,
    }
    return tuple(reason for reason, doubtful in beyond.items() if doubtful)


def is_clear(evidence: Evidence) -> bool:
    """Whether a fit is so good that no other needs to be tried."""
    return not doubts(evidence) and evidence.certainty >= CLEAR_CERTAINTY


def may_be_a_face(fit: HasConfidence) -> bool:
    """Whether a fit may show a face where a detector found one."""
    return fit.confidence >= NO_FACE_CONFIDENCE


def is_sure_though_turned(evidence: Evidence) -> bool:
    """Whether a fit shows a face even where only the turned photograph shows it."""
    return not doubts(evidence) and evidence.confidence >= TURNED_CONFIDENCE


def surest(upright: Sequence[Ranked | None], turned: Sequence[Ranked | None]) -> Ranked | None:
    """The fit of most confidence, of those that there are, the turned ones if by `TURN_GAIN`."""
    ranked = _ranked(upright, turned)
    return max(ranked, key=lambda pair: pair[1], default=(None, 0.0))[0]


def distinct(upright: Sequence["Face"], turned: Sequence["Face"]) -> list["Face"]:
    """Of fits to the same face the surest, as in `surest`; largest first."""
    ranked = list(_ranked(upright, turned))
    boxes = [Detection(box_of_points(face.landmarks), rank, "given") for face, rank in ranked]
    kept = merge_overlaps(boxes, SAME_HEAD)
    return [
        face for box in kept for (face, _), own in zip(ranked, boxes, strict=True) if own is box
    ]


def _ranked(
    upright: Sequence[Ranked | None], turned: Sequence[Ranked | None]
) -> Iterator[tuple[Ranked, float]]:
    for fits, gain in ((upright, TURN_GAIN), (turned, 0.0)):
        for fit in fits:
            if fit is not None:
                yield fit, fit.confidence + gain
