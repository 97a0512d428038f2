"""Where the time goes, by stage, in however many threads."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from dfc_jax.inference.detect import Detection, Detector
    from dfc_jax.inference.programs import Known
    from dfc_jax.inference.schedule import Batches
    from dfc_jax.inference.solve import Buckets, Estimate, Solution


class Clock:
    """Seconds by stage, over all threads. Stages may lie in each other: the outer one does not
    count what the inner one takes.

    Args:
      now: a clock; `time.process_time` counts what all threads use, and goes with one thread.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._now = now
        self._lock = threading.Lock()
        self._thread = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What runs inside belongs to the stage of this name."""
        start, before = self._now(), self._counted()
        try:
            yield
        finally:
            took = self._now() - start - (self._counted() - before)
            self._thread.counted = self._counted() + took
            with self._lock:
                self.seconds[name] += took

    def shares(self) -> str:
        """The share of each stage, the largest first, as words."""
        total = sum(self.seconds.values()) or 1.0
        largest = sorted(self.seconds.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in largest)

    def _counted(self) -> float:
        return getattr(self._thread, "counted", 0.0)


def timed_detector(detector: "Detector", clock: Clock) -> "Detector":
    """The same detector, of the same kind, whose time is counted as the stage "detect"."""

    def call(self: "Detector", image: "np.ndarray") -> "list[Detection]":
        with clock.stage("detect"):
            return detector(image)

    # The aligner asks for the kind of a detector, so that it may not be wrapped.
    kind = type(detector)
    timed: Detector = object.__new__(type(kind.__name__, (kind,), {"__call__": call}))
    timed.__dict__ = detector.__dict__
    return timed


@dataclass
class TimedSolver:
    """A solver whose time is counted: "start" until it is ready, then "solve"."""

    solver: "Batches"
    clock: Clock

    def __post_init__(self) -> None:
        self.buckets: Buckets = self.solver.buckets

    def wait(self) -> None:
        """As of the solver itself."""
        with self.clock.stage("start"):
            self.solver.wait()

    def locate(
        self,
        crops: "Sequence[np.ndarray]",
        largest: int | None = None,
        known: "Sequence[Known | None] | None" = None,
    ) -> "list[Estimate | None]":
        """As of the solver itself."""
        with self.clock.stage("solve"):
            return self.solver.locate(crops, largest, known)

    def finish(
        self, estimates: "Sequence[Estimate]", largest: int | None = None
    ) -> "list[Solution]":
        """As of the solver itself."""
        with self.clock.stage("solve"):
            return self.solver.finish(estimates, largest)
