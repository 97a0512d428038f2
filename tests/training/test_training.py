"""The training machinery: step, devices, resuming, checkpoints, divergence."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from paths import ROOT

from dfc_jax import training
from dfc_jax.systems.dfc import loss as losses
from dfc_jax.systems.dfc import networks as nets
from dfc_jax.training import loop
from dfc_jax.training.checkpoints import Checkpoints

SPEC = nets.LiteSpec(widths=(4, 8, 8, 8), depths=(0,) * 4, decoder_depths=(0,) * 4)
SIZE = 32


def tiny_batch(count: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shift = rng.normal(0.0, 4.0, (count, 1, 1, 2))
    axis = np.arange(SIZE)
    spread = 0.3 * (np.stack(np.meshgrid(axis, axis), axis=-1) - (SIZE - 1) / 2)
    arrays = {
        "source": rng.random((count, SIZE, SIZE, 3)),
        "flow": shift + spread,
        "matchable": rng.random((count, 1, SIZE)) < np.ones((count, SIZE, 1)) * 0.5,
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def network_loss(variables, batch, key):
    template = jnp.ones((1, SIZE, SIZE, 3))
    outputs, state = nets.apply_train(variables, batch["source"], template, SPEC)
    parts = losses.correspondence_loss(
        outputs.flow, outputs.logits, batch["flow"], batch["matchable"]
    )
    means = {name: jnp.mean(part) for name, part in parts.items()}
    return means["loss"], (state, means)


def noisy_line_loss(variables, batch, key):
    """A least-squares line with noise from the step's key, quick to compile."""
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    loss = jnp.mean((variables["params"]["slope"] * x - 3.0 * batch["x"]) ** 2)
    return loss, ({"stats": {"seen": variables["stats"]["seen"] + 1}}, {})


def line_variables():
    return {"params": {"slope": jnp.full(2, 1.0)}, "stats": {"seen": jnp.zeros(())}}


def line_batches(start: int = 0):
    for step in itertools.count(start):
        yield {"x": np.random.default_rng(step).normal(size=(8, 2)).astype(np.float32)}


@pytest.fixture(scope="module")
def line():
    """Mesh, optimizer and compiled step of the line."""
    mesh = training.make_mesh()
    optimizer = optax.adam(0.05)
    return mesh, optimizer, training.make_train_step(noisy_line_loss, optimizer, mesh)


@pytest.mark.slow
def test_network_overfits_one_tiny_batch() -> None:
    mesh = training.make_mesh()
    config = training.OptimConfig(2e-2, steps=100, warmup_steps=5, clip_norm=5.0)
    optimizer = training.make_optimizer(config)
    step = training.make_train_step(network_loss, optimizer, mesh)
    variables = nets.init(jax.random.key(0), SPEC)
    state = training.create_state(variables, optimizer, mesh)
    history = []
    for _ in range(100):
        state, metrics = step(
            state, training.put_batches([tiny_batch(4)], mesh), jax.random.key(1), 1.0
        )
        history.append(jax.tree.map(jnp.squeeze, metrics))
    assert history[-1]["flow"] < 0.15 * history[0]["flow"]
    assert history[-1]["loss"] < 0.2 * history[0]["loss"]
    assert step.func._cache_size() == 1, "the step was compiled again"
    assert jax.tree.leaves(variables)[0].shape, "the caller's variables were given away"


GRADIENTS = """
import jax, numpy as np, optax
from jax.sharding import AxisType
from dfc_jax import training
from dfc_jax.systems.dfc import networks as nets
from dfc_jax.training import loop
import test_training as t

assert jax.device_count() == 8
one = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
variables = jax.device_get(nets.init(jax.random.key(0), t.SPEC))
moved = []
for mesh in (training.make_mesh(), one):
    # One unit step of gradient descent moves the parameters by the gradient.
    optimizer = optax.sgd(1.0)
    step = training.make_train_step(t.network_loss, optimizer, mesh)
    state = training.create_state(variables, optimizer, mesh)
    batches = training.put_batches([t.tiny_batch()], mesh)
    state, metrics = step(state, batches, jax.random.key(1), 1.0)
    assert len(state.step.sharding.device_set) == mesh.size
    moved.append(jax.device_get(state.variables))
scale = max(float(np.abs(a - b).max()) for a, b in zip(
    jax.tree.leaves(moved[0]["params"]), jax.tree.leaves(variables["params"])))
for a, b in zip(jax.tree.leaves(moved[0]), jax.tree.leaves(moved[1]), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(scale, 1.0))
assert scale > 1e-2, scale
print("equal")
"""


