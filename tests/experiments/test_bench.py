"""The benchmarks' JSON, with few calls and small networks; never how fast anything is."""

import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faces import FakeSolver, mean_solution
from paths import ROOT
from quick import quick_compilation  # noqa: F401
from tiny import SIZE, noise_pair

from data_pipelines.faces.synthetic import SyntheticSettings
from data_pipelines.photos.augment import Labelled
from dfc_jax.morphable.file import load_face_model
from dfc_jax.systems.dfc.networks import LiteSpec, PaperSpec
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.training import make_mesh, put_batches
from experiments import finetune, pretrain
from experiments.bench import __main__ as bench
from experiments.bench import accuracy, stopwatch
from experiments.bench import start as bench_start
from experiments.bench import synthetic as bench_synthetic
from experiments.bench import train as bench_train
from experiments.bench.stopwatch import Stopwatch
from experiments.configs.dfc import finetune_fast, pretrain_fast

ABOUT = {"suite", "samples", "jax", "device", "cores", "reference_ms", "compiles_again"}
ALIGNER = {"compiles_load", "photo_landmarks_px", "rendered_nme_percent"}
PARTS_MS = {"network_lite_ms", "network_paper_ms", "fit_ms", "render_128_ms", "align_total_ms"}
PARTS_MS |= {"detect_ms", "detect_haar_ms", "crop_ms", "align_batch16_ms_per_face"}
START = {"bare_jax_s", "cold_start_s", "cold_start_cached_s"}
START |= {"cold_start_ratio", "cold_start_cached_ratio"}
STAGES = ("sample_pair", "sample_scene", "rasterize_scene", "shade_scene", "take_photograph")
SMALL = {
    "lite": LiteSpec(widths=(4, 4, 8, 8), depths=(0,) * 4, decoder_depths=(0,) * 4),
    "paper": PaperSpec(widths=(4, 4, 4, 4, 16)),
}


def traced(function):
    """`function`, traced but neither compiled nor run: zeros of the right shapes."""

    def stand_in(*args, **keywords):
        shapes = jax.eval_shape(lambda: function(*args, **keywords))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    return stand_in


@pytest.fixture
def quick(monkeypatch):
    """Three calls of each; the large programs, which have tests of their own, are only traced."""
    solution = mean_solution(load_face_model())
    for name in ("fit", "render"):
        monkeypatch.setattr(bench, name, traced(getattr(bench, name)))
    for name in STAGES:
        monkeypatch.setattr(bench_synthetic, name, traced(getattr(bench_synthetic, name)))
    for name, small in (("BANDWIDTH_FLOATS", (64, 64)), ("MATRIX_EDGE", (8, 8))):
        monkeypatch.setattr(bench_synthetic, name, small)
    monkeypatch.setattr(bench, "Solver", lambda *a: FakeSolver(lambda crop: solution))
    monkeypatch.setattr(bench, "start_figures", lambda photo: dict.fromkeys(START, 1.0))
    monkeypatch.setattr(bench, "load", lambda: lambda image: [])
    accurate = {"photo_landmarks_px": [[1.0, 2.0]], "rendered_nme_percent": 2.5}
    monkeypatch.setattr(bench, "accuracy_figures", lambda aligner, photo: accurate)
    monkeypatch.setattr(bench, "SPECS", SMALL)
    monkeypatch.setattr(bench, "DEFAULT_WEIGHTS", "none-of-that-name")
    monkeypatch.setattr(bench_synthetic, "SyntheticSettings", lambda: SyntheticSettings(size=32))
    return Stopwatch(repeats=3, seconds=0.0)


