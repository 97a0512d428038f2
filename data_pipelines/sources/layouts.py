"""Every reader of a data set, by the name that programs give its layout."""

import os

from data_pipelines.sources import tfds
from data_pipelines.sources.packed import packed
from dfc_jax.data import layouts
from dfc_jax.data.faces import FaceSet

# Those of TFDS take the folder in which it prepared the set, `packed` takes a file.
READERS: layouts.Readers = {
    **layouts.READERS,
    "packed": packed,
    **tfds.READERS,
}
LAYOUTS = tuple(READERS)


def open_faces(layout: str, folder: str | os.PathLike[str]) -> FaceSet:
    """The faces of a folder, read by the reader of its layout, one of `LAYOUTS`.

    Raises:
      DatasetError: there is no such layout, or not in this folder.
    """
    return layouts.open_faces(layout, folder, READERS)


def with_layout(folder: str, layout: str) -> tuple[str, str]:
    """The layout of a folder and the folder: of ``cfp=FOLDER`` its own, else `layout`."""
    own, sign, rest = folder.partition("=")
    return (own, rest) if sign and own in READERS else (layout, folder)
