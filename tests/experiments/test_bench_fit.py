"""The benchmark of the fit, on small problems; never how fast anything is."""

import json
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from dfc_jax.camera import project
from dfc_jax.morphable.linear import surface_basis
from dfc_jax.types import Camera, Correspondences, SurfacePoints
from experiments.bench import __main__ as bench
from experiments.bench import fit as bench_fit
from experiments.bench import peers
from experiments.bench import synthetic as bench_synthetic
from experiments.bench import train as bench_train
from experiments.bench.stopwatch import Stopwatch

N_POINTS, N_IDENTITY, CENTRE = 96, 3, jnp.array([63.5, 63.5])


def some_face(key, model, _=None):
    """Points all over a frontal face, with the first identity coefficients."""
    triangle, place, identity = jax.random.split(key, 3)
    surface = SurfacePoints(
        jax.random.randint(triangle, (N_POINTS,), 0, len(model.triangles)),
        jax.random.dirichlet(place, jnp.ones(3), (N_POINTS,)),
    )
    mean, basis = surface_basis(model, surface, N_IDENTITY)
    points = mean + basis[..., :N_IDENTITY] @ jax.random.normal(identity, (N_IDENTITY,))
    seen = points * jnp.array([1.0, -1.0, -1.0]) + jnp.array([0.0, 0.0, 800.0])
    points_px = project(Camera(jnp.asarray(400.0), CENTRE), seen)
    return Correspondences(points_px=points_px, surface=surface, weight=jnp.ones(N_POINTS))


@pytest.fixture(scope="module")
def faces(model):
    exact = jax.lax.map(lambda key: some_face(key, model), jax.random.split(jax.random.key(0), 4))
    seen = bench_fit.observed(jax.random.key(1), exact)
    return bench_fit.Faces.of(model, seen, CENTRE, N_IDENTITY)


def names(solver, unknowns, per, *figures):
    return {f"{solver}_{unknowns}_{per}{figure}" for figure in figures}


@pytest.mark.slow
def test_fit_suite_measures_ours_and_the_peers_that_are_there(monkeypatch):
    monkeypatch.setattr(bench, "network_ms", lambda *rest: 2.0)
    monkeypatch.setattr(bench, "exact_correspondences", some_face)
    monkeypatch.setattr(bench_fit, "of_optimistix", lambda: {"optimistix_cholesky": peers.ours})
    monkeypatch.setattr(bench_fit, "IDENTITIES", (N_IDENTITY,))
    monkeypatch.setattr(bench_fit, "PEER_FACES", 2)
    monkeypatch.setattr(bench_synthetic, "MATRIX_EDGE", (8, 8))
    # Not anew: what another run of the tests compiled is read from its cache.
    monkeypatch.setattr(bench_train, "without_kept_programs", nullcontext)
    figures = bench.measure("fit", 4, Stopwatch(repeats=3, seconds=0.0))
    n = 7 + N_IDENTITY + 53
    solved = ("compile_s", "steps", "reached", "excess", "times_network")
    expected = names("ours", n, "", "ms", *solved)
    expected |= names("ours", n, "batch4_", "ms_per_face", "mbyte_per_face", *solved)
    expected |= names("ours_plain", n, "", "ms", "times_ours", *solved)
    expected |= names("scipy", n, "", "ms", "times_ours", "batch_times_ours", *solved)
    expected |= names("optimistix_cholesky", n, "", "ms", "times_ours", *solved)
    batch = ("ms_per_face", "mbyte_per_face", "times_ours")
    expected |= names("optimistix_cholesky", n, "batch2_", *batch, *solved)
    expected |= names("fit", n, "", "ms", "compile_s", "times_ours", "times_network")
    expected |= names("fit", n, "batch4_", "compile_s", "times_network", *batch)
    about = {"suite", "samples", "jax", "device", "cores", "reference_ms", "compiles_again"}
    about |= {"network_paper_ms", "batch", "correspondences", "peers_missing"}
    assert set(figures) == expected | about
    assert figures["compiles_again"] == 0 and figures["peers_missing"] == []
    assert all(figures[name] > 0 for name in expected if "_ms" in name or "_mbyte" in name)
    reached = {name: figures[name] for name in expected if name.endswith("reached")}
    assert set(reached.values()) == {1.0}, reached
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_the_problems_are_different_faces_with_noise_and_outliers(faces):
    weight = np.asarray(faces.problems.weight)
    assert weight.shape == (4, N_POINTS) and ((weight < 0.1).any(1) & (weight > 0.9).any(1)).all()
    assert np.ptp(np.asarray(faces.problems.points_px), axis=0).min() > 0.0
    assert (np.asarray(faces.starts)[:, 7:] == 0.0).all()
    assert np.ptp(faces.best) > 0.0


