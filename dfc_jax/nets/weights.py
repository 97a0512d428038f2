"""Weight files: float16 safetensors whose header says which network they belong to."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dfc_jax.errors import WeightsError
from dfc_jax.files import (
    ASSETS_DIR,
    WEIGHTS_DIR,
    available_weights,
    escaped,
    require_weights,
    written_aside,
)
from dfc_jax.files import resolve_weights as resolve
from dfc_jax.nets.registry import Spec, Variables, from_json, json_object, to_json
from dfc_jax.types import Array

__all__ = ["WEIGHTS_DIR", "WeightsError", "load", "resolve", "save", "saver", "start_from"]


def save(
    path: str | os.PathLike[str], variables: Variables, spec: Spec, metadata: dict[str, Any]
) -> None:
    """Write variables as float16, with the spec, its kind and `metadata` (JSON) in the header.

    The file appears complete or not at all.

    Raises:
      WeightsError: a value does not fit into float16 or is not finite.
      ExportError: the file cannot be written.
      ValueError: `variables` are not those of `spec`.
    """
    path = Path(path)
    flat = {name: np.asarray(leaf, np.float32) for name, leaf in _flatten(variables).items()}
    problem = _mismatch(flat, spec)
    if problem:
        raise ValueError(f"these variables are not of this network: {problem}")
    for name, leaf in flat.items():
        if not np.max(np.abs(leaf), initial=0.0) <= np.finfo(np.float16).max:
            raise WeightsError(f"{path}: {name} is not finite in float16; nothing was written")
    header = {"kind": spec.kind, "spec": to_json(spec), "metadata": json.dumps(metadata)}
    with written_aside(path) as aside:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file({name: leaf.astype(np.float16) for name, leaf in flat.items()}, aside, header)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        aside.chmod(0o644)  # safetensors leaves it readable for its owner alone


def saver(spec: Spec) -> Callable[[Path, Variables, dict[str, Any]], None]:
    """`save` of this spec's variables, for `Task.save`."""
    return lambda file, variables, metadata: save(file, variables, spec, metadata)


def start_from(file: str | None, spec: Spec) -> Callable[[Array], Variables]:
    """Initial variables as a function of a key, for `Task.init`: fresh ones, or those of a file.

    Raises:
      WeightsError: the file cannot be read, or holds another network.
    """
    if file is None:
        return jax.jit(spec.init)
    variables, found, _ = load(file, type(spec))
    if found != spec:
        raise WeightsError(f"{file}: holds another network than --config asks for; leave it out")
    return lambda key: variables


def load(
    path_or_name: str | os.PathLike[str], of: type[Any] = Spec
) -> tuple[Variables, Any, dict[str, Any]]:
    """Read variables (NumPy float32), the spec (an instance of `of`) and the metadata of a file.

    A bare name such as "lite" stands for the file of that name that comes with the package.

    Raises:
      WeightsError: the file is missing, cannot be read, or does not hold the network it names.
    """
    path = require_weights(path_or_name)
    try:
        header, flat = _read(path)
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: cannot be read as safetensors ({_quoted(error)}); copy it again, or give a "
            f"name: {available_weights()}"
        ) from error
    try:
        spec = from_json(header.get("kind"), header["spec"])
        metadata = json_object(header["metadata"])
        if not isinstance(metadata.get("face_model", ""), str):
            raise ValueError("its face_model is no name")
        # A test looks at the package's own files; every start would take as long as the network's
        # first trace.
        problem = "" if path.is_relative_to(ASSETS_DIR) else _mismatch(flat, spec)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path}: its header does not describe a network of this version of dfc_jax "
            f"({_quoted(error)}); write the file with dfc_jax.nets.weights.save"
        ) from error
    if not isinstance(spec, of):
        raise WeightsError(f"{path}: holds a network {spec.kind}, which is of no use here")
    if problem:
        raise WeightsError(
            f"{path}: does not hold the network that its header names ({_quoted(problem)}); "
            "write the file again from its checkpoint"
        )
    return unflatten_dict(flat, sep="/"), spec, metadata


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The header's texts and all tensors, float32."""
    flat = {}
    with safe_open(path, framework="numpy") as file, np.errstate(over="ignore"):
        for name in file.keys():
            tensor = file.get_tensor(name)
            if not jnp.issubdtype(tensor.dtype, jnp.floating):
                raise ValueError(f"{name} has numbers of type {tensor.dtype}")
            flat[name] = tensor.astype(np.float32)
        return file.metadata() or {}, flat


def _quoted(reason: object) -> str:
    """The beginning of a reason that may quote a hostile file."""
    text = escaped(reason)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _flatten(variables: Variables) -> dict[str, Any]:
    return flatten_dict(variables, sep="/")


def _mismatch(flat: dict[str, np.ndarray], spec: Spec) -> str:
    """What is wrong with flat arrays as variables of `spec`, "" if nothing is."""
    wanted = _flatten(jax.eval_shape(spec.init, jax.random.key(0)))
    for name in sorted(wanted.keys() | flat.keys()):
        if name not in flat:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} is unexpected"
        if flat[name].shape != wanted[name].shape:
            return f"{name} has shape {flat[name].shape} instead of {wanted[name].shape}"
        if not np.isfinite(flat[name]).all():
            return f"{name} holds values that are not finite"
    return ""
