"""Videos: every frame with its time, upright, with its sound; what is broken stops nothing."""

import struct
import threading
import time

import cv2
import numpy as np
import pytest

from dfc_jax.errors import VideoError
from dfc_jax.photo import write_png
from dfc_jax.video import Frame, VideoWriter, open_video, read_ahead

av = pytest.importorskip("av")

TIMES = [0.0, 0.1, 0.15, 0.4, 0.9]  # a rate that varies


def picture(level, width=64, height=48):
    """Grey, with a bright corner at the top left."""
    image = np.full((height, width, 3), level, np.uint8)
    image[:12, :12] = 250
    return image


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    with VideoWriter(path) as video:
        for number, seconds in enumerate(TIMES):
            video.write(seconds, picture(40 * number))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_what_is_written_is_read_again_with_its_times(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    with VideoWriter(path) as writer:
        for number, seconds in enumerate(TIMES):
            writer.write(seconds, picture(40 * number))
    video = open_video(path)
    frames = list(video)
    np.testing.assert_allclose([frame.time_s for frame in frames], TIMES, atol=2e-3)
    for number, frame in enumerate(frames):
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
        assert abs(float(frame.image[30:, 30:].mean()) - 40 * number) < 8
        assert frame.image[3:9, 3:9].mean() > 225
    assert video.problems == []
    assert [path.name] == [file.name for file in tmp_path.iterdir()]


def test_odd_sizes_lose_a_row_and_a_column(tmp_path):
    with VideoWriter(tmp_path / "odd.mp4") as video:
        video.write(0.0, picture(90, 65, 49))
    (frame,) = open_video(tmp_path / "odd.mp4")
    assert frame.image.shape == (48, 64, 3)


def turned(path):
    """Note a quarter turn in the header of an MP4, as a phone does that is held upright."""
    content = path.read_bytes()
    place = content.index(b"tkhd") + 4 + 40
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:place] + quarter + content[place + 36 :])


def test_rotation_tags_are_followed(clip):
    turned(clip)
    frame = next(iter(open_video(clip)))
    assert frame.image.shape == (64, 48, 3)
    # A quarter clockwise: the bright corner is at the top right.
    assert frame.image[3:9, -9:-3].mean() > 225 > frame.image[3:9, 3:9].mean()


def add_sound(path, seconds=1.0):
    """A copy of a video with a tone."""
    to = path.with_name("sounding.mp4")
    with av.open(str(path)) as given, av.open(str(to), "w") as out:
        pictures, tone = given.streams.video[0], out.add_stream("aac", rate=16_000)
        copied = out.add_stream_from_template(pictures)
        for packet in given.demux(pictures):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
        wave = np.sin(np.arange(int(16_000 * seconds)) * 0.2)[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*tone.encode(frame), *tone.encode(None)]:
            out.mux(packet)
    return to


def test_sound_is_kept(clip, tmp_path):
    sounding = add_sound(clip)
    with VideoWriter(tmp_path / "out.mp4", sound_of=sounding) as video:
        for frame in open_video(sounding):
            video.write(*frame)
    with av.open(str(tmp_path / "out.mp4")) as found:
        (sound,) = found.streams.audio
        assert sound.codec_context.name == "aac"
        assert 0.7 < float(sound.duration * sound.time_base) < 1.2
    assert len(list(open_video(tmp_path / "out.mp4"))) == len(TIMES)


def test_sound_that_the_container_does_not_take_is_left_out(clip, tmp_path):
    with VideoWriter(tmp_path / "out.webm", sound_of=add_sound(clip)) as video:
        video.write(0.0, picture(9))
    with av.open(str(tmp_path / "out.webm")) as found:
        assert not found.streams.audio


def test_what_was_written_before_an_error_is_not_taken_for_a_video(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"an earlier one")
    with pytest.raises(KeyError), VideoWriter(path) as video:
        video.write(0.0, picture(9))
        raise KeyError
    assert path.read_bytes() == b"an earlier one"
    assert len(list(tmp_path.iterdir())) == 1


