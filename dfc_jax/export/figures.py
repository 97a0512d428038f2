"""Figures of what is found in photographs: flow, matchability and mesh, side by side."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from dfc_jax.crops import apply_affine, crop_photo
from dfc_jax.evaluation.grid import grid
from dfc_jax.inference.draw import look_at
from dfc_jax.inference.face import Face
from dfc_jax.systems.dfc.draw import flow_picture, mask_picture
from dfc_jax.types import Array

EDGE, WHEEL = 256, 0.22
HEADS = ("photograph", "flow", "matchability", "fitted mesh")
# RGB of the mesh in the dark and in full light.
DARK, BRIGHT = np.array([38.0, 52.0, 84.0]), np.array([236.0, 240.0, 246.0])


def panels(
    images: Sequence[np.ndarray], faces: Sequence[Face], triangles: Array, edge: int = EDGE
) -> np.ndarray:
    """A row for each face, as in figure 2 of the paper: the crop of the photograph that the network
    sees, the flow with its colour wheel, the matchability, and the fitted mesh.

    Args:
      images: (H, W, 3) uint8, the photograph of each face.
      faces: one for each photograph.
      triangles: of the face model.
      edge: of each picture, pixels.
    """
    longest = longest_flow(faces)
    rows = [
        row_of(image, face, triangles, edge, longest)
        for image, face in zip(images, faces, strict=True)
    ]
    return grid(rows, HEADS)


def row_of(
    image: np.ndarray, face: Face, triangles: Array, edge: int, longest: float
) -> list[np.ndarray]:
    """The four pictures (edge, edge, 3) of a face, in the order of `HEADS`; a flow of `longest`
    pixels of the crop is fully saturated."""
    crop = dataclasses.replace(face.crop, size=edge)
    photograph = np.round(255.0 * crop_photo(image, crop)).astype(np.uint8)
    flow = flow_picture(face.flow, face.matchability, edge, longest)
    rim = round(WHEEL * edge)
    flow[-rim:, -rim:] = wheel(rim)
    mask = mask_picture(face.matchability, edge)[..., None].repeat(3, axis=-1)
    return [photograph, flow, mask, meshed(photograph, face, triangles, edge)]


def meshed(photograph: np.ndarray, face: Face, triangles: Array, edge: int) -> np.ndarray:
    """The crop (edge, edge, 3) with the fitted mesh over it, opaque and lit."""
    crop = dataclasses.replace(face.crop, size=edge)
    view = look_at(face, triangles, size=2 * edge)
    # Pixels of the view to those of the crop.
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    moved = apply_affine(crop.to_crop, apply_affine(view.crop.to_photo, corners))
    matrix = np.column_stack([moved[1] - moved[0], moved[2] - moved[0], moved[0]])
    light, covered = (
        cv2.warpAffine(values.astype(np.float32), matrix, (edge, edge), flags=cv2.INTER_AREA)
        for values in (view.light, view.covered)
    )
    covered = covered[..., None]
    paint = DARK + light[..., None] * (BRIGHT - DARK)
    return np.round(photograph * (1.0 - covered) + paint * covered).astype(np.uint8)


def wheel(size: int) -> np.ndarray:
    """The colours of flows (size, size, 3) uint8: right of the middle that of a flow to the right,
    at the rim that of the longest one."""
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2.0) / (size / 2.0 - 1.0)
    length = np.hypot(x, y)
    soft = np.clip((1.0 - length) * size / 2.0, 0.0, 1.0)
    return flow_picture(np.stack([x, y], axis=-1), soft, size, 1.0)


def longest_flow(faces: Sequence[Face]) -> float:
    """The longest flow where a pixel of one of the faces is matchable, in pixels of the crop; at
    least 1."""
    lengths = (np.linalg.norm(face.flow, axis=-1)[face.matchability > 0.5] for face in faces)
    return max((float(length.max(initial=1.0)) for length in lengths), default=1.0)
