"""Networks by name: a kind, such as "dfc/lite", stands for the spec of one family of networks.

A spec is a frozen dataclass of the sizes that determine a network's function, apart from its
variables. Its fields say what they may hold (`flag`, `whole`, `wholes`), so that a spec that was
read from a file is checked like one that was written in the code. "dfc/lite" is registered by
`dfc_jax.systems.dfc.networks`, which is imported when a file names that kind.
"""

import abc
import dataclasses
import importlib
import importlib.util
import json
import re
from dataclasses import MISSING
from typing import Any, ClassVar, TypeVar

import flax.linen as nn
import jax

from dfc_jax.types import Array

Variables = dict[str, Any]

# Headers of weight files had no kind while there was only one system.
UNTAGGED_SYSTEM = "dfc"
_KINDS: dict[str, "type[Spec]"] = {}


def flag(default: bool) -> Any:
    """A field of a spec that is true or false."""
    return dataclasses.field(default=default, metadata={"type": bool})


def whole(default: int, low: int, high: int) -> Any:
    """A field of a spec that holds a whole number from `low` to `high`."""
    return dataclasses.field(default=default, metadata={"type": int, "low": low, "high": high})


def wholes(low: int, high: int, lengths: tuple[int, int], default: Any = MISSING) -> Any:
    """A field of a spec that holds a tuple of whole numbers from `low` to `high`.

    `lengths` are the least and the greatest number of them.
    """
    metadata = {"type": tuple, "low": low, "high": high, "lengths": lengths}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec(abc.ABC):
    """Everything that determines a network's function, apart from its variables.

    Subclasses are frozen dataclasses with a `kind` of their own; see `register`.

    Raises:
      ValueError: a field holds what it may not hold.
    """

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), **field.metadata)

    @abc.abstractmethod
    def module(self) -> nn.Module:
        """The network."""

    @abc.abstractmethod
    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and types of inputs, as small as they can be; variables do not depend on them."""

    @classmethod
    def from_untagged(cls, fields: dict[str, Any]) -> dict[str, Any] | None:
        """The fields of this spec in a header without a kind; None if it is of another network."""
        return None

    def init(self, key: Array) -> Variables:
        """Fresh variables (float32): {"params": ...} and the collections of the network's state.

        Each layer says how its own values start.
        """
        # XLA compiles this generator in seconds, and the default one, once a kernel, in half a
        # minute.
        key = jax.random.wrap_key_data(jax.random.bits(key, (4,)), impl="unsafe_rbg")
        return dict(self.module().lazy_init(key, *self.inputs()))


Kind = TypeVar("Kind", bound=type[Spec])


def register(spec: Kind) -> Kind:
    """Class decorator: weight files that name the class's `kind` are read as this spec.

    Raises:
      ValueError: the kind is not of the form "system/network", or is taken.
    """
    if not re.fullmatch(r"[a-z]\w*/[a-z]\w*", spec.kind, re.ASCII):
        raise ValueError(f"{spec.__name__}.kind is {spec.kind!r}; it must be 'system/network'")
    taken = _KINDS.setdefault(spec.kind, spec)
    if (taken.__module__, taken.__qualname__) != (spec.__module__, spec.__qualname__):
        raise ValueError(f"the kind {spec.kind!r} of {spec.__name__} is that of {taken.__name__}")
    return spec


def to_json(spec: Spec) -> str:
    """The fields of a spec; `from_json` with its kind makes it again."""
    return json.dumps(dataclasses.asdict(spec))


def from_json(kind: str | None, text: str) -> Spec:
    """The spec of a kind from its fields; a field that is missing has its default.

    `kind` is None for headers that were written before there were kinds.

    Raises:
      ValueError: there is no such kind, or the fields are not those of a spec of it.
    """
    fields = json_object(text)
    if kind is None:
        kind, fields = _tagged(fields)
    spec = _find(kind)
    known = {field.name: field.default is MISSING for field in dataclasses.fields(spec)}
    for name in sorted(set(fields) - set(known)):
        raise ValueError(f"{kind} has no {name!r}")
    for name in sorted(name for name, needed in known.items() if needed and name not in fields):
        raise ValueError(f"{kind} needs {name}")
    return spec(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
    )


def json_object(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
      ValueError: the text is anything else.
      RecursionError: it is nested too deeply.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("a part of it is no JSON object")
    return value


def _find(kind: str) -> type[Spec]:
    system, _, _ = kind.partition("/")
    if kind not in _KINDS:
        _import_system(system)
    if kind not in _KINDS:
        raise ValueError(f"there is no network {kind!r}")
    return _KINDS[kind]


def _tagged(fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    _import_system(UNTAGGED_SYSTEM)
    for kind, spec in _KINDS.items():
        own = spec.from_untagged(fields)
        if own is not None:
            return kind, own
    raise ValueError("it names no kind of network")


def _import_system(system: str) -> None:
    """Imports the module that registers a system's networks, if there is one.

    The name may come from a file: only plain words, hence only modules of this package.
    """
    if re.fullmatch(r"[a-z]\w*", system, re.ASCII):
        name = f"dfc_jax.systems.{system}.networks"
        if _exists(name):
            importlib.import_module(name)


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _check(
    name: str,
    value: Any,
    type: type,
    low: int = 0,
    high: int = 0,
    lengths: tuple[int, int] = (1, 1),
) -> None:
    """Raises ValueError, and names the field, unless its value is one that was declared."""
    # bool is a subclass of int.
    if value.__class__ is not type:
        words = {bool: "true or false", int: "one whole number", tuple: "a list"}
        raise ValueError(f"{name} must be {words[type]}")
    if type is bool:
        return
    numbers = value if isinstance(value, tuple) else (value,)
    if not lengths[0] <= len(numbers) <= lengths[1]:
        count = " to ".join(str(n) for n in sorted(set(lengths)))
        raise ValueError(f"{name} must hold {count} numbers")
    for number in numbers:
        if number.__class__ is not int or not low <= number <= high:
            raise ValueError(f"{name} must hold whole numbers from {low} to {high}")
