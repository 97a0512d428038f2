"""Imports run one way only, and what a user installs is enough for what a user runs."""

import ast
import configparser
import functools
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeGuard

import pytest
from paths import ROOT

PACKAGES = ("dfc_jax", "data_pipelines", "experiments")
# From the bottom up; a unit imports from the lines before its own.
LAYERS = (
    ("cache", "errors", "landmarks21", "landmarks68", "types"),
    ("files",),
    ("ops",),
    ("camera", "crops", "photo"),
    ("video",),
    ("morphable",),
    ("raster",),
    ("fitting",),
    ("texture",),
    ("nets",),
    ("training",),
    ("data",),
    ("evaluation",),
    ("systems",),
    ("inference",),
    ("export",),
    ("commands",),
    ("cli",),
)
PIPELINES = (
    ("pictures",),
    ("sources", "faces"),
    ("photos",),
    ("bank",),
    ("scenes", "masks"),
    ("synth",),
)
RANK = {unit: rank for rank, units in enumerate(LAYERS) for unit in units}
PIPELINE_RANK = {part: rank for rank, parts in enumerate(PIPELINES) for part in parts}
# Import names of the distributions in setup.cfg that are called differently.
IMPORT_NAMES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "absl-py": "absl",
    "orbax-checkpoint": "orbax",
}
# What a module imports once it is known that the extra is installed.
WITH_EXTRA = {
    "dfc_jax.commands.completion": ("completion",),
    "dfc_jax.export.summary": ("tables",),
    "dfc_jax.video": ("video",),
    "dfc_jax.nets.onnx_graph": ("onnx",),
    "dfc_jax.nets.to_onnx": ("onnx",),
    "dfc_jax.inference.onnx_network": ("onnx",),
}
# jax itself needs these two.
WITH_JAX = {"numpy", "scipy"}


def modules() -> dict[str, Path]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


MODULES = modules()


def is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def import_nodes(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements anywhere, also inside functions; not those for type checkers only."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    children = node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)
    for child in children:
        yield from import_nodes(child)


def imported_names(source: str) -> set[str]:
    names = set()
    for node in import_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, "relative import"
            # `from package import module` names the module, `from module import thing` the thing.
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in full}
    return names


@functools.cache
def imports(module: str) -> frozenset[str]:
    return frozenset(imported_names(MODULES[module].read_text()))


def unit(module: str) -> str | None:
    """The part of dfc_jax that a module belongs to; None outside, and for the root itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "dfc_jax" and len(parts) > 1 else None


def part(module: str, package: str) -> str | None:
    """What lies directly in `package` and holds the module: a system, a part of the pipelines."""
    below = module.removeprefix(f"{package}.")
    return below.split(".")[0] if below != module else None


def reached(module: str) -> set[str]:
    """Everything of ours that importing `module` may import in turn, itself included."""
    seen, queue = set(), [module]
    while queue:
        name = queue.pop()
        if name in MODULES and name not in seen:
            seen.add(name)
            parents = {name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)} - {"dfc_jax"}
            queue += imports(name) | parents
    return seen


def required(*extras: str) -> set[str]:
    """Import names of the package's requirements, and of those of its extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"]
    lines += "".join(config["options.extras_require"][extra] for extra in extras)
    names = [line.split(">")[0].strip() for line in lines.splitlines() if line.strip()]
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names} | WITH_JAX


def third_party(module: str) -> set[str]:
    roots = {name.split(".")[0] for name in imports(module)}
    return roots - set(PACKAGES) - sys.stdlib_module_names


def library(*without: str) -> list[str]:
    return [m for m in MODULES if m.startswith("dfc_jax") and unit(m) not in without]


def test_the_parser_sees_imports_wherever_they_hide():
    source = """
import os.path
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import tensorflow
else:
    import jax
def late():
    from dfc_jax.evaluation import metrics
    from dfc_jax.types import Array
"""
    expected = {"os.path", "typing", "jax", "dfc_jax.evaluation.metrics", "dfc_jax.types"}
    assert imported_names(source) == expected


