"""Mattes and seams of pictures that are laid over others (NumPy, OpenCV)."""

import cv2
import numpy as np

# Of the guided filter: its window is so many pixels of the coarse mask wide on either side, and
# differences of the guide smaller than the root of the second are none of an edge.
_WINDOW, _EPSILON = 2.0, 2e-3
# A matte below the first counts as 0, above the second as 1: windows carry some of it over edges.
_ENDS = 0.15, 0.85
# The seam of pyramids is about this part of a picture's edge wide.
_SEAM = 1 / 16


def edge_coefficients(
    coarse: np.ndarray, guide: np.ndarray, pixel: float
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset (S, S) of a soft mask as a function of a picture's luminance, whose edges it
    then follows; for `matte`, which may be made larger first.

    The guided filter (He, Sun, Tang, ECCV 2010); on a smaller picture than the matte is for it is
    the fast one (He and Sun, 2015).

    Args:
      coarse: (S, S) float32 in [0, 1], the mask, resampled smoothly to the guide.
      guide: (S, S) float32 luminance of the picture.
      pixel: how many pixels of the guide one of the mask once was.
    """
    edge = 2 * max(1, round(_WINDOW * pixel)) + 1

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, (edge, edge), borderType=cv2.BORDER_REFLECT)

    of_guide, of_mask = mean(guide), mean(coarse)
    variance = mean(guide * guide) - of_guide**2
    slope = (mean(guide * coarse) - of_guide * of_mask) / (variance + _EPSILON)
    offset = of_mask - slope * of_guide
    return mean(slope), mean(offset)


def matte(slope: np.ndarray, offset: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """The mask (H, W) in [0, 1] of coefficients and luminance (H, W); see `edge_coefficients`."""
    low, high = _ENDS
    return np.clip((slope * luma + offset - low) / (high - low), 0.0, 1.0)


def blend_pyramids(under: np.ndarray, over: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """One picture over another, fine detail cut sharply and coarse colours mixed over a wide seam.

    Burt and Adelson, "A multiresolution spline with application to image mosaics" (1983).

    Args:
      under, over: (H, W, 3) float32.
      alpha: (H, W) float32 in [0, 1], 1 for the picture above.
    """
    levels = max(0, int(np.log2(_SEAM * min(alpha.shape))))
    weight = alpha
    shapes, bands = [], []
    for _ in range(levels):
        smaller = cv2.pyrDown(over), cv2.pyrDown(under)
        size = over.shape[1::-1]
        fine = [
            own - cv2.pyrUp(less, dstsize=size)
            for own, less in zip((over, under), smaller, strict=True)
        ]
        bands.append(fine[1] + weight[..., None] * (fine[0] - fine[1]))
        shapes.append(size)
        (over, under), weight = smaller, cv2.pyrDown(weight)
    mixed = under + weight[..., None] * (over - under)
    for size, band in zip(reversed(shapes), reversed(bands), strict=True):
        mixed = cv2.pyrUp(mixed, dstsize=size) + band
    return mixed
