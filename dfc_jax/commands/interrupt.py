"""Ctrl-C ends a command at once, also while XLA compiles.

Python raises `KeyboardInterrupt` when its main thread runs the next bytecode, and waits at its end
for the threads of all pools. Either may take as long as a compilation, which nothing can stop. So
the main thread puts in order what it can, and then the process ends without its threads.
"""

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

from dfc_jax.commands.arguments import EXIT_INTERRUPTED, complain

# How long the main thread may take to notice; it does not while it compiles itself.
GRACE_S = 1.0


def end_on_interrupt() -> None:
    """From now on Ctrl-C ends the process, the second time at once.

    The first one still raises `KeyboardInterrupt`, for whoever catches it to call `end_now`. Where
    that is not raised within `GRACE_S`, and on a second one, the process ends by itself. Where
    SIGINT does something else, as in background jobs of a shell, it goes on to do so, and outside
    the main thread, where Python allows no handlers, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    noticed = threading.Event()

    def handle(*arguments: Any) -> None:
        noticed.set()
        signal.default_int_handler(*arguments)

    def handle_lost(lost: "sys.UnraisableHookArgs") -> None:
        # Callbacks of the garbage collector, of which JAX has one, cannot raise anything.
        if issubclass(lost.exc_type, KeyboardInterrupt):
            noticed.clear()
        else:
            sys.__unraisablehook__(lost)

    # Written to as soon as the signal arrives, whatever the main thread does.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, handle)
    sys.unraisablehook = handle_lost
    watch = threading.Thread(target=_watch, args=(reader, writer, noticed), daemon=True)
    watch.start()


def end_now() -> NoReturn:
    """Say that the command was interrupted, and end the process, whatever its threads do."""
    complain("interrupted")
    # Where nothing was compiled, JAX was perhaps not even imported.
    forget_latest = getattr(sys.modules.get("dfc_jax.cache"), "forget_latest", None)
    if forget_latest is not None:
        forget_latest()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(EXIT_INTERRUPTED)


def _watch(reader: socket.socket, writer: socket.socket, noticed: threading.Event) -> None:
    """End the process where the main thread does not; `writer` is only kept open."""
    _wait_for_interrupt(reader)
    reader.settimeout(GRACE_S)
    try:
        _wait_for_interrupt(reader)
    except TimeoutError:
        if not noticed.is_set():
            end_now()
        reader.settimeout(None)
        _wait_for_interrupt(reader)
    # Without a word or anything else that could block.
    os._exit(EXIT_INTERRUPTED)


def _wait_for_interrupt(reader: socket.socket) -> None:
    while reader.recv(1) != bytes([signal.SIGINT]):
        pass
