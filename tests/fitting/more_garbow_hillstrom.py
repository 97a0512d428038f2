"""The problems of More, Garbow & Hillstrom, with their numbers, starts and minima.

"Testing unconstrained optimization software", ACM TOMS 7, 1981.

All are sums of squares. Multiples of the standard start are those of MINPACK's tests; where the
start is zero, all variables are the factor instead.
"""

import functools

import jax.numpy as jnp
import numpy as np
from problems import Problem

BARD = np.array(
    [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
)
GAUSSIAN = np.array([0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989])
MEYER = np.array(
    [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744]
    + [8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
)
KOWALIK = np.array(
    [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
)
KOWALIK_U = np.array([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
OSBORNE_1 = np.array(
    [0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751]
    + [0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490]
    + [0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406]
)
OSBORNE_2 = np.array(
    [1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608]
    + [0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661]
    + [0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428]
    + [0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559]
    + [0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054]
)


def _as(x, values):
    """Of the type of x: JAX remembers what it made of an array when it was traced before."""
    return jnp.asarray(values, x.dtype)


def rosenbrock(x):  # 1; 21 for more than two variables
    odd, even = x[::2], x[1::2]
    return jnp.concatenate([10.0 * (even - odd**2), 1.0 - odd])


def freudenstein_roth(x):  # 2
    return jnp.stack(
        [
            -13.0 + x[0] + ((5.0 - x[1]) * x[1] - 2.0) * x[1],
            -29.0 + x[0] + ((x[1] + 1.0) * x[1] - 14.0) * x[1],
        ]
    )


def powell_badly_scaled(x):  # 3
    return jnp.stack([1e4 * x[0] * x[1] - 1.0, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x):  # 4
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2.0])


def beale(x):  # 5
    return np.array([1.5, 2.25, 2.625]) - x[0] * (1.0 - x[1] ** np.arange(1, 4))


def jennrich_sampson(x):  # 6
    i = np.arange(1.0, 11.0)
    return 2.0 + 2.0 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x):  # 7
    turn = jnp.arctan(x[1] / x[0]) / (2.0 * jnp.pi) + jnp.where(x[0] < 0.0, 0.5, 0.0)
    return jnp.stack([10.0 * (x[2] - 10.0 * turn), 10.0 * (jnp.hypot(x[0], x[1]) - 1.0), x[2]])


def bard(x):  # 8
    u = np.arange(1.0, 16.0)
    return _as(x, BARD) - (x[0] + u / ((16.0 - u) * x[1] + np.minimum(u, 16.0 - u) * x[2]))


def gaussian(x):  # 9
    t = (8.0 - np.arange(1, 16)) / 2.0
    observed = np.concatenate([GAUSSIAN, GAUSSIAN[-2::-1]])
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2.0) - observed


def meyer(x):  # 10
    return x[0] * jnp.exp(x[1] / (45.0 + 5.0 * np.arange(1, 17) + x[2])) - _as(x, MEYER)


def gulf(x):  # 11, without the paper's misprint
    t = np.arange(1, 100) / 100.0
    y = 25.0 + (-50.0 * np.log(t)) ** (2.0 / 3.0)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t


def box_3d(x):  # 12
    t = 0.1 * np.arange(1, 11)
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10.0 * t))


def powell_singular(x):  # 13; 22 for more than four variables
    a, b, c, d = x[::4], x[1::4], x[2::4], x[3::4]
    linear = [a + 10.0 * b, 5.0**0.5 * (c - d)]
    return jnp.concatenate([*linear, (b - 2.0 * c) ** 2, 10.0**0.5 * (a - d) ** 2])


def wood(x):  # 14
    return jnp.stack(
        [
            10.0 * (x[1] - x[0] ** 2),
            1.0 - x[0],
            90.0**0.5 * (x[3] - x[2] ** 2),
            1.0 - x[2],
            10.0**0.5 * (x[1] + x[3] - 2.0),
            (x[1] - x[3]) / 10.0**0.5,
        ]
    )


def kowalik_osborne(x):  # 15
    u = _as(x, KOWALIK_U)
    return _as(x, KOWALIK) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x):  # 16
    t = np.arange(1, 21) / 5.0
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


def osborne_1(x):  # 17
    t = 10.0 * np.arange(33)
    return _as(x, OSBORNE_1) - (x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4]))


def biggs_exp6(x):  # 18
    t = 0.1 * np.arange(1, 14)
    y = np.exp(-t) - 5.0 * np.exp(-10.0 * t) + 3.0 * np.exp(-4.0 * t)
    return x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y


