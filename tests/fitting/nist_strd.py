"""The 27 nonlinear regressions of NIST's Statistical Reference Datasets, with certified results.

`nist_strd.json` has the numbers of NIST's files: https://www.itl.nist.gov/div898/strd/
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from problems import Problem

_FILE = json.loads(Path(__file__).with_suffix(".json").read_text())["problems"]


def _saturation(b, x):
    return b[0] * (1.0 - jnp.exp(-b[1] * x))


def _chwirut(b, x):
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def _lanczos(b, x):
    return b[0] * jnp.exp(-b[1] * x) + b[2] * jnp.exp(-b[3] * x) + b[4] * jnp.exp(-b[5] * x)


def _gauss(b, x):
    def peak(height, center, width):
        return height * jnp.exp(-(((x - center) / width) ** 2))

    return b[0] * jnp.exp(-b[1] * x) + peak(*b[2:5]) + peak(*b[5:8])


def _cubic_ratio(b, x):
    over = b[0] + x * (b[1] + x * (b[2] + x * b[3]))
    return over / (1.0 + x * (b[4] + x * (b[5] + x * b[6])))


def _enso(b, x):
    def wave(cosine, sine, period):
        return cosine * jnp.cos(2.0 * jnp.pi * x / period) + sine * jnp.sin(2 * jnp.pi * x / period)

    return b[0] + wave(b[1], b[2], 12.0) + wave(b[4], b[5], b[3]) + wave(b[7], b[8], b[6])


# y as a function of b and x, in NIST's notation; Nelson has two x, and log(y) for y.
_MODELS = {
    "Misra1a": _saturation,
    "Chwirut2": _chwirut,
    "Chwirut1": _chwirut,
    "Lanczos3": _lanczos,
    "Gauss1": _gauss,
    "Gauss2": _gauss,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "Misra1b": lambda b, x: b[0] * (1.0 - (1.0 + b[1] * x / 2.0) ** -2.0),
    "Kirby2": lambda b, x: (b[0] + x * (b[1] + x * b[2])) / (1.0 + x * (b[3] + x * b[4])),
    "Hahn1": _cubic_ratio,
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * jnp.exp(-b[2] * x[1]),
    "MGH17": lambda b, x: b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4]),
    "Lanczos1": _lanczos,
    "Lanczos2": _lanczos,
    "Gauss3": _gauss,
    "Misra1c": lambda b, x: b[0] * (1.0 - (1.0 + 2.0 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1.0 + b[1] * x),
    "Roszman1": lambda b, x: b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / jnp.pi,
    "ENSO": _enso,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "Thurber": _cubic_ratio,
    "BoxBOD": _saturation,
    "Rat42": lambda b, x: b[0] / (1.0 + jnp.exp(b[1] - b[2] * x)),
    "MGH10": lambda b, x: b[0] * jnp.exp(b[1] / (x + b[2])),
    "Eckerle4": lambda b, x: b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Rat43": lambda b, x: b[0] / (1.0 + jnp.exp(b[1] - b[2] * x)) ** (1.0 / b[3]),
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1.0 / b[2]),
}


def _residual_of(model):
    return lambda b, x, y: model(b, x) - y


_OTHERS = {"BoxBOD": (9771.5,)}
_RESIDUALS = {model: _residual_of(model) for model in _MODELS.values()}


def _problem(name: str) -> Problem:
    entry = _FILE[name]
    y = np.array(entry["y"])
    return Problem(
        _RESIDUALS[_MODELS[name]],
        {f"start {n}": tuple(start) for n, start in enumerate(entry["starts"], 1)},
        (entry["residual_sum_of_squares"],),
        (np.array(entry["x"]), np.log(y) if name == "Nelson" else y),
        others=_OTHERS.get(name, ()),
    )


PROBLEMS = {name: _problem(name) for name in _MODELS}
CERTIFIED = {name: np.array(_FILE[name]["certified"]) for name in _MODELS}
