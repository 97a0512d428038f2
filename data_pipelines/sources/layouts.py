"""The readers by the names that programs give them."""

import os
from collections.abc import Callable

from data_pipelines.sources.tfds import BUILDERS, tfds_faces
from dfc_jax.data.faces import FaceSet
from dfc_jax.data.folders import aflw2000, ibug, w300lp
from dfc_jax.errors import DatasetError

FOLDERS: dict[str, Callable[..., FaceSet]] = {"ibug": ibug, "300w-lp": w300lp, "aflw2000": aflw2000}
LAYOUTS = (*FOLDERS, *(f"tfds:{name}" for name in BUILDERS))


def open_faces(layout: str, folder: str | os.PathLike[str]) -> FaceSet:
    """The faces of a folder.

    Args:
      layout: one of `LAYOUTS`.
      folder: of the files; for ``tfds:...`` the one in which TFDS prepared the set.

    Raises:
      DatasetError: there is no such layout, or not in this folder.
    """
    if layout in FOLDERS:
        return FOLDERS[layout](folder)
    if layout in LAYOUTS:
        return tfds_faces(layout.removeprefix("tfds:"), folder)
    raise DatasetError(f"there is no layout {layout!r}; choose from {', '.join(LAYOUTS)}")
