"""`dfc video`: the people of a video, followed from frame to frame."""

import argparse
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_FACE,
    EXIT_OK,
    UsageError,
    add_network,
    between,
    check_apart,
    check_network,
    check_output,
    complain,
    ending,
    load_aligner,
    plural,
    whole,
)
from dfc_jax.commands.logs import LOG, add_verbosity
from dfc_jax.files import escaped

if TYPE_CHECKING:
    import numpy as np

    from dfc_jax.export.animate import Animator
    from dfc_jax.inference.align import Aligner
    from dfc_jax.inference.track import Tracked
    from dfc_jax.video import Video, VideoWriter

# Edge of the square in which a mesh is drawn: a quarter of a photograph's time.
_MESH_PX = 256


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "video",
        help="follow the people of a video",
        epilog=ending(
            "dfc video clip.mp4 --out faces.mp4 --track faces.csv",
            "dfc video clip.mp4 --glb heads.glb --livelink face.csv",
            'dfc video "frames/*.png" --fps 24 --track faces.jsonl --raw',
        ),
    )
    parser.add_argument(
        "video",
        metavar="VIDEO",
        help="a file (MP4, MOV, WebM, GIF ...), a folder of pictures, or their pattern",
    )
    parser.add_argument(
        "--fps",
        type=between(0.01, 10_000.0),
        metavar="N",
        help="pictures a second of a folder or pattern (30)",
    )
    add_results(parser)
    add_network(parser)
    add_verbosity(parser)
    parser.set_defaults(run=run)


