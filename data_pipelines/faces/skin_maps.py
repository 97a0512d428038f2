"""Where on a face model the lips, brows, lids, cheeks, beard and so on lie: one value per vertex.

Everything is found on the mean shape from the 68 landmarks, so that any model will do; the parts
of the mesh add what landmarks cannot tell (eyeballs, ears, neck).
"""

import jax.numpy as jnp
import numpy as np
from flax import struct

from dfc_jax.landmarks68 import MIRROR
from dfc_jax.morphable.linear import PARTS, FaceModel, landmarks3d
from dfc_jax.texture.curves import bell, folded, nearest, signed_distance, soft_step, spline
from dfc_jax.types import Array, ByValue

FAR_MM = 1e3


@struct.dataclass(eq=False)
class SkinMaps(ByValue):
    """Maps over the V vertices, each (V,); regions are soft memberships in [0, 1].

    Attributes:
      position: (V, 3) mean shape in units of 100 mm.
      skin: what is neither eyeball nor lip.
      lips, ears, neck, eyes: the parts; eyes are the whole balls.
      iris_mm: distance to the nearer pupil's centre, `FAR_MM` off the eyeballs.
      brow_mm: distance to the brow's middle line, which thickens inwards.
      brow_along: 0 at the inner end of the brow, 1 at the tail.
      lash_upper, lash_lower: the edges of the lids.
      lid: between the upper lid's edge and the brow, where eye shadow goes.
      under_eye: below the lower lid.
      cheeks, nose, forehead: about the apples of the cheeks, the tip of the nose, the forehead.
      fold: the lines from the wings of the nose to the corners of the mouth.
      crow: outside the outer corners of the eyes.
      beard: cheeks below the beard's line, jaw, chin and upper neck; no lips.
      chin: the part of it that a goatee covers.
      moustache: between nose and upper lip, round the corners of the mouth.
      hairline_mm: how far inside the hair of the head, negative on the face.
    """

    position: Array
    skin: Array
    lips: Array
    ears: Array
    neck: Array
    eyes: Array
    iris_mm: Array
    brow_mm: Array
    brow_along: Array
    lash_upper: Array
    lash_lower: Array
    lid: Array
    under_eye: Array
    cheeks: Array
    nose: Array
    forehead: Array
    fold: Array
    crow: Array
    beard: Array
    chin: Array
    moustache: Array
    hairline_mm: Array


def skin_maps(model: FaceModel) -> SkinMaps:
    """Compute the maps of a model once, on the host. Models without eye, ear or neck triangles
    get zeros there."""
    mean = np.asarray(model.mean_mm, np.float64)
    marks = np.asarray(landmarks3d(model, model.mean_mm), np.float64)
    # The mean of both sides: the maps of a symmetric mesh are symmetric then.
    marks = (marks + marks[MIRROR] * [-1.0, 1.0, 1.0]) / 2.0
    part = {name: _part_share(model, name) for name in PARTS}
    maps = _hair(mean, marks, part["ears"])
    maps |= _around_eyes(mean, marks, part["eyes"])
    maps |= _middle_face(mean, marks)
    maps |= {name: part[name] for name in ("eyes", "ears", "neck")}
    hairless = (1.0 - maps["lips"]) * (1.0 - (part["eyes"] > 0))
    maps |= {name: maps[name] * hairless for name in ("beard", "chin", "moustache")}
    maps["skin"] = hairless
    maps["iris_mm"] = _iris_distance(mean, part["eyes"])
    maps["position"] = mean / 100.0
    return SkinMaps(**{name: jnp.asarray(value, jnp.float32) for name, value in maps.items()})


_RIGHT_EYE = {"upper": [36, 37, 38, 39], "lower": [36, 41, 40, 39]}


def _part_share(model: FaceModel, name: str) -> np.ndarray:
    """(V,) share of the triangles around each vertex that belong to a part."""
    corners = np.asarray(model.triangles)
    inside = np.asarray(model.triangle_part) == PARTS.index(name)
    share, count = np.zeros((2, len(model.mean_mm)))
    np.add.at(share, corners, inside[:, None].astype(float))
    np.add.at(count, corners, 1.0)
    return share / np.maximum(count, 1.0)


def _around_eyes(mean: np.ndarray, marks: np.ndarray, eyes: np.ndarray) -> dict[str, np.ndarray]:
    points = folded(mean)
    no_ball = eyes == 0
    maps = {}
    edge = {side: spline(marks[index]) for side, index in _RIGHT_EYE.items()}
    # Wider than lashes are, for there are but two vertices across the edge of a lid.
    for side, width in (("upper", 2.0), ("lower", 1.3)):
        maps[f"lash_{side}"] = bell(nearest(points, edge[side])[0], width) * no_ball
    distance, at = nearest(points, edge["upper"])
    above = points[:, 1] - edge["upper"][at, 1]
    maps["lid"] = bell(distance, 5.5) * soft_step(above, 1.5) * no_ball
    distance, at = nearest(points, edge["lower"] - [0.0, 4.0, 0.0])
    maps["under_eye"] = bell(distance, 4.0) * soft_step(
        3.0 - points[:, 1] + edge["lower"][at, 1], 2
    )
    maps["under_eye"] *= no_ball * (1.0 - soft_step(above, 2.0))
    maps["crow"] = bell(nearest(points, marks[36:37] + [-8.0, 0.0, -5.0])[0], 7.0) * no_ball
    # Annotators mark the upper part of the brow.
    brow = spline(marks[21:16:-1] - [0.0, 1.5, 0.0])
    distance, at = nearest(points, brow)
    along = at / (len(brow) - 1)
    maps["brow_mm"] = distance * (0.85 + 0.6 * along**2)
    # Beyond the ends the nearest point stays the last one: let it count on.
    maps["brow_along"] = along + np.where(at == len(brow) - 1, distance / 50.0, 0.0)
    return maps


