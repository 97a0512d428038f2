"""Many photographs at once give what they give one by one, in their order, whatever fails."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from faces import mean_aligner
from paths import ASTRONAUT, ROOT
from PIL import Image

import dfc_jax
from dfc_jax.crops import crop_photo
from dfc_jax.errors import OptionError, PhotoError
from dfc_jax.inference import schedule, solve
from dfc_jax.inference.schedule import (
    Finish,
    Locate,
    Work,
    ahead,
    pipelined,
    run,
    run_many,
    together,
)
from dfc_jax.ops.sampling import pixel_grid
from dfc_jax.photo import read_photo


def pictures() -> list[np.ndarray]:
    """A portrait in several sizes, two of it side by side, on its side, and a wall."""
    portrait = read_photo(ASTRONAUT)[:300, 70:370]
    sizes = [cv2.resize(portrait, (edge, edge)) for edge in (300, 250, 200)]
    return [
        *sizes,
        np.hstack([portrait] * 2),
        np.rot90(portrait),
        np.full((200, 200, 3), 90, np.uint8),
    ]


def test_many_photographs_give_the_faces_of_each_alone_in_their_order(trained):
    wanted = [trained(picture) for picture in pictures()]
    assert [len(faces) for faces in wanted] == [1, 1, 1, 2, 1, 0]
    found = list(trained.many(pictures()))
    for alone, one, picture in zip(wanted, found, pictures(), strict=True):
        assert one.error is None
        assert np.array_equal(one.image, picture)
        assert one.faces == alone


def test_boxes_may_be_given_for_each_photograph_or_found_by_a_function(trained):
    picture = pictures()[0]
    box = trained(picture)[0].box
    calls = []

    def find(image):
        calls.append(image.shape)
        return [box, box]

    one, none, two = trained.many([picture] * 3, boxes=[[box], [], find])
    assert [len(found.faces) for found in (one, none, two)] == [1, 0, 2]
    assert calls == [picture.shape]
    assert one.faces == trained(picture, boxes=[box])


def test_a_photograph_that_cannot_be_used_stops_no_other(trained, tmp_path):
    (tmp_path / "text.jpg").write_text("no photograph")
    good = pictures()[0]
    first, broken, missing, last = trained.many([good, tmp_path / "text.jpg", "no.jpg", good])
    assert first.faces == last.faces == trained(good)
    for found, name in ((broken, "text.jpg"), (missing, "no.jpg")):
        assert isinstance(found.error, PhotoError)
        assert name in str(found.error)
        assert found.faces == []


def test_a_crop_on_which_the_solver_fails_costs_its_own_photograph_alone():
    solution = mean_aligner().solver.solve(None)

    def solver(crop):
        if crop.max() == 1.0:
            raise ZeroDivisionError
        return solution

    dark, bright = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    found = list(mean_aligner(solver=solver).many([dark, bright, dark]))
    assert [len(one.faces) for one in found] == [1, 0, 1]
    assert isinstance(found[1].error, ZeroDivisionError)


def test_a_fit_that_shrinks_to_a_point_costs_no_other_face_of_its_photograph(trained, monkeypatch):
    """As of a network that sends all pixels of dark crops to one place of the template, where no
    landmark of the eyes is read."""
    corresponded = solve.correspond
    flow = np.float32([64.0, 80.0]) - np.asarray(pixel_grid(128, 128))
    chance = np.random.default_rng(0).uniform(size=(128, 128)).astype(np.float32)

    def collapsed(crops, *rest):
        dark = np.asarray(crops).max(axis=(1, 2, 3)) == 0.0
        given, probability = map(np.asarray, corresponded(crops, *rest))
        probability = np.where(dark[:, None, None], chance, probability)
        return np.where(dark[:, None, None, None], flow, given), probability

    picture = pictures()[0]
    box = trained(picture)[0].box
    wide = np.pad(picture, ((0, 0), (0, 300), (0, 0)))
    (alone,) = trained(wide, boxes=[box])
    monkeypatch.setattr(solve, "correspond", collapsed)
    (found,) = trained.many([wide], boxes=[[box, (400, 100, 100, 100)]])
    assert found.error is None
    assert found.faces == [alone]


def test_a_solver_that_is_still_being_made_is_waited_for():
    go = threading.Event()

    def make():
        assert go.wait(60)
        return Doubling()

    solver = schedule.Deferred(make)
    outcomes = run_many(map(task, range(9)), solver, 2)
    threading.Timer(0.1, go.set).start()
    assert [outcome() for outcome in outcomes] == [10 * (4 * n + 200) for n in range(9)]


def test_without_a_solver_the_whole_call_fails_once():
    def make():
        raise MemoryError("no room for the network")

    aligner = mean_aligner()
    aligner.solver = schedule.Deferred(make)
    found = aligner.many([np.zeros((64, 64, 3), np.uint8)] * 3)
    with pytest.raises(MemoryError):
        next(found)
    assert list(found) == []


def test_what_was_taken_before_the_photographs_failed_is_delivered():
    def photos():
        yield from [np.zeros((64, 64, 3), np.uint8)] * 5
        raise OSError("the disk is gone")

    found = mean_aligner().many(photos())
    assert [len(next(found).faces) for _ in range(5)] == [1] * 5
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"photos": "ab"}, r"photos needs several, not one \(ab\); call the aligner"),
        ({"photos": Path("a.jpg")}, "photos needs several"),
        ({"photos": b"ab"}, "photos needs several"),
        ({"photos": np.zeros((64, 64, 3))}, r"photos needs several, not one \(ndarray\)"),
        ({"photos": np.zeros((64, 64))}, "photos needs several"),
        ({"photos": Image.new("L", (64, 64))}, r"photos needs several, not one \(Image\)"),
        ({"photos": 5}, "photos needs several"),
        ({"photos": None}, "photos needs several"),
        ({"photos": [], "workers": 0}, "workers needs a whole number from 1"),
        ({"photos": [], "workers": "2"}, "workers needs a whole number from 1"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, words):
    with pytest.raises(OptionError, match=words):
        mean_aligner().many(**arguments)


def test_photographs_may_be_whatever_can_be_iterated_over(tmp_path):
    grey, stack = np.zeros((64, 64), np.uint8), np.zeros((3, 64, 64, 3), np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    names = [tmp_path / "a.png", str(tmp_path / "a.png")]
    once, grey_stack = {names[0]: "its name"}, stack[..., 0]
    for photos in (names, once, iter(names), stack, grey_stack, [Image.new("L", (64, 64))]):
        found = [len(each.faces) for each in mean_aligner().many(photos)]
        assert set(found) == {1}


@pytest.mark.parametrize(("count", "words"), [(1, "fewer"), (3, "more")])
def test_boxes_are_as_many_as_photographs(count, words):
    found = mean_aligner().many([np.zeros((64, 64, 3), np.uint8)] * 2, boxes=[None] * count)
    with pytest.raises(OptionError, match=f"boxes has {words} entries than photos"):
        list(found)


@pytest.mark.slow
def test_an_iterator_that_nobody_finishes_ends_with_python_in_silence():
    program = """
