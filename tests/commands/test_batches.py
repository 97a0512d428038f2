"""`dfc align` of many photographs: folders, parts of them, going on after a run was cut off."""

import csv
import io
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import names_in, photo, run
from faces import mean_aligner
from paths import ROOT, extra_module
from PIL import Image

import dfc_jax
from data_pipelines.faces import export, synthetic
from dfc_jax import cli
from dfc_jax.commands.align import _NO_SETTINGS
from dfc_jax.commands.clock import Clock
from dfc_jax.commands.logs import logging_to_terminal
from dfc_jax.export.summary import COLUMNS

LISTED = ("--outputs", "json")


@pytest.fixture
def aligned(monkeypatch):
    """What was aligned, by the size of the picture, without a network."""
    sizes = []

    class Whole:
        def __call__(self, image):
            sizes.append(image.shape[1])
            return found(image)

    aligner = mean_aligner()
    found, aligner.detector = aligner.detector, Whole()
    monkeypatch.setattr(dfc_jax, "load", lambda **_: aligner)
    return sizes


@pytest.fixture
def folder(tmp_path):
    """Six photographs, 40 to 45 pixels wide, two of one name."""
    for number, name in enumerate(
        ("a.png", "b.png", "x/c.png", "x/d.png", "x/y/a.png", "x/y/e.png")
    ):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        photo(tmp_path / "photos" / name, (40 + number, 60))
    return tmp_path / "photos"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_shards_write_what_a_whole_run_writes(tmp_path, folder, aligned, capsys):
    assert run(capsys, "align", folder, "--out", tmp_path / "whole")[0] == 0
    aligned.clear()
    # The two of one name are in the first and the last.
    for number in (2, 5, 1, 3, 4):
        out = ("--out", tmp_path / "parts", "--shard", f"{number}/5")
        assert run(capsys, "align", folder, *out)[0] == 0
    assert sorted(aligned) == [40, 41, 42, 43, 44, 45]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert {"photos_a.json", "y_a.json"} <= names_in(tmp_path / "parts")


def test_a_shard_without_a_photograph_is_no_mistake(tmp_path, folder, aligned, capsys):
    code, out, err = run(capsys, "align", folder, "--out", tmp_path / "out", "--shard", "9/9")
    assert (code, err) == (0, "")
    assert "0 faces in 0 of 0 photographs" in out


def test_a_run_replaces_results_unless_it_resumes(tmp_path, folder, aligned, capsys):
    command = ("align", folder, "--out", tmp_path / "out", *LISTED)
    for _ in range(2):
        assert run(capsys, *command)[0] == 0
        assert sorted(aligned) == [40, 41, 42, 43, 44, 45]
        aligned.clear()
    (tmp_path / "out" / "c.json").unlink()
    photo(folder / "b.png", (50, 60))
    code, out, err = run(capsys, *command, "--resume")
    assert (code, err, sorted(aligned)) == (0, "", [42, 50])
    assert "6 faces in 6 of 6 photographs (4 done before)" in out
    aligned.clear()
    assert run(capsys, *command, "--resume")[0] == 0
    assert aligned == []
    # Another setting, other results.
    assert run(capsys, *command, "--resume", "--recrop", "0")[0] == 0
    assert len(aligned) == 6


def test_resuming_answers_as_the_whole_run_would(tmp_path, folder, aligned, capsys):
    photo(folder / "pixel.png", (1, 1))
    command = ("align", folder, "--out", tmp_path / "out", *LISTED, "--resume")
    assert run(capsys, *command)[0] == 3
    code, out, _ = run(capsys, *command)
    assert code == 3
    assert "6 faces in 6 of 7 photographs (7 done before)" in out
    (folder / "text.png").write_text("no photograph")
    assert [run(capsys, *command)[0] for _ in range(2)] == [1, 1]


def test_a_box_is_a_setting_and_resumes(tmp_path, folder, aligned, capsys):
    command = ("align", folder / "a.png", "--out", tmp_path, *LISTED, "--resume", "--box")
    counts = [run(capsys, *command, box)[1] for box in ("1,2,30,30", "1,2,30,30", "1,2,30,31")]
    assert ["done before" in count for count in counts] == [False, True, False]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("outputs", ["json", "mask"])
