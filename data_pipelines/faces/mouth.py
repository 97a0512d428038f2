"""The inside of the mouth, for face models whose mesh has a hole between the lips.

A bowl closes the boundary loop inside the lips from behind. It holds two strips of teeth with their
gums, and a tongue. The upper teeth are fixed to the skull: they follow the identity, not the
expression. The lower teeth and the tongue follow the jaw: each jaw expression moves them by the
rigid motion that fits the landmarks of the jaw line best. All of it is linear in the coefficients,
as the face is.

To draw a face with its mouth, concatenate the two meshes, and take normals from the face alone::

    own = mouth_vertices(mouth, identity, expression)
    vertices = to_camera(params, jnp.concatenate([shape(model, identity, expression), own]))
    triangles = jnp.concatenate([model.triangles, mouth.triangles])
    inside = sample_mouth_albedo(key, mouth) * mouth_light(mouth, irradiance)
    fragments = fragments_of(vertices, triangles, camera, size)
    image = interpolate(fragments, triangles, jnp.concatenate([albedo * irradiance, inside]))
    labelled = face_fragments(fragments, len(model.triangles))
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from dfc_jax.morphable.linear import FaceModel
from dfc_jax.types import Array, ByValue, Fragments

MOUTH_PARTS = ("cavity", "teeth", "gums", "tongue")
# iBUG: the corners of the mouth, the inner lips, both lips, and the jaw line without its ends,
# which do not move with the jaw.
_CORNERS, _INNER, _LIPS, _JAW = (60, 64), slice(60, 68), slice(48, 68), slice(3, 14)
# A boundary loop farther from the inner lips than this share of the mouth's width is another hole.
_MAX_DISTANCE = 0.3

# The bowl: for each ring its distance behind the loop (mm) and its size relative to the loop, then
# the points of a ring and the depth of the bowl.
_RINGS, _RING_POINTS, _DEPTH_MM = ((4.0, 1.0), (16.0, 0.9)), 12, 25.0
# A row of teeth: its columns of vertices, of which every second one lies between two teeth; its
# width relative to the loop's; its distance behind the loop in the middle, how much farther its
# ends are, and higher. Then, for incisal edge, gum line and gum: height above the line
# where the lips meet, and distance behind the incisal edge. The roots of the lower teeth lean back,
# because the chin is hollow in front of them.
_COLUMNS, _ARCH_WIDTH, _ARCH_GAP_MM, _ARCH_BEND_MM, _ARCH_RISE_MM = 13, 0.8, 4.0, 5.0, 2.0
_UPPER_MM = ((-3.0, 0.0), (5.0, 0.0), (12.0, 2.0))
_LOWER_MM = ((-2.0, 0.0), (-10.0, 2.0), (-15.0, 6.0))
# What the gaps between teeth add to `Mouth.depth`.
_BETWEEN_TEETH = 0.12
# Tongue: half its width, length and height; its tip relative to the edge of a lower front tooth;
# points from front to back and across.
_TONGUE_MM, _TONGUE_TIP_MM, _TONGUE_POINTS = (15.0, 24.0, 6.0), (0.0, -4.0, -4.0), (4, 5)


@struct.dataclass(eq=False)
class Mouth(ByValue):
    """Geometry behind the lips: M_t triangles on the V vertices of the face and M_v of its own.

    Attributes:
      triangles: (M_t, 3) int32 into the face's vertices followed by the mouth's, counter-clockwise
        seen from in front of the mouth.
      part: (M_v,) int32 index into `MOUTH_PARTS`.
      depth: (M_v,) how far inside, from 0 at the lips to 1 at the back of the cavity; a little
        more between two teeth.
      mean_mm, identity_mm, expression_mm: (M_v, 3), (M_v, 3, K), (M_v, 3, E), as in `FaceModel`.
      lips: (L,) int32, vertices of the face on the lips.
    """

    triangles: Array
    part: Array
    depth: Array
    mean_mm: Array
    identity_mm: Array
    expression_mm: Array
    lips: Array


def mouth_vertices(mouth: Mouth, identity: Array, expression: Array) -> Array:
    """The mouth's own vertices (M_v, 3), model space, millimetres; arguments as for `shape`."""
    k, e = identity.shape[-1], expression.shape[-1]
    return (
        mouth.mean_mm
        + mouth.identity_mm[..., :k] @ identity
        + mouth.expression_mm[..., :e] @ expression
    )


