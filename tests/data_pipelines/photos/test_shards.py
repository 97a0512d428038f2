"""Labelled photographs on disk: the same as in memory, resumed, and read in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_layouts import write_many_300w_lp

from data_pipelines.photos import shards
from data_pipelines.photos.labels import PhotoSet
from data_pipelines.photos.sets import open_sets, write_labelled
from data_pipelines.photos.shards import RECORD, open_shards, write_shards
from data_pipelines.photos.squares import STORED_PX, Square
from dfc_jax.errors import DatasetError

COUNT = 11
COLUMNS = ("error", "contour", "profile", "pose")
FIELDS = ("names", "images", "points", "template_xy", "matchable", *COLUMNS)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 4)


@pytest.fixture(scope="module")
def photos() -> PhotoSet:
    rng = np.random.default_rng(0)
    shape = (COUNT, STORED_PX, STORED_PX)
    return PhotoSet(
        names=np.array([f"face{n}" * (1 + n % 3) for n in range(COUNT)]),
        images=rng.integers(0, 255, (*shape, 3), np.uint8),
        points=rng.uniform(0, STORED_PX, (COUNT, 68, 2)).astype(np.float32),
        annotated=rng.random((COUNT, 68)) < 0.5,
        template_xy=rng.uniform(0, 128, (*shape, 2)).astype(np.float16),
        matchable=rng.random(shape) < 0.5,
        error=rng.random(COUNT),
        contour=rng.random(COUNT) < 0.5,
        profile=rng.random(COUNT) < 0.5,
        pose=rng.uniform(-90.0, 90.0, (COUNT, 3)),
    )


class Maker:
    """Makes shards of `photos` without the faces that are `bad`, and notes what it is asked for;
    it is cut off at `stop_at`."""

    def __init__(self, photos: PhotoSet, bad: tuple[int, ...] = (), stop_at: int = COUNT) -> None:
        self.photos, self.bad, self.stop_at, self.asked = photos, bad, stop_at, []

    def __call__(self, start: int, stop: int) -> tuple[PhotoSet | None, list[str]]:
        if start >= self.stop_at:
            raise KeyboardInterrupt
        self.asked.append((start, stop))
        good = [n for n in range(start, stop) if n not in self.bad]
        problems = [f"face{n}: is broken" for n in range(start, stop) if n in self.bad]
        return (self.photos.select(np.array(good)) if good else None), problems


def assert_same(found: PhotoSet, expected: PhotoSet) -> None:
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype.kind == b.dtype.kind and a.flags.c_contiguous
        np.testing.assert_array_equal(a, b)


def test_squares_come_back_from_disk_as_they_were(photos, tmp_path: Path) -> None:
    written = write_shards(tmp_path / "set", COUNT, Maker(photos))
    for stored in (written, open_shards(tmp_path / "set")):
        assert len(stored) == COUNT
        assert_same(stored.load(np.arange(COUNT)), photos)
        index = np.array([9, 0, 9, 5])
        example, expected = stored.as_example(index), photos.as_example(index)
        for name in ("image", "template_xy", "matchable", "points"):
            np.testing.assert_array_equal(getattr(example, name), getattr(expected, name))
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    files = [f"0000{n}.{suffix}" for n in range(3) for suffix in ("bin", "npz")]
    assert names == [*files, "complete.json"]


def test_select_and_joined_read_nothing_and_keep_the_order(photos, tmp_path: Path) -> None:
    one = write_shards(tmp_path / "one", COUNT, Maker(photos))
    two = write_shards(tmp_path / "two", 8, Maker(photos))
    both = one.select(np.array([10, 2])).joined([two.select(np.array([7, 1])), one])
    order = np.array([10, 2, 7, 1, *range(COUNT)])
    assert list(both.names) == list(photos.names[order])
    assert_same(both.load(np.arange(len(order))), photos.select(order))
    assert_same(both.select(np.array([3, 0])).load(np.arange(2)), photos.select(order[[3, 0]]))
    for path in (tmp_path / "one").glob("*.bin"):
        path.unlink()
    assert len(both.select(np.arange(3)).joined([one])) == 3 + COUNT
    with pytest.raises(DatasetError, match=r"00002.bin: is missing or cut short; delete its fold"):
        both.as_example(np.array([0]))


def test_faces_that_cannot_be_used_are_left_out_and_named(photos, tmp_path: Path, caplog) -> None:
    bad = (1, 4, 5, 6, 7)  # one of a shard, and a whole shard
    stored = write_shards(tmp_path, COUNT, Maker(photos, bad))
    good = np.setdiff1d(np.arange(COUNT), bad)
    assert_same(stored.load(np.arange(len(good))), photos.select(good))
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "left out" in line] == [
        f"left out: face{n}: is broken" for n in bad
    ]


def test_a_set_without_a_usable_face_is_one_sentence_and_tried_again(photos, tmp_path) -> None:
    folder = tmp_path / "set"
    with pytest.raises(DatasetError, match="nothing can be used; first of 11: face0: is broken"):
        write_shards(folder, COUNT, Maker(photos, tuple(range(COUNT))))
    assert len(write_shards(folder, COUNT, Maker(photos))) == COUNT


def test_a_run_that_was_cut_off_keeps_its_whole_shards(photos, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, COUNT, Maker(photos, stop_at=8))
    assert open_shards(tmp_path) is None
    (tmp_path / "00001.bin").write_bytes(b"cut short")
    rest = Maker(photos)
    assert_same(write_shards(tmp_path, COUNT, rest).load(np.arange(COUNT)), photos)
    assert rest.asked == [(4, 8), (8, 11)]
    again = Maker(photos)
    write_shards(tmp_path, COUNT, again)
    assert not again.asked


def test_shards_of_a_set_that_has_grown_are_made_again(photos, tmp_path: Path) -> None:
    write_shards(tmp_path, 9, Maker(photos))
    more = Maker(photos)
    assert len(write_shards(tmp_path, COUNT, more)) == COUNT
    assert more.asked == [(0, 4), (4, 8), (8, 11)]


def test_processes_share_the_work(photos, tmp_path: Path, monkeypatch) -> None:
    """While the second process makes its first shard, the first process makes the others."""
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.process_index", lambda: 1)
    first, second = Maker(photos), Maker(photos)

    def slow(start: int, stop: int) -> tuple[PhotoSet | None, list[str]]:
        if not first.asked:
            with monkeypatch.context() as patch:
                patch.setattr("jax.process_index", lambda: 0)
                write_shards(tmp_path, COUNT, first)
        return second(start, stop)

    assert len(write_shards(tmp_path, COUNT, slow)) == COUNT
    assert first.asked == [(0, 4), (4, 8), (8, 11)] and second.asked == [(4, 8)]


def test_damaged_shards_are_named(photos, tmp_path: Path) -> None:
    write_shards(tmp_path, COUNT, Maker(photos))
    records, complete = tmp_path / "00001.bin", tmp_path / "complete.json"
    whole = records.read_bytes()
    records.write_bytes(whole[:-1])
    with pytest.raises(DatasetError, match=f"{records}: is missing or cut short; delete its"):
        open_shards(tmp_path)
    records.write_bytes(whole)
    (tmp_path / "00002.npz").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="00002.bin: is missing or cut short"):
        open_shards(tmp_path)
    complete.write_text("{}")
    with pytest.raises(DatasetError, match=f"{complete}: is damaged; delete it"):
        open_shards(tmp_path)


def test_the_disk_space_is_said_first_and_must_be_there(
    photos, tmp_path: Path, monkeypatch, caplog
) -> None:
    caplog.set_level("INFO", logger="absl")
    usage = type("Usage", (), {"free": 40 * 10**9})
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: usage)
    write_shards(tmp_path / "a", COUNT, Maker(photos), more=100_000)
    assert "writing 11 labelled squares, 100000 more will follow; they take 29.6 GB" in caplog.text
    usage.free = 20 * 10**9
    refused = Maker(photos)
    with pytest.raises(DatasetError, match=r"take 29.6 GB of disk space, and 20.0 GB are free"):
        write_shards(tmp_path / "b", COUNT, refused, more=100_000)
    write_shards(tmp_path / "a", COUNT, refused, more=100_000)  # what is there takes no more
    assert not refused.asked


def unlabelled(squares: list[Square]) -> PhotoSet:
    """The squares with labels of nothing."""
    n = len(squares)
    return PhotoSet(
        np.array([square.face.name for square in squares]),
        np.stack([square.image for square in squares]),
        np.stack([square.points for square in squares]),
        np.ones((n, 68), bool),
        np.zeros((n, STORED_PX, STORED_PX, 2), np.float16),
        np.zeros((n, STORED_PX, STORED_PX), bool),
        np.zeros(n),
        np.ones(n, bool),
        np.zeros(n, bool),
        np.zeros((n, 3)),
    )


def test_a_folder_of_300w_lp_becomes_shards(tmp_path: Path) -> None:
    write_many_300w_lp(tmp_path / "300W_LP", 6, edge=64)
    (tmp_path / "300W_LP" / "AFW" / "AFW_2_0.jpg").unlink()
    faces = open_sets([tmp_path / "300W_LP"], "300w-lp")
    stored = write_labelled(tmp_path / "set", faces, unlabelled)
    assert list(stored.names) == [f"AFW/AFW_{n}_0" for n in (0, 1, 3, 4, 5)]
    assert json.loads((tmp_path / "set" / "complete.json").read_text())["squares"] == 5


READ_ALL = """
import resource, sys
from pathlib import Path
import numpy as np
from data_pipelines.photos.shards import open_shards

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

photos = open_shards(Path(sys.argv[1]))
order = np.random.default_rng(0).permutation(len(photos))
before = resident()
for start in range(0, len(photos), 16):
    photos.as_example(order[start : start + 16])
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_squares_that_are_read(photos, tmp_path, monkeypatch) -> None:
    """An epoch over 400 squares, 118 MB, in a process of its own."""
    monkeypatch.setattr(shards, "SHARD", 10)
    write_shards(tmp_path, 400, lambda start, stop: (photos.select(np.arange(10)), []))
    command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = int(done.stdout)
    assert grown < 0.25 * 400 * RECORD.itemsize, f"{grown / 1e6:.0f} MB more after an epoch"
