"""Many photographs at once: threads read and detect while the device solves batches of crops.

What is done with one photograph is a `Job`: a generator that yields the requests it needs
answered next, and returns its result. So one piece of code serves a single photograph and
thousands, and crops of different photographs share a batch.
"""

import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from dfc_jax.inference.programs import Known
from dfc_jax.inference.solve import Buckets, Estimate, Solution, buckets

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


class Work(NamedTuple):
    """A call for a thread: reading, detecting. Its answer is what it returns."""

    call: Callable[[], Any]


class Locate(NamedTuple):
    """A crop (S, S, 3) for `Solver.locate`, and what is known of its face. The answer is an
    `Estimate`, or None."""

    crop: np.ndarray
    known: Known | None = None


class Finish(NamedTuple):
    """An `Estimate` for `Solver.finish`. The answer is a `Solution`."""

    estimate: Estimate


Request = Work | Locate | Finish
Job = Generator[list[Request], list[Any], T]


class Batches(Protocol):
    """What jobs need of a `Solver`."""

    buckets: Buckets

    def wait(self) -> None:
        """Return when it is ready; raises what keeps it from being so."""

    def locate(
        self,
        crops: Sequence[np.ndarray],
        largest: int | None = None,
        known: Sequence[Known | None] | None = None,
    ) -> list[Estimate | None]: ...
    def finish(
        self, estimates: Sequence[Estimate], largest: int | None = None
    ) -> list[Solution]: ...