@pytest.mark.slow
def test_cpu_suite_measures_every_part(quick):
    figures = bench.measure("cpu", 2, quick)
    expected = ABOUT | ALIGNER | PARTS_MS | START | {"batch", "network_lite_crops_per_s"}
    assert set(figures) == expected
    assert figures["compiles_again"] == figures["compiles_load"] == 0
    assert all(figures[name] > 0 for name in [*PARTS_MS, "network_lite_crops_per_s"])
    assert (figures["samples"], figures["batch"]) == (3, 2)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_a_start_is_measured_in_turns_with_and_without_a_cache_as_a_ratio(monkeypatch):
    seconds = iter([50.0, *[1.0, 8.0, 2.0], *[1.0, 9.0, 3.0], *[2.0, 70.0, 2.5]])
    now, caches = [0.0], []

    def run(command, env, **_):
        assert "JAX_COMPILATION_CACHE_DIR" not in env
        caches.append(env["DFC_CACHE"] == "off")
        now[0] += next(seconds)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    monkeypatch.setattr(bench_start.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(bench_start.subprocess, "run", run)
    figures = bench_start.start_figures(bench.PHOTO)
    assert set(figures) == START
    assert (figures["cold_start_s"], figures["cold_start_cached_s"]) == (9.0, 2.5)
    assert (figures["cold_start_ratio"], figures["cold_start_cached_ratio"]) == (9.0, 2.5)
    assert caches == [False, *3 * [True, True, False]]


def test_a_start_that_fails_is_no_figure(monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "no such thing")

    monkeypatch.setattr(bench_start.subprocess, "run", run)
    with pytest.raises(bench_start.StartError, match="failed: no such thing"):
        bench_start.start_figures(bench.PHOTO)


@pytest.mark.slow
def test_synthetic_suite_measures_pairs_stages_and_floor(quick):
    figures = bench.measure("synthetic", 2, quick)
    times = {f"{stage}_ms" for stage in ("total", "sample", "raster", "shade", "augment", "label")}
    rates = {"pairs_per_s", "bandwidth_gbyte_per_s", "matmul_gflop_per_s"}
    work = {"mbyte_per_pair", "mflop_per_pair", "floor_ms", "times_floor"}
    estimates = {"xla_mflop_per_pair", "xla_mbyte_per_pair"}
    assert set(figures) == ABOUT | times | rates | work | estimates | {"batch"}
    assert all(figures[name] > 0 for name in times | work | {"pairs_per_s"})
    assert figures["pairs_per_s"] == pytest.approx(2000.0 / figures["total_ms"], rel=1e-2)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


@pytest.mark.slow
def test_train_suite_measures_both_steps_and_their_parts(quick, patched, monkeypatch):
    """The tiny networks, on small crops of noise."""
    shrunk = bench_train.shrunk

    def small(*rest):
        config = shrunk(*rest)
        for name in {"synthetic", "augment"} & set(config):
            config[name].size = SIZE
        return config

    def crop(key, photo, crop_px, settings):
        noise = noise_pair(key, settings)
        return Labelled(noise.source, noise.flow, noise.matchable)

    monkeypatch.setattr(bench_train, "shrunk", small)
    monkeypatch.setattr(finetune, "augment", crop)
    figures = bench.measure("train", 4, quick, network="tiny")
    parts = ("examples", "forward", "gradient", "optimizer")
    work = ("xla_mflop_per_example", "xla_mbyte_per_example")
    each = {"batch", "step_ms", "compile_s", "rest_share", *work}
    each |= {f"{part}_{name}" for part in parts for name in ("ms", "share", *work)}
    rates = {"pretrain_pairs_per_s": "pretrain", "refine_photos_per_s": "refine"}
    named = {f"{stage}_{name}" for stage in rates.values() for name in each}
    assert set(figures) == ABOUT | named | set(rates) | {"network", "devices"}
    assert all(figures[name] > 0 for name in named if not name.endswith("rest_share"))
    assert figures["compiles_again"] == 0
    for rate, stage in rates.items():
        step_ms = figures[f"{stage}_step_ms"]
        assert figures[rate] == pytest.approx(4000.0 / step_ms, rel=1e-2)
        share = {part: figures[f"{stage}_{part}_ms"] / step_ms for part in parts}
        assert figures[f"{stage}_gradient_share"] == pytest.approx(share["gradient"], rel=1e-2)
        rest = 1.0 - sum(share.values()) + share["forward"]
        assert figures[f"{stage}_rest_share"] == pytest.approx(rest, abs=1e-2)
        mflop = {part: figures[f"{stage}_{part}_{work[0]}"] for part in parts}
        assert mflop["forward"] < mflop["gradient"] < figures[f"{stage}_{work[0]}"]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_a_program_that_is_measured_goes_on_training():
    settings = finetune.settings_of(finetune_fast.get_config()).training
    variables = {"params": {"w": jnp.full(3, 2.0)}}
    rest = put_batches([np.zeros(1)], make_mesh()), jax.random.key(0), 1.0
    step = bench_train.stepping(bench_train._squares, settings, variables, *rest)
    losses = [float(step.call()["loss"][0]) for _ in range(4)]
    assert losses[0] == 6.0 and losses[3] < losses[2] < 6.0


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_trainings_are_those_of_the_configs_but_for_what_is_asked(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = bench_train.shrunk(pretrain_fast.get_config(), "lite-tied", None)
    settings = pretrain.settings_of(config)
    found = (
        settings.training.batch,
        settings.template_targets,
        settings.training.steps_per_call,
        settings.loss.compute,
    )
    assert found == ((8, 4, 1, "float32") if backend == "cpu" else (512, 256, 10, "bfloat16"))
    config = bench_train.shrunk(finetune_fast.get_config(), "lite", 512)
    settings = finetune.settings_of(config)
    assert (settings.training.batch, settings.synthetic_batch, settings.resident) == (
        512,
        128,
        True,
    )


def test_the_floor_counts_what_is_shared_once_and_the_rest_per_pair():
    one, two, three = (bench_synthetic.least_work(10, 7, 4, 8, n) for n in (1, 2, 3))
    assert three[0] - two[0] == two[0] - one[0] and two[1] == 2 * one[1]
    # Model and triangles; then two faces' vertices, colours, fragments, pictures, and the labels.
    assert 2 * one[0] - two[0] == 4 * 30 * 5 + 4 * 21
    assert two[0] - one[0] == 2 * (4 * 30 * 5 + 4 * 64 * (10 + 9)) + 4 * 64 * 4
    assert one[1] == 2 * (2 * 30 * 4 + 1000 + 120 * 64)


def test_the_floor_is_the_slower_of_memory_and_arithmetic(monkeypatch):
    assets, settings = SimpleNamespace(model=load_face_model()), SyntheticSettings()
    nbytes, operations = bench_synthetic.least_work(
        len(assets.model.mean_mm), len(assets.model.triangles), 153, settings.size, 4
    )
    for byte_rate, rate in ((1e6, 1e12), (1e12, 1e6)):
        monkeypatch.setattr(bench_synthetic, "bandwidth", lambda _, rate=byte_rate: rate)
        monkeypatch.setattr(bench_synthetic, "matmul_rate", lambda _, rate=rate: rate)
        found = bench_synthetic.floor_figures(Stopwatch(), assets, settings, 4, 1e3)
        expected = max(nbytes / byte_rate, operations / rate)
        assert found["floor_ms"] == pytest.approx(expected, rel=1e-3)
        assert found["times_floor"] == pytest.approx(1e3 / expected, rel=1e-3)


def test_the_fit_gets_1024_correspondences_all_in_use():
    model = load_face_model()
    points = bench.exact_correspondences(jax.random.key(0), model, make_template(model))
    assert points.points_px.shape == (1024, 2)
    assert (np.asarray(points.weight) == 1.0).all()


def test_medians_leave_warm_up_out_and_stop_in_time(monkeypatch):
    durations = iter([100.0, 50.0, 1.0, 2.0, 9.0, 9.0])
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def call():
        now[0] += next(durations)

    watch = Stopwatch(repeats=50, seconds=2.5)
    assert watch.median_ms(call) == 2000.0
    assert watch.samples == 3
    assert next(durations) == 9.0


def test_compilations_after_the_first_call_are_counted():
    watch = Stopwatch(repeats=3, seconds=0.0)
    same = jax.jit(lambda x: 2 * x)
    watch.median_ms(same, jnp.ones(3))
    assert watch.compiles_again == 0
    sizes = iter(range(4, 12))
    watch.median_ms(lambda: same(np.ones(next(sizes), np.float32)))
    assert watch.compiles_again == 4, "the second warm-up and three calls"


def test_the_aligners_programs_are_counted_and_none_are_compiled_by_a_second_call(monkeypatch):
    """Three on loading, one for the first photograph, and a fault: one for the second, too."""
    programs = iter([jax.jit(lambda x, n=n: x + n) for n in range(5)])
    number = np.float32(1.0)

    def load():
        for _ in range(3):
            next(programs)(number)
        return lambda image: next(programs)(number)

    monkeypatch.setattr(bench, "load", load)
    monkeypatch.setattr(bench, "accuracy_figures", lambda aligner, photo: {})
    watch = Stopwatch()
    assert bench.aligner_figures(watch) == {"compiles_load": 4}
    assert watch.compiles_again == 1


def test_accuracy_is_that_of_the_photograph_and_of_rendered_faces(monkeypatch):
    """An aligner that knows the truth but for 3 pixels in x, and once finds nothing."""
    model, truths = load_face_model(), []
    original = accuracy.rendered_face

    def rendered_face(*rest):
        image, truth = original(*rest)
        truths.append(np.asarray(truth))
        return image, truth

    def aligner(image, boxes=None):
        if boxes is None:
            return [SimpleNamespace(landmarks=np.full((68, 2), 1.23456))]
        assert image.shape == (256, 256, 3) and image.std() > 0.05
        (box,) = boxes
        truth = truths[-1]
        assert (truth >= box[:2] - 1e-3).all() and (truth <= box[:2] + box[2:] + 1e-3).all()
        sizes.append(np.sqrt(box[2] * box[3]))
        return [SimpleNamespace(landmarks=truth + [3.0, 0.0])] if len(truths) < 3 else []

    aligner.model, sizes = model, []
    monkeypatch.setattr(accuracy, "rendered_face", rendered_face)
    figures = accuracy.accuracy_figures(aligner, bench.PHOTO, faces=3)
    expected = (300.0 / sizes[0] + 300.0 / sizes[1] + accuracy.MISSED_PERCENT) / 3
    assert figures["rendered_nme_percent"] == pytest.approx(expected, abs=1e-3)
    assert figures["photo_landmarks_px"] == [[1.235, 1.235]] * 68
    assert not np.allclose(truths[0], truths[1])


@pytest.mark.slow
def test_a_wrong_flag_is_refused_before_anything_is_measured():
    command = [sys.executable, "-m", "experiments.bench", "--suite", "gpu"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "--suite" in run.stderr + run.stdout