def test_every_part_of_the_library_has_its_layer():
    assert {unit(module) for module in MODULES} - {None} == set(RANK)
    assert {part(module, "data_pipelines") for module in MODULES} - {None} == set(PIPELINE_RANK)


@pytest.mark.parametrize("module", library())
def test_imports_run_from_top_to_bottom(module):
    own = unit(module)
    for name in imports(module):
        other = unit(name)
        if own is not None and other is not None and other != own:
            assert RANK[other] < RANK[own], f"{module} imports {name}"


def test_nets_import_the_ground_floor_and_ops_only():
    for module in MODULES:
        if unit(module) == "nets":
            assert {unit(name) for name in imports(module)} <= {
                None,
                "nets",
                "errors",
                "files",
                "types",
                "ops",
            }


@pytest.mark.parametrize("module", [m for m in MODULES if part(m, "data_pipelines")])
def test_imports_within_the_data_pipelines_run_from_top_to_bottom(module):
    own = part(module, "data_pipelines")
    for name in imports(module):
        other = part(name, "data_pipelines")
        if other is not None and other != own:
            assert PIPELINE_RANK[other] < PIPELINE_RANK[own], f"{module} imports {name}"


def test_systems_do_not_import_each_other():
    for module in MODULES:
        own = part(module, "dfc_jax.systems")
        if own is not None:
            others = {part(name, "dfc_jax.systems") for name in imports(module)} - {None, own}
            assert not others, f"{module} imports {others}"


def test_the_experiments_are_not_installed():
    """Their name is too common for everyone's site-packages; the programs run from a checkout."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.packages.find"]["include"].split()
    assert not [p for p in patterns if fnmatch("experiments", p) or fnmatch("experiments.x", p)]
    assert all(any(fnmatch(name, p) for p in patterns) for name in ("dfc_jax", "data_pipelines"))


def test_nothing_imports_experiments():
    users = [m for m in MODULES for name in imports(m) if name.split(".")[0] == "experiments"]
    assert {user.split(".")[0] for user in users} <= {"experiments"}


def test_the_library_does_not_reach_up_to_the_data_pipelines():
    for module in library():
        assert not any(name.startswith("data_pipelines") for name in imports(module)), module


def test_data_pipelines_reach_neither_nets_nor_training():
    for module in MODULES:
        if module.startswith("data_pipelines"):
            units = {unit(name) for name in reached(module)}
            assert not units & {"nets", "training"}, module


def test_inference_reaches_no_training_code():
    for module in MODULES:
        if unit(module) in ("inference", "commands", "cli"):
            units = {unit(name) for name in reached(module)}
            assert "training" not in units, module


@pytest.mark.parametrize("module", library("training"))
def test_what_runs_after_a_light_installation_imports_what_it_installs(module):
    allowed = required(*WITH_EXTRA.get(module, ()))
    allowed -= set() if module == "dfc_jax.cli" else {"absl"}
    assert third_party(module) <= allowed


@pytest.mark.parametrize("module", [m for m in MODULES if unit(m) == "training"])
def test_training_imports_what_its_extra_installs(module):
    assert third_party(module) <= required("train") - {"absl"}


def test_tensorflow_stays_out_of_the_library_and_the_experiments():
    for module in MODULES:
        if not module.startswith("data_pipelines"):
            assert not third_party(module) & {"tensorflow", "tensorflow_datasets"}, module


def test_training_knows_no_system_and_no_config():
    for module in ("dfc_jax.training.run", "dfc_jax.training.task", "dfc_jax.training.workdir"):
        assert not {unit(name) for name in reached(module)} & {"systems", "nets"}, module
        assert "ml_collections" not in {
            root for name in reached(module) for root in third_party(name)
        }
