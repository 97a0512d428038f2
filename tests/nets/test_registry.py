"""Specs: their kinds, their fields as JSON, and a network that a test adds."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.nets import registry, weights
from dfc_jax.systems.dfc import networks as nets


@pytest.mark.parametrize("name", nets.SPECS)
def test_specs_come_back_from_json(name: str) -> None:
    spec = nets.SPECS[name]
    assert registry.from_json(spec.kind, registry.to_json(spec)) == spec


@pytest.mark.parametrize("name", ["paper", "lite"])
@pytest.mark.parametrize("value", [None, "x", 1.0, [[1]], {}, True, -1, 10**9, [], [2] * 1000])
def test_every_field_refuses_what_it_was_not_declared_to_hold(name: str, value) -> None:
    spec = nets.SPECS[name]
    fields = dataclasses.asdict(spec)
    for field in fields:
        if field == "tied" and value is True:
            continue
        if field == "strict" and value is True:
            continue
        with pytest.raises(ValueError, match=field):
            registry.from_json(spec.kind, json.dumps(fields | {field: value}))


@pytest.mark.slow
def test_a_kind_is_found_where_nothing_of_its_system_was_imported() -> None:
    program = (
        "import sys; from dfc_jax.nets import registry;"
        "assert not any(name.startswith('dfc_jax.systems') for name in sys.modules);"
        "print(registry.from_json('dfc/paper', '{\"tied\": true}'))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.startswith("PaperSpec(tied=True"), run.stderr


@pytest.fixture
def toy(monkeypatch) -> type[registry.Spec]:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))

    @registry.register
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Toy(registry.Spec):
        kind: ClassVar[str] = "toys/dense"
        width: int = registry.whole(3, 1, 10)

        def module(self) -> nn.Module:
            return nn.Dense(self.width)

        def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
            return (jax.ShapeDtypeStruct((1, 2), jnp.float32),)

    return Toy


def test_a_network_of_another_system_is_saved_and_loaded(toy, tmp_path: Path) -> None:
    spec, path = toy(width=4), tmp_path / "toy.safetensors"
    variables = spec.init(jax.random.key(0))
    weights.save(path, variables, spec, {"steps": 3})
    loaded, found, metadata = weights.load(path)
    assert (found, metadata) == (spec, {"steps": 3})
    np.testing.assert_allclose(
        spec.module().apply(loaded, jnp.ones((1, 2))),
        spec.module().apply(variables, jnp.ones((1, 2))),
        rtol=1e-2,
    )


@pytest.mark.parametrize("kind", ["", "dense", "a/b/c", "../b", "A/b"])
def test_kinds_have_two_parts(toy, kind: str) -> None:
    with pytest.raises(ValueError, match="system/network"):
        registry.register(type("Other", (toy,), {"kind": kind}))


def test_a_kind_belongs_to_one_network(toy) -> None:
    assert registry.register(toy) is toy
    with pytest.raises(ValueError, match="that of Toy"):
        registry.register(type("Other", (toy,), {}))