@pytest.mark.slow
def test_eight_devices_give_the_gradient_of_one() -> None:
    flags, here = "--xla_force_host_platform_device_count=8", Path(__file__).parent
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, here.parent, here])),
    }
    done = subprocess.run(
        [sys.executable, "-c", GRADIENTS], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "equal", done.stderr


def run_line(line, steps: int, *, state=None, **settings):
    mesh, optimizer, step = line
    settings = {"log_every": 1, **settings}
    if state is None:
        state = training.create_state(line_variables(), optimizer, mesh, ema=True)
    logged: list[tuple[int, dict[str, float]]] = []
    state = training.train_loop(
        state,
        line_batches(int(state.step)),
        step,
        steps=steps,
        key=jax.random.key(3),
        mesh=mesh,
        log=lambda step, values: logged.append((step, values)),
        **settings,
    )
    for _, values in logged:
        values.pop("seconds_per_step", None)
    return state, logged


def test_resumed_run_repeats_the_losses_bit_for_bit(line, tmp_path: Path) -> None:
    whole_state, whole = run_line(line, 12)
    with Checkpoints(tmp_path / "run") as checkpoints:
        run_line(line, 6, checkpoints=checkpoints, save_every=3)
    mesh, optimizer, _ = line
    empty = training.create_state(line_variables(), optimizer, mesh, ema=True)
    with Checkpoints(tmp_path / "run") as checkpoints:
        restored = checkpoints.restore(empty)
        assert int(restored.step) == 6
        resumed_state, resumed = run_line(line, 12, state=restored)
    assert resumed == whole[6:]
    jax.tree.map(np.testing.assert_array_equal, whole_state, resumed_state)


@pytest.mark.parametrize("resume_at", [0, 3, 8])
def test_several_steps_a_call_have_the_losses_of_one(line, tmp_path: Path, resume_at) -> None:
    """Also where the checkpoint to resume from lies between two calls."""
    settings = {"log_every": 4, "save_every": 12}
    whole_state, whole = run_line(line, 12, **settings)
    mesh, optimizer, _ = line
    state = training.create_state(line_variables(), optimizer, mesh, ema=True)
    if resume_at:
        with Checkpoints(tmp_path / "run") as checkpoints:
            run_line(line, resume_at, checkpoints=checkpoints)
            state = checkpoints.restore(state)
    state, calls = run_line(line, 12, state=state, steps_per_call=4, **settings)
    jax.tree.map(np.testing.assert_array_equal, whole_state, state)
    assert [step for step, _ in calls] == [step for step in (4, 8, 12) if step > resume_at]
    assert calls[-1] == whole[-1]


def test_metrics_are_those_of_each_step(line) -> None:
    mesh, optimizer, step = line
    data = line_batches()
    batches = training.put_batches([next(data) for _ in range(3)], mesh)
    state = training.create_state(line_variables(), optimizer, mesh, ema=True)
    _, metrics = step(state, batches, jax.random.key(3), 1.0)
    _, logged = run_line(line, 3)
    np.testing.assert_array_equal(metrics["loss"], [values["loss"] for _, values in logged])


def test_the_rate_factor_scales_the_step(line) -> None:
    mesh, optimizer, step = line
    batches = training.put_batches([next(line_batches())], mesh)
    start = jax.device_get(line_variables()["params"])
    moved = []
    for factor in (1.0, 0.25):
        state = training.create_state(line_variables(), optimizer, mesh, ema=True)
        state, _ = step(state, batches, jax.random.key(3), factor)
        moved.append(jax.tree.map(np.subtract, jax.device_get(state.variables["params"]), start))
    jax.tree.map(
        lambda whole, part: np.testing.assert_allclose(part, 0.25 * whole, rtol=1e-4), *moved
    )


def test_what_a_loss_binds_is_handed_to_the_program_and_not_compiled_into_it() -> None:
    mesh, optimizer = training.make_mesh(), training.make_optimizer(training.OptimConfig(0.1, 9))
    bound = 7.0 * np.ones((123, 45), np.float32)

    def loss(bound, variables, batch, key):
        return variables["params"]["a"] * bound.sum(), ({}, {})

    step = training.make_train_step(jax.tree_util.Partial(loss, bound), optimizer, mesh)
    state = training.create_state({"params": {"a": jnp.zeros(())}}, optimizer, mesh)
    batches = training.put_batches([{"x": np.zeros(8, np.float32)}], mesh)
    program = step.func.lower(*step.args, state, batches, jax.random.key(0), 1.0).as_text()
    assert "123x45" in program.split("@main(")[1].split("{")[0]


@pytest.mark.parametrize("name", ["steps", "log_every", "save_every"])
def test_a_log_or_a_save_inside_a_call_is_refused(line, name) -> None:
    settings = {"steps": 12, "log_every": 4, "save_every": 8, name: 6}
    with pytest.raises(ValueError, match=f"{name} is 6, not a multiple of 4"):
        run_line(line, steps_per_call=4, **settings)


def test_a_run_that_is_told_to_stop_saves_and_returns(line, tmp_path: Path) -> None:
    answers = iter([False, False, True])
    with Checkpoints(tmp_path) as checkpoints:
        state, logged = run_line(
            line,
            50,
            steps_per_call=2,
            log_every=10,
            save_every=20,
            evaluate=lambda state: pytest.fail("no time for that"),
            checkpoints=checkpoints,
            stop=lambda: next(answers),
        )
        assert int(state.step) == 6 and checkpoints.steps() == [6]
    assert [step for step, _ in logged] == [6]


def test_time_per_step_leaves_out_compilation_evaluation_and_saving(line, monkeypatch) -> None:
    mesh, optimizer, _ = line
    optimizer = optax.adam(0.05)
    step = training.make_train_step(noisy_line_loss, optimizer, mesh)
    seconds = 0.0
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: seconds))

    def passes(took: float) -> None:
        nonlocal seconds
        seconds += took

    logged: dict[int, dict[str, float]] = {}

    def slow_batches():
        for batch in line_batches():
            passes(0.02)
            yield batch

    def slow_call(*arguments):
        if not step.func._cache_size():
            passes(1.0)
        return step(*arguments)

    training.train_loop(
        training.create_state(line_variables(), optimizer, mesh),
        slow_batches(),
        slow_call,
        steps=12,
        key=jax.random.key(0),
        mesh=mesh,
        log=lambda step, values: logged.setdefault(step, values),
        log_every=4,
        evaluate=lambda state: passes(1.0) or {},
        save_every=4,
    )
    per_step = [logged[step]["seconds_per_step"] for step in (4, 8, 12)]
    # Each batch is prepared during the call before, so the last calls prepare one less.
    assert per_step == pytest.approx([0.02, 0.02, 3 * 0.02 / 4])


