"""The folder of a run: whose it is, and what it says."""

import json
import logging
import os
from pathlib import Path

import pytest

from dfc_jax.errors import ConfigError
from dfc_jax.training.workdir import Workdir, open_workdir, time_of, write_config

METADATA = {"stage": "pretrain", "network": "lite-tied", "face_model": "1"}
CONFIG = {"steps": 300, "synthetic": {"yaw_deg": 30.0, "distance_mm": (350.0, 2500.0)}}


def a_run(folder: Path, config=CONFIG, **changes) -> None:
    """What a run that got as far as step 20 leaves."""
    workdir = open_workdir(folder, config, METADATA | changes)
    write_config(workdir)
    (workdir.checkpoints / "20").mkdir(parents=True)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-o")])
def test_a_folder_that_cannot_be_written_is_named(error, tmp_path, monkeypatch) -> None:
    def fail(*_, **__):
        raise error

    a_run(tmp_path)
    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(ConfigError, match=f"{tmp_path}: cannot be written .{error.args[1]}"):
        open_workdir(tmp_path, CONFIG, METADATA)


@pytest.mark.parametrize("name", METADATA)
def test_the_folder_of_another_run_is_left_alone(name, tmp_path: Path) -> None:
    a_run(tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ConfigError, match=f"a run with {name} '{METADATA[name]}', this .*'o'"):
        open_workdir(tmp_path, CONFIG, METADATA | {name: "o"})
    assert (tmp_path / "config.json").read_text() == before
    # Without checkpoints there is nothing to lose.
    (tmp_path / "checkpoints" / "20").rmdir()
    open_workdir(tmp_path, CONFIG, METADATA | {name: "o"})


def test_checkpoints_without_their_config_are_left_alone(tmp_path: Path) -> None:
    a_run(tmp_path)
    for broken in ("", "[]", None):
        (tmp_path / "config.json").unlink()
        if broken is not None:
            (tmp_path / "config.json").write_text(broken)
        with pytest.raises(ConfigError, match="no readable config.json"):
            open_workdir(tmp_path, CONFIG, METADATA)
        (tmp_path / "config.json").touch()


def test_settings_that_change_in_a_resumed_run_are_reported(tmp_path: Path, caplog) -> None:
    a_run(tmp_path)
    with caplog.at_level(logging.WARNING):
        open_workdir(tmp_path, CONFIG, METADATA)
        assert not caplog.records
        changed = {**CONFIG, "synthetic": {**CONFIG["synthetic"], "yaw_deg": 3.0}}
        open_workdir(tmp_path, changed, METADATA)
    (record,) = caplog.records
    assert "config.synthetic.yaw_deg 3.0; until now it was" in record.getMessage()


def test_config_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    a_run(tmp_path)
    before = (tmp_path / "config.json").read_text()
    assert json.loads(before)["network"] == "lite-tied"
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_config(Workdir(tmp_path, CONFIG, {"network": "other"}))
    assert (tmp_path / "config.json").read_text() == before


def test_times_are_said_as_people_say_them() -> None:
    times = [time_of(seconds) for seconds in (0.4, 59, 90, 3600, 7500)]
    assert times == ["0 s", "59 s", "2 min", "1 h 00 min", "2 h 05 min"]
