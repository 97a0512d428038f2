"""Settings of the fits: the priors' weights and the effort."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# Identity coefficients that one photograph determines.
N_IDENTITY = 50

# Several shapes move the lids, and several open the mouth. Points do not show the gaze, nor which
# muscle closed the eye: where they speak of an opening, `jawOpen` explains it first, and
# `eyeBlink`, whose weight stands beside these.
LIDS_AND_JAW = (
    ("eyeWide", 30.0),
    ("eyeSquint", 100.0),
    ("cheekSquint", 30.0),
    ("eyeLookDown", 100.0),
    ("eyeLookUp", 100.0),
    ("eyeLookIn", 100.0),
    ("eyeLookOut", 100.0),
    ("jawOpen", 1.0),
    ("mouthClose", 200.0),
    ("mouthFunnel", 100.0),
    # Without a weight of its own it takes up what the mean shape lacks, in nearly every face.
    ("cheekPuff", 60.0),
)

# Shapes that take up what the network or the mean shape gets wrong, in faces that do not make them.
# Chosen on training faces of HELEN and AFW and training profiles of CFP: landmarks stay within half
# a percent of what they were without. The lids, `jawOpen`, `mouthSmile`, `mouthLeft`,
# `mouthRight` and `noseSneer` have none: openings or profiles suffer from theirs.
SPARSE = (
    ("browDown", 24.0),
    ("browInnerUp", 24.0),
    ("browOuterUp", 24.0),
    ("cheekPuff", 24.0),
    ("jawForward", 24.0),
    ("jawLeft", 24.0),
    ("jawRight", 24.0),
    ("mouthDimple", 24.0),
    ("mouthFrown", 24.0),
    ("mouthPress", 24.0),
    ("mouthStretch", 24.0),
    ("mouthLowerDown", 12.0),
    ("mouthUpperUp", 12.0),
    ("mouthRollLower", 12.0),
    ("mouthRollUpper", 12.0),
    ("mouthShrugLower", 12.0),
    ("mouthShrugUpper", 12.0),
)

# Shapes that no face makes at once, on the same side where they have sides. Chosen on the same
# faces by the same rule: `mouthSmile` beside `cheekPuff` and `mouthStretch` beside `mouthFunnel`
# cost profiles more than half a percent, and `mouthLeft` beside `mouthRight` changes nothing.
EXCLUSIVE = (
    ("browDown", "browInnerUp", 16.0),
    ("browDown", "browOuterUp", 16.0),
    ("eyeBlink", "eyeWide", 16.0),
    ("eyeSquint", "eyeWide", 16.0),
    ("eyeLookIn", "eyeLookOut", 16.0),
    ("eyeLookUp", "eyeLookDown", 16.0),
    ("jawLeft", "jawRight", 16.0),
    ("mouthSmile", "mouthFrown", 16.0),
    ("mouthSmile", "mouthFunnel", 16.0),
    ("mouthSmile", "mouthPucker", 16.0),
    ("mouthStretch", "mouthPucker", 16.0),
)


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Weights and effort of the fit (hashable: static under jit).

    With `noise_scaled`, the prior weights are multiplied by the estimated noise variance (px^2):
    the fit is then the maximum a posteriori estimate for coefficients of variance 1 / weight and
    independent errors, in any image size. Errors of a flow are alike from pixel to pixel, and say
    less than as many independent ones: hence larger weights than for landmarks. Without, they are
    the plain weights of eq. 3, and depend on the pixel's size and on the number of correspondences.

    Attributes:
      identity_weight: w_id, on identity coefficients in standard deviations.
      expression_weight: w_exp, on blendshape weights.
      special_weights: (name, weight) of the expression shapes that have another weight; a name
        without its side means both sides.
      sparsity: (name, weight) of the expression shapes whose weight x >= 0 costs ``weight * x``
        besides ``w_exp x^2``, in the same units: x is 0 where the points do not ask for more.
        Names as in `special_weights`; their w_exp must be positive.
      exclusive: (name, other, weight) of expression shapes whose weights x and y >= 0 cost
        ``weight * (x + y)^2`` besides: where either explains the points, one does. Names as in
        `special_weights`.
      focal_weight: weight on ``log(focal / prior focal)``.
      distance_mm: the prior focal length puts the face at this distance from the camera.
      start_distances_mm: distances from which the pose is looked for beside this one; the pose
        with the least noise goes on. Faces within arm's length are not found from far away.
      noise_scaled: multiply these weights by the noise variance.
      min_noise_px: least value of the estimated noise.
      outlier_scale: residual, in units of the noise, at which the weight has fallen to 1/4.
      pose_rounds: reweighting rounds of the pose alone, two steps each.
      coarse_rounds: reweighting rounds of the joint fit to one point in `coarse_stride`, two
        steps each; they cost that much less. The pose alone is fitted to these points, too.
      coarse_stride: see `coarse_rounds`.
      rounds: reweighting rounds of the joint fit to all points.
      view_rounds: the same of fits that go on from this one, `fit_views` and `fit_both`.
      steps: Levenberg-Marquardt steps in each of these, at most; the points' own Jacobian is made
        for the first alone, as long as the others gain what it promises.
      ftol: part of its energy that a step has to gain for another one to follow.
    """

    identity_weight: float = 2.0
    expression_weight: float = 20.0
    # Less would do for eyes that are seen; the far eye of a profile would blink for other misfits.
    special_weights: tuple[tuple[str, float], ...] = (("eyeBlink", 5.0), *LIDS_AND_JAW)
    sparsity: tuple[tuple[str, float], ...] = SPARSE
    exclusive: tuple[tuple[str, str, float], ...] = EXCLUSIVE
    focal_weight: float = 4.0
    distance_mm: float = 800.0
    start_distances_mm: tuple[float, ...] = (300.0,)
    noise_scaled: bool = True
    min_noise_px: float = 0.02
    outlier_scale: float = 3.5
    pose_rounds: int = 2
    coarse_rounds: int = 2
    coarse_stride: int = 4
    rounds: int = 1
    view_rounds: int = 2
    steps: int = 7
    ftol: float = 1e-4


