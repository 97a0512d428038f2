"""Programs that train, measure and calibrate: ``python -m experiments.NAME --help``."""

import os
import sys
from pathlib import Path
from types import TracebackType

# Packages that only an extra of the installation brings.
EXTRAS = {
    "matplotlib": "train",
    "ml_collections": "train",
    "optax": "train",
    "orbax": "train",
    "tensorboardX": "train",
}


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Stands in for `sys.excepthook`; a package of an extra that is missing is one sentence."""
    name = (getattr(error, "name", None) or "").split(".")[0]
    if isinstance(error, ModuleNotFoundError) and name in EXTRAS:
        print(
            f"{Path(sys.argv[0]).stem}: needs the package {name}, which is not installed; "
            f'pip install -e ".[{EXTRAS[name]}]" in the folder of the sources brings it',
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


# What Python calls a program that it still looks for: nothing is changed for those who import us.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = report
    # XLA's remarks, that a compilation is slow among them; errors come as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