def test_the_summary_is_complete_over_resumed_runs(
    tmp_path, folder, aligned, capsys, suffix, outputs
):
    if suffix == "parquet":
        extra_module("pyarrow", "tables")
    photo(folder / "pixel.png", (1, 1))
    (folder / "text.png").write_text("no photograph")
    table, missing = tmp_path / f"faces.{suffix}", tmp_path / "no.png"
    command = ["align", folder, missing, "--out", tmp_path / "out", "--outputs", outputs]
    command += ["--summary", table, "--resume"]
    assert run(capsys, *command)[0] == 1
    first = table.read_bytes()
    (tmp_path / f".faces.0123abcd.{suffix}").touch()
    (tmp_path / "out" / "a.json").unlink(missing_ok=True)
    assert run(capsys, *command)[0] == 1
    assert table.read_bytes() == first
    assert not list(tmp_path.glob(".faces.*"))
    if suffix == "csv":
        found = rows(table)
    else:
        found = extra_module("pyarrow.parquet", "tables").read_table(table).to_pylist()
    assert len(found) == 9
    assert list(found[0]) == list(COLUMNS)
    by_file = {Path(row["file"]).relative_to(tmp_path).as_posix(): row for row in found}
    face = by_file["photos/x/c.png"]
    assert (face["name"], face["photo_status"], face["status"]) == ("c", "ok", "ok")
    assert (int(face["width"]), int(face["face"])) == (42, 1)
    assert float(face["residual_crop_px"]) == 0.5
    assert not face["error"]
    assert by_file["photos/pixel.png"]["photo_status"] == "no_face"
    assert not by_file["photos/pixel.png"]["face"]
    for name, words in (("photos/text.png", "not an image"), ("no.png", "no such file")):
        assert by_file[name]["photo_status"] == "failed"
        assert words in by_file[name]["error"]


def test_a_summary_says_what_the_json_says(tmp_path, folder, aligned, capsys):
    table = tmp_path / "faces.csv"
    out = ("--out", tmp_path / "out", *LISTED, "--summary", table)
    boxes = ("--box", "1,2,20,30", "--box", "5,6,20,22.5")
    assert run(capsys, "align", folder / "a.png", *out, *boxes)[0] == 0
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    for number, (row, face) in enumerate(zip(rows(table), record["faces"], strict=True), start=1):
        assert int(row["face"]) == number
        for edge, value in zip(("x", "y", "width", "height"), face["box"], strict=True):
            assert float(row[f"box_{edge}"]) == value
        for angle, value in face["angles_deg"].items():
            assert float(row[f"{angle}_deg"]) == value
        for axis, value in zip("xyz", face["translation_mm"], strict=True):
            assert float(row[f"translation_{axis}_mm"]) == value
        for name in ("focal_px", "residual_px", "matchable_share", "status"):
            assert row[name] == str(face[name])
        assert float(row["score"]) == face["detector"]["score"]


def test_without_pyarrow_a_parquet_summary_is_one_sentence(tmp_path, folder, monkeypatch, capsys):
    monkeypatch.setattr("dfc_jax.export.summary.find_spec", lambda name: None)
    table = tmp_path / "t.parquet"
    code, _, err = run(capsys, "align", folder, "--out", tmp_path / "out", "--summary", table)
    assert code == 2
    assert "t.parquet: Parquet needs pyarrow" in err
    assert "dfc-jax[tables]" in err
    assert err.count("\n") == 1


def test_a_list_comes_from_standard_input(tmp_path, folder, aligned, monkeypatch, capsys):
    names = b"\0".join(os.fsencode(folder / name) for name in ("a.png", "x/c.png"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names)))
    assert run(capsys, "align", "-", "--out", tmp_path / "out", *LISTED)[0] == 0
    assert names_in(tmp_path / "out") == {"a.json", "c.json"}


def test_every_argument_is_a_setting_or_known_not_to_be_one():
    arguments = cli._parser().parse_args(["align", "a.png", "--out", "o"])
    assert set(vars(arguments)) >= _NO_SETTINGS
    settings = set(vars(arguments)) - _NO_SETTINGS
    assert {"detector", "detector_model", "min_face", "recrop", "flip_test", "box"} <= settings


