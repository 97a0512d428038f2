"""Many photographs, each under its name, into one folder: aligned, written, counted."""

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import tee
from typing import TYPE_CHECKING, Any, NamedTuple

from dfc_jax.commands.arguments import complain, plural, sentence
from dfc_jax.commands.clock import Clock, TimedSolver, timed_detector
from dfc_jax.commands.logs import LOG
from dfc_jax.export.journal import Stamp, stamp_of
from dfc_jax.export.summary import Row, failed_row, rows_of
from dfc_jax.files import escaped, path_text

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    from tqdm import tqdm

    from dfc_jax.export.results import Results
    from dfc_jax.inference.align import Aligned, Aligner


@dataclass
class Counts:
    """What became of the photographs.

    Attributes:
      photos: how many there are.
      faces, uncertain: in all of them; how many of the faces are uncertain.
      empty: how many photographs show no face.
      done_before: how many were left as they are.
      errors: a sentence for each photograph that failed.
    """

    photos: int
    faces: int = 0
    uncertain: int = 0
    empty: int = 0
    done_before: int = 0
    errors: dict[str, str] = field(default_factory=dict)

    def add(self, statuses: Sequence[str]) -> None:
        """Count a photograph with faces of these statuses."""
        self.faces += len(statuses)
        self.uncertain += sum(status != "ok" for status in statuses)
        self.empty += not statuses

    def __str__(self) -> str:
        doubtful = f" ({self.uncertain} uncertain)" if self.uncertain else ""
        before = f" ({self.done_before} done before)" if self.done_before else ""
        n_ok = self.photos - len(self.errors) - self.empty
        photos = f"{n_ok} of {plural(self.photos, 'photograph')}"
        return f"{plural(self.faces, 'face')}{doubtful} in {photos}{before}"


class _Task(NamedTuple):
    photo: str
    name: str
    stamp: Stamp | None


@dataclass
class Batch:
    """Photographs to align and write.

    Attributes:
      names: of the results, by photograph.
      aligner, results: what finds, and what writes.
      counts: are added to.
      boxes: for each photograph, instead of a detector.
      resume: leave out those whose results are there and would be the same again.
      quiet: without a progress bar, which is there where somebody looks at it.
    """

    names: Mapping[str, str]
    aligner: "Aligner"
    results: "Results"
    counts: Counts
    boxes: Sequence[Any] | None = None
    resume: bool = False
    quiet: bool = False

    def run(self) -> None:
        """Align and write them all; what fails is said, and counted."""
        from tqdm import tqdm

        from dfc_jax.inference.schedule import ahead

        clock, start, done_before = Clock(), time.perf_counter(), self.counts.done_before
        # Threads write while the next photographs are aligned.
        workers = os.cpu_count() or 1
        with tqdm(total=len(self.names), unit="photo", disable=self.quiet or None) as bar:
            aligned = self._aligned(clock, workers, bar)
            for (task, _), written in ahead(partial(_write, self.results, clock), aligned, workers):
                self._count(task, written, bar)
                bar.update()
        seconds = time.perf_counter() - start
        count = len(self.names) - (self.counts.done_before - done_before)
        if count:
            rate = count / seconds
            LOG.info("%s in %.1f s: %.2f a second", plural(count, "photograph"), seconds, rate)
            LOG.info("of the time of all threads: %s", clock.shares())

    def _aligned(
        self, clock: Clock, workers: int, bar: "tqdm[Any]"
    ) -> "Iterator[tuple[_Task, Aligned]]":
        """What is found in the photographs that are to be aligned, in their order."""
        from dfc_jax.photo import as_photo

        # Not a copy, which would load it again.
        aligner = object.__new__(type(self.aligner))
        aligner.__dict__.update(self.aligner.__dict__)
        aligner.detector = timed_detector(aligner.detector, clock)
        aligner.solver = TimedSolver(aligner.solver, clock)

        def read(task: _Task) -> "np.ndarray":
            with clock.stage("read"):
                return as_photo(task.photo)

        under_way: deque[_Task] = deque()

        def tasks() -> Iterator[_Task]:
            for task in self._to_do(bar):
                under_way.append(task)
                yield task

        todo, boxes = tasks(), None
        if self.boxes is not None:
            todo, mirror = tee(todo)
            boxes = (self.boxes for _ in mirror)
        for found in aligner.many(todo, boxes=boxes, read=read, workers=workers):
            yield under_way.popleft(), found

    def _to_do(self, bar: "tqdm[Any]") -> Iterator[_Task]:
        """The photographs that are not done before; the others are counted."""
        for photo, name in self.names.items():
            # Before it is read: what changes then has another stamp the next time.
            stamp = stamp_of(photo)
            record = self.results.done(name, photo, stamp) if self.resume else None
            if record is None:
                yield _Task(photo, name, stamp)
            else:
                self.counts.add([face["status"] for face in record["faces"]])
                self.counts.done_before += 1
                bar.update()

    def _count(self, task: _Task, written: "Future[list[str]]", bar: "tqdm[Any]") -> None:
        try:
            statuses = written.result()
        except Exception as error:
            self.counts.errors[task.photo] = sentence(task.photo, error)
            complain(self.counts.errors[task.photo], bar.write)
        else:
            self.counts.add(statuses)
            if not statuses:
                words = "no face was found; give its box with --box x,y,w,h"
                LOG.warning("%s: %s", task.photo, words)


def _write(results: "Results", clock: Clock, job: "tuple[_Task, Aligned]") -> list[str]:
    """Write all results of a photograph; returns the statuses of its faces."""
    task, aligned = job
    if aligned.error is not None:
        raise aligned.error
    with clock.stage("write"):
        results.write(task.name, task.photo, aligned.image, aligned.faces, task.stamp)
    return [face.status for face in aligned.faces]


def summary_rows(
    names: Mapping[str, str], results: "Results", errors: Mapping[str, str]
) -> Iterator[Row]:
    """The table of all photographs, in their order: of those that failed, the error, of the others
    what their records say."""
    for photo, name in names.items():
        record = None if photo in errors else results.journal.read(name)
        if record is None:
            yield failed_row(path_text(photo), name, escaped(errors.get(photo, "has no record")))
        else:
            yield from rows_of(name, record)
