"""Dense correspondence networks: `flax.linen` modules behind pure functions."""

from dfc_jax.nets.variants import (
    SPECS,
    NetSpec,
    Outputs,
    Variables,
    apply,
    apply_train,
    apply_with_code,
    encode_target,
    extend,
    init,
    matchability,
    param_count,
    untie,
)

__all__ = [
    "SPECS",
    "NetSpec",
    "Outputs",
    "Variables",
    "apply",
    "apply_train",
    "apply_with_code",
    "encode_target",
    "extend",
    "init",
    "matchability",
    "param_count",
    "untie",
]
