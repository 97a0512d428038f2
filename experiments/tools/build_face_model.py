"""Make ``dfc_jax/assets/face_model.npz`` from the ICT FaceKit (light).

    python -m experiments.tools.build_face_model --ict FaceXModel

Takes the face, ears and front of the neck and the fronts of the eyeballs, reduces them to a
left-right symmetric mesh, and keeps every identity direction and expression shape on it. Prints
the error of the reduction against the source. About two minutes on one core.
"""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from absl import app, flags
from scipy.spatial import cKDTree

from dfc_jax.landmarks68 import N_JAW
from dfc_jax.morphable import ict as io
from dfc_jax.morphable.decimate import decimate_half, mirror_permutation
from dfc_jax.morphable.file import save_face_model
from dfc_jax.morphable.linear import PARTS, FaceModel
from dfc_jax.types import SurfacePoints

VERSION = "ict-light-6k-1"
TARGET_VERTICES = 6600
EYEBALL_CAP_DEG = 68.0
EYE_STRIP = 0.13  # share of the chart's height below the face, for the eyeballs
ANCHOR_SHAPES = ("jawOpen", "mouthSmile_L", "mouthPucker", "eyeBlink_L", "browInnerUp_L")


def arkit_name(name: str) -> str:
    """ARKit's spelling of a FaceKit name: ``mouthSmile_L`` is ``mouthSmileLeft``. Two shapes that
    ARKit has once (browInnerUp, cheekPuff) keep their two sides."""
    return name.replace("_L", "Left").replace("_R", "Right")


def eyeball_cap(ict: io.IctModel, eyeball: slice) -> np.ndarray:
    """Indices of the eyeball's vertices within `EYEBALL_CAP_DEG` of straight ahead."""
    vertices = ict.neutral_mm[eyeball]
    centre = (vertices.min(0) + vertices.max(0)) / 2
    forward = vertices - centre
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    return np.arange(eyeball.start, eyeball.stop)[
        forward[:, 2] > np.cos(np.deg2rad(EYEBALL_CAP_DEG))
    ]


def triangulate(vertices: np.ndarray, polygons: np.ndarray) -> np.ndarray:
    """Split quads along the shorter diagonal."""
    quad = polygons[:, 3] >= 0
    q = polygons[quad]
    diagonal = np.linalg.norm(vertices[q[:, 0]] - vertices[q[:, 2]], axis=1) <= np.linalg.norm(
        vertices[q[:, 1]] - vertices[q[:, 3]], axis=1
    )
    first = np.where(diagonal[:, None], q[:, [0, 1, 2]], q[:, [0, 1, 3]])
    second = np.where(diagonal[:, None], q[:, [0, 2, 3]], q[:, [1, 2, 3]])
    return np.concatenate([polygons[~quad, :3], first, second])


def boundary_vertices(triangles: np.ndarray) -> np.ndarray:
    """Vertices on edges that only one triangle has."""
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1])


