"""Dense 3D face alignment in JAX.

    aligner = dfc_jax.load()
    faces = aligner(dfc_jax.read_photo("me.jpg"))

    for found in aligner.many(pathlib.Path("photos").glob("*.jpg")):  # each an `Aligned`
        print(found.error or len(found.faces))

Mistakes, such as a file that is no photograph, raise a `UserError`, a `ValueError` whose message is
one sentence with the remedy. All but the version is imported when first used, so that ``import
dfc_jax`` is light.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfc_jax.errors import UserError
    from dfc_jax.export.composite import Composer
    from dfc_jax.inference.align import Aligned, Aligner, load
    from dfc_jax.inference.detectors import make_detector
    from dfc_jax.inference.face import Face
    from dfc_jax.photo import read_photo
    from dfc_jax.video import open_video

# What is logged is heard by those who set up logging, and by nobody else.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"
__all__ = [
    "Aligned",
    "Aligner",
    "Composer",
    "Face",
    "UserError",
    "__version__",
    "load",
    "make_detector",
    "open_video",
    "read_photo",
]

_HOMES = {
    "Aligned": "dfc_jax.inference.align",
    "Aligner": "dfc_jax.inference.align",
    "Composer": "dfc_jax.export.composite",
    "Face": "dfc_jax.inference.face",
    "UserError": "dfc_jax.errors",
    "load": "dfc_jax.inference.align",
    "make_detector": "dfc_jax.inference.detectors",
    "open_video": "dfc_jax.video",
    "read_photo": "dfc_jax.photo",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
