"""Left-right symmetric reduction of a mesh to a subset of its own vertices.

Half-edge collapses ordered by the quadric error metric (Garland and Heckbert 1997), on the
subject's left half only, then mirrored. The vertices that remain are original ones, so every
linear shape of the source carries over exactly.
"""

import heapq
from collections import defaultdict

import numpy as np


def mirror_permutation(vertices: np.ndarray, tolerance: float = 0.2) -> np.ndarray:
    """For each of vertices (V, 3) the index of its mirror image across x = 0.

    Raises:
      ValueError: some vertex has no partner within `tolerance`.
    """
    from scipy.spatial import cKDTree

    distance, partner = cKDTree(vertices).query(vertices * np.array([-1.0, 1.0, 1.0]))
    if distance.max() > tolerance or (partner[partner] != np.arange(len(vertices))).any():
        raise ValueError("the mesh is not left-right symmetric")
    return partner


def _plane_quadrics(poses: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Sum of the adjacent planes' quadrics, area weighted: (S, V, 4, 4) for poses (S, V, 3)."""
    a, b, c = (poses[:, triangles[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = normal / np.maximum(area, 1e-12)
    plane = np.concatenate([normal, -(normal * a).sum(-1, keepdims=True)], axis=-1)
    quadric = area[..., None] * plane[..., :, None] * plane[..., None, :]
    total = np.zeros((*poses.shape[:2], 4, 4))
    for corner in range(3):
        for pose in range(len(poses)):
            np.add.at(total[pose], triangles[:, corner], quadric[pose])
    return total


class _HalfMesh:
    """Connectivity under half-edge collapses; a vertex keeps its index or disappears."""

    def __init__(self, poses: np.ndarray, triangles: np.ndarray):
        self.poses = poses
        self.quadrics = _plane_quadrics(poses, triangles)
        self.triangles = {i: tuple(t) for i, t in enumerate(triangles.tolist())}
        self.incident: dict[int, set[int]] = defaultdict(set)
        for index, triangle in self.triangles.items():
            for vertex in triangle:
                self.incident[vertex].add(index)

    def neighbours(self, vertex: int) -> set[int]:
        ring = {v for t in self.incident[vertex] for v in self.triangles[t]}
        return ring - {vertex}

    def cost(self, gone: int, kept: int) -> float:
        point = np.concatenate([self.poses[:, kept], np.ones((len(self.poses), 1))], axis=-1)
        quadric = self.quadrics[:, gone]
        length = np.sum((self.poses[0, gone] - self.poses[0, kept]) ** 2)
        return float(np.einsum("si,sij,sj->", point, quadric, point)) + 1e-3 * length

    def allowed(self, gone: int, kept: int) -> bool:
        """Whether the surface stays a manifold (Dey's link condition) without folds."""
        shared = self.neighbours(gone) & self.neighbours(kept)
        opposite = {
            v
            for t in self.incident[gone] & self.incident[kept]
            for v in self.triangles[t]
            if v not in (gone, kept)
        }
        return shared == opposite and not self._flips(gone, kept)

    def _flips(self, gone: int, kept: int) -> bool:
        for index in self.incident[gone]:
            triangle = self.triangles[index]
            if kept in triangle:
                continue
            moved = [kept if v == gone else v for v in triangle]
            before, after = self.poses[:, list(triangle)], self.poses[:, moved]
            normals = [np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) for p in (before, after)]
            lengths = [np.linalg.norm(n, axis=-1) for n in normals]
            cosine = (normals[0] * normals[1]).sum(-1) / np.maximum(lengths[0] * lengths[1], 1e-12)
            edges = np.linalg.norm(after - np.roll(after, 1, axis=1), axis=-1).max(-1)
            if cosine.min() < 0.3 or (lengths[1] < 0.1 * edges**2).any():
                return True
        return False

    def collapse(self, gone: int, kept: int) -> None:
        self.quadrics[:, kept] += self.quadrics[:, gone]
        for index in list(self.incident[gone]):
            triangle = self.triangles[index]
            if kept in triangle:
                for vertex in triangle:
                    self.incident[vertex].discard(index)
                del self.triangles[index]
            else:
                self.triangles[index] = tuple(kept if v == gone else v for v in triangle)
                self.incident[kept].add(index)
        del self.incident[gone]


def decimate_half(
    poses: np.ndarray, triangles: np.ndarray, locked: np.ndarray, seam: np.ndarray, target: int
) -> np.ndarray:
    """Collapse edges until `target` vertices are left; returns triangles over original indices.

    Stops early when no collapse is left that keeps the surface a manifold without folds.

    Args:
      poses: (S, V, 3) the same mesh in S shapes; the error is summed and triangles must not flip
        in any of them.
      triangles: (T, 3) of the half mesh.
      locked: (V,) bool, vertices that stay.
      seam: (V,) bool, vertices of the symmetry plane: they only move along it.
      target: vertices to keep.
    """
    mesh = _HalfMesh(poses, triangles)
    heap: list[tuple[float, int, int]] = []
    stamp: dict[tuple[int, int], float] = {}

    def push(gone: int) -> None:
        for kept in mesh.neighbours(gone):
            for pair in ((gone, kept), (kept, gone)):
                if not locked[pair[0]] and (seam[pair[1]] or not seam[pair[0]]):
                    stamp[pair] = mesh.cost(*pair)
                    heapq.heappush(heap, (stamp[pair], *pair))

    for vertex in list(mesh.incident):
        push(vertex)
    while len(mesh.incident) > target and heap:
        cost, gone, kept = heapq.heappop(heap)
        if (
            stamp.get((gone, kept)) != cost
            or gone not in mesh.incident
            or kept not in mesh.incident
        ):
            continue
        del stamp[(gone, kept)]
        if kept in mesh.neighbours(gone) and mesh.allowed(gone, kept):
            mesh.collapse(gone, kept)
            push(kept)
    return np.array(sorted(mesh.triangles.values()))
