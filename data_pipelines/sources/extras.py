"""Modules of the optional dependencies (extras) of the installation."""

import importlib
from typing import Any

from dfc_jax.errors import DatasetError


def required(module: str) -> Any:
    """A module of the extra `tfds`.

    Raises:
      DatasetError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DatasetError(
            f"{module} is needed to read this; install it with: pip install 'dfc_jax[tfds]'"
        ) from error
