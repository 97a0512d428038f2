"""Every reader of a data set, by the name that programs give its layout."""

import os
from collections.abc import Callable
from functools import partial

from data_pipelines.sources.tfds import BUILDERS, tfds_faces
from dfc_jax.data.cfp import cfp
from dfc_jax.data.faces import FaceSet
from dfc_jax.data.ibug import ibug
from dfc_jax.data.lp import aflw2000, w300lp
from dfc_jax.errors import DatasetError

# Each takes a folder: of the files, or, for TFDS, the one in which it prepared the set.
READERS: dict[str, Callable[[str | os.PathLike[str]], FaceSet]] = {
    "ibug": ibug,
    "300w-lp": w300lp,
    "aflw2000": aflw2000,
    "cfp": cfp,
    **{f"tfds:{name}": partial(tfds_faces, name) for name in BUILDERS},
}
LAYOUTS = tuple(READERS)


def open_faces(layout: str, folder: str | os.PathLike[str]) -> FaceSet:
    """The faces of a folder, read by the reader of its layout, one of `LAYOUTS`.

    Raises:
      DatasetError: there is no such layout, or not in this folder.
    """
    if layout not in READERS:
        raise DatasetError(f"there is no layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    return READERS[layout](folder)
