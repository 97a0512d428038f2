"""Where the time goes: what belongs to which stage; never how long anything takes."""

import json
from types import SimpleNamespace

import cv2
import pytest
from absl import flags
from faces import mean_aligner
from paths import ASTRONAUT

import dfc_jax
from dfc_jax.commands.align import OUTPUTS
from experiments.bench import stages as bench_stages

RUN = {"read": 2.0, "detect": 80.0, "align": 40.0, "overlay": 30.0, "together": 60.0}


@pytest.fixture
def call(monkeypatch):
    """The program, with flags and files."""

    def run(*files: object, json: object = None, draw: object = None) -> None:
        values = {"json": json and str(json), "draw": draw and str(draw)}
        monkeypatch.setattr(flags, "FLAGS", SimpleNamespace(**values))
        bench_stages.main(["stages", *map(str, files)])

    return run


def test_every_stage_of_a_photograph_is_measured(call, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(dfc_jax, "load", mean_aligner)
    call(ASTRONAUT, json=tmp_path / "run.json")
    found = json.loads((tmp_path / "run.json").read_text())
    assert set(found) == {*bench_stages.PARTS, *OUTPUTS}
    assert found["together"] > 0.0


def test_runs_are_drawn_below_each_other(call, tmp_path) -> None:
    for name in ("before", "after"):
        (tmp_path / f"{name}.json").write_text(json.dumps(RUN))
    call(tmp_path / "before.json", draw=tmp_path / "one.png")
    call(tmp_path / "before.json", tmp_path / "after.json", draw=tmp_path / "two.png")
    one, two = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("one", "two"))
    assert len(two) > len(one)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"read": 1.0}'])
def test_a_file_that_is_no_run_is_named(call, content, tmp_path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(SystemExit, match=r"stages: .*run.json: no file of an earlier run; make it"):
        call(tmp_path / "run.json", draw=tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_a_photograph_that_cannot_be_read_ends_the_program(call, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(dfc_jax, "load", mean_aligner)
    with pytest.raises(SystemExit, match=r"stages: .*none.jpg: "):
        call(tmp_path / "none.jpg", json="-")


def test_flags_that_do_not_go_together_are_refused(call, tmp_path) -> None:
    for values in ({}, {"json": "-", "draw": tmp_path / "out.png"}):
        with pytest.raises(SystemExit, match="give --json with photographs, or --draw"):
            call(ASTRONAUT, **values)
