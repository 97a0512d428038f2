"""The camera of a scene and the poses before it, as COLMAP names and counts them."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dfc_jax.inference.scene import Scene


def camera_record(scene: "Scene") -> dict[str, Any]:
    """A scene's camera as a JSON-ready dict.

    ``params`` are fx, fy, cx, cy in COLMAP's pixels, whose (0.5, 0.5) is the middle of the upper
    left one: half a pixel more than `Scene.principal_point`. A face's model space is the world:
    ``X_camera = R(qvec) X_model + tvec``, qvec = w, x, y, z, tvec in millimetres, camera space as
    in `dfc_jax.types`.
    """
    from scipy.spatial.transform import Rotation  # here: slow to import

    quaternions = Rotation.from_matrix(scene.rotation).as_quat(canonical=True)[:, [3, 0, 1, 2]]
    centre = np.asarray(scene.principal_point) + 0.5
    return {
        "model": "PINHOLE",
        "width": scene.width,
        "height": scene.height,
        "params": np.round([scene.focal_px, scene.focal_px, *centre], 3).tolist(),
        "faces": [
            {"qvec": np.round(q, 8).tolist(), "tvec": np.round(t, 4).tolist()}
            for q, t in zip(quaternions, scene.translation_mm.astype(np.float64), strict=True)
        ],
    }
