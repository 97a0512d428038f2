"""Containers and conventions shared by the whole package.

Conventions (written once, here; tests hold the code to them)
-------------------------------------------------------------
Images       float32 RGB in [0, 1], shape (H, W, 3); a leading batch through ``vmap`` or NHWC.
Pixels       (x, y), x right, y down; integer coordinates are pixel *centres*.
Model space  right-handed, millimetres, x to the subject's left, y up, z out of the face.
Camera space OpenCV: x right, y down, z forward, millimetres.
Pose         ``X_camera = R X_model + t``.  ``R = exp([r]_x) diag(1, -1, -1)``: the rotation
             vector ``r`` (radians, camera axes) is zero for a face that looks into the camera.
Angles       ``R = diag(1, -1, -1) Rx(pitch) Ry(yaw) Rz(roll)`` with the factors of 300W-LP and
             AFLW2000-3D (`Pose_Para` = pitch, yaw, roll), in degrees here:

                 Rx = [[1, 0, 0], [0, c, s], [0, -s, c]]
                 Ry = [[c, 0, -s], [0, 1, 0], [s, 0, c]]
                 Rz = [[c, s, 0], [-s, c, 0], [0, 0, 1]]

             As seen in the image: yaw > 0 turns the face to the image's left (the subject's
             right), pitch > 0 lifts the chin, roll > 0 turns the head clockwise.
Flow         F(p) in pixels, from source to target: ``q = p + F(p)``.
Invalid      ``pix_to_face`` is -1 on the background; every array that can hold invalid entries
             has a mask beside it; never NaN, but for annotated points that are hidden and
             annotated angles that are unknown.

Shape names: V vertices, T triangles, K identity directions, E expression shapes, H x W pixels,
N points or correspondences, B batch.
"""

import dataclasses
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from flax import struct

Array: TypeAlias = jax.Array
# Where it makes no difference which of the two holds the numbers.
AnyArray: TypeAlias = jax.Array | np.ndarray
Projection = Literal["perspective", "orthographic"]


class ByValue:
    """Base of the dataclasses that hold arrays: equal are those with equal values in all fields.

    They are made with ``eq=False``: the ``==`` that a dataclass would get of its own asks for the
    truth of an array, and raises.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return all(_alike(getattr(self, name), getattr(other, name)) for name in names)

    # What compares by values that can change has no hash, as arrays have none.
    __hash__ = None  # type: ignore[assignment]


def _alike(one: Any, other: Any) -> bool:
    structures: list[Any] = [jax.tree.structure(value) for value in (one, other)]
    if structures[0] != structures[1]:
        return False
    return all(map(_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def _equal(one: Any, other: Any) -> bool:
    """Whether two leaves have equal values, NaN in the same places."""
    arrays = np.asarray(one), np.asarray(other)
    numbers = all(array.dtype.kind in "fc" for array in arrays)
    return np.array_equal(*arrays, equal_nan=numbers)


@struct.dataclass(eq=False)
class Mesh(ByValue):
    """Vertices (V, 3) and triangles (T, 3) int32, counter-clockwise seen from outside."""

    vertices: Array
    triangles: Array


@struct.dataclass(eq=False)
class Camera(ByValue):
    """Intrinsics of a pinhole or scaled-orthographic camera, in pixels of one image.

    Attributes:
      focal_px: () focal length; pixels for ``perspective``, pixels per millimetre for
        ``orthographic``.
      principal_point: (2,) pixel at which the optical axis meets the image.
      projection: ``perspective`` or ``orthographic`` (static under jit).
    """

    focal_px: Array
    principal_point: Array
    projection: Projection = struct.field(pytree_node=False, default="perspective")


@struct.dataclass(eq=False)
class Fragments(ByValue):
    """What each pixel sees; the output of the rasterizer, without gradients.

    Attributes:
      pix_to_face: (H, W) int32, index of the nearest triangle, -1 on the background.
      zbuf: (H, W) depth along the optical axis in millimetres, +inf on the background.
      bary_coords: (H, W, 3) perspective-correct barycentric coordinates, 0 on the background.
    """

    pix_to_face: Array
    zbuf: Array
    bary_coords: Array


@struct.dataclass(eq=False)
class SurfacePoints(ByValue):
    """N points on a mesh: triangle (N,) int32 and barycentric coordinates (N, 3)."""

    triangle: Array
    barycentric: Array


@struct.dataclass(eq=False)
class Correspondences(ByValue):
    """N 2D-3D correspondences, padded to a fixed N; a weight of 0 marks an unused entry.

    Attributes:
      points_px: (N, 2) pixels of the image.
      surface: the N surface points that they show.
      weight: (N,) non-negative.
    """

    points_px: Array
    surface: SurfacePoints
    weight: Array


@struct.dataclass(eq=False)
class FaceParams(ByValue):
    """Everything that the fitter estimates for one face (leading axes are batches).

    Attributes:
      focal_px: () focal length of the camera (see `Camera.focal_px`).
      rotation: (3,) rotation vector, radians; zero looks into the camera (see the module).
      translation_mm: (3,) model origin in camera space.
      identity: (K,) coefficients in standard deviations.
      expression: (E,) blendshape weights in [0, 1].
    """

    focal_px: Array
    rotation: Array
    translation_mm: Array
    identity: Array
    expression: Array
