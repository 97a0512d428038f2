"""The fit finds the face that made the correspondences: clean, noisy, with outliers, in batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.camera import project, to_camera
from dfc_jax.fitting import Status, fit_landmarks, project_landmarks
from dfc_jax.fitting.fit import fit
from dfc_jax.fitting.settings import (
    DEFAULT,
    exclusive_rows,
)
from dfc_jax.morphable.linear import PARTS, shape, surface_positions
from dfc_jax.ops.rotations import angles_to_rotvec, head_rotation
from dfc_jax.types import Camera, Correspondences, FaceParams, SurfacePoints

N, N_IDENTITY = 1024, 50
CENTRE = jnp.array([63.5, 63.5])
LANDMARK_HEIGHT_MM, LANDMARK_HEIGHT_PX = 138.0, 85.0

# Compiled once, for the three faces of every batch.
fit_all = jax.jit(jax.vmap(fit, (None, 0, None)))


@pytest.fixture(scope="module")
def on_face(model):
    """Vertices of everything but the neck, which nobody sees in a crop."""
    return np.unique(
        np.asarray(model.triangles)[np.asarray(model.triangle_part) != PARTS.index("neck")]
    )


def random_params(rng, model, distances_mm=(400.0, 1500.0)) -> FaceParams:
    expression = np.zeros(model.n_expression)
    expression[rng.choice(model.n_expression, 6, replace=False)] = rng.uniform(0.0, 1.0, 6)
    distance = np.exp(rng.uniform(*np.log(distances_mm)))
    angles = [rng.uniform(-60, 60), rng.uniform(-20, 20), rng.uniform(-20, 20)]
    return FaceParams(
        focal_px=jnp.float32(LANDMARK_HEIGHT_PX / LANDMARK_HEIGHT_MM * distance),
        rotation=angles_to_rotvec(jnp.array(angles)),
        translation_mm=jnp.array([*rng.uniform(-8.0, 8.0, 2), distance]),
        identity=jnp.asarray(rng.standard_normal(N_IDENTITY), jnp.float32),
        expression=jnp.asarray(expression, jnp.float32),
    )


def observe(rng, model, params, noise_px=0.0, outliers=0.0) -> Correspondences:
    """Points on triangles that face the camera, with Gaussian noise and uniform outliers."""
    vertices = shape(model, params.identity, params.expression)
    corners = np.asarray(to_camera(params, vertices))[np.asarray(model.triangles)]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = -np.sum(normal * corners[:, 0], axis=1) / np.linalg.norm(corners[:, 0], axis=1)
    seen = facing > 0.2 * np.linalg.norm(normal, axis=1)
    seen &= np.asarray(model.triangle_part) != PARTS.index("neck")
    chance = np.where(seen, facing, 0.0)
    surface = SurfacePoints(
        triangle=jnp.asarray(rng.choice(len(chance), N, p=chance / chance.sum()), jnp.int32),
        barycentric=jnp.asarray(rng.dirichlet([1.0, 1.0, 1.0], N), jnp.float32),
    )
    points = to_camera(params, surface_positions(vertices, model.triangles, surface))
    pixels = np.array(project(Camera(params.focal_px, CENTRE), points))
    pixels += noise_px * rng.standard_normal(pixels.shape)
    wrong = rng.random(N) < outliers
    pixels[wrong] = rng.uniform(0.0, 128.0, (wrong.sum(), 2))
    return Correspondences(jnp.asarray(pixels, jnp.float32), surface, jnp.ones(N))


def cases(model, seed, count, **options):
    rng = np.random.default_rng(seed)
    params = [random_params(rng, model) for _ in range(count)]
    return params, [observe(rng, model, one, **options) for one in params]


def mesh_errors(model, truth, estimate) -> np.ndarray:
    """Distance of corresponding vertices in model space, millimetres: no alignment."""
    difference = shape(model, estimate.identity, estimate.expression) - shape(
        model, truth.identity, truth.expression
    )
    return np.linalg.norm(np.asarray(difference), axis=1)


def rotation_error_deg(truth, estimate) -> float:
    return float(np.rad2deg(np.linalg.norm(truth.rotation - estimate.rotation)))


def test_clean_points_give_the_mesh_back(model):
    # The mean over faces: the few steps of the default leave a face in ten unfinished.
    errors = []
    for truth, points in zip(*cases(model, 0, 12), strict=True):
        result = fit(model, points, CENTRE)
        errors.append(mesh_errors(model, truth, result.params).mean())
        assert rotation_error_deg(truth, result.params) < 3.0
    assert np.mean(errors) < 0.5 and np.median(errors) < 0.2


def test_noise_and_outliers_leave_the_face_within_3_mm(model, on_face):
    truths, observed = cases(model, 1, 8, noise_px=2.0, outliers=0.3)
    # Errors are independent here, and these faces do with their lids and jaws what is rare in
    # photographs: the weights are those of the coefficients' own spread.
    settings = dataclasses.replace(
        DEFAULT,
        identity_weight=1.0,
        expression_weight=5.0,
        special_weights=(),
        sparsity=(),
        exclusive=(),
    )
    results = [fit(model, points, CENTRE, settings) for points in observed]
    errors = [
        mesh_errors(model, truth, result.params)[on_face].mean()
        for truth, result in zip(truths, results, strict=True)
    ]
    assert np.mean(errors) < 3.0
    for result in results:
        assert abs(float(result.noise_px) - 2.0) < 0.3
        assert abs(int(result.n_inliers) - 0.7 * N) < 0.08 * N


def test_faces_within_arms_length_are_found(model):
    """A selfie is taken from 300 to 600 mm, a close-up from less."""
    rng, far = np.random.default_rng(2), 0
    for _ in range(12):
        truth = random_params(rng, model, (250.0, 400.0))
        points = observe(rng, model, truth, noise_px=0.5, outliers=0.2)
        result = fit(model, points, CENTRE)
        seen, found = (
            np.asarray(project_landmarks(model, p, CENTRE)) for p in (truth, result.params)
        )
        far += np.linalg.norm(seen - found, axis=1).mean() > 2.0
    assert far == 0


@pytest.mark.parametrize("angles", [(85.0, 0.0, 0.0), (-80.0, 20.0, 0.0), (0.0, 0.0, 180.0)])
@pytest.mark.parametrize("roll", [0.0, 120.0])
def test_profiles_and_heads_upside_down_need_no_other_start(model, angles, roll):
    rng = np.random.default_rng(6)
    turned = angles_to_rotvec(jnp.array(angles) + jnp.array([0.0, 0.0, roll]))
    truth = dataclasses.replace(random_params(rng, model), rotation=turned)
    points = observe(rng, model, truth, noise_px=0.5, outliers=0.3)
    result = fit(model, points, CENTRE)
    apart = head_rotation(truth.rotation) @ head_rotation(result.params.rotation).T
    assert np.rad2deg(np.arccos((jnp.trace(apart) - 1.0) / 2.0)) < 4.0
    assert result.rms_px < 1.0


def test_the_last_round_ends_where_steps_gain_nothing_more(model):
    _, (points,) = cases(model, 7, 1, noise_px=0.5, outliers=0.1)
    result = fit(model, points, CENTRE)
    costs = np.asarray(result.history.cost[-1])
    assert result.status == Status.CONVERGED_FTOL
    # Padded with the last cost from where it stopped.
    assert costs[-1] == costs[-3]
    settings = dataclasses.replace(DEFAULT, steps=30, ftol=0.0)
    longer = fit(model, points, CENTRE, settings).history.cost[-1, -1]
    assert costs[-1] < (1.0 + 2.0 * DEFAULT.ftol) * longer


def test_a_known_focal_length_is_kept_and_gives_the_distance(model):
    (truth,), (points,) = cases(model, 2, 1, noise_px=0.3)
    params = fit(model, points, CENTRE, focal_px=truth.focal_px).params
    np.testing.assert_allclose(params.focal_px, truth.focal_px, rtol=1e-5)
    np.testing.assert_allclose(params.translation_mm[2], truth.translation_mm[2], rtol=0.05)


def test_known_identity_is_kept_and_the_rest_found_the_better(model):
    rng = np.random.default_rng(8)
    params = random_params(rng, model)
    seen = observe(rng, model, params, noise_px=0.7, outliers=0.1)
    found = jax.jit(fit)(model, seen, CENTRE, identity=params.identity)
    np.testing.assert_array_equal(found.params.identity, params.identity)
    assert found.status == Status.CONVERGED_FTOL
    unknown = fit(model, seen, CENTRE)

    def error(result):
        return float(jnp.mean(jnp.abs(result.params.expression - params.expression)))

    assert error(found) < error(unknown)
    turn = head_rotation(found.params.rotation) @ head_rotation(params.rotation).T
    assert float(jnp.trace(turn)) > 1.0 + 2.0 * np.cos(np.deg2rad(0.5))
    blind = dataclasses.replace(seen, weight=jnp.zeros(N))
    nothing = fit(model, blind, CENTRE, identity=params.identity)
    assert nothing.status == Status.NO_POINTS and not nothing.params.identity.any()


def test_expression_stays_in_the_box_and_unused_points_do_not_matter(model):
    _, (points,) = cases(model, 3, 1, noise_px=3.0, outliers=0.4)
    unused = jnp.arange(N) % 3 == 0
    hostile = points.replace(
        weight=jnp.where(unused, 0.0, 1.0),
        points_px=jnp.where(unused[:, None], 1e6, points.points_px),
    )
    harmless = hostile.replace(points_px=jnp.where(unused[:, None], 0.0, points.points_px))
    result, same = fit(model, hostile, CENTRE), fit(model, harmless, CENTRE)
    assert float(result.params.expression.min()) >= 0.0
    assert float(result.params.expression.max()) <= 1.0
    np.testing.assert_allclose(result.params.identity, same.params.identity, atol=1e-3)
    assert np.all(np.asarray(result.weight)[np.asarray(unused)] == 0.0)


@pytest.mark.parametrize("left", [0, 3])
def test_almost_no_points_stay_finite(model, left):
    _, (points,) = cases(model, 4, 1)
    result = fit(model, points.replace(weight=jnp.where(jnp.arange(N) < left, 1.0, 0.0)), CENTRE)
    assert is_face(result.params) and is_nan_free(result)
    assert int(result.n_inliers) <= left


def is_nan_free(result) -> bool:
    return not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(result))


def is_face(params) -> bool:
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


def spoiled(points, part, row, value, weight):
    """The same with one row of `part` set to a value and of the weights to another."""
    changed = points.replace(weight=points.weight.at[row].set(weight))
    if part == "barycentric":
        barycentric = points.surface.barycentric.at[row].set(value)
        return changed.replace(surface=points.surface.replace(barycentric=barycentric))
    return changed.replace(points_px=points.points_px.at[row].set(value))


@pytest.mark.parametrize("part", ["points_px", "barycentric"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_an_unused_point_holds_is_never_read(model, part, value):
    _, (points,) = cases(model, 3, 1, noise_px=1.0)
    rows = np.array([0, 4, 500])
    expected = fit(model, points.replace(weight=points.weight.at[rows].set(0.0)), CENTRE)
    result = fit(model, spoiled(points, part, rows, value, 0.0), CENTRE)
    jax.tree.map(np.testing.assert_array_equal, result, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight", [1.0, np.nan, np.inf, -1.0])
def test_points_and_weights_that_are_no_numbers_count_as_unused(model, value, weight):
    _, (points,) = cases(model, 3, 1, noise_px=1.0)
    rows = np.array([0, 4, 500])
    expected = fit(model, points.replace(weight=points.weight.at[rows].set(0.0)), CENTRE)
    given = spoiled(points, "points_px", rows, value, weight)
    jax.tree.map(np.testing.assert_array_equal, fit(model, given, CENTRE), expected)


def test_a_poisoned_face_of_a_batch_leaves_the_others_alone(model):
    _, observed = cases(model, 5, 3, noise_px=1.0)
    nothing = observed[1].replace(points_px=jnp.full((N, 2), jnp.nan))
    clean, poisoned = (
        fit_all(model, jax.tree.map(lambda *leaves: jnp.stack(leaves), *some), CENTRE)
        for some in (observed, [observed[0], nothing, observed[2]])
    )
    for row in (0, 2):
        jax.tree.map(
            lambda a, b, row=row: np.testing.assert_array_equal(a[row], b[row]), clean, poisoned
        )
    assert int(poisoned.status[1]) == Status.NO_POINTS and is_nan_free(poisoned)


def test_without_a_usable_point_the_result_says_so_and_does_not_look_perfect(model):
    _, (points,) = cases(model, 4, 1)
    for nothing in (
        points.replace(weight=jnp.zeros(N)),
        points.replace(points_px=jnp.full((N, 2), jnp.nan)),
        points.replace(weight=jnp.full(N, jnp.nan)),
    ):
        result = fit(model, nothing, CENTRE)
        assert int(result.status) == Status.NO_POINTS
        assert np.isposinf(result.rms_px) and int(result.n_inliers) == 0
        assert is_face(result.params) and is_nan_free(result)


@pytest.mark.parametrize("left", [1, 2, 12])
def test_few_points_still_give_a_face_and_an_error_in_pixels(model, left):
    _, (points,) = cases(model, 4, 1)
    result = fit(model, points.replace(weight=jnp.where(jnp.arange(N) < left, 1.0, 0.0)), CENTRE)
    assert is_face(result.params) and np.isfinite(result.rms_px)
    assert int(result.status) not in (Status.NO_POINTS, Status.NON_FINITE)


def lacking(points, kind):
    """The points with what a face could be read from taken away, and the status that says so."""
    one = jnp.zeros(N, jnp.int32)
    surface = jax.tree.map(lambda leaf: leaf[one], points.surface)
    along = jnp.linspace(0.0, 1.0, N)[:, None]
    line = 40.0 + along * jnp.array([50.0, 17.0])
    return {
        "few": (points.replace(weight=(jnp.arange(N) < 3).astype(jnp.float32)), Status.FEW_POINTS),
        "one place": (
            points.replace(points_px=jnp.full((N, 2), 61.0)),
            Status.ONE_POINT,
        ),
        "one point of the face": (points.replace(surface=surface), Status.ONE_POINT),
        "a line": (points.replace(points_px=line), Status.COLLINEAR),
        "a line on the face": (
            points.replace(
                surface=surface.replace(
                    barycentric=jnp.concatenate([along, 1 - along, 0 * along], axis=1)
                )
            ),
            Status.COLLINEAR,
        ),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["few", "one place", "one point of the face", "a line", "a line on the face"]
)
def test_points_that_determine_no_face_say_what_they_lack_and_give_the_mean(model, kind):
    _, (points,) = cases(model, 4, 1)
    given, status = lacking(points, kind)
    result = fit(model, given, CENTRE)
    assert int(result.status) == status
    assert is_face(result.params) and is_nan_free(result)
    assert not np.any(result.params.identity) and not np.any(result.params.expression)


def test_points_of_a_narrow_strip_are_a_face(model):
    """Two pixels across are no line."""
    _, (points,) = cases(model, 4, 1)
    x = points.points_px[:, 0]
    strip = points.replace(weight=(jnp.abs(x - jnp.median(x)) < 1.0).astype(jnp.float32))
    result = fit(model, strip, CENTRE)
    assert int(result.status) not in (Status.FEW_POINTS, Status.ONE_POINT, Status.COLLINEAR)


def test_no_hostile_number_makes_the_fit_return_nan(model):
    _, (points,) = cases(model, 4, 1)
    params = fit(model, points, CENTRE).params
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    given = [
        fit(model, points, jnp.array([jnp.nan, 63.5])),
        fit(model, points, CENTRE, focal_px=jnp.float32(jnp.nan)),
        fit(model, points, CENTRE, focal_px=jnp.float32(-1.0)),
        fit(model, points, CENTRE, initial=broken),
        fit(model, points.replace(points_px=points.points_px * 1e36), CENTRE),
        fit(model, points.replace(weight=jnp.full(N, 3e38)), CENTRE),
        fit(model, spoiled(points, "points_px", slice(0, 900), 3e38, 1.0), CENTRE),
    ]
    for result in given:
        assert is_nan_free(result) and is_face(result.params)
        assert int(result.status) in list(Status)
    assert [int(result.status) for result in given[:4]] == [
        Status.NO_POINTS,
        Status.NON_FINITE,
        Status.NON_FINITE,
        Status.NON_FINITE,
    ]


@pytest.mark.parametrize("n", [0, 3])
def test_a_model_of_few_directions_is_fitted_with_those_it_has(model, n):
    small = model.replace(
        identity_mm=model.identity_mm[..., :n],
        expression_mm=model.expression_mm[..., :n],
        expression_names=model.expression_names[:n],
    )
    _, (points,) = cases(model, 4, 1)
    result = fit(small, points, CENTRE)
    assert result.params.identity.shape == result.params.expression.shape == (n,)
    assert is_face(result.params) and float(result.rms_px) < 10.0
    landmarks = project_landmarks(small, result.params, CENTRE)
    assert is_face(fit_landmarks(small, landmarks, CENTRE).params)


def test_landmarks_of_weight_0_may_hold_anything(model):
    (truth,), _ = cases(model, 3, 1)
    points = project_landmarks(model, truth, CENTRE)
    rows = np.array([0, 8, 20, 67])
    weight = jnp.ones(68).at[rows].set(0.0)
    run = jax.jit(lambda points, weight: fit_landmarks(model, points, CENTRE, weight=weight))
    expected = run(points, weight)
    for value in (jnp.nan, jnp.inf, -1e30):
        for given in (weight, weight.at[rows].set(jnp.nan)):
            result = run(points.at[rows].set(value), given)
            jax.tree.map(np.testing.assert_array_equal, result, expected)
    assert float(expected.rms_px) < 1.0
    nothing = run(points, jnp.zeros(68))
    assert int(nothing.status) == Status.NO_POINTS
    assert np.isposinf(nothing.rms_px) and is_face(nothing.params) and is_nan_free(nothing)


def test_vmap_equals_a_loop(model):
    _, observed = cases(model, 5, 3, noise_px=1.0, outliers=0.1)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *observed)
    batched = fit_all(model, batch, CENTRE)
    for row, points in enumerate(observed):
        single = fit(model, points, CENTRE)
        np.testing.assert_allclose(batched.params.identity[row], single.params.identity, atol=0.02)
        np.testing.assert_allclose(batched.rms_px[row], single.rms_px, rtol=1e-2)


def test_one_compilation_serves_all_faces(model):
    _, observed = cases(model, 6, 2)
    fit(model, observed[0], CENTRE)
    before = fit._cache_size()
    fit(model, observed[1], CENTRE + 1.0)
    assert fit._cache_size() == before


def test_shapes_that_exclude_each_other_share_no_errors_of_the_points(model):
    pairs = [np.flatnonzero(row) for row in exclusive_rows(model.expression_names, DEFAULT)]
    truth = cases(model, 31, 4)[0]
    observed = [with_waves(np.random.default_rng(i), model, face) for i, face in enumerate(truth)]
    both = {}
    for settings in (DEFAULT, dataclasses.replace(DEFAULT, exclusive=())):
        found = [fit(model, seen, CENTRE, settings).params.expression for seen in observed]
        both[settings] = sum(float(x[pair].min()) for x in found for pair in pairs)
    exclusive, free = both
    assert both[free] > 0.1 and both[exclusive] < 0.5 * both[free]


def with_waves(rng, model, face):
    """What is seen of a face, with errors that are alike nearby, as those of a flow."""
    seen = observe(rng, model, face)
    waves = rng.normal(size=(2, 2, 6)) / 6.0
    phase = jnp.einsum("nc,cdk->ndk", seen.points_px, jnp.asarray(waves, jnp.float32))
    error = 0.6 * jnp.sum(jnp.sin(phase), axis=-1)
    return dataclasses.replace(seen, points_px=seen.points_px + error)


def test_sparse_weights_keep_errors_of_the_points_out_of_shapes_that_a_face_does_not_make(model):
    """Faces that smile, and points whose errors are alike nearby, as those of a flow."""
    rng = np.random.default_rng(21)
    names = model.expression_names
    smile = np.array([name.startswith("mouthSmile") for name in names])
    leaked, smiles = {}, {}
    faces, observed = [], []
    for _ in range(4):
        face = random_params(rng, model)
        face = dataclasses.replace(face, expression=jnp.asarray(0.7 * smile, jnp.float32))
        faces.append(face)
        observed.append(with_waves(rng, model, face))
    for settings in (DEFAULT, dataclasses.replace(DEFAULT, sparsity=())):
        found = [
            np.asarray(fit(model, seen, CENTRE, settings).params.expression) for seen in observed
        ]
        leaked[settings] = np.mean([weights[~smile].sum() for weights in found])
        smiles[settings] = np.mean([weights[smile].mean() for weights in found])
    sparse, dense = leaked
    assert leaked[sparse] < 0.85 * leaked[dense]
    assert smiles[sparse] > 0.9 * smiles[dense]


def test_points_of_shut_eyes_become_blinks_and_not_gaze_or_squint(model):
    """Of four faces, with the scatter of clicked points."""

    def columns(expression, *prefixes):
        rows = [n.startswith(prefixes) for n in model.expression_names]
        return np.asarray(expression)[..., rows]

    blinks = jnp.array([n.startswith("eyeBlink") for n in model.expression_names])
    shut = [t.replace(expression=0.9 * blinks) for t in cases(model, 3, 4)[0]]
    points = np.stack([project_landmarks(model, each, CENTRE) for each in shut])
    points += np.random.default_rng(0).normal(scale=0.6, size=points.shape)
    run = jax.jit(jax.vmap(lambda p: fit_landmarks(model, p, CENTRE).params.expression))
    found = run(jnp.asarray(points, jnp.float32))
    assert columns(found, "eyeBlink").mean() > 0.8
    assert columns(found, "eyeSquint", "eyeLookDown").mean() < 0.1
    assert columns(found, "jawOpen").max() < 0.2
