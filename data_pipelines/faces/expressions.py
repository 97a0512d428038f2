"""Random facial expressions: plausible combinations of the ARKit shapes, one face per call."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dfc_jax.types import Array

# What a face does, each at its strongest. A name without its side means both sides. `_OPEN` are
# the mouths that show their inside, `_SHUT` the others; `_UPPER` goes with either.
_OPEN: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.5, "mouthLowerDown": 0.4, "mouthUpperUp": 0.2},
    {"jawOpen": 0.45, "mouthStretch": 0.3, "mouthLowerDown": 0.2},
    {"jawOpen": 0.5, "mouthFunnel": 0.8, "mouthPucker": 0.3},
    {"jawOpen": 0.5, "mouthSmile": 1.0, "cheekSquint": 0.8, "eyeSquint": 0.5, "mouthUpperUp": 0.3},
    {"jawOpen": 0.3, "mouthSmile": 0.9, "mouthUpperUp": 0.4, "mouthLowerDown": 0.5}
    | {"mouthDimple": 0.3, "cheekSquint": 0.5},
    {"jawOpen": 0.15, "mouthSmile": 1.0, "mouthUpperUp": 0.7, "mouthLowerDown": 0.7}
    | {"mouthStretch": 0.3, "cheekSquint": 0.6, "eyeSquint": 0.3},
    {"jawOpen": 0.6, "browInnerUp": 1.0, "browOuterUp": 0.9, "eyeWide": 0.9},
    {"jawOpen": 1.0, "mouthStretch": 0.3, "eyeSquint": 0.6, "browInnerUp": 0.3},
    {"jawOpen": 0.9, "mouthUpperUp": 0.5, "mouthLowerDown": 0.6, "browDown": 0.7}
    | {"noseSneer": 0.4, "eyeSquint": 0.4},
    {"jawOpen": 0.4, "mouthStretch": 0.9, "browInnerUp": 0.9, "eyeWide": 0.7},
)
_SHUT: tuple[dict[str, float], ...] = (
    {},
    {"mouthSmile": 0.5, "mouthDimple": 0.2},
    {"mouthSmile": 0.9, "cheekSquint": 0.6, "mouthDimple": 0.5, "eyeSquint": 0.3},
    {"mouthPucker": 1.0, "mouthFunnel": 0.2},
    {"mouthPress": 0.8, "mouthRollLower": 0.5, "mouthRollUpper": 0.4},
    {"mouthPress": 1.0, "mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    {"mouthRollLower": 0.8, "mouthShrugUpper": 0.2},
    {"mouthFrown": 0.9, "mouthShrugLower": 0.6, "browInnerUp": 0.5},
    {"mouthShrugLower": 0.8, "mouthShrugUpper": 0.6, "mouthFrown": 0.3},
    {"noseSneer": 1.0, "mouthUpperUp": 0.6, "browDown": 0.6, "eyeSquint": 0.5, "cheekSquint": 0.4},
    {"cheekPuff": 1.0, "mouthPress": 0.4},
    {"jawOpen": 0.25, "mouthClose": 0.25},
    {"jawForward": 0.8, "mouthPress": 0.3},
    {"browDown": 0.9, "eyeSquint": 0.4, "mouthPress": 0.6, "noseSneer": 0.3},
)
_UPPER: tuple[dict[str, float], ...] = (
    {},
    {"browInnerUp": 0.8, "browOuterUp": 0.8},
    {"browOuterUp": 0.9},
    {"browInnerUp": 0.9},
    {"browDown": 0.9},
    {"eyeWide": 0.8, "browInnerUp": 0.4, "browOuterUp": 0.4},
    {"eyeWide": 1.0},
    {"eyeSquint": 0.9, "cheekSquint": 0.4},
)
# Of two shapes that undo each other the weaker one is dropped; a side goes with the same side.
_OPPOSITES: tuple[tuple[str, str], ...] = (
    ("eyeBlink", "eyeWide"),
    ("eyeSquint", "eyeWide"),
    ("eyeLookUp", "eyeLookDown"),
    ("eyeLookIn", "eyeLookOut"),
    ("browDown", "browOuterUp"),
    ("mouthSmile", "mouthFrown"),
    ("mouthSmile", "mouthPucker"),
    ("mouthStretch", "mouthPucker"),
    ("mouthStretch", "mouthFunnel"),
    ("mouthLeft", "mouthRight"),
    ("jawLeft", "jawRight"),
    ("jawOpen", "mouthRollLower"),
    ("jawOpen", "mouthShrugLower"),
    ("jawOpen", "mouthPress"),
)
_LOOSE_JAW = 0.3
_KNOWN = {name for row in _OPEN + _SHUT + _UPPER for name in row} | {"eyeBlink"}


@dataclasses.dataclass(frozen=True)
class ExpressionSettings:
    """How often and how strongly faces move.

    Attributes:
      strength: factor of every expression but the eyelids and the gaze; 0 leaves them neutral.
      open_mouth: share of faces whose mouth shows its inside.
      closed_eyes: share of faces with both eyes shut.
      wink: share of faces with one eye shut.
      half_closed: share of the others whose lids hang, by anything up to two thirds.
      gaze: standard deviation of the looking direction, 1 being as far as the shapes go.
      sideways: share of faces that push jaw and mouth to one side.
      asymmetry: how much weaker one side may be, at most (1 switches it off altogether).
      noise: largest independent activation of every shape.
      sparse: share of active shapes, for models whose shapes have no ARKit names.
    """

    strength: float = 1.0
    open_mouth: float = 0.35
    closed_eyes: float = 0.17
    wink: float = 0.08
    half_closed: float = 0.2
    gaze: float = 0.35
    sideways: float = 0.12
    asymmetry: float = 0.8
    noise: float = 0.06
    sparse: float = 0.2


def sample_expression(key: Array, names: tuple[str, ...], settings: ExpressionSettings) -> Array:
    """Blendshape weights (E,) in [0, 1] of a random expression.

    `names` are the model's shapes (`FaceModel.expression_names`, static), of which the ARKit ones
    are used, in any order, with or without a side; shapes without such a name get noise only. If
    no name is known at all, a few shapes are active at random.
    """
    if not any(_base(name) in _KNOWN for name in names):
        return _sparse(key, len(names), settings)
    keys = jax.random.split(key, 5)
    weight = _archetypes(keys[0], names, settings)
    weight += _sideways(keys[1], names, settings)
    quiet = np.array([name in ("jawOpen", "mouthClose") or "Blink" in name for name in names])
    noise = settings.noise * jax.random.uniform(keys[2], (len(names),)) ** 2
    weight += jnp.where(quiet, 0.0, noise)
    lids = _lids(keys[3], names, settings)
    # A lid that is shut already is moved no further by the gaze or by squinting.
    follows_lid = np.array([name.startswith(("eyeLook", "eyeSquint")) for name in names])
    weight += _gaze(keys[4], names, settings)
    weight = jnp.where(follows_lid, weight * (1.0 - _of_its_eye(lids, names)), weight)
    return _without_contradictions(jnp.clip(weight + lids, 0.0, 1.0), names)


def _base(name: str) -> str:
    """The name without its side; `jawLeft` and `mouthLeft` are directions, not sides."""
    base = name.removesuffix("Left").removesuffix("Right")
    return name if base in ("jaw", "mouth") else base


def _side(name: str) -> str:
    return "" if _base(name) == name else name[len(_base(name)) :]


def _table(rows: tuple[dict[str, float], ...], names: tuple[str, ...]) -> np.ndarray:
    """(rows, E) weights of the archetypes for these names."""
    return np.array([[row.get(_base(name), 0.0) for name in names] for row in rows], np.float32)


def _of(name: str, names: tuple[str, ...]) -> np.ndarray:
    """(E,) 1 at the shapes of this name, with or without side."""
    return np.array([name in (n, _base(n)) for n in names], np.float32)


def _sparse(key: Array, count: int, settings: ExpressionSettings) -> Array:
    chosen, amount = jax.random.split(key)
    active = jax.random.bernoulli(chosen, settings.sparse, (count,))
    weight = settings.strength * jax.random.uniform(amount, (count,))
    return jnp.clip(jnp.where(active, weight, 0.0), 0.0, 1.0)


def _archetypes(key: Array, names: tuple[str, ...], settings: ExpressionSettings) -> Array:
    """One archetype for the mouth and one for the brows, each as strong as chance wants, with
    every shape varied (both sides alike) and then one side weakened."""
    bases, index = np.unique([_base(name) for name in names], return_inverse=True)
    drawn = jax.random.uniform(key, (8 + len(bases),))
    opened, shut, upper = (
        jnp.asarray(_table(rows, names))[(len(rows) * u).astype(jnp.int32)]
        for rows, u in zip((_OPEN, _SHUT, _UPPER), drawn[:3], strict=True)
    )
    is_open = drawn[3] < settings.open_mouth
    weight = jnp.where(is_open, (0.35 + 0.65 * drawn[4]) * opened, drawn[5] * shut)
    weight = (weight + drawn[6] * upper) * (0.7 + 0.5 * drawn[8:])[index]
    # Cubed: most faces are nearly symmetric.
    lean = settings.asymmetry * (2.0 * drawn[7] - 1.0) ** 3
    left = np.array([_side(name) == "Left" for name in names], np.float32)
    right = np.array([_side(name) == "Right" for name in names], np.float32)
    weaker = jnp.maximum(lean, 0.0) * left + jnp.maximum(-lean, 0.0) * right
    return settings.strength * weight * (1.0 - weaker)


def _sideways(key: Array, names: tuple[str, ...], settings: ExpressionSettings) -> Array:
    drawn = jax.random.uniform(key, (3,))
    amount = 2.0 * drawn[:2] - 1.0
    # Squared: seldom far.
    amount = jnp.where(drawn[2] < settings.sideways, 0.9 * amount * jnp.abs(amount), 0.0)
    weight = jnp.zeros(len(names))
    for part, x in (("jaw", amount[0]), ("mouth", amount[1])):
        weight += jnp.maximum(x, 0.0) * _of(f"{part}Left", names)
        weight += jnp.maximum(-x, 0.0) * _of(f"{part}Right", names)
    return settings.strength * weight


def _lids(key: Array, names: tuple[str, ...], settings: ExpressionSettings) -> Array:
    """(E,) weights of `eyeBlink`, zero elsewhere."""
    drawn = jax.random.uniform(key, (5,))
    open_lids = jnp.where(drawn[0] < settings.half_closed, 0.66 * drawn[1], 0.0)
    is_shut = drawn[2] < settings.closed_eyes
    is_wink = ~is_shut & (drawn[2] < settings.closed_eyes + settings.wink)
    winks = jnp.where(
        drawn[3] < 0.5,
        np.array([_side(name) == "Left" for name in names]),
        np.array([_side(name) == "Right" for name in names]),
    )
    lids = jnp.where(is_shut | (is_wink & winks), 0.96 + 0.04 * drawn[4], open_lids)
    return lids * _of("eyeBlink", names)


def _gaze(key: Array, names: tuple[str, ...], settings: ExpressionSettings) -> Array:
    """Both eyes look the same way: x to the subject's left, y up."""
    x, y = jnp.clip(settings.gaze * jax.random.normal(key, (2,)), -1.0, 1.0)
    towards = {
        "eyeLookOutLeft": x,
        "eyeLookInRight": x,
        "eyeLookInLeft": -x,
        "eyeLookOutRight": -x,
        "eyeLookUp": y,
        "eyeLookDown": -y,
    }
    return sum(
        (jnp.maximum(amount, 0.0) * _of(name, names) for name, amount in towards.items()),
        start=jnp.zeros(len(names)),
    )