class Deferred:
    """A solver that is made in a thread; whoever needs it first waits for it."""

    def __init__(self, make: Callable[[], Batches]) -> None:
        self.buckets = buckets()
        pool = ThreadPoolExecutor(1, thread_name_prefix="dfc-load")
        self._made = pool.submit(make)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Return when it is made; raises what went wrong."""
        self._made.result()

    def locate(
        self,
        crops: Sequence[np.ndarray],
        largest: int | None = None,
        known: Sequence[Known | None] | None = None,
    ) -> list[Estimate | None]:
        """As of the solver itself."""
        return self._made.result().locate(crops, largest, known)

    def finish(self, estimates: Sequence[Estimate], largest: int | None = None) -> list[Solution]:
        """As of the solver itself."""
        return self._made.result().finish(estimates, largest)


def together(jobs: Iterable[Job[T]]) -> Job[list[T]]:
    """One job of several, whose requests are asked for at the same time."""
    running = [_Running(job) for job in jobs]
    while active := [each for each in running if not each.done]:
        answers = iter((yield [request for each in active for request in each.requests]))
        for each in active:
            each.answers = [next(answers) for _ in each.requests]
            each.advance()
    return [each.result() for each in running]


def run(job: Job[T], solver: Batches) -> T:
    """The result of one job, in this thread."""
    running = _Running(job)
    while not running.done:
        running.answers = [
            _Failure.of(request.call) if isinstance(request, Work) else _MISSING
            for request in running.requests
        ]
        _solve([running], solver, solver.buckets.largest_at_once)
        running.advance()
    return running.result()


def run_many(jobs: Iterable[Job[T]], solver: Batches, workers: int) -> Iterator[Callable[[], T]]:
    """The outcomes of jobs, in their order: calls that return the result or raise the error.

    Args:
      jobs: taken as they are needed; each photograph in the making is held in memory.
      solver: of the batches.
      workers: threads for `Work`.
    """
    # As many photographs as fill a batch while as many others are read; 64 are too many to hold.
    batch = min(solver.buckets.sizes[-1], 16)
    window = 2 * (batch + workers)
    waiting, queue, errors = iter(jobs), deque[_Running[T]](), list[Exception]()

    def next_job() -> Job[T] | None:
        try:
            return None if errors else next(waiting, None)
        except Exception as error:
            # Raised when what was taken before is delivered.
            errors.append(error)
            return None

    with _threads(workers, "dfc") as pool:
        while True:
            while len(queue) < window and (job := next_job()) is not None:
                queue.append(_Running(job, pool))
            if queue and queue[0].done:
                yield queue.popleft().result
            elif queue:
                _step(queue, solver, batch)
            elif errors:
                raise errors[0]
            else:
                return


@contextmanager
def _threads(workers: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that finish what they are asked for, and no more than they have begun on errors."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    is_finalizing = sys.is_finalizing  # when Python ends, `sys` may be gone before us
    try:
        yield pool
    except BaseException:
        # A generator that nobody finished is closed when Python ends: its threads have ended then,
        # and what the pool is made of is gone.
        if not is_finalizing():
            pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def ahead(
    call: Callable[[T], U], items: Iterable[T], workers: int
) -> Generator[tuple[T, Future[U]], None, None]:
    """Call a function of every item in threads; items and their outcomes in order.

    Items are taken as they are needed: some wait, and are held in memory, while `workers` threads
    are at work.
    """
    waiting: deque[tuple[T, Future[U]]] = deque()
    with _threads(workers, "dfc-ahead") as pool:
        for item in items:
            waiting.append((item, pool.submit(call, item)))
            if len(waiting) > 2 * workers:
                yield waiting.popleft()
        yield from waiting


def pipelined(
    first: Callable[[T], U],
    between: Callable[[], None],
    second: Callable[[U], V],
    items: Iterable[T],
    at_once: bool = False,
) -> Generator[V, None, None]:
    """``second(first(item))`` of each item, in order: `second` of one item runs in a thread beside
    `first` of the next. `between` is called before each `second`, while neither runs.

    With `at_once`, a result is not kept until there is another item, and nothing runs beside. Where
    `first` or the items raise, the results of earlier items come before the error.
    """
    running: list[Future[V]] = []
    with _threads(1, "dfc-second") as pool:
        try:
            for item in items:
                half = first(item)
                done = [future.result() for future in running]
                between()
                running = [pool.submit(second, half)]
                yield from done
                if at_once:
                    yield running.pop().result()
        except Exception:
            yield from (future.result() for future in running)
            raise
        yield from (future.result() for future in running)


class _Failure(NamedTuple):
    """The answer to a request that raised."""

    error: Exception

    @classmethod
    def of(cls, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            # Who keeps the error shall not keep the photograph that its frames hold.
            traceback.clear_frames(error.__traceback__)
            return cls(error)


class _Running(Generic[T]):
    """A job with its requests and their answers, `_MISSING` where there is none yet."""

    def __init__(self, job: Job[T], pool: ThreadPoolExecutor | None = None) -> None:
        self._job, self._pool = job, pool
        self.done = False
        self.requests: list[Request] = []
        self.answers: list[Any] = []
        self._proceed(lambda: next(job))

    def advance(self) -> None:
        """Hand the answers over, or the first error among them."""
        failed = next((a.error for a in self.answers if isinstance(a, _Failure)), None)
        if failed is not None:
            self._proceed(lambda: self._job.throw(failed))
        else:
            self._proceed(lambda: self._job.send(self.answers))

    def result(self) -> T:
        if isinstance(self._outcome, _Failure):
            raise self._outcome.error
        return self._outcome

    def _proceed(self, step: Callable[[], list[Request]]) -> None:
        try:
            self.requests = step()
        except StopIteration as end:
            self.done, self._outcome, self.requests = True, end.value, []
        except Exception as error:
            self.done, self._outcome, self.requests = True, _Failure(error), []
        self.answers = [
            self._pool.submit(_Failure.of, request.call)
            if self._pool and isinstance(request, Work)
            else _MISSING
            for request in self.requests
        ]


_MISSING = object()


def _step(queue: Iterable[_Running[Any]], solver: Batches, batch: int) -> None:
    """Answer some requests and let the jobs that have all their answers go on."""
    futures = [a for each in queue for a in each.answers if isinstance(a, Future)]
    crops = sum(answer is _MISSING for each in queue for answer in each.answers)
    if futures and crops < batch:
        # A batch that is not full waits for the photographs that are on their way.
        wait(futures, return_when=FIRST_COMPLETED)
    else:
        _solve(queue, solver, batch)
    for each in queue:
        each.answers = [
            a.result() if isinstance(a, Future) and a.done() else a for a in each.answers
        ]
        if not each.done and not any(a is _MISSING or isinstance(a, Future) for a in each.answers):
            each.advance()


def _solve(queue: Iterable[_Running[Any]], solver: Batches, largest: int) -> None:
    """Answer the requests for the device, in batches."""
    missing = [
        (each, i, request)
        for each in queue
        for i, (request, answer) in enumerate(zip(each.requests, each.answers, strict=True))
        if answer is _MISSING
    ]
    if missing:
        # Outside of what is caught below: without a solver there is nothing to go on with.
        solver.wait()
    located = [(each, i, r) for each, i, r in missing if isinstance(r, Locate)]
    finished = [(each, i, r.estimate) for each, i, r in missing if isinstance(r, Finish)]
    estimates = _apart(partial(_located, solver, largest), [request for *_, request in located])
    solutions = _apart(partial(solver.finish, largest=largest), [fit for *_, fit in finished])
    for wanted, found in ((located, estimates), (finished, solutions)):
        for (each, i, _), answer in zip(wanted, found, strict=True):
            each.answers[i] = answer


def _located(solver: Batches, largest: int, requests: Sequence[Locate]) -> list[Estimate | None]:
    known = [request.known for request in requests]
    return solver.locate([request.crop for request in requests], largest, known)


def _apart(solve: Callable[[list[T]], list[Any]], items: list[T]) -> list[Any]:
    """What is solved of all together; where that fails, of each by itself, for one may be at fault
    and not the others."""
    if not items:
        return []
    found = _Failure.of(partial(solve, items))
    if not isinstance(found, _Failure):
        return found
    if len(items) == 1:
        return [found]
    return [answer for item in items for answer in _apart(solve, [item])]
