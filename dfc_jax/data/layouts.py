"""The readers of data sets by the name of their layout."""

import os
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from dfc_jax.data.aflw import aflw
from dfc_jax.data.cfp import cfp
from dfc_jax.data.faces import FaceSet
from dfc_jax.data.facesynthetics import facesynthetics
from dfc_jax.data.fasseg import fasseg
from dfc_jax.data.frames import frames
from dfc_jax.data.ibug import ibug
from dfc_jax.data.lp import aflw2000, aflw2000_reannotated, w300lp
from dfc_jax.data.pifa import aflw_pifa
from dfc_jax.data.pointing04 import pointing04
from dfc_jax.data.synth import synth
from dfc_jax.data.w300 import w300
from dfc_jax.errors import DatasetError

Readers = Mapping[str, Callable[[str | os.PathLike[str]], FaceSet]]
# Each takes the folder of the files.
READERS: Readers = {
    "ibug": ibug,
    "300w-lp": w300lp,
    "aflw2000": aflw2000,
    "cfp": cfp,
    "fasseg": fasseg,
    "facesynthetics": facesynthetics,
    "300w": w300,
    "aflw2000-reannotated": aflw2000_reannotated,
    "aflw": aflw,
    "aflw-pifa": aflw_pifa,
    "pointing04": pointing04,
    "frames": frames,
    "synth": synth,
}


def all_readers() -> Readers:
    """`READERS`, and those of packages that stand on this one, which name a mapping like it as an
    entry point of the group ``dfc_jax.layouts`` when they are installed."""
    above = [entry.load() for entry in entry_points(group="dfc_jax.layouts")]
    return {name: reader for readers in (*above, READERS) for name, reader in readers.items()}


def open_faces(layout: str, folder: str | os.PathLike[str], readers: Readers = READERS) -> FaceSet:
    """The faces of a folder, read by the reader of its layout.

    Raises:
      DatasetError: there is no such layout, or not in this folder.
    """
    if layout not in readers:
        raise DatasetError(f"there is no layout {layout!r}; choose from {', '.join(readers)}")
    return readers[layout](folder)
