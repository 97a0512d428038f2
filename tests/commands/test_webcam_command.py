"""`dfc webcam`: a camera's people, in a window or not."""

import json
import time

import cv2
import numpy as np
import pytest
from command_line import run
from faces import mean_aligner

from dfc_jax.commands import video, webcam
from dfc_jax.commands.arguments import UsageError
from dfc_jax.inference import learn
from dfc_jax.video import Frame


@pytest.fixture
def camera(monkeypatch):
    """One that gives ten pictures, and an aligner that finds the mean face in all of them."""

    class Capture:
        def __init__(self, index):
            self.left = 10

        def isOpened(self):  # noqa: N802
            return True

        def read(self):
            time.sleep(0.2)
            self.left -= 1
            return self.left >= 0, np.full((120, 160, 3), 90, np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(learn, "_together", lambda *_: (np.zeros(3), np.log(300.0)))
    monkeypatch.setattr(
        learn, "_keyframe", lambda fit: learn.Keyframe(None, fit.rotation, np.zeros(53))
    )
    monkeypatch.setattr(video, "load_aligner", lambda arguments: mean_aligner())


def test_table_without_a_window(camera, tmp_path, capsys):
    table = tmp_path / "a.jsonl"
    code, out, _ = run(capsys, "webcam", "--no-window", "--track", table)
    assert code == 0 and out.startswith("1 person in ")
    _, *frames = map(json.loads, table.read_text().splitlines())
    # Those that came while it was busy are dropped, but for the last.
    assert 1 <= len(frames) <= 10
    times = [frame["time_s"] for frame in frames]
    assert times == sorted(times)


def test_video_that_changes_its_size_leaves_what_was_done(camera, tmp_path, capsys, monkeypatch):
    class Changing:
        n_frames, live, problems = 8, False, []

        def __iter__(self):
            for number in range(8):
                yield Frame(number / 10.0, np.full((120, 160 + 10 * (number > 5), 3), 90, np.uint8))

    monkeypatch.setattr("dfc_jax.video.open_video", lambda *_: Changing())
    table = tmp_path / "a.csv"
    code, out, err = run(capsys, "video", "a.mp4", "--track", table)
    assert code == 1 and out.startswith("1 person in ")
    assert "a frame of 170 x 120 pixels follows one of 160 x 120" in err
    assert 2 <= len(table.read_text().splitlines()) <= 7
    assert list(tmp_path.iterdir()) == [table]


def test_without_a_display_the_sentence_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "tkinter", None)
    code, _, err = run(capsys, "webcam")
    assert code == 2 and "no window can be shown" in err and "--no-window" in err


def test_nothing_to_do_is_said(capsys):
    code, _, err = run(capsys, "webcam", "--no-window")
    assert code == 2 and "--no-window leaves nothing to do" in err


@pytest.fixture
def window():
    try:
        made = webcam.Window("a test")
    except UsageError as error:
        pytest.skip(str(error))
    yield made
    made.close()


class FakeDrawn:
    mesh = True


def test_keys_hide_meshes_mirror_and_end(window):
    drawn, picture = FakeDrawn(), np.zeros((20, 30, 3), np.uint8)
    assert window(drawn, picture)
    window.press("m")
    assert window(drawn, picture) and not drawn.mesh
    window.press("f")
    assert window(drawn, picture)
    window.press("q")
    assert not window(drawn, picture)


def test_pictures_are_shown_and_each_frame_asks_whether_to_go_on(camera, capsys, monkeypatch):
    shown = []

    class Watched:
        def __init__(self, title):
            pass

        def __call__(self, drawn, picture):
            shown.append(picture)
            return len(shown) < 2

    monkeypatch.setattr(webcam, "Window", Watched)
    code, out, _ = run(capsys, "webcam")
    assert code == 0 and out.startswith("1 person in 2 frames: camera 0")
    assert len(shown) == 2 and shown[0].shape == (120, 160, 3)
    # The mesh is drawn.
    assert np.ptp(shown[0].astype(int)) > 50
