"""How many programs XLA compiles in this process."""

from jax import monitoring

EVENT = "/jax/core/compile/backend_compile_duration"
_seen = 0


def compiles() -> int:
    """Programs compiled since this module was imported; one that is read from a cache counts too.

    The number of a piece of code is the difference of two calls.
    """
    return _seen


def _count(event: str, duration_secs: float, **_: str | int) -> None:
    global _seen
    _seen += event == EVENT


monitoring.register_event_duration_secs_listener(_count)
