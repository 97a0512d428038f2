"""Times: what is counted, how it is summed up; never how long anything takes."""

import time

import jax
import numpy as np
import pytest

from dfc_jax.evaluation import runtime
from dfc_jax.evaluation.runtime import machine_facts, sample_ms, spread


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when it is told to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def call_of(clock, seconds, log):
    def call():
        log.append(seconds)
        # The first call compiles.
        clock[0] += seconds + (100.0 if log.count(seconds) == 1 else 0.0)

    return call


def test_warm_up_does_not_count_and_calls_take_turns(clock) -> None:
    log: list[float] = []
    calls = [call_of(clock, seconds, log) for seconds in (0.001, 0.003)]
    samples = sample_ms(calls, repeats=5, seconds=1e9)
    np.testing.assert_allclose(samples, [1.0, 3.0, 1.0, 3.0, 1.0])
    assert log == [0.001] * 2 + [0.003] * 2 + [0.001, 0.003, 0.001, 0.003, 0.001]


def test_slow_calls_end_early_but_each_counts(clock) -> None:
    for n, expected in ((1, 3), (5, 5)):
        calls = [call_of(clock, 2.0 + k, []) for k in range(n)]
        assert len(sample_ms(calls, repeats=50, seconds=1.0)) == expected


def test_a_stage_has_median_and_percentiles_per_one_of_a_batch() -> None:
    found = spread(np.arange(0.0, 101.0), "face", count=2)
    assert found == {
        "per": "face",
        "median_ms": 25.0,
        "p10_ms": 5.0,
        "p90_ms": 45.0,
        "samples": 101,
    }


def test_the_machine_is_named() -> None:
    facts = machine_facts()
    assert facts["jax"] == jax.__version__ and facts["device"] == jax.devices()[0].device_kind
    assert facts["cores"] >= 1 and facts["processor"]


def test_a_machine_that_tells_nothing_still_has_a_name(monkeypatch) -> None:
    def read_text(path):
        raise FileNotFoundError

    monkeypatch.setattr(runtime.Path, "read_text", read_text)
    monkeypatch.setattr(runtime.platform, "processor", lambda: "a processor")
    assert runtime.processor() == "a processor"