def test_second_step_is_not_compiled_again(line) -> None:
    state, _ = run_line(line, 1)
    programs = line[2].func._cache_size()
    run_line(line, 3, state=state)
    assert line[2].func._cache_size() == programs


def test_noise_differs_between_steps(line) -> None:
    mesh, optimizer, step = line
    batch = training.put_batches([next(line_batches())], mesh)
    grads = []
    for number in (0, 0, 1):
        state = training.create_state(line_variables(), optimizer, mesh)
        state = state.replace(step=state.step + number)
        grads.append(float(step(state, batch, jax.random.key(0), 1.0)[1]["grad_norm"][0]))
    assert grads[0] == grads[1] != grads[2]


def test_state_counts_steps_and_averages_variables(line) -> None:
    state, logged = run_line(line, 5, log_every=2)
    assert int(state.step) == 5 == float(state.variables["stats"]["seen"])
    assert [step for step, _ in logged] == [2, 4, 5]
    assert {"loss", "grad_norm"} <= logged[0][1].keys()
    slope, average = state.variables["params"]["slope"], state.ema["params"]["slope"]
    assert (jnp.abs(average - slope) > 0).all()
    assert (average > 1.0).all() and (average < slope).all()


def assert_diverges(state, batches, step, mesh, folder: Path, message: str) -> None:
    """Saving every 4 of 20 steps; only that of step 4 is there in the end, though one is kept."""
    with Checkpoints(folder, keep_last=1) as checkpoints:
        with pytest.raises(training.TrainingDiverged, match=message):
            training.train_loop(
                state,
                batches,
                step,
                steps=20,
                key=jax.random.key(0),
                mesh=mesh,
                log=lambda step, values: None,
                log_every=100,
                checkpoints=checkpoints,
                save_every=4,
            )
        checkpoints.wait()
        assert checkpoints.steps() == [4]


def test_diverged_loss_names_the_step_and_the_last_checkpoint(line, tmp_path: Path) -> None:
    mesh, optimizer, step = line

    def batches():
        for number, batch in enumerate(line_batches(), start=1):
            yield {"x": np.full_like(batch["x"], np.nan)} if number == 6 else batch

    state = training.create_state(line_variables(), optimizer, mesh)
    assert_diverges(state, batches(), step, mesh, tmp_path, "step 6 is nan.*step 4 in")