import numpy as np
from faces import mean_aligner
found = mean_aligner().many(np.zeros((64, 64, 3), np.uint8) for _ in range(100))
next(found)
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stderr == ""


def test_a_kept_error_does_not_keep_the_photograph():
    class Picture(np.ndarray):
        pass

    seen = []

    def read(_):
        picture = np.zeros((64, 64, 3), np.uint8).view(Picture)
        seen.append(weakref.ref(picture))
        raise PhotoError("one.jpg: is broken")

    kept = list(mean_aligner().many([0, 1, 2], read=read))
    gc.collect()
    assert [str(found.error) for found in kept] == ["one.jpg: is broken"] * 3
    assert not any(reference() is not None for reference in seen)


def test_loading_in_the_background_gives_the_same_faces(trained):
    aligner = dfc_jax.load(background=True)
    assert aligner(pictures()[0]) == trained(pictures()[0])


def test_photographs_are_taken_as_they_are_needed():
    taken = []

    def photos():
        for number in range(1000):
            taken.append(number)
            yield np.zeros((64, 64, 3), np.uint8)

    found = mean_aligner().many(photos(), workers=2)
    next(found)
    found.close()
    assert len(taken) < 50


def test_batches_of_every_size_find_what_single_crops_do(trained, monkeypatch):
    """On the sizes of an accelerator, three crops are padded to four, and seventeen to 64."""
    picture = read_photo(ASTRONAUT)
    crop = crop_photo(picture, trained(picture)[0].crop)
    crops = [np.roll(crop, shift, axis=1) for shift in range(-3, 4)]
    one_by_one = trained.solver.finish(trained.solver.locate(crops))
    monkeypatch.setattr(trained.solver, "buckets", solve.Buckets((1, 4), 2, padded=True))
    with jax.log_compiles():
        batched = trained.solver.finish(trained.solver.locate(crops))
    for single, one in zip(one_by_one, batched, strict=True):
        for name in ("landmarks_px", "vertices_mm", "flow", "rotation"):
            wanted, found = getattr(single, name), getattr(one, name)
            np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("buckets", "count", "largest", "sizes"),
    [
        (solve.CPU_BUCKETS, 3, 1, [1, 1, 1]),
        (solve.ACCELERATOR_BUCKETS, 3, 4, [4]),
        (solve.ACCELERATOR_BUCKETS, 1, 4, [1]),
        (solve.ACCELERATOR_BUCKETS, 17, 64, [64]),
        (solve.ACCELERATOR_BUCKETS, 70, 64, [64, 16]),
        (solve.ACCELERATOR_BUCKETS, 17, 16, [16, 1]),
        (solve.Buckets((1, 4), 1, padded=False), 7, 4, [4, 1, 1, 1]),
    ],
)
def test_batches_are_cut_into_the_sizes_that_there_are(buckets, count, largest, sizes):
    found = []
    while count > 0:
        found.append(buckets.size_for(count, largest))
        count -= found[-1]
    assert found == sizes