def _middle_face(mean: np.ndarray, marks: np.ndarray) -> dict[str, np.ndarray]:
    points = folded(mean)
    outline = spline(marks[[*range(48, 60), 48]])
    inside = signed_distance(mean[:, :2], outline[:, :2])
    near, _ = nearest(mean, outline)
    cheek = (marks[41] + marks[48] + 0.35 * (marks[1] + marks[2])) / 2.7
    cheek = points[np.argmin(np.sum((points - cheek)[:, :2] ** 2, axis=-1) - points[:, 2])]
    middle = marks[[19, 24]].mean(axis=0)
    fold = spline(np.stack([marks[31] + [-5.0, 6.0, -2.0], marks[48] + [-7.0, 3.0, -2.0]]))
    tall = (mean[:, 1] - middle[1] - 22.0) / 20.0
    return {
        "lips": soft_step(inside, 1.2) * soft_step(22.0 - near, 3.0),
        "cheeks": bell(nearest(points, cheek[None])[0], 15.0),
        "nose": bell(nearest(mean, marks[30:31] - [0.0, 1.0, 3.0])[0], 9.0),
        "forehead": bell(np.hypot(tall, mean[:, 0] / 42.0), 1.0)
        * soft_step(mean[:, 2] - marks[17, 2] + 20.0, 10.0),
        "fold": bell(nearest(points, fold)[0], 2.0),
    }


def _hair(mean: np.ndarray, marks: np.ndarray, ears: np.ndarray) -> dict[str, np.ndarray]:
    """Where a beard, a moustache and the hair of the head may grow."""
    points = folded(mean)
    aside, height = np.abs(mean[:, 0]), mean[:, 1]
    no_ear = np.clip(1.0 - 2.0 * ears, 0.0, 1.0)
    corner, ear, lower = marks[54], marks[15], marks[57]
    line = np.interp(
        aside,
        [0.0, lower[0] + 12.0, corner[0] + 1.0, corner[0] + 9.0, ear[0] - 14.0, ear[0] - 2.0],
        [lower[1] - 3.0, lower[1] - 2.0, corner[1] - 1.0, corner[1] + 8.0, corner[1] + 22.0]
        + [ear[1] + 15.0],
    )
    beard = soft_step(line - height, 5.0) * soft_step(height - marks[8, 1] + 22.0, 12.0)
    beard *= soft_step(mean[:, 2] - marks[0, 2] + 8.0, 6.0) * no_ear
    upper_lip = (marks[[31, 33]] + marks[[49, 51]]) / 2.0
    end = marks[48] + [-4.0, -4.0, 0.0]
    moustache = spline(np.stack([end, marks[48] + [-1.0, 5.0, 3.0], *upper_lip]))
    distance, _ = nearest(points, moustache)
    below_nose = soft_step(marks[33, 1] + 1.0 - height, 2.0)
    mouth_wide = 1.0 - soft_step(aside - corner[0] - 6.0, 2)
    top = marks[27, 1]
    hairline = np.interp(
        aside,
        [0.0, 30.0, marks[26, 0], marks[16, 0] - 6.0, marks[16, 0] + 1.0],
        [top + 62.0, top + 60.0, top + 44.0, top + 20.0, top - 10.0],
    )
    # Behind the ears hair reaches down to the neck.
    behind = marks[0, 2] - 22.0 - mean[:, 2]
    inside = np.maximum(height - hairline, np.minimum(behind, height - marks[2, 1]))
    return {
        "beard": beard,
        "chin": beard * bell(aside / (corner[0] + 4.0), 0.75),
        "moustache": bell(distance, 4.5) * below_nose * mouth_wide,
        "hairline_mm": np.where(ears > 0.4, -FAR_MM, inside),
    }


def _iris_distance(mean: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """(V,) distance to the foremost vertex of the eyeball that a vertex belongs to."""
    distance = np.full(len(mean), FAR_MM)
    for side in (-1.0, 1.0):
        ball = (eyes > 0) & (side * mean[:, 0] > 0)
        if ball.any():
            pupil = mean[np.argmax(np.where(ball, mean[:, 2], -np.inf))]
            distance[ball] = np.linalg.norm(mean[ball] - pupil, axis=-1)
    return distance
