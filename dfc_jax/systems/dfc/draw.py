"""Pictures of flow and matchability."""

import cv2
import numpy as np


def flow_picture(
    flow: np.ndarray, mask: np.ndarray, edge: int = 512, longest: float | None = None
) -> np.ndarray:
    """Flow (S, S, 2) as hue (direction) and saturation (length), black where not matchable.

    A flow of `longest` pixels, by default the longest matchable one, is fully saturated. `mask`
    (S, S) is the matchability in [0, 1].
    """
    length = np.linalg.norm(flow, axis=-1)
    if longest is None:
        longest = float(length[mask > 0.5].max(initial=0.0))
    hue = np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360.0
    saturation = np.clip(length / max(longest, 1e-6), 0.0, 1.0)
    hsv = np.stack([hue, saturation, np.clip(mask, 0.0, 1.0)], axis=-1).astype(np.float32)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return _enlarged((rgb * 255.0 + 0.5).astype(np.uint8), edge)


def mask_picture(mask: np.ndarray, edge: int = 512) -> np.ndarray:
    """Matchability (S, S) in [0, 1] as a grey picture, uint8."""
    return _enlarged((np.clip(mask, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8), edge)


def _enlarged(picture: np.ndarray, edge: int) -> np.ndarray:
    return cv2.resize(picture, (edge, edge), interpolation=cv2.INTER_NEAREST)
