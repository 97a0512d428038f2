"""`dfc composite`: pictures and videos with other textures and make-up on their faces."""

import dataclasses
import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from command_line import names_in, photo, run
from faces import mean_aligner, mean_solution
from footage import Actor, Studio
from paths import ROOT
from PIL import Image

import dfc_jax
from dfc_jax.commands.composite import Composited
from dfc_jax.inference.detect import Detection
from dfc_jax.inference.track import Tracked
from dfc_jax.morphable.file import load_face_model
from dfc_jax.photo import read_photo, write_png
from dfc_jax.texture.light import Light
from dfc_jax.video import VideoWriter, open_video

ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
BOX = np.array([180.0, 82.0, 86.0, 86.0])
LIPS = "--makeup", "lips=#aa2233"


class OneBox:
    """A detector that knows where the astronaut's face is."""

    def __call__(self, image):
        return [Detection(BOX, 1.0, "given")]


@pytest.fixture(scope="module")
def sure():
    """An aligner without a network, whose mean face nothing speaks against."""
    solution = mean_solution(load_face_model())
    solution = dataclasses.replace(solution, matchability=jnp.ones_like(solution.matchability))
    return mean_aligner(OneBox(), lambda crop: solution, recrop=0)


@pytest.fixture
def loaded(monkeypatch, sure):
    monkeypatch.setattr(dfc_jax, "load", lambda **keywords: sure)