def osborne_2(x):  # 19
    t = 0.1 * np.arange(65)[:, None]
    peaks = jnp.exp(-((t - x[8:]) ** 2) * x[5:8]) @ x[1:4]
    return _as(x, OSBORNE_2) - (x[0] * jnp.exp(-t[:, 0] * x[4]) + peaks)


def watson(x):  # 20
    t, j = np.arange(1, 30)[:, None] / 29.0, np.arange(x.size)
    slope, value = j * t ** np.maximum(j - 1.0, 0.0), t**j
    curve = slope @ x - (value @ x) ** 2 - 1.0
    return jnp.concatenate([curve, jnp.stack([x[0], x[1] - x[0] ** 2 - 1.0])])


def penalty_1(x):  # 23
    return jnp.append(1e-5**0.5 * (x - 1.0), x @ x - 0.25)


def penalty_2(x):  # 24
    e, steps = jnp.exp(x / 10.0), np.exp(np.arange(1, x.size + 1) / 10.0)
    pairs = e[1:] + e[:-1] - (steps[1:] + steps[:-1])
    small = 1e-5**0.5 * jnp.concatenate([pairs, e[1:] - np.exp(-0.1)])
    ball = np.arange(x.size, 0, -1) @ x**2 - 1.0
    return jnp.concatenate([x[:1] - 0.2, small, ball[None]])


def variably_dimensioned(x):  # 25
    total = np.arange(1, x.size + 1) @ (x - 1.0)
    return jnp.concatenate([x - 1.0, jnp.stack([total, total**2])])