def test_threads_find_what_each_face_alone_does(faces, monkeypatch):
    monkeypatch.setattr(bench_fit.os, "cpu_count", lambda: 2)
    batch = bench_fit.batched(peers.ours, (faces.problems, faces.starts), True)
    assert len(batch.call()) == 2
    found, _ = batch.solution()
    alone = jnp.stack([peers.ours(*face)[0] for face in faces.alone()])
    np.testing.assert_allclose(
        bench_fit.costs(faces.problems, found), bench_fit.costs(faces.problems, alone), rtol=1e-5
    )


def test_scipy_goes_to_the_same_optimum(faces):
    alone = faces.alone()
    solve = peers.of_scipy(*alone[0])
    found = jnp.stack([solve(*face)[0] for face in alone])
    assert bench_fit.how_near(bench_fit.costs(faces.problems, found), faces.best)["reached"] == 1.0


@pytest.mark.parametrize("name", ["optimistix_cholesky", "optimistix_qr"])
def test_optimistix_goes_to_the_same_optimum(name, faces):
    pytest.importorskip("optimistix", reason="it comes with the extra peers")
    solve = jax.jit(peers.of_optimistix()[name])
    found = jnp.stack([solve(*face)[0] for face in faces.alone()])
    assert bench_fit.how_near(bench_fit.costs(faces.problems, found), faces.best)["reached"] == 1.0


def test_without_the_extra_optimistix_is_none_of_the_solvers(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert peers.of_optimistix() == {}


def test_a_solver_that_stops_short_or_diverges_is_said_to():
    """The first face has its lowest cost from a peer, the others from the reference."""
    best = np.array([10.0, 20.0, 30.0])
    runs = [
        bench_fit.Run("ours", "", 2.0, np.array([10.0, 20.001]), {"steps": 4.0}),
        bench_fit.Run("ours", "batch3", 0.5, np.array([10.0, 20.0, 30.1]), {}),
        bench_fit.Run("scipy", "", 8.0, np.array([9.9, np.nan]), {}),
        bench_fit.Run("fit", "batch3", 1.0, None, {}),
    ]
    figures = bench_fit.compared(runs, best, network_ms=4.0)
    assert best[0] == 10.0
    assert (figures["ours/reached"], figures["ours/steps"]) == (0.5, 4.0)
    assert figures["ours/excess"] == pytest.approx(0.1 / 9.9, rel=1e-3)
    assert figures["ours/batch3_reached"] == pytest.approx(1 / 3, rel=1e-3)
    assert (figures["scipy/reached"], figures["scipy/excess"]) == (0.5, None)
    assert (figures["scipy/times_ours"], figures["scipy/batch_times_ours"]) == (4.0, 16.0)
    assert (figures["ours/ms"], figures["ours/batch3_ms_per_face"]) == (2.0, 0.5)
    assert (figures["fit/batch3_times_ours"], figures["fit/batch3_times_network"]) == (2.0, 0.25)
    assert "ours/times_ours" not in figures and "fit/batch3_reached" not in figures