def add_results(parser: argparse.ArgumentParser) -> None:
    """What `video` and `webcam` have in common."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="a video with the faces drawn: .mp4, .mov, .mkv, .webm; the sound is kept",
    )
    parser.add_argument(
        "--track",
        type=Path,
        metavar="FILE",
        help="a line for each face of each frame: .csv, or .jsonl with all that dfc align writes",
    )
    parser.add_argument(
        "--glb",
        type=Path,
        metavar="FILE",
        help="animated heads of all people, for viewers and engines: .glb",
    )
    parser.add_argument(
        "--livelink",
        type=Path,
        metavar="FILE",
        help="ARKit's weights and head angles over time, as Live Link Face records them: .csv; "
        "for people after the first, NAME_personN.csv",
    )
    parser.add_argument(
        "--raw", action="store_true", help="do not smooth poses and expressions over time"
    )
    parser.add_argument(
        "--max-people",
        type=whole(1, 1_000),
        metavar="N",
        help="the most at a time (all)",
    )


def run(arguments: argparse.Namespace) -> int:
    if not any(path for path, _ in wanted(arguments)):
        raise UsageError("nothing to write; give --out, --track, --glb or --livelink, or several")
    check_network(arguments)
    check_results(arguments, arguments.video)
    if arguments.fps is not None and Path(arguments.video).is_file():
        raise UsageError(f"{arguments.video}: --fps is for pictures, a video has its own times")
    from dfc_jax.video import open_video

    frames = open_video(arguments.video, arguments.fps)
    return follow(arguments, frames, arguments.video)


def wanted(arguments: argparse.Namespace) -> list[tuple[Path | None, Sequence[str]]]:
    """Files to write, None for those that are not asked for, and how their names may end."""
    from dfc_jax.export.track import TRACK_SUFFIXES
    from dfc_jax.video import WRITTEN_SUFFIXES

    return [
        (arguments.out, WRITTEN_SUFFIXES),
        (arguments.track, TRACK_SUFFIXES),
        (arguments.glb, (".glb",)),
        (arguments.livelink, (".csv",)),
    ]


def check_results(arguments: argparse.Namespace, video: str | None) -> None:
    """
    Raises:
      UsageError: a result cannot be written, or would overwrite the video or another one.
    """
    check_apart([path for path, _ in wanted(arguments)])
    for path, suffixes in wanted(arguments):
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            one_of = "one of " if len(suffixes) > 1 else ""
            raise UsageError(f"{path}: end its name in {one_of}{', '.join(suffixes)}")
        check_output(path)
        if video is not None and path.exists() and path.samefile(video):
            raise UsageError(f"{path}: this is the video itself; give another name")


def follow(
    arguments: argparse.Namespace,
    frames: "Video",
    video: str,
    show: "Callable[[Drawn, np.ndarray], bool] | None" = None,
) -> int:
    """Follow the people of a video and write what was asked for; returns the exit code.

    `show` is given every frame with the faces drawn, and by whom, and says whether to go on.
    """
    from dfc_jax.cache import compiled_programs

    with ExitStack() as stack:
        stack.enter_context(compiled_programs())
        aligner = load_aligner(arguments)
        for what, version in aligner.versions.items():
            LOG.info("%s: %s", what, version)
        sinks: list[Callable[[Tracked], Any]] = []
        if arguments.track is not None:
            from dfc_jax.export.track import TrackWriter

            names = aligner.model.expression_names
            table = TrackWriter(arguments.track, names, video, aligner.versions)
            sinks.append(stack.enter_context(table).write)
        if arguments.out is not None or show is not None:
            from dfc_jax.video import VideoWriter

            sound = video if Path(video).is_file() else None
            out = arguments.out and stack.enter_context(VideoWriter(arguments.out, sound))
            sinks.append(Drawn(aligner, out, show))
        animator = _animator(arguments, aligner)
        if animator is not None:
            sinks.append(animator.add)
        smooth, most = not arguments.raw, arguments.max_people
        tracked = aligner.track(frames, smooth=smooth, max_people=most)
        handed, quiet = handed_on(tracked, sinks, show is not None), arguments.verbosity < 0
        people, n_frames, interrupted = watch(handed, frames, quiet)
        # What is there is complete up to here, also after an interrupt.
        if animator is not None and arguments.glb is not None:
            animator.write_glb(arguments.glb)
        if animator is not None and arguments.livelink is not None:
            animator.write_livelink(arguments.livelink)
    return ended(frames, video, len(people), n_frames, interrupted, quiet)


def ended(
    frames: "Video", video: str, n_people: int, n_frames: int, interrupted: bool, quiet: bool
) -> int:
    """Say what became of a video, of what `watch` says of it; returns the exit code."""
    for problem in frames.problems:
        complain(problem)
    who = "1 person" if n_people == 1 else f"{n_people} people"
    if not quiet:
        print(escaped(f"{who} in {plural(n_frames, 'frame')}: {video}"))
    if interrupted:
        complain("interrupted; what was written is complete up to there")
        return EXIT_INTERRUPTED
    if frames.problems:
        return EXIT_FAILED
    return EXIT_OK if n_people else EXIT_NO_FACE


def _animator(arguments: argparse.Namespace, aligner: "Aligner") -> "Animator | None":
    if arguments.glb is None and arguments.livelink is None:
        return None
    from dfc_jax.export.animate import Animator

    return Animator(aligner.model, textured=arguments.glb is not None)


def watch(
    handed: "Generator[tuple[Tracked, bool], None, None]", frames: "Video", quiet: bool
) -> tuple[set[int], int, bool]:
    """Hand frames on until somebody has seen enough; the people in them, how many frames they were,
    and whether Ctrl-C ended them. Frames that cannot be followed on are a problem of the video."""
    from tqdm import tqdm

    from dfc_jax.errors import VideoError

    people: set[int] = set()
    n_frames = 0
    with closing(handed), tqdm(total=frames.n_frames, unit="frame", disable=quiet or None) as bar:
        try:
            for frame, go_on in handed:
                n_frames += 1
                people |= frame.faces.keys()
                bar.update()
                if not go_on:
                    break
        except KeyboardInterrupt:
            return people, n_frames, True
        except VideoError as error:
            if not n_frames:
                raise
            frames.problems.append(f"after {plural(n_frames, 'frame')}, {error}")
    return people, n_frames, False


def handed_on(
    tracked: "Iterable[Tracked]", sinks: "Sequence[Callable[[Tracked], Any]]", live: bool
) -> "Generator[tuple[Tracked, bool], None, None]":
    """Frames, each with whether no sink said False of it."""
    from dfc_jax.inference.schedule import ahead

    def hand_on(frame: "Tracked") -> bool:
        return all([sink(frame) is not False for sink in sinks])

    if live:
        # At once, and in the main thread, the only one that windows may be drawn in.
        for frame in tracked:
            yield frame, hand_on(frame)
        return
    # One thread draws and writes while the next frames are looked at.
    with closing(ahead(hand_on, tracked, 1)) as written:
        for frame, outcome in written:
            yield frame, outcome.result()


class Drawn:
    """Draws the faces of frames, and writes or shows them.

    Attributes:
      mesh: whether meshes and landmarks are drawn.
    """

    def __init__(
        self,
        aligner: "Aligner",
        out: "VideoWriter | None",
        show: "Callable[[Drawn, np.ndarray], bool] | None",
    ) -> None:
        import numpy as np

        from dfc_jax.morphable.linear import PARTS

        self.mesh = True
        self._out, self._show = out, show
        self._triangles = aligner.model.triangles
        self._shown = np.asarray(aligner.model.triangle_part) != PARTS.index("neck")

    def __call__(self, tracked: "Tracked") -> bool:
        from dfc_jax.inference import draw

        faces = list(tracked.faces.values()) if self.mesh else []
        views = [draw.look_at(face, self._triangles, self._shown, _MESH_PX) for face in faces]
        picture = draw.overlay(tracked.image, faces, self._triangles, views, edge=None)
        draw.number_faces(picture, tracked.faces)
        if self._out is not None:
            self._out.write(tracked.time_s, picture)
        return self._show is None or self._show(self, picture)
