"""`dfc info`: versions, devices and files, as a report of a defect needs them."""

import argparse
import json
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import dfc_jax
from dfc_jax.commands.arguments import EXIT_OK, ending
from dfc_jax.files import DETECTOR_FILE, WEIGHTS_DIR, WEIGHTS_SUFFIX, escaped, path_text
from dfc_jax.inference import DEFAULT_DETECTOR

DISTRIBUTION = "dfc-jax"
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="versions, devices, weights, the cache and the extras that are installed",
        epilog=ending("dfc info", "dfc info --json"),
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    found = about()
    if arguments.json:
        print(json.dumps(found, indent=1))
        return EXIT_OK
    lines = _lines(found)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(escaped(f"{name:<{width}} {value}"))
    return EXIT_OK


def about() -> dict[str, Any]:
    """What is installed here and what it runs on, as JSON can hold it."""
    import jax

    from dfc_jax.morphable.file import load_face_model

    files = {path.stem: path for path in WEIGHTS_DIR.glob(f"*{WEIGHTS_SUFFIX}")}
    return {
        "dfc_jax": dfc_jax.__version__,
        "installed_in": path_text(Path(dfc_jax.__file__).parent),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": [{"platform": d.platform, "kind": d.device_kind} for d in jax.devices()],
        "weights": {name: _network(files[name]) for name in sorted(files)},
        "detector": {"name": DEFAULT_DETECTOR} | _network(DETECTOR_FILE),
        "face_model": load_face_model().version,
        "cache": _cache(),
        "extras": _extras(),
    }


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    def network(file: dict[str, Any]) -> str:
        if "error" in file:
            return file["error"]
        return f"{file['version']} ({file['kind']}, {file['parameters'] / 1e6:.1f} M parameters)"

    kinds = [f"{device['platform']} ({device['kind']})" for device in found["devices"]]
    devices = [f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)]
    cache, extras = found["cache"], found["extras"]
    size = f"{cache['folder']} ({cache['bytes'] / 1e6:.1f} MB)" if cache["folder"] else "off"
    return [
        ("dfc_jax", f"{found['dfc_jax']} in {found['installed_in']}"),
        ("python", f"{found['python']}, {found['system']}, {found['cores']} cores"),
        *((name, version or "missing") for name, version in found["packages"].items()),
        ("devices", ", ".join(devices)),
        *(("weights", network(file)) for file in found["weights"].values()),
        ("detector", network(found["detector"])),
        ("face model", found["face_model"]),
        ("cache", size),
        ("extras", ", ".join(name for name, there in extras.items() if there) or "none"),
        ("not there", ", ".join(name for name, there in extras.items() if not there) or "none"),
    ]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _network(path: Path) -> dict[str, Any]:
    import jax

    from dfc_jax.files import file_version
    from dfc_jax.nets.weights import WeightsError, load

    try:
        variables, spec, _ = load(path)
    except WeightsError as error:
        return {"version": path.stem, "error": str(error)}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return {"version": file_version(path), "kind": spec.kind, "parameters": parameters}


def _cache() -> dict[str, Any]:
    """The folder of compiled programs and what they take."""
    from dfc_jax.cache import folder_in_use

    folder, size = folder_in_use(), 0
    for path in folder.rglob("*") if folder else ():
        try:
            size += path.stat().st_size if path.is_file() else 0
        except OSError:  # another process tidies up
            continue
    return {"folder": path_text(folder) if folder else None, "bytes": size}


def _extras() -> dict[str, bool]:
    """Whether all that an extra of the installation asks for is there, by its name."""
    try:
        found = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}  # a checkout that was not installed
    extras = {name: True for name in sorted(found)}
    for line in required:
        asked = re.fullmatch(r"([\w.-]+).*\bextra == [\"']([\w-]+)[\"'].*", line)
        if asked and _version(asked[1]) is None:
            extras[asked[2]] = False
    return extras
