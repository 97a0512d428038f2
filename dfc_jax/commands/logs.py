"""What commands say besides their results: through the logger "dfc_jax", which the library never
sets up itself.

Errors are always said, warnings unless ``--quiet``, what is going on with ``--verbose``.
"""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from dfc_jax.commands.arguments import complain

LOG = logging.getLogger("dfc_jax")
_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "-q",
        "--quiet",
        dest="verbosity",
        action="store_const",
        const=-1,
        help="say nothing but what went wrong",
    )
    how.add_argument(
        "-v",
        "--verbose",
        dest="verbosity",
        action="store_const",
        const=1,
        help="also say what is used, what JAX has to say, and where the time goes",
    )
    parser.set_defaults(verbosity=0)


@contextmanager
def logging_to_terminal(verbosity: int, whole_process: bool) -> Iterator[None]:
    """Inside, what is logged goes to standard error, as one line each.

    Args:
      verbosity: -1 for errors alone, 0 with warnings, 1 with what is going on, also in JAX.
      whole_process: whether the process is the command's, whose warnings are then its own, too.
    """
    handler, jax_log = _Terminal(), logging.getLogger("jax")
    before = LOG.level, jax_log.level
    LOG.addHandler(handler)
    LOG.setLevel(_LEVELS[verbosity])
    if verbosity < 1:
        jax_log.setLevel(logging.ERROR)
        if whole_process:
            # Of C++, and of a cache of compiled programs that cannot be read.
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
            warnings.filterwarnings("ignore", module=r"jax\b")
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before[0])
        jax_log.setLevel(before[1])


class _Terminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Not through a progress bar, where there is one.
        bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
        complain(record.getMessage(), print if bars is None else bars.write)
