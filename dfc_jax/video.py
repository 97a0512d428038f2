"""Reading videos, image sequences and cameras frame by frame, and writing videos.

Files are decoded and encoded by PyAV (the extra ``video``), which brings FFmpeg's libraries along;
it knows every frame's time, the rotation that a phone has noted, and the sound. Image sequences
need nothing, cameras OpenCV.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from glob import glob, has_magic
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import cv2
import numpy as np

from dfc_jax.errors import PhotoError, VideoError
from dfc_jax.files import written_aside
from dfc_jax.photo import read_photo

T = TypeVar("T")

# Of what says nothing about its rate.
USUAL_FPS = 30.0
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
# Codec and options by suffix. These players open everywhere.
_H264 = ("libx264", {"crf": "20", "preset": "veryfast"})
_CODECS = {
    ".mp4": _H264,
    ".mov": _H264,
    ".mkv": _H264,
    ".webm": ("libvpx-vp9", {"crf": "32", "b:v": "0", "deadline": "realtime", "cpu-used": "8"}),
}
WRITTEN_SUFFIXES = tuple(_CODECS)
_TICKS = 90_000  # a second, of the videos we write
# What a file may promise and not hold: lengths of some kinds are rounded.
_MISSING_S = 0.5
_BREAKS_OFF = "{}: the file breaks off after {} of {} frames; copy it again"
_OTHER_SIZE = "{}: a picture of {} x {} pixels after one of {} x {}; give all of them one size"
_NEEDS_AV = "reading and writing videos needs PyAV; pip install 'dfc-jax[video]'"


class Frame(NamedTuple):
    """A picture of a video.

    Attributes:
      time_s: since the first one; later than that of the frame before.
      image: (H, W, 3) uint8 RGB, upright.
    """

    time_s: float
    image: np.ndarray


class Video(Protocol):
    """Frames, once through.

    Attributes:
      n_frames: about how many, where that is known.
      live: whether they come by themselves, and those that nobody has time for are to be dropped.
      problems: what was left out and why, a sentence each; complete after the last frame.
    """

    n_frames: int | None
    live: bool
    problems: list[str]

    def __iter__(self) -> Iterator[Frame]: ...


def open_video(source: str | os.PathLike[str] | int, fps: float | None = None) -> Video:
    """The frames of a video.

    Args:
      source: a file (also an animated GIF), a folder of pictures, their pattern
        (``frames/*.png``), or the number of a camera.
      fps: pictures a second of a sequence of pictures (30); a video knows its own times.

    Raises:
      VideoError: there is no such thing, it holds no pictures, or PyAV is missing. Damaged frames
        are left out and named in `Video.problems`.
    """
    if isinstance(source, int):
        return _Camera(source)
    path = Path(source)
    if path.is_dir() or (has_magic(str(path)) and not path.exists()):
        return _Pictures(path, USUAL_FPS if fps is None else fps)
    if not path.exists():
        raise VideoError(f"{path}: there is no such file; check the path")
    return _File(path)


class _Pictures:
    """Pictures of a folder or a pattern, in the order of the numbers in their names."""

    def __init__(self, path: Path, fps: float) -> None:
        if not (math.isfinite(fps) and fps > 0):
            raise VideoError(f"{path}: pictures need a positive number a second; got {fps:g}")
        found = list(path.iterdir()) if path.is_dir() else [Path(file) for file in glob(str(path))]
        pictures = [file for file in found if file.suffix.lower() in _PICTURES]
        self._files = sorted(pictures, key=lambda file: _in_order(file.name))
        if not self._files:
            raise VideoError(f"{path}: there are no pictures; check the path")
        self._path, self._fps, self.live = path, fps, False
        self.n_frames: int | None = len(self._files)
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        size = None
        for number, file in enumerate(self._files):
            try:
                image = read_photo(file)
            except PhotoError as error:
                self.problems.append(str(error))
                continue
            height, width = image.shape[:2]
            size = (width, height) if size is None else size
            if size == (width, height):
                yield Frame(number / self._fps, image)
            else:
                self.problems.append(_OTHER_SIZE.format(file, width, height, *size))
        if len(self.problems) == len(self._files):
            raise VideoError(f"{self._path}: none of the pictures can be read; check the first")


def _in_order(name: str) -> list[tuple[int, str]]:
    """A key that puts ``2.png`` before ``10.png``."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


class _File:
    """A file that PyAV decodes."""

    def __init__(self, path: Path) -> None:
        self._path, self.live = path, False
        self.problems: list[str] = []
        with self._opened() as container:
            stream = container.streams.video[0]
            self._rate = float(stream.average_rate or USUAL_FPS)
            seconds = (container.duration or 0) / 1e6
            self.n_frames: int | None = stream.frames or round(seconds * self._rate) or None

    def _opened(self) -> Any:
        av = _av()
        try:
            container = av.open(os.fspath(self._path))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise VideoError(
                f"{self._path}: not a video that can be read ({_reason(error)}); copy it again, or "
                "convert it to MP4"
            ) from error
        if not container.streams.video:
            container.close()
            raise VideoError(f"{self._path}: there are no pictures in it, only sound")
        return container

    def __iter__(self) -> Iterator[Frame]:
        av = _av()
        with self._opened() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            first, last, number, damaged, end = None, -1.0, 0, 0, None
            for packet in _packets(container, stream):
                if packet.pts is not None:
                    end = max(end or 0, packet.pts + (packet.duration or 0))
                try:
                    decoded = packet.decode()
                except av.error.FFmpegError:
                    damaged += 1
                    continue
                for frame in decoded:
                    time = number / self._rate if frame.time is None else float(frame.time)
                    first = time if first is None else first
                    # Broken files repeat times, by whose differences others divide.
                    last = max(time - first, last + 1e-3) if number else 0.0
                    number += 1
                    yield Frame(last, _upright(frame))
        if damaged:
            self.problems.append(f"{self._path}: {damaged} damaged pieces were left out")
        if not number:
            raise VideoError(f"{self._path}: none of its frames can be decoded; copy it again")
        if end is not None and stream.duration is not None:
            missing = stream.duration - (end - (stream.start_time or 0))
            if missing * stream.time_base > _MISSING_S:
                self.problems.append(_BREAKS_OFF.format(self._path, number, self.n_frames))


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets up to where a file breaks off."""
    av = _av()
    packets = container.demux(stream)
    with suppress(av.error.FFmpegError, StopIteration):
        while True:
            yield next(packets)


def _upright(frame: Any) -> np.ndarray:
    """A decoded frame, turned as it is meant to be looked at."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90.0)))


class _Camera:
    """A camera of this machine; its times are those of the clock."""

    def __init__(self, index: int) -> None:
        log = cv2.utils.logging
        level = log.setLogLevel(log.LOG_LEVEL_ERROR)  # of OpenCV; what it says is said below
        try:
            self._capture, self.live = cv2.VideoCapture(index), True
        finally:
            log.setLogLevel(level)
        self.n_frames: int | None = None
        self.problems: list[str] = []
        if not self._capture.isOpened():
            raise VideoError(
                f"camera {index}: there is none, or another program uses it; try another number"
            )

    def __iter__(self) -> Iterator[Frame]:
        ticks, first = cv2.getTickFrequency(), cv2.getTickCount()
        try:
            while True:
                got, image = self._capture.read()
                if not got:
                    return
                yield Frame((cv2.getTickCount() - first) / ticks, image[..., ::-1].copy())
        finally:
            self._capture.release()


def read_ahead(frames: Iterable[T], count: int = 4, live: bool = False) -> Iterator[T]:
    """The same, of which a thread has up to `count` ready; the newest of them, if they are `live`,
    else it waits with the next one."""
    ready: Queue[tuple[T | None, Exception | None]] = Queue(count)
    ended = Event()

    def put(item: T | None, error: Exception | None) -> bool:
        replaces = live and item is not None
        while not ended.is_set():
            with suppress(Full):
                ready.put((item, error), block=not replaces, timeout=0.1)
                return True
            if replaces:
                with suppress(Empty):
                    ready.get_nowait()
        return False

    def read() -> None:
        try:
            for frame in frames:
                if not put(frame, None):
                    return
            put(None, None)
        except Exception as error:
            put(None, error)

    Thread(target=read, name="dfc-frames", daemon=True).start()
    try:
        while True:
            frame, error = ready.get()
            if error is not None:
                raise error
            if frame is None:
                return
            yield frame
    finally:
        ended.set()


class VideoWriter:
    """Writes a video; a context, whose file is there, and plays, when it is left without an error.

    Args:
      path: ends in one of `WRITTEN_SUFFIXES`.
      sound_of: a file whose sound goes with the pictures, up to the last of them.

    Raises:
      VideoError: the file cannot be written, or PyAV is missing.
      ExportError: of the folder, when the context is left.
    """

    def __init__(
        self, path: str | os.PathLike[str], sound_of: str | os.PathLike[str] | None = None
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in _CODECS:
            raise VideoError(f"{self.path}: end its name in one of {', '.join(WRITTEN_SUFFIXES)}")
        _av()
        self._sound_of = sound_of
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._sound: _Sound | None = None

    def __enter__(self) -> Self:
        self._aside = self._stack.enter_context(written_aside(self.path))
        self._container = self._stack.enter_context(_av().open(os.fspath(self._aside), "w"))
        return self

    def write(self, time_s: float, image: np.ndarray) -> None:
        """Add a picture (H, W, 3) uint8 RGB, of the size of the first one, from this time on."""
        av = _av()
        height, width = (edge - edge % 2 for edge in image.shape[:2])
        if self._stream is None:
            self._start(width, height)
        elif (width, height) != (self._stream.width, self._stream.height):
            raise VideoError(f"{self.path}: all pictures of a video have one size")
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image[:height, :width]), format="rgb24"
        )
        frame.pts, frame.time_base = round(time_s * _TICKS), Fraction(1, _TICKS)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        if self._sound is not None:
            self._sound.up_to(time_s)

    def _start(self, width: int, height: int) -> None:
        codec, options = _CODECS[self.path.suffix.lower()]
        self._stream = self._container.add_stream(codec, options=options)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if self._sound_of is not None:
            self._sound = self._stack.enter_context(_Sound(self._sound_of, self._container))

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._stream is not None:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
        self._stack.__exit__(*error)


class _Sound:
    """The sound of one file, copied to another as the pictures go."""

    def __init__(self, path: str | os.PathLike[str], to: Any) -> None:
        self._from = _av().open(os.fspath(path))
        self._to = to
        stream = next(iter(self._from.streams.audio), None)
        self._packets = self._from.demux(stream) if stream else iter(())
        self._next = next(self._packets, None)
        self._stream = None
        if stream is not None:
            # A container takes some codecs and not others, such as WebM, which has no AAC.
            with suppress(ValueError, _av().error.FFmpegError):
                self._stream = to.add_stream_from_template(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._from.close()

    def up_to(self, time_s: float) -> None:
        while self._stream is not None and self._next is not None:
            packet = self._next
            if packet.dts is not None:
                if float(packet.dts * packet.time_base) > time_s:
                    return
                packet.stream = self._stream
                self._to.mux(packet)
            self._next = next(self._packets, None)


def _av() -> Any:
    """PyAV, which is imported when it is needed.

    Raises:
      VideoError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError(_NEEDS_AV) from error
    return av


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