def reduced_triangles(ict: io.IctModel) -> np.ndarray:
    """Triangles over the FaceKit's vertex indices, symmetric, `TARGET_VERTICES` vertices."""
    kept = np.concatenate(
        [
            np.arange(io.ICT_FACE.start, io.ICT_FACE.stop),
            eyeball_cap(ict, io.ICT_EYEBALL_LEFT),
            eyeball_cap(ict, io.ICT_EYEBALL_RIGHT),
        ]
    )
    index = np.full(len(ict.neutral_mm), -1)
    index[kept] = np.arange(len(kept))
    vertices = ict.neutral_mm[kept]
    mirror = mirror_permutation(vertices)
    polygons = np.where(ict.polygons >= 0, index[ict.polygons], -1)
    polygons = polygons[
        (polygons[:, :3] >= 0).all(1) & ((ict.polygons[:, 3] < 0) | (polygons[:, 3] >= 0))
    ]

    seam = mirror == np.arange(len(kept))
    left = seam | (vertices[:, 0] > 0)
    corners = np.where(polygons >= 0, polygons, polygons[:, :1])
    half = triangulate(vertices, polygons[left[corners].all(1)])
    whole = np.concatenate([half, mirror[half][:, [0, 2, 1]]])
    locked = np.zeros(len(kept), bool)
    locked[boundary_vertices(whole)] = True
    locked[index[list(io.ICT_LANDMARKS)]] = True
    locked |= locked[mirror]
    shapes = [ict.expression_names.index(name) for name in ANCHOR_SHAPES]
    poses = np.stack([vertices, *(vertices + ict.expression_mm[s][kept] for s in shapes)])
    used_seam = np.intersect1d(np.flatnonzero(seam), half).size
    target = (TARGET_VERTICES + used_seam * 2 // 3) // 2
    half = decimate_half(poses, half, locked, seam, target)
    return kept[np.concatenate([half, mirror[half][:, [0, 2, 1]]])]


def chart(ict: io.IctModel, used: np.ndarray) -> np.ndarray:
    """uv (V, 2) of the used vertices: the FaceKit's face chart above a strip with the eyeballs.

    The FaceKit's chart pinches the eye openings to slits, so the eyeball fronts get discs of
    their own, at about the face's scale (equidistant azimuthal about the forward axis).
    """
    uv = np.full((len(ict.neutral_mm), 2), np.nan)
    on_face = (ict.polygons < io.ICT_FACE.stop).all(1)
    corners, values = ict.polygons[on_face], ict.polygon_uv[on_face]
    valid = corners >= 0
    uv[corners[valid]] = values[valid] * [1.0, 1.0 - EYE_STRIP] + [0.0, EYE_STRIP]
    for eyeball, u in ((io.ICT_EYEBALL_RIGHT, 0.35), (io.ICT_EYEBALL_LEFT, 0.65)):
        vertices = ict.neutral_mm[eyeball]
        direction = vertices - (vertices.min(0) + vertices.max(0)) / 2
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        angle = np.arccos(np.clip(direction[:, 2], -1, 1)) / np.deg2rad(EYEBALL_CAP_DEG)
        azimuth = (
            direction[:, :2] / np.maximum(np.linalg.norm(direction[:, :2], axis=1), 1e-9)[:, None]
        )
        uv[eyeball] = [u, EYE_STRIP / 2] + 0.46 * EYE_STRIP * azimuth * angle[:, None]
    return uv[used]


def inside_polygon(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which of points (N, 2) lie inside the polygon (M, 2), by the even-odd rule."""
    x, y = points[:, None, 0], points[:, None, 1]
    a, b = polygon, np.roll(polygon, -1, axis=0)
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    slope = (b[:, 0] - a[:, 0]) / np.where(b[:, 1] == a[:, 1], 1e-12, b[:, 1] - a[:, 1])
    return (crosses & (x < a[:, 0] + (y - a[:, 1]) * slope)).sum(1) % 2 == 1


def distance_to_line(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance of points (N, D) to the polyline (M, D)."""
    a, b = line[:-1], line[1:]
    along = ((points[:, None] - a) * (b - a)).sum(-1) / np.maximum(((b - a) ** 2).sum(-1), 1e-12)
    nearest = a + np.clip(along, 0, 1)[..., None] * (b - a)
    return np.linalg.norm(points[:, None] - nearest, axis=-1).min(1)


def part_of_triangles(
    vertices: np.ndarray,
    uv: np.ndarray,
    triangles: np.ndarray,
    landmarks: np.ndarray,
    is_eye: np.ndarray,
) -> np.ndarray:
    """Part label (T,) of each triangle, from the landmark vertices `landmarks` (68,)."""
    centre_mm, centre_uv = vertices[triangles].mean(1), uv[triangles].mean(1)
    mark_mm, mark_uv = vertices[landmarks], uv[landmarks]
    part = np.full(len(triangles), PARTS.index("skin"))

    jaw = mark_uv[:N_JAW]
    along = np.argsort(jaw[:, 0])
    below = centre_uv[:, 1] < np.interp(centre_uv[:, 0], jaw[along, 0], jaw[along, 1])
    outside = (centre_uv[:, 0] < jaw[:, 0].min()) | (centre_uv[:, 0] > jaw[:, 0].max())
    behind = outside & (centre_mm[:, 1] < mark_mm[2, 1])
    near = distance_to_line(centre_mm, mark_mm[:N_JAW]) < 9.0
    part[(below | behind) & ~near & (centre_mm[:, 1] < mark_mm[1, 1])] = PARTS.index("neck")

    beside = np.abs(centre_uv[:, 0] - 0.5) > 0.36
    part[beside & (centre_mm[:, 2] < 22.0) & (np.abs(centre_mm[:, 1] - 8.0) < 35.0)] = PARTS.index(
        "ears"
    )
    bridge, aside = mark_uv[[27]], [0.02, 0.0]
    nose = np.concatenate([bridge - aside, mark_uv[31:36], bridge + aside])
    alar = np.linalg.norm(centre_mm - mark_mm[33], axis=1) < 21.0
    above_lip = centre_mm[:, 1] > mark_mm[33, 1] - 4.0
    part[inside_polygon(centre_uv, nose) | (alar & above_lip)] = PARTS.index("nose")
    for brow in (mark_mm[17:22], mark_mm[22:27]):
        lowered = brow - np.array([0.0, 2.0, 0.0])
        part[distance_to_line(centre_mm, lowered) < 4.5] = PARTS.index("brows")
    part[inside_polygon(centre_uv, mark_uv[48:60])] = PARTS.index("lips")
    part[is_eye[triangles].all(1)] = PARTS.index("eyes")
    return part


def contour_lines(
    vertices: np.ndarray, triangles: np.ndarray, landmarks: np.ndarray
) -> SurfacePoints:
    """For each jaw landmark the surface line along which the visible contour may slide.

    The line is where the surface meets the plane through the landmark spanned by the optical
    axis of a frontal view and the outward normal of the jaw in that view: rays from an axis
    point inside the jaw fan out in this plane, from the cheek (front) to the neck (back).
    """
    jaw = vertices[landmarks[:N_JAW]]
    tangent = np.gradient(jaw[:, :2], axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    inward = jaw[:, :2] - jaw[:, :2].mean(0)
    normal *= np.sign((normal * inward).sum(1))[:, None]
    fan = np.deg2rad(np.linspace(55.0, -25.0, 17))
    outward = np.concatenate([normal, np.zeros((N_JAW, 1))], axis=1)
    origin = jaw - 35.0 * outward
    ahead = np.array([0.0, 0.0, 1.0])
    direction = np.cos(fan)[:, None] * outward[:, None] + np.sin(fan)[:, None] * ahead
    hits = [ray_hits(vertices[triangles], origin[i], direction[i]) for i in range(N_JAW)]
    triangle: Any = np.stack([hit[0] for hit in hits])
    barycentric: Any = np.stack([hit[1] for hit in hits])
    return SurfacePoints(triangle=triangle, barycentric=barycentric)


def ray_hits(
    corners: np.ndarray, origin: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First hits (triangle (R,), barycentric (R, 3)) of rays (R, 3) from one origin (3,) with
    triangles (T, 3, 3), by Moeller and Trumbore 1997; a miss takes the neighbouring ray's hit."""
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = np.cross(directions[:, None], edge2)
    determinant = (edge1 * p).sum(-1)
    inverse = 1.0 / np.where(np.abs(determinant) < 1e-12, np.nan, determinant)
    offset = origin - corners[:, 0]
    u = (offset * p).sum(-1) * inverse
    q = np.cross(offset, edge1)
    v = (directions[:, None] * q).sum(-1) * inverse
    distance = (edge2 * q).sum(-1) * inverse
    hit = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6) & (distance > 0)
    distance = np.where(hit, distance, np.inf)
    triangle = distance.argmin(1)
    ray = np.arange(len(directions))
    found = np.flatnonzero(np.isfinite(distance[ray, triangle]))
    ray = found[np.abs(found[None] - ray[:, None]).argmin(1)]
    triangle = triangle[ray]
    u, v = u[ray, triangle], v[ray, triangle]
    return triangle, np.stack([1 - u - v, u, v], axis=-1)


def nearest_surface(
    points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest surface point (triangle (N,), barycentric (N, 3)) of points (N, 3), among the 32
    triangles with the nearest centres."""
    corners = vertices[triangles]
    k = min(32, len(triangles))
    _, candidate = cKDTree(corners.mean(1)).query(points, k=range(1, k + 1))
    flat = corners[candidate.reshape(-1)]
    closest = trimesh.triangles.closest_point(flat, np.repeat(points, k, axis=0)).reshape(-1, k, 3)
    best = np.linalg.norm(closest - points[:, None], axis=-1).argmin(1)
    row = np.arange(len(points))
    triangle, nearest = candidate[row, best], closest[row, best]
    return triangle, trimesh.triangles.points_to_barycentric(corners[triangle], nearest)


def reduction_error(ict: io.IctModel, model: FaceModel, faces: int = 200) -> np.ndarray:
    """Distance in mm of each source vertex to the point of the reduced surface that stands for
    it, on random faces with random expressions: (faces, 9409)."""
    rng = np.random.default_rng(0)
    source = np.arange(io.ICT_FACE.start, io.ICT_FACE.stop)
    triangle, weights = nearest_surface(
        ict.neutral_mm[source], np.asarray(model.mean_mm), np.asarray(model.triangles)
    )
    errors = []
    for _ in range(faces):
        identity = rng.standard_normal(len(ict.identity_mm))
        expression = rng.uniform(0, 1, len(ict.expression_mm)) * (
            rng.uniform(size=len(ict.expression_mm)) < 0.2
        )
        truth = ict.neutral_mm[source] + np.tensordot(identity, ict.identity_mm[:, source], 1)
        truth += np.tensordot(expression, ict.expression_mm[:, source], 1)
        reduced = model.mean_mm + model.identity_mm.astype(np.float64) @ identity
        reduced += model.expression_mm.astype(np.float64) @ expression
        stand_in = (reduced[model.triangles[triangle]] * weights[..., None]).sum(1)
        errors.append(np.linalg.norm(stand_in - truth, axis=1))
    return np.stack(errors)


def chart_overlap(uv: np.ndarray, triangles: np.ndarray, size: int = 1024) -> float:
    """Share of the chart's sample points, size x size of them, that several triangles cover."""
    count = np.zeros((size, size), np.int32)
    for (ax, ay), (bx, by), (cx, cy) in uv[triangles].astype(np.float64) * size:
        left, right = int(max(min(ax, bx, cx) - 1, 0)), int(max(ax, bx, cx)) + 1
        top, bottom = int(max(min(ay, by, cy) - 1, 0)), int(max(ay, by, cy)) + 1
        window = count[top:bottom, left:right]
        # Off the lattice of round numbers, so that samples do not fall on shared edges.
        y = np.arange(top, top + window.shape[0])[:, None] + 0.37
        x = np.arange(left, left + window.shape[1]) + 0.37
        ab = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        bc = (cx - bx) * (y - by) - (cy - by) * (x - bx)
        ca = (ax - cx) * (y - cy) - (ay - cy) * (x - cx)
        window += ((ab > 0) & (bc > 0) & (ca > 0)) | ((ab < 0) & (bc < 0) & (ca < 0))
    return float((count > 1).sum() / (count > 0).sum())


def build(ict: io.IctModel) -> FaceModel:
    source_triangles = reduced_triangles(ict)
    used, triangles = np.unique(source_triangles, return_inverse=True)
    triangles = triangles.reshape(source_triangles.shape)
    vertices, uv = ict.neutral_mm[used], chart(ict, used)
    landmarks = np.searchsorted(used, io.ICT_LANDMARKS)
    corner_of = np.array([np.argwhere(triangles == vertex)[0] for vertex in landmarks])
    triangle: Any = corner_of[:, 0]
    barycentric: Any = np.eye(3)[corner_of[:, 1]]
    # In NumPy, as the file keeps it.
    arrays: dict[str, Any] = {
        "mean_mm": vertices.astype(np.float32),
        "identity_mm": np.moveaxis(ict.identity_mm[:, used], 0, -1).astype(np.float16),
        "expression_mm": np.moveaxis(ict.expression_mm[:, used], 0, -1).astype(np.float16),
        "triangles": triangles,
        "uv": uv,
        "triangle_part": part_of_triangles(
            vertices, uv, triangles, landmarks, used >= io.ICT_FACE.stop
        ),
    }
    return FaceModel(
        **arrays,
        landmarks=SurfacePoints(triangle=triangle, barycentric=barycentric),
        contours=contour_lines(vertices, triangles, landmarks),
        expression_names=tuple(arkit_name(name) for name in ict.expression_names),
        version=VERSION,
    )


def main(_) -> None:
    ict = io.read_ict(flags.FLAGS.ict)
    model = build(ict)
    error = reduction_error(ict, model)
    print(f"{len(model.mean_mm)} vertices, {len(model.triangles)} triangles")
    overlap = chart_overlap(np.asarray(model.uv), np.asarray(model.triangles))
    print(f"chart overlap {100 * overlap:.3f} %")
    print(
        f"reduction error on {len(error)} random faces: mean {error.mean():.3f} mm, "
        f"worst face {error.mean(1).max():.3f} mm, "
        f"99th percentile {np.quantile(error, 0.99):.3f} mm"
    )
    save_face_model(flags.FLAGS.out, model)
    print(f"{flags.FLAGS.out}: {Path(flags.FLAGS.out).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    flags.DEFINE_string("ict", None, "FaceXModel folder of the ICT FaceKit", required=True)
    flags.DEFINE_string("out", "dfc_jax/assets/face_model.npz", "file to write")
    app.run(main)
