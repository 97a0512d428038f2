"""Configs become typed settings here, once; nothing below the programs sees a ConfigDict."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import ml_collections

from dfc_jax.errors import ConfigError
from dfc_jax.training import OptimConfig, TrainSettings

Settings = TypeVar("Settings")

# The fields of a config that all trainings have, with their defaults.
TRAINING: dict[str, Any] = {
    field.name: field.default
    for kind in (OptimConfig, TrainSettings)
    for field in dataclasses.fields(kind)
    if field.name not in ("name", "optimizer")
}


def check_fields(config: ml_collections.ConfigDict, needs: Sequence[str]) -> None:
    """Raises ConfigError unless a config has the fields that a program reads and others lack."""
    for name in needs:
        if name not in config:
            raise ConfigError(f"--config has no {name}; it is a config of another program")


def check_ranges(settings: Any, highest: Mapping[str, float]) -> None:
    """Raises ConfigError unless these numbers of settings are at least 0 and at most so much."""
    for name, most in highest.items():
        if not 0.0 <= (value := getattr(settings, name)) <= most:
            limit = "at least 0" if math.isinf(most) else f"between 0 and {most:g}"
            raise ConfigError(f"config.{name} is {value:g}; it must be {limit}")


def training_config(
    *, learning_rate: float, steps: int, batch: int, **others: Any
) -> ml_collections.ConfigDict:
    """A config with the fields that `train_settings` reads, those not given at their defaults.

    It is not locked yet: the fields of what is trained are still missing.
    """
    unknown = others.keys() - TRAINING
    if unknown:
        raise TypeError(f"no training has {', '.join(sorted(unknown))}")
    given = {"learning_rate": learning_rate, "steps": steps, "batch": batch, **others}
    return ml_collections.ConfigDict({**TRAINING, **given})


def train_settings(config: ml_collections.ConfigDict) -> TrainSettings:
    """What a config says about training as such; see `training_config`.

    Raises:
      ConfigError: numbers that make no sense or do not fit together, or a field is missing.
    """
    check_fields(config, list(TRAINING))
    optimizer = picked_from(
        OptimConfig,
        config,
        name="adamw" if config.weight_decay else "adam",
        boundaries=tuple(tuple(pair) for pair in config.boundaries),
    )
    return picked_from(TrainSettings, config, optimizer=optimizer)


def picked_from(kind: type[Settings], config: ml_collections.ConfigDict, **given: Any) -> Settings:
    """A settings dataclass whose fields are those of the same names in a config, but the `given`.

    Raises:
      ConfigError: of the dataclass, or a field is missing.
    """
    names = [field.name for field in dataclasses.fields(cast(Any, kind)) if field.name not in given]
    check_fields(config, names)
    return kind(**{name: config[name] for name in names}, **given)


def settings_from(kind: type[Settings], config: ml_collections.ConfigDict) -> Settings:
    """A settings dataclass, and those inside it, with the fields that a config names changed.

    Raises:
      ConfigError: the config names a field that does not exist.
    """
    known: dict[str, Any] = {
        field.name: field.type for field in dataclasses.fields(cast(Any, kind))
    }
    unknown = set(config.keys()) - set(known)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ConfigError(f"{kind.__name__} has no {names}; it has {', '.join(sorted(known))}")
    values = {
        name: settings_from(known[name], value)
        if isinstance(value, ml_collections.ConfigDict)
        else value
        for name, value in config.items()
    }
    return kind(**values)
