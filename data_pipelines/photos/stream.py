"""Endless streams over a set of faces, by grain."""

from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from data_pipelines.sources.extras import required
from dfc_jax.data.faces import UNUSABLE, AnnotatedFace, itself
from dfc_jax.errors import DatasetError


def stream(
    faces: Sequence[AnnotatedFace],
    seed: int,
    prepare: Callable[[AnnotatedFace], Any] = itself,
    report: Callable[[str], None] = logging.warning,
) -> Any:
    """An endless `grain.MapDataset` over a set, in a new order every epoch.

    Element n depends on the set, the seed and n alone: ``stream(faces, seed)[n:]`` goes on where
    a run stopped, ``[process::processes]`` is one process's share, and iterators over
    ``.to_iter_dataset()`` have ``get_state`` and ``set_state``. A face that cannot be used is
    element None, which iteration passes over; it is reported once.

    Args:
      faces: the set.
      seed: of the order, in [0, 2^32).
      prepare: made of each face, e.g. `read_square`; may raise what `UNUSABLE` names.
      report: called with a sentence for each face that cannot be used.

    Raises:
      DatasetError: the set is empty, grain is not installed, or (on reading) nothing in the set
        can be used.
    """
    if not len(faces):
        raise DatasetError("a set without faces cannot be streamed; check its folder")
    grain = required("grain")
    unusable: set[int] = set()

    def read(index: int) -> Any:
        try:
            return prepare(faces[int(index)])
        except UNUSABLE as error:
            if index not in unusable:
                unusable.add(index)
                report(str(error))
            # Passing over nothing but bad files would never end.
            if len(unusable) == len(faces):
                raise DatasetError(f"none of {len(faces)} faces can be used; {error}") from error
            return None

    return grain.MapDataset.range(len(faces)).shuffle(seed=seed).repeat().map(read)
