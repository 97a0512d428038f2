"""Where the repository and the real data are, and what not every installation has."""

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
SHARED_DATA = Path(os.environ.get("DFC_SHARED_DATA", ROOT.parent / "shared" / "data"))


def shared_data(name: str) -> Path:
    """A file or folder of the real data. Without it the test that asks is skipped; it fails where
    ``DFC_REQUIRE_DATA`` is 1."""
    path = SHARED_DATA / name
    if not path.exists():
        _missing(f"{path} is not there", "DFC_REQUIRE_DATA")
    return path


def extra_module(name: str, extra: str) -> ModuleType:
    """A module that only an extra of the package installs. Without it the test that asks is
    skipped; it fails where ``DFC_REQUIRE_EXTRAS`` is 1."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        _missing(f"{error}; it comes with the extra {extra}", "DFC_REQUIRE_EXTRAS")
        raise


def _missing(reason: str, variable: str) -> None:
    if os.environ.get(variable) == "1":
        pytest.fail(f"{reason}, and {variable}=1 says that it must be")
    pytest.skip(reason)