DEFAULT = FitSettings()

# As printed in the paper; the units of its coefficients are not given.
PAPER = FitSettings(
    identity_weight=2.5e-5,
    expression_weight=1000.0,
    special_weights=(),
    sparsity=(),
    exclusive=(),
    noise_scaled=False,
)

# For landmarks clicked by people on faces of about 100 pixels: right to a pixel or two, none is an
# outlier. Taken for more exact than that, they are explained by a camera at arm's length and by
# brows so deep that they hide the lids.
LANDMARKS = FitSettings(
    identity_weight=1.0,
    expression_weight=5.0,
    special_weights=(("eyeBlink", 0.3), *LIDS_AND_JAW),
    sparsity=(),
    exclusive=(),
    focal_weight=10.0,
    distance_mm=1200.0,
    start_distances_mm=(),
    min_noise_px=1.5,
    outlier_scale=20.0,
    rounds=5,
    steps=2,
)


def expression_weights(names: Sequence[str], settings: FitSettings) -> np.ndarray:
    """Prior weights (E,) of the expression shapes with these names."""
    return _of_names(names, settings.special_weights, settings.expression_weight)


def expression_means(names: Sequence[str], settings: FitSettings) -> np.ndarray:
    """Prior means (E,) of the expression shapes with these names, none above 0.

    A cost c per unit is a mean below the bound: ``w x^2 + c x = w (x + c / 2w)^2`` but for a
    constant, and for x >= 0 that is the l1 norm of the lasso (Tibshirani, 1996) beside the ridge.
    """
    cost = _of_names(names, settings.sparsity, 0.0)
    weights = expression_weights(names, settings)
    return -cost / np.where(cost > 0.0, 2.0 * weights, 1.0)


def exclusive_rows(names: Sequence[str], settings: FitSettings) -> np.ndarray:
    """Rows (P, E), one for each pair of expression shapes with these names that excludes each other
    on a side: the squares of their products with the weights are the costs of `exclusive`.

    That is the squared l1 norm of a group, the exclusive lasso (Zhou, Jin and Hoi, "Exclusive Lasso
    for Multi-task Feature Selection", AISTATS 2010).
    """
    place = {name: k for k, name in enumerate(names)}
    costs: dict[tuple[int, int], float] = {}
    for one, other, weight in settings.exclusive:
        for side in ("", "Left", "Right"):
            # A shape without sides excludes both of another one's.
            a, b = (place.get(name + side, place.get(name)) for name in (one, other))
            if a is not None and b is not None:
                costs[a, b] = weight
    rows = np.zeros((len(costs), len(names)), np.float32)
    for row, ((a, b), weight) in zip(rows, costs.items(), strict=True):
        row[[a, b]] = np.sqrt(weight)
    return rows


def _of_names(
    names: Sequence[str], special: Sequence[tuple[str, float]], usual: float
) -> np.ndarray:
    """What `special` has for each name (E,), with its side or without, or what is usual."""
    known = dict(special)
    bases = [name.removesuffix("Left").removesuffix("Right") for name in names]
    return np.array(
        [known.get(name, known.get(base, usual)) for name, base in zip(names, bases, strict=True)]
    )