def test_frames_of_another_size_are_refused(tmp_path):
    with pytest.raises(VideoError, match="one size"), VideoWriter(tmp_path / "a.mp4") as video:
        video.write(0.0, picture(9))
        video.write(0.1, picture(9, 32, 32))


def test_names_of_other_kinds_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(VideoError, match=r"a\.avi: end its name in one of \.mp4"):
        VideoWriter(tmp_path / "a.avi")
    assert not list(tmp_path.iterdir())


def test_animated_gifs_are_videos(tmp_path):
    from PIL import Image

    frames = [Image.fromarray(picture(60 * n)) for n in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=80)
    found = list(open_video(tmp_path / "a.gif"))
    np.testing.assert_allclose([frame.time_s for frame in found], 0.08 * np.arange(4), atol=1e-6)


def test_truncated_file_gives_what_is_there_and_says_so_if_that_is_nothing(clip, tmp_path):
    whole = tmp_path / "long.mkv"
    with VideoWriter(whole) as video:
        rng = np.random.default_rng(0)
        for number in range(60):
            video.write(number / 30.0, rng.integers(0, 255, (64, 64, 3), np.uint8))
    half = tmp_path / "half.mkv"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = list(open_video(half))
    assert 5 < len(frames) < 60
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    with pytest.raises(VideoError, match=r"text\.mp4: not a video that can be read .*; copy"):
        open_video(text)


