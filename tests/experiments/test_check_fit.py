"""Hostile problems are as hostile as they say, their fits are counted, and persons keep their
faces over several photographs."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from dfc_jax.camera import crop_camera, project, to_camera
from dfc_jax.errors import OptionError
from dfc_jax.fitting import Status
from dfc_jax.morphable.linear import PARTS, shape, surface_positions
from experiments.tools import check_fit, check_persons

PROBLEMS = 12


@pytest.fixture(scope="module")
def problems(model):
    keys = jax.random.split(jax.random.key(1), PROBLEMS)
    made = jax.jit(lambda keys: jax.lax.map(lambda key: check_fit.sample_problem(key, model), keys))
    batch = jax.device_get(made(keys))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(PROBLEMS)]


def test_correspondences_show_their_surface_points_but_for_noise_and_outliers(
    model, problems
) -> None:
    for problem in problems:
        given = problem.correspondences
        vertices = shape(model, problem.params.identity, problem.params.expression)
        vertices = to_camera(problem.params, vertices)
        true = surface_positions(vertices, model.triangles, given.surface)
        pixels = project(crop_camera(problem.params, check_fit.SIZE), true)
        used = given.weight > 0
        apart = np.linalg.norm(given.points_px - pixels, axis=1)[used]
        near = apart < 5.0 * check_fit.NOISE_PX
        assert np.mean(~near) == pytest.approx(problem.outliers, abs=0.03)
        # The mean length of a vector whose components have this deviation.
        assert apart[near].mean() == pytest.approx(
            np.sqrt(np.pi / 2.0) * check_fit.NOISE_PX, rel=0.1
        )


def test_problems_are_as_hostile_as_they_say(model, problems) -> None:
    outliers = np.array([problem.outliers for problem in problems])
    hidden = np.array([1 - problem.seen.sum() / problem.visible.sum() for problem in problems])
    distance = np.array([problem.params.translation_mm[2] for problem in problems])
    angles = np.abs([problem.angles_deg for problem in problems])
    assert 0.2 < outliers.max() <= check_fit.OUTLIERS + 0.03 and outliers.min() < 0.2
    assert 0.25 < hidden.max() <= check_fit.HIDDEN + 0.01 and hidden.min() < 0.25
    assert 250.0 <= distance.min() < 800.0 < distance.max() <= 5000.0
    limits = np.array([90.0, 30.0, 180.0])
    assert (angles <= limits).all() and (angles.max(axis=0) > 0.5 * limits).all()
    for problem in problems:
        part = np.asarray(model.triangle_part)[problem.surface.triangle[problem.visible]]
        assert PARTS.index("neck") not in part
        assert not (problem.seen & ~problem.visible).any()
        high, wide = (np.ptp(index) for index in np.nonzero(problem.visible))
        assert 0.85 * 75.0 < max(high, wide) <= 125.0


def test_error_is_that_of_the_places_in_the_crop(model, problems) -> None:
    # From far away all of a face moves alike.
    problem = max(problems, key=lambda each: each.params.translation_mm[2])
    for part in check_fit.errors_px(model, problem.params, problem):
        assert part < 0.01
    scale = problem.params.focal_px / problem.params.translation_mm[2]
    moved = problem.params.translation_mm + np.array([3.0 / scale, 4.0 / scale, 0.0])
    wrong = dataclasses.replace(problem.params, translation_mm=moved)
    for part in check_fit.errors_px(model, wrong, problem):
        assert part == pytest.approx(5.0, rel=0.05)


def test_hostile_problems_are_fitted(model) -> None:
    rows = check_fit.solve_all(model, 3)
    assert (rows["visible_px"] < check_fit.WITHIN_PX).all()
    assert (rows["seen_px"] < 1.0).all() and (rows["seen_px"] > 0.01).all()
    assert check_fit.hostile_report(rows)["failures"] == []


def test_fit_is_suspect_for_each_thing_that_it_says_of_itself() -> None:
    assert not check_fit.is_suspect(Status.CONVERGED_FTOL, check_fit.NOISE_PX)
    assert not check_fit.is_suspect(Status.MAX_STEPS, check_fit.NOISE_PX)
    assert check_fit.is_suspect(Status.FEW_POINTS, check_fit.NOISE_PX)
    assert check_fit.is_suspect(Status.CONVERGED_FTOL, 2.0)


@pytest.fixture
def rows():
    """Four fits: good, wrong where hidden, wrong and suspect, good and suspect."""
    columns = {
        "seen_px": [0.1, 0.5, 9.0, 0.2],
        "visible_px": [0.2, 2.5, 9.0, 0.3],
        "distance_mm": [260.0, 700.0, 900.0, 5000.0],
        "yaw_deg": [-10.0, -80.0, 80.0, 20.0],
        "roll_deg": [0.0, 0.0, 179.0, 0.0],
        "status": [1, 1, 1, 1],
        "rms_px": [0.7, 0.7, np.inf, 7.0],
        "noise_px": [0.5, 0.5, 5.0, 5.0],
        "inliers": [0.9, 0.9, 0.9, 0.9],
    }
    return {name: np.array(column) for name, column in columns.items()}


def test_report_counts_right_fits_and_marks(rows) -> None:
    report = check_fit.hostile_report(rows)
    assert report["within"] == {"problems": 4, "seen": 0.75, "visible": 0.5}
    assert report["by_yaw_deg"]["75 to 90"] == {"problems": 2, "seen": 0.5, "visible": 0.0}
    assert report["by_yaw_deg"]["60 to 75"] == {"problems": 0}
    assert report["by_distance_mm"]["2000 to 5000"]["problems"] == 1
    assert report["by_roll_deg"]["135 to 180"]["seen"] == 0.0
    assert report["focal_off_2x"] == {"problems": 2, "seen": 1.0, "visible": 1.0}
    counts = {"failures": 2, "of_them_marked": 1, "good": 2, "of_them_marked_wrongly": 1}
    assert report["marked"]["visible"] == counts
    found = [(one["problem"], one["suspect"]) for one in report["failures"]]
    assert found == [(1, False), (2, True)]
    assert [one["rms_px"] for one in report["failures"]] == [0.7, None]


def test_alignment_undoes_a_similarity_and_mirrors_nothing() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    onto = 1.7 * points @ turn.T + [1.0, -2.0, 3.0]
    np.testing.assert_allclose(check_persons.aligned(points, onto), onto, atol=1e-9)
    mirrored = check_persons.aligned(points * [-1.0, 1.0, 1.0], onto)
    assert np.linalg.norm(mirrored - onto, axis=1).mean() > 0.5


def test_shape_error_is_that_of_the_face_alone(model) -> None:
    rng = np.random.default_rng(0)
    truth = jnp.asarray(rng.normal(size=model.n_identity), jnp.float32)
    assert check_persons.shape_error_mm(model, truth, truth) < 1e-4
    assert 1.0 < check_persons.shape_error_mm(model, jnp.zeros(1), truth) < 6.0
    height = np.asarray(model.mean_mm)[check_persons.face_vertices(model), 1]
    assert height.min() > -85.0 and len(height) < 0.8 * len(model.mean_mm)


def test_persons_report_compares_means() -> None:
    alone = np.array([[4.0] * 5 + [99.0] * 5, [2.0] * 5 + [99.0] * 5])
    together = np.array([[4.0, 3.0, 3.0, 1.0, 1.0], [2.0, 2.0, 2.0, 3.0, 0.0]])
    report = check_persons.persons_report(alone, together, np.array([5.0, 5.0]))
    assert (report["alone_mm"], report["together_mm"], report["mean_face_mm"]) == (3.0, 2.0, 5.0)
    assert report["lower"] == pytest.approx(1 / 3, abs=1e-4) and report["persons_nearer"] == 1
    assert report["together_mm_by_views"] == {"1": 3.0, "2": 2.5, "3": 2.5, "5": 2.0, "10": 0.5}


@pytest.mark.slow
def test_errors_of_a_person_are_of_fits_alone_and_together(model, problems, monkeypatch) -> None:
    """Two views of one face, whose correspondences stand for what a network would see."""
    views = problems[0], problems[0]
    seen = iter(views)
    monkeypatch.setattr(check_persons, "VIEWS", (2, 5))
    monkeypatch.setattr(check_persons, "correspond", lambda image, *_: (image, image))
    monkeypatch.setattr(
        check_persons,
        "lift_each",
        lambda *_: jax.tree.map(lambda leaf: leaf[None], next(seen).correspondences),
    )
    centre = jnp.full(2, (check_fit.SIZE - 1) / 2.0)
    camera = types.SimpleNamespace(principal_point=centre)
    solver = types.SimpleNamespace(
        template=types.SimpleNamespace(camera=camera), model=model, flip_test=False
    )
    solver.variables = solver.code = solver.spec = None
    truth = jnp.asarray(problems[0].params.identity)
    alone, together = check_persons.person_errors(solver, jnp.zeros((2, 4, 4, 3)), truth)
    assert len(alone) == 2 and len(together) == 1 and alone[0] == alone[1]
    mean_face = check_persons.shape_error_mm(model, jnp.zeros(1), truth)
    assert all(0.0 < error < mean_face for error in (*alone, *together))
    assert together[0] == pytest.approx(alone[0], rel=0.2)


def told(tmp_path, **changes) -> types.SimpleNamespace:
    values = {"problems": 3, "persons": 2, "weights": None, "json": str(tmp_path / "fit.json")}
    return types.SimpleNamespace(**{**values, **changes})


def test_command_writes_both_parts(tmp_path, monkeypatch, rows) -> None:
    monkeypatch.setattr(check_fit, "solve_all", lambda model, problems: rows)
    monkeypatch.setattr(check_fit, "check_persons", lambda *given: {"given": given})
    check_fit.check_as_told(told(tmp_path))
    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["hostile"]["within"]["problems"] == 4
    assert report["persons"] == {"given": [None, 2]}
    check_fit.check_as_told(told(tmp_path, problems=0))
    assert json.loads((tmp_path / "fit.json").read_text()).keys() == {"persons"}


def test_numbers_that_make_no_sense_are_one_sentence(tmp_path) -> None:
    with pytest.raises(OptionError, match="--persons needs a number from 0 on; got -1"):
        check_fit.check_as_told(told(tmp_path, persons=-1))
    with pytest.raises(OptionError, match="nothing to check"):
        check_fit.check_as_told(told(tmp_path, problems=0, persons=0))