def _of_its_eye(lids: Array, names: tuple[str, ...]) -> Array:
    """For each shape of an eye, (E,) how far that eye's lid is shut."""
    same = [[_base(b) == "eyeBlink" and _side(a) == _side(b) for b in names] for a in names]
    return jnp.asarray(np.array(same, np.float32)) @ lids


def _without_contradictions(weight: Array, names: tuple[str, ...]) -> Array:
    """Drop the weaker of two opposite shapes; lips stay shut only over a jaw that hangs a little.

    The shape `mouthClose` brings the lips together *over an open jaw*: alone, or more of it than
    of the jaw, the lips would pass through each other.
    """
    opposite = np.zeros((len(names), len(names)), bool)
    for one, other in _OPPOSITES:
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                same_side = _side(a) == _side(b) or not (_side(a) and _side(b))
                if one in (a, _base(a)) and other in (b, _base(b)) and same_side:
                    opposite[i, j] = opposite[j, i] = True
    strongest = jnp.max(jnp.where(opposite, weight, 0.0), axis=-1)
    weight = jnp.where(weight > strongest, weight, 0.0)
    jaw = jnp.sum(weight * _of("jawOpen", names))
    closing = jnp.where(jaw > _LOOSE_JAW, 0.0, jnp.minimum(weight, jaw))
    return jnp.where(_of("mouthClose", names) > 0, closing, weight)
