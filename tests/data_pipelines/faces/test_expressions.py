"""Random expressions: plausible, varied, without contradictions, and for any model's names."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces.expressions import ExpressionSettings, sample_expression
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import landmarks3d, shape

NAMES = load_face_model().expression_names
COUNT = 600


@partial(jax.jit, static_argnums=1)
@partial(jax.vmap, in_axes=(0, None, None))
def _draw(key, names, values):
    return sample_expression(key, names, ExpressionSettings(**values))


def draw(settings: ExpressionSettings, names=NAMES) -> np.ndarray:
    """`COUNT` expressions, with traced settings: one program for all."""
    keys = jax.random.split(jax.random.key(0), COUNT)
    return np.asarray(_draw(keys, names, dataclasses.asdict(settings)))


def column(weights: np.ndarray, name: str) -> np.ndarray:
    return weights[:, NAMES.index(name)]


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return draw(ExpressionSettings())


def test_weights_are_in_range_and_every_shape_is_used(weights) -> None:
    assert weights.shape == (COUNT, len(NAMES)) and weights.dtype == np.float32
    assert weights.min() >= 0.0 and weights.max() <= 1.0 and np.isfinite(weights).all()
    strongest = weights.max(axis=0)
    assert strongest.min() > 0.15, NAMES[strongest.argmin()]
    # Plausible faces move a few shapes, not all of them halfway.
    assert 2 < np.median((weights > 0.2).sum(axis=1)) < 12


def test_closed_eyes_and_open_mouths_have_their_shares(weights) -> None:
    left, right = column(weights, "eyeBlinkLeft"), column(weights, "eyeBlinkRight")
    both, one = (left > 0.9) & (right > 0.9), (left > 0.9) ^ (right > 0.9)
    assert 0.13 < both.mean() < 0.21
    assert 0.05 < one.mean() < 0.12
    opened = column(weights, "jawOpen") > 0.1
    assert 0.28 < opened.mean() < 0.45
    assert 0.02 < (column(weights, "jawOpen") > 0.6).mean()


def test_no_look_of_eyes_or_mouth_is_rare(weights) -> None:
    """In 600 faces, and so in every few batches: wide eyes, pressed lips, teeth in a smile."""
    wide = np.minimum(column(weights, "eyeWideLeft"), column(weights, "eyeWideRight")) > 0.5
    press, smile = column(weights, "mouthPressLeft"), column(weights, "mouthSmileLeft")
    rolled = np.minimum(column(weights, "mouthRollLower"), column(weights, "mouthRollUpper"))
    bared = np.minimum(column(weights, "mouthUpperUpLeft"), column(weights, "mouthLowerDownLeft"))
    hanging = column(weights, "jawOpen")
    assert wide.mean() > 0.05
    assert (np.minimum(press, rolled) > 0.3).mean() > 0.02
    assert ((np.minimum(smile, bared) > 0.3) & (hanging < 0.25)).mean() > 0.03


def test_shapes_that_undo_each_other_are_never_active_together(weights) -> None:
    pairs = [("mouthLeft", "mouthRight"), ("jawLeft", "jawRight")]
    for side in ("Left", "Right"):
        pairs += [
            (f"{one}{side}", f"{other}{side}")
            for one, other in (
                ("eyeBlink", "eyeWide"),
                ("eyeLookUp", "eyeLookDown"),
                ("eyeLookIn", "eyeLookOut"),
                ("mouthSmile", "mouthFrown"),
            )
        ]
        pairs += [(f"mouthPress{side}", "jawOpen")]
    for one, other in pairs:
        assert np.minimum(column(weights, one), column(weights, other)).max() == 0.0, (one, other)
    jaw, closing = column(weights, "jawOpen"), column(weights, "mouthClose")
    assert (closing <= jaw).all() and closing[jaw > 0.3].max() == 0.0 and closing.max() > 0.1


def test_both_eyes_look_the_same_way_and_shut_lids_do_not_follow() -> None:
    weights = draw(ExpressionSettings(noise=0.0, wink=0.0))
    for one, other in (
        ("eyeLookOutLeft", "eyeLookInRight"),
        ("eyeLookInLeft", "eyeLookOutRight"),
        ("eyeLookUpLeft", "eyeLookUpRight"),
        ("eyeLookDownLeft", "eyeLookDownRight"),
    ):
        np.testing.assert_allclose(column(weights, one), column(weights, other), atol=1e-6)
        assert column(weights, one).max() > 0.3
    shut = column(weights, "eyeBlinkLeft") > 0.9
    assert column(weights, "eyeLookDownLeft")[shut].max() < 0.1


def test_asymmetry_is_present_and_can_be_switched_off(weights) -> None:
    def difference(w: np.ndarray) -> np.ndarray:
        left = [i for i, name in enumerate(NAMES) if name.startswith("mouth") and "Left" in name]
        left = [i for i in left if NAMES[i] != "mouthLeft"]
        return np.abs(w[:, left] - w[:, [NAMES.index(NAMES[i][:-4] + "Right") for i in left]])

    assert (difference(weights).max(axis=1) > 0.2).mean() > 0.03
    even = draw(ExpressionSettings(asymmetry=0.0, noise=0.0))
    assert difference(even).max() < 1e-6 and even.max() > 0.5


def test_everything_off_is_the_neutral_face() -> None:
    off = ExpressionSettings(
        strength=0.0, closed_eyes=0.0, wink=0.0, half_closed=0.0, gaze=0.0, noise=0.0
    )
    assert draw(off).max() == 0.0


def test_a_key_gives_the_same_expression_alone_and_in_a_batch(weights) -> None:
    key = jax.random.split(jax.random.key(0), COUNT)[7]
    alone = jax.jit(sample_expression, static_argnums=(1, 2))(key, NAMES, ExpressionSettings())
    np.testing.assert_allclose(alone, weights[7], atol=1e-6)
    assert np.abs(weights[7] - weights[8]).max() > 0.05


def test_names_of_other_models_do_not_break_it() -> None:
    foreign = tuple(f"expression{i}" for i in range(40))
    sparse = draw(ExpressionSettings(), foreign)
    assert sparse.shape == (COUNT, 40) and sparse.max() <= 1.0 and sparse.min() == 0.0
    assert 0.15 < (sparse > 0).mean() < 0.25
    few = ("smirk", "jawOpen", "browInnerUp")
    some = draw(ExpressionSettings(), few)
    assert some[:, 1].max() > 0.5 and some[:, 2].max() > 0.5 and some[:, 0].max() < 0.1
    assert draw(ExpressionSettings(), ()).shape == (COUNT, 0)


def test_the_model_really_closes_its_eyes_and_opens_its_mouth(weights) -> None:
    """The names mean on the mesh what they say: lids meet, lips part."""
    model = load_face_model()

    @jax.jit
    @jax.vmap
    def gaps(expression):
        points = landmarks3d(model, shape(model, jnp.zeros(0), expression))
        eye = (points[37, 1] + points[38, 1] - points[41, 1] - points[40, 1]) / 2.0
        return eye, points[62, 1] - points[66, 1]

    chosen = weights[:200]
    eye, mouth = (np.asarray(gap) for gap in gaps(chosen))
    shut = column(chosen, "eyeBlinkRight") > 0.9
    opened = column(chosen, "jawOpen") > 0.3
    assert np.abs(eye[shut]).max() < 3.0 < np.median(eye[~shut])
    assert mouth[opened].min() > 5.0 and mouth.min() > -4.0