# RGB albedo by part, and how much its colour varies.
_COLORS = ((0.45, 0.17, 0.15), (0.88, 0.83, 0.73), (0.62, 0.33, 0.32), (0.70, 0.36, 0.34))
_TINT = (0.12, 0.05, 0.12, 0.12)


def sample_mouth_albedo(key: Array, mouth: Mouth) -> Array:
    """Colours (M_v, 3) in [0, 1] of the mouth's vertices: albedo times the shadow of the cavity.

    Multiply them by `mouth_light`, not by the irradiance at the vertices.
    """
    keys = jax.random.split(key, 3)
    tint = jnp.exp(jnp.asarray(_TINT)[:, None] * jax.random.normal(keys[0], (len(MOUTH_PARTS), 3)))
    colors = jnp.asarray(_COLORS) * tint
    # A flash lights the inside almost as it does the face; a lamp above leaves it black.
    entering = jax.random.uniform(keys[1], minval=0.5, maxval=1.15)
    falloff = jax.random.uniform(keys[2], minval=0.8, maxval=3.2)
    shadow = entering * jnp.exp(-falloff * mouth.depth)
    return jnp.clip(colors[mouth.part] * shadow[:, None], 0.0, 1.0)


def mouth_light(mouth: Mouth, irradiance: Array) -> Array:
    """The light (3,) at the mouth: the mean over the lips of the vertices' irradiance (V, 3)."""
    return jnp.sum(jnp.maximum(irradiance[mouth.lips], 0.0), axis=0) / max(len(mouth.lips), 1)


def face_fragments(fragments: Fragments, n_face_triangles: int) -> Fragments:
    """The fragments of face and mouth with the mouth's pixels turned into background.

    The mouth is not part of the template, so its pixels match nothing. Their depth becomes +inf,
    as on the background: `ground_truth_flow` compares a point with the *farthest* of the four
    pixels around it and ignores the background. With the depth of the mouth, points just behind the
    rim of the lips would count as visible.
    """
    face = fragments.pix_to_face < n_face_triangles
    return Fragments(
        pix_to_face=jnp.where(face, fragments.pix_to_face, -1),
        zbuf=jnp.where(face, fragments.zbuf, jnp.inf),
        bary_coords=jnp.where(face[..., None], fragments.bary_coords, 0.0),
    )


# The rest builds the mouth, in NumPy. Points that are linear in the coefficients are tables
# (n, 3, 1 + K + E): the mean, then the identity and expression directions. Averaging points means
# averaging whole rows; moving them changes the mean only.


class _Piece(NamedTuple):
    """Points (a table), triangles between them, the parts of the points and their extra depth.

    Negative vertex indices count from the last point of the boundary loop backwards.
    """

    points: np.ndarray
    triangles: np.ndarray
    part: tuple[str, ...]
    shadow: np.ndarray | float = 0.0