def trigonometric(x):  # 26
    i = np.arange(1, x.size + 1)
    return x.size - jnp.sum(jnp.cos(x)) + i * (1.0 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear(x):  # 27
    return jnp.append(x[:-1] + jnp.sum(x) - (x.size + 1.0), jnp.prod(x) - 1.0)


def discrete_boundary_value(x):  # 28
    h = 1.0 / (x.size + 1)
    t, around = h * np.arange(1, x.size + 1), jnp.pad(x, 1)
    return 2.0 * x - around[:-2] - around[2:] + h**2 * (x + t + 1.0) ** 3 / 2.0


def discrete_integral_equation(x):  # 29
    h = 1.0 / (x.size + 1)
    t = h * np.arange(1, x.size + 1)
    kernel = np.minimum(t[:, None], t) * (1.0 - np.maximum(t[:, None], t))
    return x + h / 2.0 * kernel @ (x + t + 1.0) ** 3


def broyden_tridiagonal(x):  # 30
    around = jnp.pad(x, 1)
    return (3.0 - 2.0 * x) * x - around[:-2] - 2.0 * around[2:] + 1.0


def broyden_banded(x):  # 31
    off = np.arange(x.size)[None] - np.arange(x.size)[:, None]
    band = ((off >= -5) & (off <= 1) & (off != 0)).astype(float)
    return x * (2.0 + 5.0 * x**2) + 1.0 - band @ (x * (1.0 + x))


def linear_full_rank(x):  # 32
    mean = 2.0 / 10.0 * jnp.sum(x)
    return jnp.pad(x, (0, 10 - x.size)) - mean - 1.0


def linear_rank_1(x):  # 33
    return np.arange(1, 11) * (np.arange(1, x.size + 1) @ x) - 1.0


def linear_rank_1_zeros(x):  # 34
    inner = np.arange(2, x.size) @ x[1:-1]
    rows = np.concatenate([[0], np.arange(1, 9), [0]])
    return rows * inner - 1.0


def chebyquad(x):  # 35, of as many residuals as variables
    u = 2.0 * x - 1.0
    before, now, values = jnp.ones_like(u), u, []
    for _ in range(x.size):
        values.append(jnp.mean(now))
        before, now = now, 2.0 * u * now - before
    i = np.arange(1, x.size + 1)
    exact = np.where(i % 2 == 0, -1.0 / np.maximum(i**2 - 1.0, 1.0), 0.0)
    return jnp.stack(values) - exact


def _times(start, *factors):
    standard = np.array(start, float)
    direction = standard if np.any(standard) else np.ones_like(standard)
    further = {f"{factor} x": tuple((factor * direction).tolist()) for factor in factors}
    return {"1 x": tuple(standard.tolist()), **further}


def _problem(residual, start, minima, factors=(10,), others=()):
    # The paper prints six digits.
    return Problem(residual, _times(start, *factors), minima, digits=1e-5, others=others)


_far = functools.partial(_problem, factors=(10, 100))
_GRID = np.arange(1, 11) / 11.0

PROBLEMS = {
    "1 Rosenbrock": _far(rosenbrock, (-1.2, 1.0), (0.0,)),
    "2 Freudenstein and Roth": _far(freudenstein_roth, (0.5, -2.0), (0.0, 48.9842)),
    "3 Powell badly scaled": _problem(powell_badly_scaled, (0.0, 1.0), (0.0,)),
    "4 Brown badly scaled": _far(brown_badly_scaled, (1.0, 1.0), (0.0,)),
    "5 Beale": _far(beale, (1.0, 1.0), (0.0,)),
    "6 Jennrich and Sampson": _problem(jennrich_sampson, (0.3, 0.4), (124.362,), others=(259.580,)),
    "7 helical valley": _far(helical_valley, (-1.0, 0.0, 0.0), (0.0,)),
    "8 Bard": _far(bard, (1.0, 1.0, 1.0), (8.21487e-3, 17.4286)),
    "9 Gaussian": _far(gaussian, (0.4, 1.0, 0.0), (1.12793e-8,), others=(0.281128, 0.381685)),
    "10 Meyer": _far(meyer, (0.02, 4000.0, 250.0), (87.9458,)),
    "11 Gulf": _problem(gulf, (5.0, 2.5, 0.15), (0.0,)),
    "12 Box": _problem(box_3d, (0.0, 10.0, 20.0), (0.0,), others=(0.0755887,)),
    "13 Powell singular": _far(powell_singular, (3.0, -1.0, 0.0, 1.0), (0.0,)),
    "14 Wood": _far(wood, (-3.0, -1.0, -3.0, -1.0), (0.0,)),
    "15 Kowalik and Osborne": _far(
        kowalik_osborne, (0.25, 0.39, 0.415, 0.39), (3.07505e-4, 1.02734e-3)
    ),
    "16 Brown and Dennis": _far(brown_dennis, (25.0, 5.0, -5.0, -1.0), (85822.2,)),
    "17 Osborne 1": _problem(osborne_1, (0.5, 1.5, -1.0, 0.01, 0.02), (5.46489e-5,)),
    "18 Biggs EXP6": _problem(biggs_exp6, (1.0, 2.0, 1.0, 1.0, 1.0, 1.0), (0.0, 5.65565e-3)),
    "19 Osborne 2": _problem(
        osborne_2,
        (1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5),
        (4.01377e-2,),
        others=(1.78981,),
    ),
    "20 Watson 6": _far(watson, np.zeros(6), (2.28767e-3,)),
    "20 Watson 9": _far(watson, np.zeros(9), (1.39976e-6,)),
    "20 Watson 12": _far(watson, np.zeros(12), (4.72238e-10,)),
    "21 extended Rosenbrock": _far(rosenbrock, 5 * (-1.2, 1.0), (0.0,)),
    "22 extended Powell singular": _far(powell_singular, 3 * (3.0, -1.0, 0.0, 1.0), (0.0,)),
    "23 penalty 1 4": _far(penalty_1, np.arange(1, 5), (2.24997e-5,)),
    "23 penalty 1 10": _far(penalty_1, np.arange(1, 11), (7.08765e-5,)),
    "24 penalty 2 4": _far(penalty_2, np.full(4, 0.5), (9.37629e-6,)),
    "24 penalty 2 10": _far(penalty_2, np.full(10, 0.5), (2.93660e-4,)),
    "25 variably dimensioned": _far(variably_dimensioned, 1.0 - np.arange(1, 11) / 10.0, (0.0,)),
    "26 trigonometric": _far(
        trigonometric, np.full(10, 0.1), (0.0, 2.79506e-5), others=(4.21863e-5,)
    ),
    "27 Brown almost linear": _far(brown_almost_linear, np.full(10, 0.5), (0.0, 1.0)),
    "28 discrete boundary value": _far(discrete_boundary_value, _GRID * (_GRID - 1.0), (0.0,)),
    "29 discrete integral equation": _far(
        discrete_integral_equation, _GRID * (_GRID - 1.0), (0.0,)
    ),
    "30 Broyden tridiagonal": _far(broyden_tridiagonal, np.full(10, -1.0), (0.0,)),
    "31 Broyden banded": _far(broyden_banded, np.full(10, -1.0), (0.0,)),
    "32 linear, full rank": _problem(linear_full_rank, np.ones(5), (5.0,)),
    "33 linear, rank 1": _problem(linear_rank_1, np.ones(5), (90.0 / 42.0,)),
    "34 linear, rank 1 with zeros": _problem(linear_rank_1_zeros, np.ones(5), (124.0 / 34.0,)),
    "35 Chebyquad 7": _far(chebyquad, np.arange(1, 8) / 8.0, (0.0,)),
    "35 Chebyquad 8": _problem(chebyquad, np.arange(1, 9) / 9.0, (3.51687e-3,)),
    "35 Chebyquad 10": _problem(chebyquad, np.arange(1, 11) / 11.0, (6.50395e-3, 4.77271e-3)),
}
