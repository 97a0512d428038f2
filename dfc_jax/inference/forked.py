"""JAX does not survive a fork: the child waits for ever for threads that only the parent has."""

import os
import sys

from dfc_jax.errors import UserError


class ForkError(UserError):
    """JAX cannot be used in this process; the message is one sentence with the remedy."""


_loaded = _forked = False


def check_not_forked() -> None:
    """Say that JAX is about to be used.

    Raises:
      ForkError: this process was forked from one that had used JAX.
    """
    global _loaded
    if _forked:
        raise ForkError(
            "JAX was in use before this process was forked and would hang in it; start workers "
            "with multiprocessing.get_context('spawn'), or fork before JAX is used"
        )
    _loaded = True


def _jax_is_running() -> bool:
    # JAX has no public word for it; without the private one, what we did ourselves counts.
    ask = getattr(sys.modules.get("jax._src.xla_bridge"), "backends_are_initialized", None)
    return _loaded if ask is None else ask()


def _after_fork() -> None:
    global _forked
    _forked = _forked or _jax_is_running()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
