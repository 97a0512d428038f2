"""The code of this checkout and the Python packages it trains with, as folders to copy."""

import shutil
from importlib import metadata
from pathlib import Path

from dfc_jax.errors import ConfigError

ROOT = Path(__file__).parents[1]
CODE = ("dfc_jax", "data_pipelines", "experiments")
FACE_MODEL = Path("dfc_jax", "assets", "face_model.npz")
# What a plain training imports beside JAX and what comes with that (NumPy, SciPy, ml_dtypes).
PACKAGES = (
    "absl-py",
    "flax",
    "ml_collections",
    "msgpack",
    "optax",
    "packaging",
    "platformdirs",
    "protobuf",
    "PyYAML",
    "rich",
    "safetensors",
    "tensorboardX",
    "tqdm",
    "typing_extensions",
)


def copy_code(folder: Path) -> None:
    """Copy the Python files of this checkout, and the face model."""
    for package in CODE:
        for file in (ROOT / package).rglob("*.py"):
            _copy(file, folder / file.relative_to(ROOT))
    _copy(ROOT / FACE_MODEL, folder / FACE_MODEL)


def copy_packages(folder: Path) -> None:
    """Copy the files of `PACKAGES` as they are installed here, and write ``packages.txt`` with
    their versions.

    Extension modules are left out but for those that any Python of this system loads (``abi3``);
    packages that have others work without them, only slower.

    Raises:
      ConfigError: one is not installed.
    """
    pins = []
    for name in PACKAGES:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise ConfigError(
                f"{name} is not installed; bundles are made with the extra train: "
                'pip install -e ".[train]"'
            ) from error
        pins.append(f"{name}=={distribution.version}\n")
        for file in distribution.files or ():
            if _portable(file):
                _copy(Path(str(distribution.locate_file(file))), folder / file)
    (folder / "packages.txt").write_text("".join(pins))


def _portable(file: metadata.PackagePath) -> bool:
    if ".." in file.parts or "__pycache__" in file.parts:
        return False
    return file.suffix not in (".so", ".pyd") or ".abi3." in file.name


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