def make_mouth(model: FaceModel) -> Mouth:
    """The mouth of a face model; without a triangle or vertex when no boundary loop of the mesh
    runs along the inner lips (landmarks 60 to 67), as when a mesh's lips are sealed."""
    corners = np.asarray(model.triangles)[np.asarray(model.landmarks.triangle)]
    weights = np.asarray(model.landmarks.barycentric, np.float64)
    landmarks = np.einsum("nk,nk...->n...", weights, _table(model, corners))
    lips = np.unique(corners[_LIPS])
    loop = _inner_lip_loop(model, landmarks[..., 0])
    if loop is None:
        return _assemble(model, np.zeros(0, int), [], lips)

    ring = _table(model, loop)
    # The loop runs from one corner along the lower lip to the other, and back along the upper lip.
    split = _nearest(ring, landmarks[_CORNERS[1], :, 0])
    lower, upper = ring[: split + 1], np.concatenate([ring[split:], ring[:1]])[::-1]
    line = landmarks[_INNER].mean(axis=0)
    upper_teeth, lower_teeth = (
        _teeth(chain, line, rows) for chain, rows in ((upper, _UPPER_MM), (lower, _LOWER_MM))
    )
    tongue = _tongue(lower_teeth[_COLUMNS // 2])
    jaw = _jaw_motion(model, landmarks[_JAW])
    between = np.tile(_BETWEEN_TEETH * (np.arange(_COLUMNS) % 2 == 0), 3)
    parts = ("teeth",) * (2 * _COLUMNS) + ("gums",) * _COLUMNS
    pieces = [
        _bowl(ring, lower, upper),
        _Piece(_carried(upper_teeth, np.zeros_like(jaw)), _grid(3, _COLUMNS), parts, between),
        # Its rows lead downwards, so the order of each triangle's corners is reversed.
        _Piece(_carried(lower_teeth, jaw), _grid(3, _COLUMNS)[:, ::-1], parts, between),
        _Piece(_carried(tongue, jaw), _grid(*_TONGUE_POINTS), ("tongue",) * len(tongue)),
    ]
    return _assemble(model, loop, pieces, lips)


def _assemble(
    model: FaceModel, loop: np.ndarray, pieces: Sequence[_Piece], lips: np.ndarray
) -> Mouth:
    n_vertices, k = len(model.mean_mm), model.n_identity
    starts = np.cumsum([0] + [len(piece.points) for piece in pieces])
    ids = np.concatenate([loop, n_vertices + np.arange(starts[-1])])
    # The loop's points come first; its length added to a negative index is one of them.
    triangles = [
        np.where(piece.triangles < 0, 0, start) + piece.triangles + len(loop)
        for piece, start in zip(pieces, starts[:-1], strict=True)
    ]
    width = 1 + k + model.n_expression
    points = np.concatenate([np.zeros((0, 3, width)), *(piece.points for piece in pieces)])
    part = [MOUTH_PARTS.index(name) for piece in pieces for name in piece.part]
    depth = np.asarray(model.mean_mm)[loop, 2].max(initial=0.0) - points[:, 2, 0]
    shadows = [np.broadcast_to(piece.shadow, len(piece.points)) for piece in pieces]
    depth = np.clip(depth / _DEPTH_MM + np.concatenate([np.zeros(0), *shadows]), 0.0, 1.0)
    joint = ids[np.concatenate([np.zeros((0, 3), int), *triangles])]
    return Mouth(
        triangles=jnp.asarray(joint, jnp.int32),
        part=jnp.asarray(part, jnp.int32),
        depth=jnp.asarray(depth, jnp.float32),
        mean_mm=jnp.asarray(points[..., 0], jnp.float32),
        identity_mm=jnp.asarray(points[..., 1 : 1 + k], jnp.float32),
        expression_mm=jnp.asarray(points[..., 1 + k :], jnp.float32),
        lips=jnp.asarray(lips, jnp.int32),
    )


def _table(model: FaceModel, vertices: np.ndarray) -> np.ndarray:
    """Some vertices (...) of the model as a table (..., 3, 1 + K + E)."""
    parts = (model.mean_mm[..., None], model.identity_mm, model.expression_mm)
    return np.concatenate([np.asarray(p)[vertices] for p in parts], axis=-1).astype(np.float64)


def _nearest(points: np.ndarray, position: np.ndarray) -> int:
    return int(np.argmin(np.linalg.norm(points[..., 0] - position, axis=-1)))


def _inner_lip_loop(model: FaceModel, landmarks: np.ndarray) -> np.ndarray | None:
    """Vertices (L,) of the boundary loop inside the lips, counter-clockwise seen from in front,
    from the corner of the mouth on the subject's right; None if there is no such loop."""
    width = np.linalg.norm(np.subtract(*landmarks[list(_CORNERS)]))
    mean = np.asarray(model.mean_mm)

    def distance(loop: np.ndarray) -> float:
        gaps = np.linalg.norm(landmarks[_INNER, None] - mean[loop], axis=-1)
        return float(gaps.min(axis=1).mean())

    loop = min(_boundary_loops(np.asarray(model.triangles)), key=distance, default=None)
    if loop is None or distance(loop) > _MAX_DISTANCE * width:
        return None
    gaps = np.linalg.norm(mean[loop] - landmarks[_CORNERS[0]], axis=-1)
    return np.roll(loop, -int(np.argmin(gaps)))


def _boundary_loops(triangles: np.ndarray) -> list[np.ndarray]:
    """Closed chains of the edges with one triangle only, in the direction of the triangles that
    would close them. A vertex where two loops touch belongs to one of them."""
    edges = {(int(t[i]), int(t[i - 2])) for t in triangles for i in range(3)}
    following = {b: a for a, b in edges if (b, a) not in edges}
    loops = []
    while following:
        start = vertex = next(iter(following))
        loop = []
        while vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        if vertex == start:
            loops.append(np.array(loop))
    return loops


def _bowl(ring: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> _Piece:
    """From the loop backwards: rings of `_RING_POINTS`, closed by a fan."""
    half = np.linspace(0.0, 1.0, _RING_POINTS // 2 + 1)[:-1]
    outline = np.concatenate([_along(lower, half), _along(upper[::-1], half)])
    centre = outline.mean(axis=0)
    rings = [_moved(centre + scale * (outline - centre), [0, 0, -back]) for back, scale in _RINGS]
    points = np.concatenate([*rings, _moved(centre, [0, 0, -_DEPTH_MM])[None]])
    around = np.concatenate([_arc_length(lower)[:-1], 1.0 + _arc_length(upper[::-1])[:-1]])
    triangles = [_zip(around, np.concatenate([half, 1.0 + half]))]
    first = np.arange(_RING_POINTS)
    following = np.roll(first, -1)
    for start in range(0, _RING_POINTS * (len(_RINGS) - 1), _RING_POINTS):
        a, b = start + first, start + following
        c, d = a + _RING_POINTS, b + _RING_POINTS
        triangles += [np.stack([a, b, d], axis=-1), np.stack([a, d, c], axis=-1)]
    last = len(points) - 1 - _RING_POINTS
    fan = [last + first, last + following, np.full(_RING_POINTS, len(points) - 1)]
    triangles.append(np.stack(fan, axis=-1))
    return _Piece(points, np.concatenate(triangles), ("cavity",) * len(points))


def _zip(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Triangles between two closed rings, given the place of each point around its ring, from 0
    to 2; the outer ring's points are numbered from -len(outer) to -1."""
    n, m = len(outer), len(inner)
    outer, inner = np.append(outer, 2.0), np.append(inner, 2.0)
    triangles, i, j = [], 0, 0
    while i < n or j < m:
        a, b = i % n - n, j % m
        if j == m or (i < n and outer[i + 1] <= inner[j + 1]):
            triangles.append((a, (i + 1) % n - n, b))
            i += 1
        else:
            triangles.append((a, (j + 1) % m, b))
            j += 1
    return np.array(triangles)


def _arc_length(chain: np.ndarray) -> np.ndarray:
    """How far along the mean chain each of its points lies, from 0 to 1."""
    steps = np.linalg.norm(np.diff(chain[..., 0], axis=0), axis=-1)
    return np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()


def _along(chain: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Points (n,) at fractions of a chain's length, linear between its own."""
    position = np.interp(where, _arc_length(chain), np.arange(len(chain)))
    low = np.minimum(position.astype(int), len(chain) - 2)
    part = (position - low)[:, None, None]
    return (1.0 - part) * chain[low] + part * chain[low + 1]


def _moved(points: np.ndarray, offset_mm: ArrayLike) -> np.ndarray:
    return points + np.asarray(offset_mm, np.float64)[..., None] * (
        np.arange(points.shape[-1]) == 0
    )


def _teeth(
    chain: np.ndarray, line: np.ndarray, rows_mm: tuple[tuple[float, float], ...]
) -> np.ndarray:
    """Rows of columns behind a half of the loop, at heights above the line where lips meet."""
    across = np.linspace(-1.0, 1.0, _COLUMNS)
    columns = _along(chain, 0.5 + 0.5 * across)
    columns[:, 0] = line[0] + _ARCH_WIDTH * (columns[:, 0] - line[0])
    columns[:, 1] = line[1]
    bend = across**2
    up, back = _ARCH_RISE_MM * bend, _ARCH_GAP_MM + _ARCH_BEND_MM * bend
    offsets = [np.stack([0 * bend, high + up, -deep - back], axis=-1) for high, deep in rows_mm]
    return np.concatenate([_moved(columns, offset) for offset in offsets])


def _tongue(tooth: np.ndarray) -> np.ndarray:
    """A dome that starts behind the edge of a lower front tooth and rises backwards."""
    width, length, height = _TONGUE_MM
    rows, columns = _TONGUE_POINTS
    back, across = np.meshgrid(
        np.linspace(0.0, 1.0, rows), np.linspace(-1.0, 1.0, columns), indexing="ij"
    )
    x = width * across * np.sqrt(0.4 + 0.6 * back)
    y = height * (np.sin(0.5 * np.pi * back) - across**2)
    z = -length * back
    offset = np.stack([x, y, z], axis=-1).reshape(-1, 3) + np.asarray(_TONGUE_TIP_MM)
    return _moved(np.repeat(tooth[None], len(offset), axis=0), offset)


def _grid(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid of points, counter-clockwise where columns lead right and rows up."""
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    b, c, d = a + 1, a + columns, a + columns + 1
    return np.concatenate([np.stack([a, b, d], axis=-1), np.stack([a, d, c], axis=-1)])


def _jaw_motion(model: FaceModel, landmarks: np.ndarray) -> np.ndarray:
    """Affine displacement (E, 3, 4) of what is fixed to the jaw, by each expression at weight 1.

    Of the shapes that are called ``jaw...`` it is the rigid motion that best carries the jaw line
    along (Kabsch 1976), less the identity; of the others, which move its skin alone, zero. With
    no such names every shape counts as one of the jaw.
    """
    names = model.expression_names or ("",) * model.n_expression
    has_names = any(name.startswith("jaw") for name in names)
    start = landmarks[..., 0]
    motion = np.zeros((model.n_expression, 3, 4))
    for e, name in enumerate(names):
        if has_names and not name.startswith("jaw"):
            continue
        end = start + landmarks[..., 1 + model.n_identity + e]
        u, _, vt = np.linalg.svd((end - end.mean(axis=0)).T @ (start - start.mean(axis=0)))
        rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        motion[e, :, :3] = rotation - np.eye(3)
        motion[e, :, 3] = end.mean(axis=0) - rotation @ start.mean(axis=0)
    return motion


def _carried(points: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The points with new expression directions: the affine displacements `motion` (E, 3, 4)."""
    shift = np.einsum("eij,nj->nie", motion[..., :3], points[..., 0]) + motion[..., 3].T
    return np.concatenate([points[..., : points.shape[-1] - len(motion)], shift], axis=-1)