@pytest.fixture
def paint(tmp_path):
    """Green on the face's right half, nothing on its left."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = 20, 200, 40, 255
    Image.fromarray(pixels).save(tmp_path / "paint.png")
    return tmp_path / "paint.png"


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_makeup_on_a_photograph(capsys, tmp_path, suffix):
    out = tmp_path / f"out.{suffix}"
    code, said, err = run(capsys, "composite", ASTRONAUT, *LIPS, "--out", out)
    assert (code, err) == (0, "")
    assert said == f"1 face: {out}\n"
    before, after = read_photo(ASTRONAUT).astype(int), read_photo(out)
    assert after.shape == before.shape
    changed = np.abs(after - before).max(axis=-1) > 25
    rows, columns = np.nonzero(changed)
    assert len(rows) > 50
    x, y, width, height = BOX
    assert x < columns.min() and columns.max() < x + width
    assert y + height / 2 < rows.min() and rows.max() < y + height


@pytest.mark.usefixtures("loaded")
def test_paint_is_where_it_is_painted(capsys, tmp_path, paint):
    out = tmp_path / "out.png"
    code, *_ = run(capsys, "composite", ASTRONAUT, "--texture", paint, "--out", out, "-q")
    assert code == 0
    before, after = read_photo(ASTRONAUT).astype(int), read_photo(out)
    greener = (after - before)[..., 1] - (after - before)[..., 0] > 30
    _, columns = np.nonzero(greener)
    assert greener.sum() > 1000
    # The subject's right is the picture's left.
    assert columns.max() < BOX[0] + BOX[2] / 2 + 8


@pytest.mark.usefixtures("loaded")
def test_the_face_of_another_photograph(capsys, tmp_path):
    """Itself changes little, its negative much."""
    image, changes = read_photo(ASTRONAUT), []
    write_png(tmp_path / "same.png", image)
    write_png(tmp_path / "other.png", np.ascontiguousarray(image[:, ::-1] // 2 + 100))
    for name in ("same.png", "other.png"):
        out = tmp_path / "out.png"
        code, *_ = run(capsys, "composite", ASTRONAUT, "--face", tmp_path / name, "--out", out)
        assert code == 0
        x, y, width, height = BOX.astype(int)
        inside = np.s_[y + 20 : y + height - 20, x + 20 : x + width - 20]
        changes.append(np.abs(read_photo(out).astype(int) - image)[inside].mean())
    assert changes[0] < 15.0
    assert changes[1] > 1.5 * changes[0]


@pytest.fixture
def followed(monkeypatch, sure):
    """An aligner that follows the astronaut as person 7; what `track` was asked for."""
    asked = {}

    def track(frames, **keywords):
        asked.update(keywords)
        for frame in frames:
            yield Tracked(frame.time_s, frame.image, {7: sure(frame.image)[0]}, False)

    aligner = mean_aligner(OneBox(), sure.solver.solve, recrop=0)
    aligner.track = track
    monkeypatch.setattr(dfc_jax, "load", lambda **keywords: aligner)
    return asked


def test_pictures_of_a_folder_become_a_video(capsys, tmp_path, paint, followed):
    pytest.importorskip("av")
    frames = tmp_path / "frames"
    frames.mkdir()
    image = read_photo(ASTRONAUT)
    for number in range(3):
        write_png(frames / f"{number}.png", image)
    out = tmp_path / "out.mp4"
    given = "composite", frames, "--fps", 10, "--texture", paint, "--out", out, "--faces", 2
    code, said, _ = run(capsys, *given)
    assert code == 0
    assert said == f"1 person in 3 frames: {frames}\n"
    assert followed == {"max_people": 2}
    drawn = list(open_video(out))
    assert [round(frame.time_s, 3) for frame in drawn] == [0.0, 0.1, 0.2]
    for frame in drawn:
        change = frame.image.astype(int) - image
        assert (change[..., 1] - change[..., 0] > 30).sum() > 800


def test_the_sound_of_a_video_is_kept(capsys, tmp_path, followed):
    av = pytest.importorskip("av")
    clip, out = tmp_path / "clip.mkv", tmp_path / "out.mkv"
    image = read_photo(ASTRONAUT)
    with av.open(str(clip), "w") as to:
        picture = to.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = image.shape[1], image.shape[0], "yuv420p"
        sound = to.add_stream("aac", rate=8000)
        for _ in range(3):
            to.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        wave = np.zeros((1, 2048), np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = 8000
        to.mux(sound.encode(frame))
        to.mux(picture.encode(None))
        to.mux(sound.encode(None))
    assert run(capsys, "composite", clip, *LIPS, "--out", out)[0] == 0
    assert len(list(open_video(out))) == 3
    with av.open(str(out)) as written:
        assert len(written.streams.audio) == 1


def test_light_is_smoothed_over_time_but_not_over_cuts():
    """After 0.1 s a low pass of 0.5 Hz takes 1 - exp(-0.1 pi) of the new light."""
    used, times = [], []

    def light(value):
        return Light(np.full((9, 3), value, np.float32), np.full(3, value, np.float32))

    def compose(image, faces, texture, makeup, seen, steady):
        used.append([float(steady(i, light(face)).skin[0]) for i, face in enumerate(faces)])
        return image

    out = SimpleNamespace(write=lambda time_s, image: times.append(time_s))
    drawn = Composited(compose, None, (), out)
    image = np.zeros((8, 8, 3), np.uint8)
    # Faces are their lights here; person 2 comes later, and a cut forgets everybody.
    drawn(Tracked(0.0, image, {1: 0.2}, False))
    drawn(Tracked(0.1, image, {2: 0.9, 1: 0.8}, False))
    drawn(Tracked(0.2, image, {1: 0.4}, True))
    np.testing.assert_allclose(used[0], [0.2], rtol=1e-6)
    newer = 1.0 - np.exp(-0.1 * np.pi)
    np.testing.assert_allclose(used[1], [0.9, 0.2 + newer * 0.6], rtol=1e-6)
    np.testing.assert_allclose(used[2], [0.4], rtol=1e-6)
    assert times == [0.0, 0.1, 0.2]


@pytest.mark.slow
def test_people_of_a_real_track_are_painted(capsys, tmp_path, model, paint):
    """Somebody who turns, rendered."""
    pytest.importorskip("av")
    clip, studio = tmp_path / "clip.mp4", Studio(model)
    with VideoWriter(clip) as video:
        for number in range(4):
            actor = Actor(1, (5.0 * number - 10.0, 0.0, 0.0), (0.0, 0.0, 700.0))
            video.write(number / 10.0, studio.film([actor], 1)[0])
    given = "composite", clip, "--texture", paint, "--out", tmp_path / "out.mp4"
    code, said, _ = run(capsys, *given)
    assert code == 0
    assert said.startswith("1 person in 4 frames: ")
    for before, after in zip(open_video(clip), open_video(tmp_path / "out.mp4"), strict=True):
        change = after.image.astype(int) - before.image
        assert (change[..., 1] - change[..., 0] > 30).mean() > 0.02


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to draw; give --texture, --face or --makeup"),
        ((*LIPS, "--lit"), "--lit says how --texture is meant"),
        (("--makeup", "nails=#aabbcc"), "no region 'nails'"),
        (("--makeup", "lips=blue"), "'blue' is no colour for lips"),
        (("--texture", ASTRONAUT.parent / "none.png"), "none.png: there is no such file"),
        (("--face", ASTRONAUT.parent / "none.png"), "none.png: there is no such file"),
        ((*LIPS, "--fps", "10"), "--fps is for a folder or a pattern"),
        (("--texture", "a.png", "--face", "b.png"), "not allowed with"),
        ((*LIPS, "--faces", "0"), "'0' is not a whole number"),
    ],
)
def test_mistakes_are_said_before_anything_is_done(capsys, tmp_path, arguments, words):
    given = "composite", ASTRONAUT, *arguments, "--out", tmp_path / "out.png"
    code, out, err = run(capsys, *given)
    assert code == 2
    assert out == ""
    assert words in err and err.count("\n") == 1
    assert names_in(tmp_path) == set()


@pytest.mark.usefixtures("loaded")
def test_nothing_that_is_read_is_written_over(capsys, tmp_path, paint):
    mine = tmp_path / "mine.png"
    write_png(mine, read_photo(ASTRONAUT))
    kept = mine.read_bytes(), paint.read_bytes()
    for out in (mine, paint):
        given = "composite", mine, "--texture", paint, "--out", out
        code, _, err = run(capsys, *given)
        assert code == 2
        assert "this file is read and would be lost" in err
    assert (mine.read_bytes(), paint.read_bytes()) == kept
    code, _, err = run(capsys, "composite", mine, *LIPS, "--out", tmp_path / "out.gif")
    assert code == 2 and "end its name in .png" in err and ".mp4" in err


@pytest.mark.usefixtures("loaded")
def test_a_texture_of_a_wrong_size_is_said(capsys, tmp_path):
    given = "composite", ASTRONAUT, "--texture", photo(tmp_path / "wide.png")
    code, _, err = run(capsys, *given, "--out", tmp_path / "out.png")
    assert code == 2
    assert "wide.png: a texture of 200 x 160 pixels; give a square one" in err


def test_photographs_without_a_face(monkeypatch, capsys, tmp_path, sure):
    """Of the other photograph it is a mistake, of the one to draw on a result."""
    blind = mean_aligner(lambda image: [], sure.solver.solve)
    monkeypatch.setattr(dfc_jax, "load", lambda **keywords: blind)
    out = tmp_path / "out.png"
    code, _, err = run(capsys, "composite", ASTRONAUT, *LIPS, "--out", out)
    assert code == 3
    assert "astronaut.jpg: no face is found; nothing is written" in err
    other = photo(tmp_path / "grey.png")
    code, _, err = run(capsys, "composite", ASTRONAUT, "--face", other, "--out", out)
    assert code == 2
    assert "grey.png: no face is found; give another photograph" in err
    assert not out.exists()


def test_an_uncertain_face_is_left_out_and_named(capsys, tmp_path, monkeypatch, sure):
    solution = sure.solver.solve(None)
    nothing = dataclasses.replace(solution, matchability=0.0 * solution.matchability)
    unsure = mean_aligner(OneBox(), lambda crop: nothing, recrop=0)
    monkeypatch.setattr(dfc_jax, "load", lambda **keywords: unsure)
    given = "composite", ASTRONAUT, *LIPS, "--out", tmp_path / "out.png"
    code, _, err = run(capsys, *given)
    assert code == 3
    assert "no face is found" in err
    assert names_in(tmp_path) == set()


@pytest.mark.usefixtures("loaded")
def test_a_texture_of_dfc_align_goes_on_a_face(capsys, tmp_path):
    out = tmp_path / "aligned"
    assert run(capsys, "align", ASTRONAUT, "--out", out, "--outputs", "json,texture")[0] == 0
    (face,) = json.loads((out / "astronaut.json").read_text())["faces"]
    (texture,) = out.glob("*_texture.*")
    assert face["status"] == "ok"
    given = "composite", ASTRONAUT, "--texture", texture, "--out", tmp_path / "out.png"
    changes = []
    for lit in ((), ("--lit",)):
        assert run(capsys, *given, *lit)[0] == 0
        changes.append(np.abs(read_photo(tmp_path / "out.png").astype(int) - read_photo(ASTRONAUT)))
    # Lit twice it is farther from what it was.
    x, y, width, height = BOX.astype(int)
    inside = np.s_[y + 20 : y + height - 20, x + 20 : x + width - 20]
    assert changes[1][inside].mean() < changes[0][inside].mean()
