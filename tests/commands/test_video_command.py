"""`dfc video`: tables and videos of the people of a video."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import run
from footage import Actor, Studio

from dfc_jax.export.records import SCHEMA_VERSION
from dfc_jax.video import VideoWriter, open_video

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(model, tmp_path_factory):
    """Two people, of whom one turns; ten frames a second."""
    path, studio = tmp_path_factory.mktemp("clip") / "clip.mp4", Studio(model)
    with VideoWriter(path) as video:
        for number in range(8):
            turning = Actor(1, (5.0 * number - 20.0, 0.0, 0.0), (-90.0, 0.0, 800.0))
            other = Actor(2, (-10.0, 0.0, 0.0), (90.0, 0.0, 800.0))
            video.write(number / 10.0, studio.film([turning, other], 1)[0])
    return path


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_table_has_a_row_for_each_face_of_each_frame(capsys, clip, tmp_path, model):
    results = "--track", tmp_path / "a.csv", "--out", tmp_path / "a.mp4"
    code, out, _ = run(capsys, "video", clip, *results)
    assert code == 0
    assert out.startswith("2 people in 8 frames: ")
    found = rows(tmp_path / "a.csv")
    assert [int(row["frame"]) for row in found] == np.repeat(np.arange(8), 2).tolist()
    assert [row["person"] for row in found] == ["1", "2"] * 8
    assert {row["status"] for row in found} <= {"ok", "uncertain"}
    np.testing.assert_allclose([float(row["time_s"]) for row in found[::2]], np.arange(8) / 10)
    # Whoever is at the left turns.
    turning = min(("1", "2"), key=lambda who: float(found[int(who) - 1]["x30_px"]))
    yaws = [float(row["yaw_deg"]) for row in found if row["person"] == turning]
    assert 20.0 < yaws[-1] - yaws[0] < 45.0
    assert set(model.expression_names) <= set(found[0])
    frames = list(open_video(tmp_path / "a.mp4"))
    assert len(frames) == 8
    # The faces are drawn.
    drawn = np.abs(frames[0].image.astype(float) - next(iter(open_video(clip))).image)
    assert (drawn.max(axis=-1) > 40).mean() > 0.05


@pytest.mark.slow
def test_lines_hold_all_that_align_writes(capsys, clip, tmp_path):
    options = "--max-people", "1", "--raw"
    code, *_ = run(capsys, "video", clip, "--track", tmp_path / "a.jsonl", *options)
    assert code == 0
    head, *frames = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert head["schema_version"] == SCHEMA_VERSION and head["video"].endswith("clip.mp4")
    assert [frame["frame"] for frame in frames] == list(range(8))
    for frame in frames:
        (face,) = frame["people"]
        assert face["person"] == 1
        assert len(face["landmarks_px"]) == 68
        assert face["principal_point_px"] == [159.5, 159.5]
        assert face["detector"]["kind"] == "followed"


COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
from dfc_jax import cli
sys.exit(cli.main())
"""


@pytest.mark.slow
def test_interrupt_leaves_what_was_done_until_then(model, tmp_path):
    long = tmp_path / "long.mp4"
    image = Studio(model).film([Actor(1, (0.0, 0.0, 0.0), (0.0, 0.0, 700.0))], 1)[0]
    with VideoWriter(long) as video:
        for number in range(3000):
            video.write(number / 25.0, image)
    out, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    words = ["video", str(long), "--out", str(out), "--track", str(table)]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    try:
        deadline = time.monotonic() + 240.0
        asides = lambda: [f for f in tmp_path.glob(".out.*.csv") if f.stat().st_size > 50_000]  # noqa: E731
        while not asides():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, errors
    assert "complete up to there" in errors
    frames, found = list(open_video(out)), rows(table)
    assert 10 < len(found) < 3000
    assert abs(len(frames) - len(found)) <= 4
    assert not list(tmp_path.glob(".out*"))


def test_mistakes_are_one_sentence_and_leave_nothing(capsys, tmp_path, clip):
    cases = [
        (["video", clip], "nothing to write; give --out"),
        (["video", tmp_path / "none.mp4", "--track", tmp_path / "a.csv"], "there is no such file"),
        (["video", clip, "--track", tmp_path / "a.txt"], "end its name in one of .csv, .jsonl"),
        (["video", clip, "--out", tmp_path / "a.avi"], "end its name in one of .mp4"),
        (["video", clip, "--out", tmp_path / "no" / "a.mp4"], "there is no such folder"),
        (["video", clip, "--out", clip], "this is the video itself"),
        (["video", clip, "--glb", tmp_path / "a.obj"], "a.obj: end its name in .glb"),
        (
            ["video", clip, "--track", tmp_path / "a.csv", "--livelink", tmp_path / "a.csv"],
            "two results would go there",
        ),
        (
            ["video", clip, "--fps", "24", "--track", tmp_path / "a.csv"],
            "--fps is for pictures, a video has its own times",
        ),
        (["video", tmp_path, "--track", tmp_path / "a.csv"], "there are no pictures"),
        (["video", clip, "--track", tmp_path / "a.csv", "--max-people", "0"], "whole number"),
    ]
    for words, sentence in cases:
        code, _, err = run(capsys, *words)
        assert code == 2, words
        assert sentence in err and err.count("\n") == 1, err
        assert not list(tmp_path.iterdir())
