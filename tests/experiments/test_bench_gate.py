"""The gate: what counts as worse than a baseline, with made-up figures."""

import json
import math
import sys
from pathlib import Path

import pytest
from absl import flags
from paths import ROOT

from experiments.bench import __main__ as bench
from experiments.bench import gate

BASELINE = {
    "suite": "cpu",
    "device": "cpu",
    "cores": 2,
    "reference_ms": 20.0,
    "fit_ms": 40.0,
    "align_batch16_ms_per_face": 10.0,
    "cold_start_s": 9.0,
    "cold_start_ratio": 6.0,
    "cold_start_cached_ratio": 3.0,
    "compiles_load": 12,
    "compiles_again": 0,
    "rendered_nme_percent": 2.5,
    "photo_landmarks_px": [[10.0, 20.0], [30.0, 40.0]],
    "samples": 50,
    "jax": "0.10.2",
}


def worse(**changes) -> list[str]:
    return gate.regressions(BASELINE, BASELINE | changes)


def test_the_same_figures_and_better_ones_pass():
    assert worse() == []
    assert worse(fit_ms=1.0, cold_start_ratio=2.0, compiles_load=3, rendered_nme_percent=1.0) == []
    assert worse(samples=3, jax="0.11", cold_start_s=90.0, a_new_figure_ms=3.0) == []


@pytest.mark.parametrize(
    ("name", "passes", "fails"),
    [
        ("fit_ms", 59.0, 61.0),
        ("align_batch16_ms_per_face", 14.9, 15.1),
        ("cold_start_ratio", 8.9, 9.1),
        ("cold_start_cached_ratio", 4.4, 4.6),
        ("compiles_load", 12, 13),
        ("compiles_again", 0, 1),
        ("rendered_nme_percent", 2.54, 2.56),
        ("photo_landmarks_px", [[10.0, 20.1], [30.05, 40.0]], [[10.0, 20.3], [30.0, 40.0]]),
    ],
)
def test_each_figure_has_its_tolerance(name, passes, fails):
    assert worse(**{name: passes}) == []
    (sentence,) = worse(**{name: fails})
    assert sentence.startswith(name) and "\n" not in sentence


def test_times_are_compared_in_units_of_the_matrix_product():
    twice = {"reference_ms": 40.0, "fit_ms": 80.0, "align_batch16_ms_per_face": 20.0}
    assert worse(**twice) == []
    (sentence,) = worse(reference_ms=10.0, align_batch16_ms_per_face=5.0)
    assert sentence == "fit_ms / reference_ms is 4, more than 1.5 times the 2 of the baseline"


def test_each_regression_has_its_sentence():
    assert len(worse(fit_ms=100.0, compiles_again=2, rendered_nme_percent=3.0)) == 3


def test_of_several_runs_the_best_times_count_and_all_else_of_the_first():
    slow = BASELINE | {"fit_ms": 100.0, "cold_start_ratio": 20.0}
    assert len(gate.regressions(BASELINE, slow, slow)) == 2
    assert gate.regressions(BASELINE, slow, BASELINE) == []
    (sentence,) = gate.regressions(BASELINE, slow, slow | {"fit_ms": 40.0})
    assert sentence.startswith("cold_start_ratio")
    worse_twice = gate.regressions(BASELINE, BASELINE | {"compiles_load": 13}, BASELINE)
    assert [sentence.split()[0] for sentence in worse_twice] == ["compiles_load"]


@pytest.mark.parametrize("name", ["fit_ms", "compiles_load", "photo_landmarks_px"])
def test_a_figure_that_is_no_longer_measured_is_a_regression(name):
    figures = {key: value for key, value in BASELINE.items() if key != name}
    (sentence,) = gate.regressions(BASELINE, figures)
    assert sentence.startswith(name) and sentence.endswith("is missing")


def test_no_face_and_values_that_are_not_finite_are_regressions():
    assert "0 points" in worse(photo_landmarks_px=[])[0]
    nothing = [[math.nan, 0.0], [0.0, 0.0]]
    for change in ({"rendered_nme_percent": math.nan}, {"photo_landmarks_px": nothing}):
        assert len(worse(**change)) == 1


def test_figures_of_another_machine_are_not_compared():
    path = Path("base.json")
    gate.check_comparable(path, BASELINE, BASELINE | {"jax": "0.11", "samples": 1})
    others = {"network": "lite"}, {"pretrain_batch": 4}, {"refine_batch": 4}
    for change in ({"cores": 8}, {"device": "TPU"}, {"suite": "synthetic"}, {"batch": 4}, *others):
        (name,) = change
        with pytest.raises(gate.BaselineError, match=f"base.json: was measured with {name}"):
            gate.check_comparable(path, BASELINE, BASELINE | change)


@pytest.mark.parametrize("text", [None, "", "[", "[]", "{}", '{"reference_ms": 0}', "[" * 10**5])
def test_a_broken_baseline_is_named(tmp_path, text):
    path = tmp_path / "base.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(gate.BaselineError, match="base.json: .*experiments.bench"):
        gate.read_baseline(path)


def test_the_committed_baseline_holds_all_that_is_gated():
    baseline = gate.read_baseline(ROOT / "experiments/bench/baselines/cpu2.json")
    assert (baseline["suite"], baseline["cores"], baseline["compiles_again"]) == ("cpu", 2, 0)
    gated = set(gate.comparable(baseline))
    parts = ("network_lite_ms", "network_paper_ms", "fit_ms", "render_128_ms", "align_total_ms")
    assert {f"{part} / reference_ms" for part in parts} <= gated
    assert {gate.LANDMARKS, gate.NME, "compiles_load", *gate.RATIOS} <= gated
    assert gate.regressions(baseline, baseline) == []


@pytest.mark.parametrize(
    ("fit_ms", "code"), [((50.0,), 0), ((100.0, 100.0), 1), ((100.0, 50.0), 0)]
)
def test_the_program_exits_with_1_on_a_regression_after_it_printed_the_figures(
    tmp_path, monkeypatch, capsys, fit_ms, code
):
    path = tmp_path / "base.json"
    path.write_text(json.dumps(BASELINE))
    runs = [BASELINE | {"fit_ms": milliseconds} for milliseconds in fit_ms]
    later = iter(runs)
    monkeypatch.setattr(bench, "measure", lambda *_: next(later))
    values = type("Values", (), {"suite": "cpu", "batch": None, "json": "-", "gate": str(path)})
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(sys, "argv", ["bench"])
    with pytest.raises(SystemExit) as ended:
        bench.main([])
    out, err = capsys.readouterr()
    assert ended.value.code == code and json.loads(out) == runs[0]
    assert next(later, None) is None
    assert err.count("bench: fit_ms") == code


def test_a_broken_baseline_ends_the_program_before_anything_is_measured(tmp_path, monkeypatch):
    values = {"suite": "cpu", "batch": None, "json": "-", "gate": str(tmp_path / "none.json")}
    monkeypatch.setattr(flags, "FLAGS", type("Values", (), values))
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="bench: .*none.json: cannot be read"):
        bench.main([])