class Doubling:
    """A solver of numbers, which remembers its batches."""

    buckets = solve.Buckets((1, 4), 1, padded=False)

    def __init__(self):
        self.batches = []

    def wait(self):
        pass

    def locate(self, crops, largest=None, known=None):
        self.batches.append(len(crops))
        return [2 * crop for crop in crops]

    def finish(self, estimates, largest=None):
        return [10 * estimate for estimate in estimates]


def task(number):
    (read,) = yield [Work(lambda: number)]
    one, other = yield [Locate(read), Locate(read + 100)]
    (finished,) = yield [Finish(one + other)]
    return finished


def test_a_task_gives_the_same_alone_in_company_and_among_many():
    wanted = [10 * (4 * n + 200) for n in range(9)]
    assert [run(task(n), Doubling()) for n in range(9)] == wanted
    assert run(together(task(n) for n in range(9)), Doubling()) == wanted
    solver = Doubling()
    assert [outcome() for outcome in run_many(map(task, range(9)), solver, 2)] == wanted
    assert max(solver.batches) > 2, "crops of different tasks share a batch"


def test_an_error_reaches_the_task_that_asked_and_can_be_caught_there():
    def fails():
        yield [Work(lambda: 1 / 0)]

    def catches():
        try:
            yield from fails()
        except ZeroDivisionError:
            return "caught"

    assert run(catches(), Doubling()) == "caught"
    outcomes = list(run_many([task(1), fails(), catches()], Doubling(), 2))
    assert outcomes[0]() == 2040
    with pytest.raises(ZeroDivisionError):
        outcomes[1]()
    assert outcomes[2]() == "caught"


def test_work_ahead_keeps_the_order_and_is_bounded():
    running, most, lock = set(), [0], threading.Lock()

    def square(n):
        with lock:
            running.add(n)
            most[0] = max(most[0], len(running))
        result = 1 / n
        with lock:
            running.discard(n)
        return result

    outcomes = [(n, future) for n, future in ahead(square, range(-5, 20), 2)]
    assert [n for n, _ in outcomes] == list(range(-5, 20))
    assert most[0] <= 3  # the one that failed stays in the set
    assert isinstance(outcomes[5][1].exception(), ZeroDivisionError)
    assert outcomes[0][1].result() == -0.2


@pytest.mark.parametrize("at_once", [False, True])
def test_pipeline_keeps_the_order_and_never_runs_between_beside_second(at_once):
    running, seen = threading.Event(), []

    def second(n):
        running.set()
        time.sleep(0.002)
        running.clear()
        return 10 * n

    def between():
        assert not running.is_set()
        seen.append("between")

    found = pipelined(lambda n: n + 1, between, second, range(5), at_once)
    assert list(found) == [10, 20, 30, 40, 50]
    assert len(seen) == 5


def test_pipeline_is_one_item_late_unless_at_once():
    taken = []

    def items():
        for n in range(3):
            taken.append(n)
            yield n

    for at_once, ahead_of_first in ((False, [0, 1]), (True, [0])):
        taken.clear()
        found = pipelined(abs, lambda: None, abs, items(), at_once)
        assert next(found) == 0
        assert taken == ahead_of_first
        found.close()


def test_pipeline_delivers_what_comes_before_an_error():
    found = pipelined(lambda n: 1 / n, lambda: None, abs, [1, 2, 0, 4])
    assert [next(found), next(found)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(found)
    found = pipelined(abs, lambda: None, lambda n: 1 / n, [1, 0, 4])
    assert next(found) == 1.0
    with pytest.raises(ZeroDivisionError):
        next(found)