def test_quiet_says_what_went_wrong_and_verbose_where_the_time_goes(
    tmp_path, folder, aligned, capsys
):
    photo(folder / "pixel.png", (1, 1))
    command = ("align", folder, "--out", tmp_path / "out", *LISTED)
    assert run(capsys, *command, "--quiet") == (3, "", "")
    code, out, err = run(capsys, *command)
    assert (code, err.count("\n"), out.count("\n")) == (3, 1, 1)
    code, out, err = run(capsys, *command, "--verbose")
    assert (code, out.count("\n")) == (3, 1)
    assert "dfc: weights: fake" in err
    assert re.search(r"7 photographs in [\d.]+ s: [\d.]+ a second", err)
    shares = [int(share) for share in re.findall(r"(?:read|detect|solve|write) (\d+) %", err)]
    assert len(shares) == 4
    assert 90 <= sum(shares) <= 102
    (folder / "text.png").write_text("no photograph")
    code, out, err = run(capsys, *command, "--quiet")
    assert (code, out, err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize(("how", "words"), [((), "1 pair in"), (("-q",), ""), (("-v",), "face_")])
def test_synth_is_as_quiet_as_it_is_told_to_be(tmp_path, monkeypatch, capsys, how, words):
    monkeypatch.setattr(synthetic, "load_assets", lambda *_: None)
    monkeypatch.setattr(export, "export_pairs", lambda *_: None)
    code, out, err = run(capsys, "synth", "--out", tmp_path / "o", "--count", "1", *how)
    assert code == 0
    assert words in out + err if words else out + err == ""


def test_logs_are_set_up_by_the_command_and_for_it_alone(tmp_path, folder, aligned, capsys):
    log = logging.getLogger("dfc_jax")
    before = log.handlers[:], log.level, logging.getLogger("jax").level
    assert run(capsys, "align", folder, "--out", tmp_path / "out", "-v")[0] == 0
    assert (log.handlers, log.level, logging.getLogger("jax").level) == before
    code = "import logging, dfc_jax; logging.getLogger('dfc_jax.x').warning('heard')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("verbosity", "heard"), [(-1, False), (0, False), (1, True)])
def test_what_jax_warns_of_is_heard_by_those_who_asked_for_it(verbosity, heard):
    log = logging.getLogger("jax._src.xla_bridge")
    with logging_to_terminal(verbosity, whole_process=False):
        assert log.isEnabledFor(logging.WARNING) == heard
        assert log.isEnabledFor(logging.ERROR)


def test_a_stage_does_not_count_what_lies_in_it() -> None:
    times = iter([0.0, 1.0, 5.0, 6.0, 10.0, 12.0])
    clock = Clock(lambda: next(times))
    with clock.stage("outer"), clock.stage("inner"):
        pass
    with clock.stage("outer"):
        pass
    assert clock.seconds == {"inner": 4.0, "outer": 2.0 + 2.0}
    assert clock.shares() in ("inner 50 %, outer 50 %", "outer 50 %, inner 50 %")


# Tells of every photograph that it begins to align.
PROGRAM = """
import os, sys
from faces import mean_aligner
import dfc_jax
from dfc_jax import cli
from dfc_jax.inference.detect import WholeImage

class Telling(WholeImage):
    def __call__(self, image):
        os.write(log, b"%d\\n" % image.shape[1])
        return super().__call__(image)

log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
dfc_jax.load = lambda **_: mean_aligner(Telling())
sys.exit(cli.main())
"""


def begun(log):
    return log.read_text().split() if log.exists() else []


def noise_photos(folder, count):
    """Small pictures, 100 pixels wide and more."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(count):
        pixels = noise.integers(0, 255, (50, 100 + number, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def started(folder, out, *arguments):
    """A `dfc align` of the photographs in `folder`, which tells in ``OUT.log`` what it begins."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", PROGRAM, f"{out}.log", "align", "photos", "--out", out]
    return subprocess.Popen([*command, "--quiet", *arguments], cwd=folder, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["json,mask", "mask"])
def test_shards_that_run_at_the_same_time_write_what_a_whole_run_writes(tmp_path, outputs):
    noise_photos(tmp_path / "photos", 30)
    assert started(tmp_path, "whole", "--outputs", outputs).wait() == 0
    shards = [
        started(tmp_path, "parts", "--outputs", outputs, "--shard", f"{n}/3") for n in (1, 2, 3)
    ]
    assert [shard.wait() for shard in shards] == [0, 0, 0]
    assert sorted(begun(tmp_path / "parts.log")) == sorted(begun(tmp_path / "whole.log"))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["json,mask,npz", "mask,flow"])
def test_a_run_that_is_killed_again_and_again_gives_what_an_undisturbed_one_gives(
    tmp_path, outputs
):
    """And aligns nothing twice but what it had under way."""
    rng, count, kills = random.Random(len(outputs)), 80, 5
    noise_photos(tmp_path / "photos", count)

    def start(out):
        options = ("--outputs", outputs, "--resume", "--summary", f"{out}.csv")
        return started(tmp_path, out, *options)

    def done():
        return [path.stem for path in (tmp_path / "killed").rglob("[0-9][0-9][0-9].json")]

    assert start("whole").wait() == 0
    assert sorted(begun(tmp_path / "whole.log")) == [str(100 + n) for n in range(count)]
    log, twice = tmp_path / "killed.log", Counter()
    for _ in range(kills):
        before, finished = begun(log), set(done())
        process = start("killed")
        # Somewhere among the next few.
        until = len(before) + rng.randint(1, 6)
        while process.poll() is None and len(begun(log)) < until:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.03))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        again = {f"{int(width) - 100:03}" for width in begun(log)[len(before) :]}
        assert not again & finished
        twice.update(again - set(done()))
    unfinished = count - len(done())
    assert unfinished > 0
    before = begun(log)
    assert start("killed").wait() == 0
    assert len(begun(log)) - len(before) == unfinished
    times = {width: 1 + twice[f"{int(width) - 100:03}"] for width in begun(log)}
    assert Counter(begun(log)) == times
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
