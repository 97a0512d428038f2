"""Dense 3D face alignment in JAX.

    aligner = dfc_jax.load()
    faces = aligner(image)

`load` and `Aligner` are imported when first used, so that ``import dfc_jax`` is light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfc_jax.inference.align import Aligner, Face, load

__version__ = "0.1.0"
__all__ = ["Aligner", "Face", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Aligner", "Face", "load"):
        from dfc_jax.inference import align

        return getattr(align, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
