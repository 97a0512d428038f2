"""`dfc composite`: another texture, or make-up, on the faces of a photograph or a video."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import (
    EXIT_NO_FACE,
    EXIT_OK,
    PICTURE_SUFFIXES,
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
from dfc_jax.commands.video import ended, handed_on, watch
from dfc_jax.files import escaped

if TYPE_CHECKING:
    import numpy as np

    from dfc_jax.export.composite import Albedo, Composer
    from dfc_jax.inference.align import Aligner
    from dfc_jax.inference.track import Tracked
    from dfc_jax.texture.light import Light
    from dfc_jax.texture.makeup import Makeup
    from dfc_jax.video import VideoWriter

# Of the low pass that smooths the light of a video.
_LIGHT_HZ = 0.5


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "composite",
        help="draw another texture, or make-up, on the faces of a photograph or a video",
        epilog=ending(
            "dfc composite me.jpg --texture tiger.png --out tiger.jpg",
            "dfc composite me.jpg --face you.jpg --out both.png",
            'dfc composite me.jpg --makeup "lips=#aa2233,blush=#dd8877:0.3" --out evening.jpg',
            "dfc composite clip.mp4 --texture paint.png --out painted.mp4",
        ),
    )
    parser.add_argument(
        "source",
        metavar="PHOTO|VIDEO",
        help="a photograph; or a video, a folder of pictures, or their pattern",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="of a photograph a picture: .png, .jpg, .jpeg, .webp; else a video, whose sound is "
        "kept: .mp4, .mov, .mkv, .webm",
    )
    new = parser.add_mutually_exclusive_group()
    new.add_argument(
        "--texture",
        type=Path,
        metavar="FILE",
        help="a square picture over the face model's uv atlas, such as face paint; where it is "
        "transparent, the face stays",
    )
    new.add_argument(
        "--face",
        type=Path,
        metavar="PHOTO",
        help="a photograph whose largest face gives its texture",
    )
    parser.add_argument(
        "--lit",
        action="store_true",
        help="the texture is one of a photograph, as dfc align --outputs texture writes it: take "
        "the light off it, and give it the tone of the skin below",
    )
    parser.add_argument(
        "--makeup",
        metavar="REGION=COLOUR[:OPACITY],...",
        help="colours such as #aa2233 for lips, eyeshadow, blush and foundation, and opacities "
        "from 0 to 1",
    )
    parser.add_argument(
        "--faces",
        type=whole(1, 1_000),
        metavar="N",
        help="only the N largest faces of a photograph; at most N people of a video (all)",
    )
    parser.add_argument(
        "--fps",
        type=between(0.01, 10_000.0),
        metavar="N",
        help="pictures a second of a folder or pattern (30)",
    )
    add_network(parser)
    add_verbosity(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if not (arguments.texture or arguments.face or arguments.makeup):
        raise UsageError("nothing to draw; give --texture, --face or --makeup")
    if arguments.lit and arguments.texture is None:
        raise UsageError("--lit says how --texture is meant; give that too")
    check_network(arguments)
    is_video = _check_files(arguments)
    from dfc_jax.texture.makeup import parse_makeup

    makeup = () if arguments.makeup is None else parse_makeup(arguments.makeup)
    texture = _read_texture(arguments)
    from dfc_jax.cache import compiled_programs

    with compiled_programs():
        return (_video if is_video else _photo)(arguments, texture, makeup)


def _read_texture(arguments: argparse.Namespace) -> "Albedo | np.ndarray | None":
    """The texture that was given, or the photograph (H, W, 3) that shows it.

    Raises:
      UserError: it cannot be used.
    """
    from dfc_jax.export.composite import read_albedo
    from dfc_jax.photo import read_photo

    if arguments.texture is not None:
        return read_albedo(arguments.texture)
    return None if arguments.face is None else read_photo(arguments.face)


def _check_files(arguments: argparse.Namespace) -> bool:
    """Whether a video is wanted.

    Raises:
      UsageError: the result cannot be written, or would overwrite something that is read.
    """
    from dfc_jax.video import WRITTEN_SUFFIXES

    out, suffix = arguments.out, arguments.out.suffix.lower()
    if suffix not in (*PICTURE_SUFFIXES, *WRITTEN_SUFFIXES):
        kinds = f"{', '.join(PICTURE_SUFFIXES)}, or for a video in {', '.join(WRITTEN_SUFFIXES)}"
        raise UsageError(f"{out}: end its name in {kinds}")
    check_output(out)
    read = (arguments.source, arguments.texture, arguments.face)
    check_apart([out], [path for path in read if path is not None])
    is_video = suffix in WRITTEN_SUFFIXES
    if arguments.fps is not None and (not is_video or Path(arguments.source).is_file()):
        raise UsageError(f"{arguments.source}: --fps is for a folder or a pattern of pictures")
    return is_video


def _photo(
    arguments: argparse.Namespace,
    texture: "Albedo | np.ndarray | None",
    makeup: "tuple[Makeup, ...]",
) -> int:
    from dfc_jax.photo import read_photo, write_picture

    image = read_photo(arguments.source)
    aligner = _aligner(arguments)
    composer, albedo = _prepared(arguments, texture, aligner)
    faces = []
    for face in aligner(image)[: arguments.faces]:
        if face.status == "ok":
            faces.append(face)
        else:
            x, y = (round(value) for value in face.box[:2].tolist())
            reasons = ", ".join(face.reasons)
            LOG.warning("%s: the face at %d, %d is left out: %s", arguments.source, x, y, reasons)
    if not faces:
        complain(f"{arguments.source}: no face is found; nothing is written")
        return EXIT_NO_FACE
    write_picture(arguments.out, composer(image, faces, albedo, makeup))
    if arguments.verbosity >= 0:
        print(escaped(f"{plural(len(faces), 'face')}: {arguments.out}"))
    return EXIT_OK


def _video(
    arguments: argparse.Namespace,
    texture: "Albedo | np.ndarray | None",
    makeup: "tuple[Makeup, ...]",
) -> int:
    from dfc_jax.video import VideoWriter, open_video

    source = arguments.source
    frames = open_video(source, arguments.fps)
    aligner = _aligner(arguments)
    composer, albedo = _prepared(arguments, texture, aligner)
    quiet = arguments.verbosity < 0
    with ExitStack() as stack:
        out = VideoWriter(arguments.out, source if Path(source).is_file() else None)
        drawn = Composited(composer, albedo, makeup, stack.enter_context(out))
        tracked = aligner.track(frames, max_people=arguments.faces)
        people, n_frames, interrupted = watch(handed_on(tracked, [drawn], False), frames, quiet)
    return ended(frames, source, len(people), n_frames, interrupted, quiet)


def _aligner(arguments: argparse.Namespace) -> "Aligner":
    aligner = load_aligner(arguments)
    for what, version in aligner.versions.items():
        LOG.info("%s: %s", what, version)
    return aligner


def _prepared(
    arguments: argparse.Namespace, texture: "Albedo | np.ndarray | None", aligner: "Aligner"
) -> "tuple[Composer, Albedo | None]":
    """What draws, and what it draws without make-up.

    Raises:
      UsageError: the other photograph shows no face.
    """
    from dfc_jax.export.composite import Albedo, Composer

    composer = Composer(aligner.model)
    if texture is None or isinstance(texture, Albedo):
        return composer, composer.unlit(texture) if texture and arguments.lit else texture
    faces = aligner(texture)
    if not faces:
        raise UsageError(f"{arguments.face}: no face is found; give another photograph")
    if faces[0].status != "ok":
        reasons = ", ".join(faces[0].reasons)
        LOG.warning("%s: its face is uncertain: %s", arguments.face, reasons)
    return composer, composer.albedo_of(texture, faces[0])


class Composited:
    """Draws on the people of frames, in light that is smoothed over time, and writes them."""

    def __init__(
        self,
        composer: "Composer",
        albedo: "Albedo | None",
        makeup: "tuple[Makeup, ...]",
        out: "VideoWriter",
    ) -> None:
        self._composer, self._albedo, self._makeup, self._out = composer, albedo, makeup, out
        self._lights: dict[int, Light] = {}
        self._time_s = 0.0

    def __call__(self, tracked: "Tracked") -> None:
        from dfc_jax.inference.smooth import share
        from dfc_jax.texture.light import mixed

        people, before = list(tracked.faces), {} if tracked.cut else self._lights
        newer = float(share(tracked.time_s - self._time_s, _LIGHT_HZ))
        self._lights, self._time_s = {}, tracked.time_s

        def steady(number: int, light: "Light") -> "Light":
            person = people[number]
            known = before.get(person)
            self._lights[person] = light if known is None else mixed(known, light, newer)
            return self._lights[person]

        faces = list(tracked.faces.values())
        drawn = self._composer(tracked.image, faces, self._albedo, self._makeup, None, steady)
        self._out.write(tracked.time_s, drawn)
