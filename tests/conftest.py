"""What many tests share: the face model and what is made of it, and one compilation cache."""

import os
from collections.abc import Iterator

import jax
import pytest
from faces import mean_aligner
from paths import ROOT

import dfc_jax
from dfc_jax import cache
from dfc_jax.inference.align import Aligner
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel
from dfc_jax.systems.dfc.template import Template, make_template
from experiments.bench.compiles import compiles


def keep_compiled_programs() -> None:
    """What one run of the tests compiles the next one reads, and the processes that they start
    read it too. A cache that the environment names is used instead."""
    os.environ.setdefault(cache.VARIABLE, str(ROOT / "build" / "compiled"))
    folder = cache.cache_folder()
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    if folder is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    os.environ.update(settings)
    # JAX has read the environment by now.
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


keep_compiled_programs()

MOST_PROGRAMS = 400
forgotten = 0


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """JAX keeps a megabyte or more for every program; when they are many, the next module begins
    without those of the last ones, and reads what it needs of them from the cache."""
    global forgotten
    yield
    if compiles() - forgotten > MOST_PROGRAMS:
        jax.clear_caches()
        forgotten = compiles()


@pytest.fixture(scope="session")
def model() -> FaceModel:
    """The embedded one."""
    return load_face_model()


@pytest.fixture(scope="session")
def template(model: FaceModel) -> Template:
    """Of the embedded model, of the size that networks see."""
    return make_template(model)


@pytest.fixture(scope="session")
def aligner() -> Aligner:
    """Without a network: it finds the mean face in every crop."""
    return mean_aligner()


@pytest.fixture(scope="session")
def trained() -> Aligner:
    """With the weights and the detector that `dfc align` takes if nothing else is said."""
    return dfc_jax.load()
