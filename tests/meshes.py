"""Meshes of known shape."""

import numpy as np


def sphere(n_around: int, n_down: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere, triangles counter-clockwise seen from outside."""
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, n_down + 1), np.arange(n_around) * 2 * np.pi / n_around, indexing="ij"
    )
    vertices = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
    ).reshape(-1, 3)
    i, j = np.mgrid[:n_down, :n_around]
    a, b = i * n_around + j, i * n_around + (j + 1) % n_around
    quads = np.stack([a, a + n_around, b, b, a + n_around, b + n_around], axis=-1)
    return vertices.astype(np.float32), quads.reshape(-1, 3).astype(np.int32)
