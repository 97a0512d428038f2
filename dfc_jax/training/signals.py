"""A run that is told to end ends well."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Inside, the first SIGTERM or SIGINT is only noted; what is yielded says whether it came.

    A second one acts as usual. Outside the main thread, where Python allows no handlers, every
    signal does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            # None: a handler that Python did not install and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, _) -> None:
        received.append(number)
        restore()

    for number in (signal.SIGTERM, signal.SIGINT):
        # A shell's background jobs ignore SIGINT, and should go on to do so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        restore()