def length_loss(variables, batch, key):
    """Its gradient at zero is not a number."""
    return jnp.sqrt(jnp.sum((variables["params"]["slope"] * batch["x"]) ** 2)), ({}, {})


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_finite_loss_with_a_gradient_that_is_not_stops_before_the_save(clip_norm, tmp_path) -> None:
    mesh = training.make_mesh()
    optimizer = training.make_optimizer(training.OptimConfig(0.1, 20, clip_norm=clip_norm))
    step = training.make_train_step(length_loss, optimizer, mesh)

    def batches():
        for number, batch in enumerate(line_batches(), start=1):
            yield {"x": batch["x"] * (number != 8)}

    state = training.create_state({"params": line_variables()["params"]}, optimizer, mesh)
    message = "gradient's norm of step 8 is nan.*step 4 in"
    assert_diverges(state, batches(), step, mesh, tmp_path, message)


def test_data_that_ends_early_is_reported(line) -> None:
    mesh, optimizer, step = line
    with pytest.raises(ValueError, match="ended before step 3 of 5"):
        training.train_loop(
            training.create_state(line_variables(), optimizer, mesh),
            itertools.islice(line_batches(), 2),
            step,
            steps=5,
            key=jax.random.key(0),
            mesh=mesh,
            log=lambda step, values: None,
        )


def test_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(training.BatchError, match=r"split evenly .*; x has shape \(\)"):
        training.put_batches([{"x": np.float32(1.0)}], training.make_mesh())


def test_learning_rates_rise_then_fall() -> None:
    cosine = training.learning_rate(training.OptimConfig(1.0, steps=110, warmup_steps=10))
    np.testing.assert_allclose(
        [cosine(0), cosine(5), cosine(10), cosine(60), cosine(110)],
        [0.0, 0.5, 1.0, 0.5, 0.0],
        atol=1e-6,
    )
    config = training.OptimConfig(
        1e-4, steps=30, schedule="piecewise", boundaries=((20, 1e-5),), warmup_steps=4
    )
    steps = training.learning_rate(config)
    np.testing.assert_allclose(
        [steps(2), steps(4), steps(19), steps(20)], [5e-5, 1e-4, 1e-4, 1e-5], rtol=1e-5
    )
    constant = training.OptimConfig(
        2.0, steps=30, schedule="constant", warmup_steps=4, decay_steps=10
    )
    falling = training.learning_rate(constant)
    np.testing.assert_allclose(
        [falling(2), falling(4), falling(20), falling(25), falling(30)], [1.0, 2.0, 2.0, 1.0, 0.0]
    )


def test_weight_decay_touches_kernels_only_and_clipping_bounds_the_update() -> None:
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    config = training.OptimConfig(
        0.1, steps=10, schedule="constant", name="adamw", weight_decay=0.5, clip_norm=1.0
    )
    optimizer = training.make_optimizer(config)
    updates, state = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0.0)
    huge = jax.tree.map(lambda leaf: 1e6 * jnp.ones_like(leaf), params)
    _, state = optimizer.update(huge, optimizer.init(params), params)
    first_moment = optax.tree.get(state, "mu")
    np.testing.assert_allclose(optax.tree.norm(first_moment), 0.1, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "sgd"},
        {"schedule": "linear"},
        {"warmup_steps": 100},
        {"warmup_steps": 50, "decay_steps": 51},
        {"weight_decay": 0.1},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        training.OptimConfig(1e-3, steps=100, **settings)


def test_a_state_is_saved_by_the_clock_without_an_evaluation(line, tmp_path: Path) -> None:
    saved, evaluated = [], []
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save = lambda state, scores=None: saved.append((int(state.step), scores))

        def evaluate(state) -> dict[str, float]:
            evaluated.append(int(state.step))
            return {"score": 1.0}

        options = {"checkpoints": checkpoints, "evaluate": evaluate, "save_every": 4}
        run_line(line, 6, save_seconds=0.0, **options)
        by_clock, at = list(saved), list(evaluated)
        saved.clear()
        run_line(line, 6, save_seconds=1e6, **options)
    assert [step for step, _ in by_clock] == [1, 2, 3, 4, 5, 6] and at == [4, 6]
    assert [scores is not None for _, scores in by_clock] == [step in at for step, _ in by_clock]
    assert [step for step, _ in saved] == [4, 6]
