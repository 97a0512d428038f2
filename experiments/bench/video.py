"""Frames per second of the people's tracking on a video, and MediaPipe's beside it.

    python -m experiments.bench.video CLIP.mp4 --json - --mediapipe OTHER_ENVIRONMENT/bin/python

Decoding counts, the first second does not. With ``--draw`` the video is also drawn and written, as
``dfc video --out`` does. MediaPipe's face mesh runs in the environment that is named, for it wants
an older NumPy than we; it decodes with OpenCV, and its pictures are those of the same file.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from absl import app, flags

import dfc_jax
from dfc_jax.cache import compiled_programs
from dfc_jax.errors import UserError
from dfc_jax.files import print_or_write_json
from dfc_jax.inference.runtimes import RUNTIMES
from dfc_jax.inference.track import Tracked

# Runs where dfc_jax is not installed.
_MEDIAPIPE = """
import json, sys, time
import cv2
import mediapipe

mesh = mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=False)
capture, times, found = cv2.VideoCapture(sys.argv[1]), [], 0
while True:
    got, image = capture.read()
    if not got:
        break
    found += bool(mesh.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).multi_face_landmarks)
    times.append(time.perf_counter())
print(json.dumps({"version": mediapipe.__version__, "times": times, "found": found}))
"""


def rate(times: list[float]) -> float:
    """Frames per second after the first second of them, or the first ten."""
    start = next((i for i, at in enumerate(times) if i >= 10 and at - times[0] > 1.0), 0)
    return (len(times) - 1 - start) / (times[-1] - times[start])


def ours(clip: Path, weights: str, runtime: str, draw: bool) -> dict[str, float]:
    """Rate and people of our tracking."""
    with compiled_programs(), tempfile.TemporaryDirectory() as folder:
        aligner = dfc_jax.load(weights=weights, runtime=runtime)
        frames = _drawn(aligner, clip, Path(folder)) if draw else aligner.track(clip)
        # Once for what is compiled.
        for _ in frames:
            pass
        frames = _drawn(aligner, clip, Path(folder)) if draw else aligner.track(clip)
        times, faces = [], 0
        for frame in frames:
            times.append(time.perf_counter())
            faces += len(frame.faces)
    return {"fps": rate(times), "frames": len(times), "faces_per_frame": faces / len(times)}


def _drawn(aligner: dfc_jax.Aligner, clip: Path, folder: Path) -> Iterator[Tracked]:
    from dfc_jax.commands.video import Drawn
    from dfc_jax.inference.schedule import ahead
    from dfc_jax.video import VideoWriter

    with VideoWriter(folder / "drawn.mp4", clip) as out:
        for frame, written in ahead(Drawn(aligner, out, None), aligner.track(clip), 1):
            written.result()
            yield frame


def mediapipe(python: Path, clip: Path) -> dict[str, object]:
    """The same of MediaPipe's face mesh."""
    words = [str(python), "-c", _MEDIAPIPE, str(clip)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found = json.loads(said.splitlines()[-1])
    times = found["times"]
    seen = found["found"] / len(times)
    return {"version": found["version"], "fps": rate(times), "faces_per_frame": seen}


def main(arguments: list[str]) -> None:
    values = flags.FLAGS
    if len(arguments) != 2 or values.json is None:
        sys.exit("video: give one video, and --json")
    clip = Path(arguments[1])
    try:
        result: dict[str, object] = {
            "ours": ours(clip, values.weights, values.runtime, values.draw),
        }
        if values.mediapipe is not None:
            result["mediapipe"] = mediapipe(Path(values.mediapipe), clip)
        print_or_write_json(values.json, result)
    except UserError as error:
        sys.exit(f"video: {error}")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"video: {values.mediapipe} does not run MediaPipe ({error})")


if __name__ == "__main__":
    flags.DEFINE_string("weights", "lite", "name or file")
    flags.DEFINE_enum("runtime", RUNTIMES[0], RUNTIMES, "what runs the network")
    flags.DEFINE_bool("draw", False, "also draw and write the video")
    flags.DEFINE_string("mediapipe", None, "the Python of an environment with MediaPipe")
    flags.DEFINE_string("json", None, "file for the figures; - prints them")
    app.run(main)