def test_file_that_breaks_off_is_named_with_what_is_missing(tmp_path):
    whole, rng = tmp_path / "whole.mp4", np.random.default_rng(0)
    # The index first, as in what is downloaded from the web: the rest can be cut off.
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 64
        for _ in range(60):
            image = rng.integers(0, 255, (64, 64, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    complete = open_video(whole)
    assert len(list(complete)) == 60 and complete.problems == []
    half = tmp_path / "half.mp4"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    video = open_video(half)
    n_frames = len(list(video))
    assert 5 < n_frames < 40
    expected = f"{half}: the file breaks off after {n_frames} of 60 frames; copy it again"
    assert video.problems == [expected]


def test_last_frame_that_stays_long_is_no_file_that_breaks_off(tmp_path):
    path = tmp_path / "slides.mp4"
    with VideoWriter(path) as writer:
        for seconds in (0.0, 4.0, 8.0):
            writer.write(seconds, picture(90))
    video = open_video(path)
    assert len(list(video)) == 3 and video.problems == []


def test_damaged_pieces_are_left_out_and_named(tmp_path):
    path = tmp_path / "clip.mkv"
    with VideoWriter(path) as video:
        rng = np.random.default_rng(0)
        for number in range(40):
            video.write(number / 30.0, rng.integers(0, 255, (64, 64, 3), np.uint8))
    content = bytearray(path.read_bytes())
    # Over the middle of the file, not its index.
    middle = slice(len(content) // 2, len(content) // 2 + 3000)
    content[middle] = bytes(rng.integers(0, 255, 3000, np.uint8))
    path.write_bytes(content)
    video = open_video(path)
    times = [frame.time_s for frame in video]
    assert len(times) >= 15
    assert np.all(np.diff(times) > 0)


def test_sound_alone_is_no_video(tmp_path, clip):
    sounding, alone = add_sound(clip), tmp_path / "alone.mp4"
    with av.open(str(sounding)) as given, av.open(str(alone), "w") as out:
        copied = out.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(given.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
    with pytest.raises(VideoError, match=r"alone\.mp4: there are no pictures in it"):
        open_video(alone)


def test_pictures_come_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 1):
        write_png(tmp_path / f"frame{number}.png", picture(10 * number))
    (tmp_path / "notes.txt").write_text("no picture")
    for source in (tmp_path, tmp_path / "frame*.png"):
        video = open_video(source, fps=10.0)
        assert video.n_frames == 3
        frames = list(video)
        assert [int(frame.image[-1, -1, 0]) for frame in frames] == [10, 90, 100]
        np.testing.assert_allclose([frame.time_s for frame in frames], [0.0, 0.1, 0.2])


def test_picture_that_cannot_be_read_is_left_out_and_named(tmp_path):
    write_png(tmp_path / "1.png", picture(10))
    (tmp_path / "2.png").write_bytes(b"broken")
    write_png(tmp_path / "3.png", picture(30))
    video = open_video(tmp_path, fps=10.0)
    assert [frame.time_s for frame in video] == [0.0, 0.2]
    (problem,) = video.problems
    assert "2.png" in problem


def test_picture_of_another_size_is_left_out_and_named(tmp_path):
    for number, width in enumerate((64, 32, 64)):
        write_png(tmp_path / f"{number}.png", picture(10 * number, width))
    video = open_video(tmp_path, fps=10.0)
    assert [frame.time_s for frame in video] == [0.0, 0.2]
    (problem,) = video.problems
    assert problem.startswith(f"{tmp_path / '1.png'}: a picture of 32 x 48 pixels after one of 64")


def test_missing_things_are_named(tmp_path):
    with pytest.raises(VideoError, match=r"none\.mp4: there is no such file"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="there are no pictures"):
        open_video(tmp_path)
    with pytest.raises(VideoError, match="positive number"):
        open_video(tmp_path, fps=0.0)
    with pytest.raises(VideoError, match="camera 97: there is none"):
        open_video(97)


def test_missing_camera_is_one_sentence_without_what_opencv_says(capfd):
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(VideoError, match="camera 97: there is none"):
        open_video(97)
    assert capfd.readouterr() == ("", "")
    assert cv2.utils.logging.getLogLevel() == level


def test_without_pyav_the_sentence_says_what_to_install(clip, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(VideoError, match=r"pip install 'dfc-jax\[video\]'"):
        open_video(clip)


def test_frames_are_read_ahead_in_order_and_no_more_than_asked_for():
    made = []

    def frames():
        for number in range(20):
            made.append(number)
            yield number

    ahead = read_ahead(frames(), count=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5.0
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(made) <= 5
    assert list(ahead) == list(range(1, 20))


def test_of_live_frames_the_newest_are_kept_and_the_last_is_never_lost():
    first_is_taken, all_were_given = threading.Event(), threading.Event()

    def frames():
        yield 0
        first_is_taken.wait(60.0)
        yield from range(1, 50)
        all_were_given.set()

    ahead = read_ahead(frames(), count=1, live=True)
    assert next(ahead) == 0
    first_is_taken.set()
    assert all_were_given.wait(60.0)
    assert list(ahead) == [49]


def test_errors_of_the_source_arrive_after_what_it_gave():
    def frames():
        yield 1
        raise VideoError("broken")

    ahead = read_ahead(frames())
    assert next(ahead) == 1
    with pytest.raises(VideoError, match="broken"):
        next(ahead)


def test_source_is_left_when_nobody_wants_more():
    ahead = read_ahead(iter(lambda: Frame(0.0, picture(1)), None), count=2)
    next(ahead)
    ahead.close()
    deadline = time.monotonic() + 5.0
    names = lambda: [thread.name for thread in threading.enumerate()]  # noqa: E731
    while "dfc-frames" in names() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "dfc-frames" not in names()


def test_camera_that_ends_ends_the_video(monkeypatch):
    class Capture:
        def __init__(self, index):
            self.left = 3

        def isOpened(self):  # noqa: N802
            return True

        def read(self):
            self.left -= 1
            return self.left >= 0, np.dstack(
                [np.full((4, 4), level, np.uint8) for level in (1, 2, 3)]
            )

        def release(self):
            self.left = 0

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    frames = list(open_video(0))
    assert len(frames) == 3
    # OpenCV's blue comes first.
    assert frames[0].image[0, 0].tolist() == [3, 2, 1]
    assert np.all(np.diff([frame.time_s for frame in frames]) >= 0)
