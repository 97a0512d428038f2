"""Where the time of `dfc align` goes: processor time per photograph, stage by stage.

    python -m experiments.bench.stages --json after.json PHOTO.jpg ...
    python -m experiments.bench.stages --draw stages.png before.json after.json

The first command runs one photograph after the other, so that all that the process uses belongs to
the stage at hand, on however many cores. The second draws the files of several such runs below each
other. Close other programs.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from tqdm import tqdm

import dfc_jax
from dfc_jax.cache import compiled_programs
from dfc_jax.commands.align import OUTPUTS
from dfc_jax.commands.clock import Clock, timed_detector
from dfc_jax.errors import DatasetError, UserError
from dfc_jax.export.results import Results
from dfc_jax.files import print_or_write_json, written_aside
from dfc_jax.photo import read_photo

# What a photograph takes as a whole, of what `stages` measures.
PARTS = ("read", "detect", "align", "together")


def stages(photos: Sequence[Path]) -> dict[str, float]:
    """Milliseconds of processor time that a photograph takes on average, by stage.

    "align" is all of a call but the detector; each output is written as if it were the only one,
    and "together" is what all of them take in one go, with what they share done once.

    Raises:
      PhotoError: one of the photographs cannot be used.
    """
    # Of all threads of this process.
    clock = Clock(time.process_time)
    with compiled_programs(), tempfile.TemporaryDirectory() as folder:
        aligner = dfc_jax.load()
        aligner.detector = timed_detector(aligner.detector, clock)
        kinds = {kind: Results(Path(folder), aligner, {kind}) for kind in OUTPUTS}
        results = kinds | {"together": Results(Path(folder), aligner, OUTPUTS)}
        # The first round compiles.
        for number, photo in enumerate(tqdm([photos[0], *photos], unit="photo", disable=None)):
            if number == 1:
                clock.seconds.clear()
            with clock.stage("read"):
                image = read_photo(photo)
            with clock.stage("align"):
                faces = aligner(image)
            for kind, writer in results.items():
                with clock.stage(kind):
                    writer.write("photo", photo, image, faces)
    return {name: round(1e3 * s / len(photos), 2) for name, s in clock.seconds.items()}


def draw(runs: dict[str, dict[str, float]]) -> Figure:
    """A bar for each run's parts of a whole photograph, one below the other."""
    figure = Figure(figsize=(9, 1.2 + 0.6 * len(runs)), dpi=120, layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(runs))
    for part in PARTS:
        widths = np.array([run[part] for run in runs.values()])
        label = "write the outputs" if part == "together" else part
        bars = axes.barh(list(runs), widths, left=left, label=label)
        # Narrow bars have no room for a number.
        labels = [f"{width:.0f}" if width >= 5.0 else "" for width in widths]
        axes.bar_label(bars, labels, label_type="center")
        left += widths
    axes.invert_yaxis()
    axes.set_xlabel("processor time per photograph, ms")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(PARTS), frameon=False)
    return figure


def main(arguments: list[str]) -> None:
    values, files = flags.FLAGS, [Path(argument) for argument in arguments[1:]]
    if not files or (values.json is None) == (values.draw is None):
        sys.exit("stages: give --json with photographs, or --draw with files of earlier runs")
    try:
        if values.draw is not None:
            figure = draw({file.stem: _read(file) for file in files})
            with written_aside(values.draw) as aside:
                figure.savefig(aside, format="png")
        else:
            print_or_write_json(values.json, stages(files))
    except UserError as error:
        sys.exit(f"stages: {error}")


def _read(file: Path) -> dict[str, float]:
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        return {part: float(run[part]) for part in PARTS}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{file}: no file of an earlier run; make it with --json") from error


if __name__ == "__main__":
    flags.DEFINE_string("json", None, "file for the milliseconds per stage; - prints them")
    flags.DEFINE_string("draw", None, "PNG to draw, of the files that follow")
    app.run(main)
