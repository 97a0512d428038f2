"""Labelled photographs on disk: made once, shard by shard, and read by the batch.

For each `SHARD` faces of a set, a folder of shards holds ``00000.bin``, a `RECORD` for each
labelled square, and ``00000.npz``, the names and errors, which is written last: a shard with both
files is whole. ``complete.json`` says how many shards there are, once all are made. Batches are
read with ordinary reads, not through a memory map, whose pages would count as memory of the
process.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from data_pipelines.photos.augment import LabelledPhoto
from data_pipelines.photos.labels import PhotoSet
from data_pipelines.photos.squares import STORED_PX
from dfc_jax.errors import DatasetError, ExportError
from dfc_jax.files import write_json, write_npz, written_aside
from dfc_jax.types import ByValue

# Faces of a shard; a multiple of the batches in which labels are made.
SHARD = 256
RECORD = np.dtype(
    [
        ("image", np.uint8, (STORED_PX, STORED_PX, 3)),
        ("template_xy", np.float16, (STORED_PX, STORED_PX, 2)),
        ("matchable", np.bool_, (STORED_PX, STORED_PX)),
        ("points", np.float32, (68, 2)),
        ("annotated", np.bool_, (68,)),
    ]
)
COMPLETE = "complete.json"
# What the tables hold of each square.
COLUMNS = ("names", "error", "contour", "profile", "pose")
# Free space that is left to checkpoints and everything else.
_SPARE_BYTES = 2**30

# Labels the faces start to stop of a set: the labelled squares (None if no face can be used), and
# one sentence for each face that cannot be used.
Make = Callable[[int, int], tuple[PhotoSet | None, list[str]]]


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedPhotos(ByValue):
    """N labelled squares on disk; reads like a `PhotoSet`, and only what is asked for.

    Attributes:
      files: paths of the shards' records.
      file: (N,) int32, the index in `files` of the shard of each square.
      row: (N,) int32, its record there.
      names: (N,) names of the faces.
      error: (N,) see `PhotoSet`.
      contour: (N,) bool, see `PhotoSet`.
      profile: (N,) bool, see `PhotoSet`.
      pose: (N, 3), see `PhotoSet`.
    """

    files: tuple[Path, ...]
    file: np.ndarray
    row: np.ndarray
    names: np.ndarray
    error: np.ndarray
    contour: np.ndarray
    profile: np.ndarray
    pose: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def select(self, index: np.ndarray) -> "ShardedPhotos":
        """The squares at `index` (M,), in its order; nothing is read."""
        columns = (getattr(self, name) for name in ("file", "row", *COLUMNS))
        return ShardedPhotos(self.files, *(column[index] for column in columns))

    def joined(self, others: Sequence["ShardedPhotos"]) -> "ShardedPhotos":
        """These squares and then those of the others; nothing is read."""
        sets = (self, *others)
        first = np.cumsum([0, *(len(each.files) for each in sets)])
        return ShardedPhotos(
            tuple(path for each in sets for path in each.files),
            np.concatenate([start + each.file for start, each in zip(first, sets, strict=False)]),
            *(np.concatenate([getattr(each, name) for each in sets]) for name in ("row", *COLUMNS)),
        )

    def as_example(self, index: np.ndarray) -> LabelledPhoto:
        """The squares at `index` (M,) as a batch: every array has a leading axis of M.

        Raises:
          DatasetError: a shard is missing or cut short.
        """
        columns = {
            name: np.empty((len(index), *RECORD[name].shape), RECORD[name].base)
            for name in RECORD.names or ()
        }
        for place, (file, row) in enumerate(zip(self.file[index], self.row[index], strict=True)):
            record = _read_record(self.files[file], row)
            for name, column in columns.items():
                column[place] = record[name]
        return LabelledPhoto(**columns)

    def load(self, index: np.ndarray) -> PhotoSet:
        """The squares at `index` (M,), in memory.

        Raises:
          DatasetError: a shard is missing or cut short.
        """
        read = self.as_example(index)
        record = {name: np.asarray(getattr(read, name)) for name in RECORD.names or ()}
        table = {name: getattr(self, name)[index] for name in COLUMNS}
        return PhotoSet(images=record.pop("image"), **record, **table)


def open_shards(folder: Path) -> ShardedPhotos | None:
    """The squares of a folder of shards; None if they are not all made yet.

    Raises:
      DatasetError: the folder is damaged.
    """
    complete = folder / COMPLETE
    if not complete.is_file():
        return None
    try:
        shards = int(json.loads(complete.read_text())["shards"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{complete}: is damaged; delete it to have it made again") from error
    return _opened([_records(folder, number) for number in range(shards)])


def write_shards(folder: Path, count: int, make: Make, more: int = 0) -> ShardedPhotos:
    """Label `count` faces, a shard at a time; the shards that an earlier run left are kept.

    Says first how much disk space that takes. What cannot be used is logged and left out. Several
    processes that write to one folder share the work: each starts at another shard.

    Args:
      folder: of the shards; made if need be.
      count: faces of the set.
      make: labels the faces from one index to another.
      more: squares that the caller will write to the same disk afterwards.

    Raises:
      DatasetError: the disk has too little space, or no face can be used.
      ExportError: the folder cannot be written to.
    """
    paths = [_records(folder, number) for number in range(-(-count // SHARD))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder}: this folder cannot be made ({error.strerror})") from error
    first = len(paths) * jax.process_index() // jax.process_count()
    order = np.roll(range(len(paths)), -first)
    missing = [number for number in order if _whole_table(paths[number], count) is None]
    todo = sum(min(SHARD, count - n * SHARD) for n in missing)
    if todo:
        _check_space(folder, todo, more)
    with tqdm(total=count, initial=count - todo, unit="photo", disable=None) as progress:
        for number in missing:
            start, stop = number * SHARD, min((number + 1) * SHARD, count)
            # Another process may have made it meanwhile.
            if _whole_table(paths[number], count) is None:
                _write_shard(paths[number], count, *make(start, stop))
            progress.update(stop - start)
    photos = _opened(paths)
    if not len(photos):
        problems = [text for path in paths for text in _table(path)["problems"]]
        shutil.rmtree(folder, ignore_errors=True)
        raise DatasetError(f"nothing can be used; first of {len(problems)}: {problems[0]}")
    write_json(folder / COMPLETE, {"shards": len(paths), "squares": len(photos)})
    return photos


def _check_space(folder: Path, squares: int, more: int) -> None:
    needed, free = (squares + more) * RECORD.itemsize, shutil.disk_usage(folder).free
    space = f"{needed / 1e9:.1f} GB of disk space, and {free / 1e9:.1f} GB are free"
    later = f", {more} more will follow" if more else ""
    logging.info("%s: writing %d labelled squares%s; they take %s", folder, squares, later, space)
    if needed + _SPARE_BYTES > free:
        raise DatasetError(
            f"{folder}: {squares + more} labelled squares take {space}; free some or choose "
            "another workdir"
        )


def _records(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.bin"


def _table(path: Path) -> dict[str, np.ndarray]:
    """The names, errors and so on of the shard whose records are at `path`."""
    with np.load(path.with_suffix(".npz")) as file:
        return dict(file)


def _write_shard(path: Path, count: int, photos: PhotoSet | None, problems: list[str]) -> None:
    for problem in problems:
        logging.warning("left out: %s", problem)
    records = np.zeros(len(photos) if photos else 0, RECORD)
    table = {
        "names": np.zeros(0, str),
        "error": np.zeros(0),
        "contour": np.zeros(0, bool),
        "profile": np.zeros(0, bool),
        "pose": np.zeros((0, 3)),
    }
    if photos:
        records["image"] = photos.images
        for name in ("template_xy", "matchable", "points", "annotated"):
            records[name] = getattr(photos, name)
        table = {name: getattr(photos, name) for name in COLUMNS}
    with written_aside(path) as aside:
        records.tofile(aside)
    write_npz(
        path.with_suffix(".npz"),
        **table,
        problems=np.array(problems, str),
        count=np.array(count),
    )


def _whole_table(path: Path, count: int | None = None) -> dict[str, np.ndarray] | None:
    """`_table` of a shard of a set of `count` faces (if given) whose files are both whole; None of
    any other."""
    try:
        table = _table(path)
        is_of_set = count is None or table["count"] == count
        is_whole = path.stat().st_size == len(table["names"]) * RECORD.itemsize
        return table if is_of_set and is_whole else None
    except Exception:  # numpy and zipfile raise many kinds for a broken file
        return None


def _opened(paths: Sequence[Path]) -> ShardedPhotos:
    tables = []
    for path in paths:
        table = _whole_table(path)
        if table is None:
            raise DatasetError(
                f"{path}: is missing or cut short; delete its folder to have it made again"
            )
        tables.append(table)
    sizes = [len(table["names"]) for table in tables]
    return ShardedPhotos(
        tuple(paths),
        np.repeat(np.arange(len(paths), dtype=np.int32), sizes),
        np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
        *(np.concatenate([table[name] for table in tables]) for name in COLUMNS),
    )


def _read_record(path: Path, row: int) -> np.void:
    try:
        return np.fromfile(path, RECORD, count=1, offset=int(row) * RECORD.itemsize)[0]
    except (OSError, IndexError) as error:
        raise DatasetError(
            f"{path}: is missing or cut short; delete its folder to have it made again"
        ) from error
