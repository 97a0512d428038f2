"""Textures of faces drawn with known skin and light: both come back, what is hidden or covered
does not; banks as files; the program on a folder of such faces."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from quick import quick_compilation  # noqa: F401

from data_pipelines.faces.light import load_light_prior
from data_pipelines.faces.textures import (
    TextureBank,
    extract,
    load_texture_bank,
    make_atlas,
    save_texture_bank,
    split_tone,
)
from dfc_jax.camera import to_camera
from dfc_jax.errors import DatasetError
from dfc_jax.fitting import project_landmarks
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import shape
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.ops.sampling import bilinear_sample
from dfc_jax.raster import interpolate, render, sh_irradiance
from dfc_jax.types import Camera, FaceParams
from experiments.tools import build_texture_bank as program

TEXELS, PIXELS = 96, 240
TONE = np.array([0.60, 0.42, 0.33], np.float32)
LIGHT = np.zeros((9, 3), np.float32)
LIGHT[0], LIGHT[2], LIGHT[3], LIGHT[1], LIGHT[4] = 2.6, -0.7, 0.6, -0.4, 0.15
LIGHT *= [1.06, 1.0, 0.94]
# Frontal, and turned to the image's left so that the subject's right is hidden.
YAWS = (8.0, 45.0)


@pytest.fixture(scope="module")
def atlas(model):
    return make_atlas(model, TEXELS)


@pytest.fixture(scope="module")
def skin(atlas) -> np.ndarray:
    """A texture that is symmetric but for a dark patch on each side, of different shapes."""
    y, x = np.mgrid[:TEXELS, :TEXELS] / TEXELS
    waves = 1.0 + 0.08 * np.cos(40.0 * (x - 0.5)) * np.cos(30.0 * y)
    texture = np.asarray(atlas.albedo) * TONE * waves[..., None]
    texture[(np.abs(x - 0.35) < 0.02) & (np.abs(y - 0.40) < 0.04)] *= 0.8
    return np.where(np.asarray(atlas.eyes)[..., None], np.asarray(atlas.albedo), texture)


# Unit normals (n, 3) that face the camera.
_X, _Y = np.meshgrid(np.linspace(-0.6, 0.6, 7), np.linspace(-0.5, 0.5, 7))
FACING = np.stack([_X, _Y, -np.sqrt(1.0 - _X**2 - _Y**2)], axis=-1)


def params_of(model, yaw: float) -> FaceParams:
    return FaceParams(
        focal_px=jnp.float32(PIXELS / 192 * 700.0),
        rotation=angles_to_rotvec(jnp.array([yaw, 3.0, -5.0])),
        translation_mm=jnp.array([3.0, 22.0, 1000.0]),
        identity=jnp.full(model.n_identity, 0.2),
        expression=jnp.zeros(model.n_expression),
    )


@pytest.fixture(scope="module")
def draw(model):
    """(yaw, texture, light) to the face's image (H, H, 3) and mask; compiled once."""

    @jax.jit
    def program(params, texture, sh):
        camera = Camera(params.focal_px, jnp.full(2, (PIXELS - 1) / 2.0))
        vertices = to_camera(params, shape(model, params.identity, params.expression))
        mesh = vertices, model.triangles, camera, PIXELS
        face = render(*mesh, uv=model.uv, texture=texture, sh=sh, cull_backfaces=True)
        points = project_landmarks(model, params, camera.principal_point)
        return face.rgb, face.mask[..., None], points

    return lambda yaw, texture, sh: jax.device_get(program(params_of(model, yaw), texture, sh))


@pytest.fixture(scope="module")
def photographs(draw, skin):
    """Per yaw: image (H, H, 3) in [0, 1], the face before a grey wall, and the 68 points."""
    drawn = [draw(yaw, skin, LIGHT) for yaw in YAWS]
    return [(np.where(mask, np.clip(rgb, 0.0, 1.0), 0.5), points) for rgb, mask, points in drawn]


@pytest.fixture(scope="module")
def take(model, atlas):
    """Extract from an image with the true parameters; compiled once."""
    program = jax.jit(lambda params, image, points: extract(model, atlas, params, image, points))
    return lambda yaw, image, points: jax.device_get(program(params_of(model, yaw), image, points))


@pytest.fixture(scope="module")
def found(take, photographs):
    return [take(yaw, *photograph) for yaw, photograph in zip(YAWS, photographs, strict=True)]


def relative_error(texture: np.ndarray, truth: np.ndarray, where: np.ndarray) -> np.ndarray:
    """|texture / truth - 1| (n,) after one factor per channel for all texels."""
    ratio = texture[where] / truth[where]
    return np.abs(ratio / np.median(ratio, axis=0) - 1.0).mean(axis=-1)


@pytest.mark.slow
def test_skin_and_light_come_back_up_to_their_scale(atlas, skin, found) -> None:
    for one in found:
        seen = one.seen & np.asarray(atlas.skin)
        assert seen.sum() > 0.4 * np.asarray(atlas.skin).sum()
        error = relative_error(one.texture, skin, seen)
        assert np.median(error) < 0.03 and np.percentile(error, 90) < 0.08
        ratio = np.asarray(sh_irradiance(one.light, FACING) / sh_irradiance(LIGHT, FACING))
        assert np.abs(ratio / np.median(ratio, axis=0) - 1.0).max() < 0.08
        assert one.covered_share < 0.03 and one.glasses_share < 0.05 and one.residual < 0.08


def test_texture_times_irradiance_is_the_photograph(draw, photographs, found) -> None:
    white = np.zeros((9, 3), np.float32)
    white[0] = np.sqrt(4.0 * np.pi)
    for yaw, (image, _), one in zip(YAWS, photographs, found, strict=True):
        again, *_ = draw(yaw, one.texture, one.light)
        share, *_ = draw(yaw, np.repeat(one.seen[..., None], 3, axis=-1).astype(np.float32), white)
        error = np.abs(again - image).mean(axis=-1)[share[..., 0] > 0.99]
        assert error.size > 5000 and np.median(error) < 0.012 and np.percentile(error, 95) < 0.06


def test_hidden_texels_come_from_the_other_side(atlas, skin, found) -> None:
    turned, mirror = found[1], np.asarray(atlas.mirror_px)
    hidden = np.asarray(atlas.skin) & ~turned.seen
    completed = hidden & turned.known
    assert completed.sum() > 0.15 * np.asarray(atlas.skin).sum()
    left = np.arange(TEXELS) < TEXELS // 2
    assert completed[:, left].sum() > 5 * completed[:, ~left].sum(), "the subject's right is hidden"
    other_skin = np.asarray(bilinear_sample(skin, mirror))
    error = relative_error(turned.texture, other_skin, completed)
    assert np.median(error) < 0.04 and np.percentile(error, 90) < 0.12
    other_seen = np.asarray(bilinear_sample(turned.seen[..., None].astype(np.float32), mirror))
    assert (other_seen[completed] > 0.0).mean() > 0.98
    unseen = ~turned.seen & (other_seen[..., 0] == 0.0)
    # Two faint sides together may just do.
    assert (turned.known & unseen).sum() < 0.001 * turned.known.sum()


def test_what_covers_the_face_is_masked(atlas, take, photographs, found, skin) -> None:
    image, points = photographs[0]
    cover = np.zeros((PIXELS, PIXELS), bool)
    centre = points[[4, 48]].mean(axis=0).round().astype(int)
    cover[centre[1] - 12 : centre[1] + 12, centre[0] - 10 : centre[0] + 10] = True
    brow = points[17:27, 1].min().astype(int)
    fringe = np.zeros_like(cover)
    fringe[brow - 30 : brow - 10] = True
    covered = np.where(cover[..., None], np.array([0.1, 0.3, 0.8], np.float32), image)
    covered = np.where(fringe[..., None], np.array([0.07, 0.05, 0.04], np.float32), covered)
    one, clean = take(YAWS[0], covered, points), found[0]
    before = relative_error(clean.texture, skin, clean.seen)
    gone = clean.seen & ~one.seen
    assert gone.sum() > 150
    assert (one.texture[one.seen][:, 2] < one.texture[one.seen][:, 0]).mean() > 0.999
    kept = clean.seen & one.seen & np.asarray(atlas.skin)
    assert kept.sum() > 0.6 * (clean.seen & np.asarray(atlas.skin)).sum()
    after = relative_error(one.texture, skin, kept)
    assert np.percentile(after, 95) < 0.12 and before.mean() < 0.1
    assert one.covered_share > clean.covered_share + 0.05
    patch = gone & one.known & np.asarray(atlas.skin)
    assert patch.sum() > 20
    assert np.median(relative_error(one.texture, skin, patch | kept)) < 0.05


def test_mirror_map_leads_to_the_other_side(model, atlas) -> None:
    covered = np.asarray(atlas.fragments.pix_to_face) >= 0
    position = np.asarray(interpolate(atlas.fragments, model.triangles, model.mean_mm))
    other = np.asarray(bilinear_sample(position, atlas.mirror_px))
    inner = covered & np.asarray(atlas.skin)
    np.testing.assert_allclose(other[inner], position[inner] * [-1.0, 1.0, 1.0], atol=1.5)
    lopsided = dataclasses.replace(model, mean_mm=model.mean_mm.at[100, 0].add(5.0))
    with pytest.raises(DatasetError, match="not left-right symmetric"):
        make_atlas(lopsided, TEXELS)


def test_tone_is_split_between_skin_and_light() -> None:
    """Dark skin stays darker than light skin, a colour cast goes mostly to the light."""
    light, dark = np.log([0.80, 0.63, 0.54]), np.log([0.36, 0.23, 0.17])
    split_light, split_dark = (np.asarray(split_tone(x)) for x in (light, dark))
    assert (split_light - split_dark > 0.5 * (light - dark)).all()
    cast = np.array([0.25, 0.0, -0.25])
    moved = np.asarray(split_tone(light + cast)) - split_light
    assert np.abs(moved - moved.mean()).max() < 0.1


def bank_of(n: int = 2, size: int = 20) -> TextureBank:
    rng = np.random.default_rng(0)
    return TextureBank(
        textures=rng.integers(0, 256, (n, size, size, 3), np.uint8),
        known=rng.random((n, size, size)) < 0.5,
        quality=np.linspace(0.9, 0.5, n, dtype=np.float32),
        face_model="some",
    )


def test_bank_round_trip(tmp_path: Path) -> None:
    bank = bank_of()
    save_texture_bank(tmp_path / "bank.npz", bank)
    again = load_texture_bank(tmp_path / "bank.npz")
    assert len(again) == 2 and again.face_model == "some"
    for name in ("textures", "known", "quality"):
        expected, array = getattr(bank, name), getattr(again, name)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert [p.name for p in tmp_path.iterdir()] == ["bank.npz"]


@pytest.mark.parametrize(
    "change",
    [
        {"textures": np.zeros((2, 20, 20, 3), np.float32)},
        {"textures": np.zeros((2, 20, 16, 3), np.uint8)},
        {"textures": np.zeros(4, np.uint8)},
        {"known": np.zeros((2, 20, 20), bool)},
        {"quality": np.zeros(3, np.float32)},
    ],
)
def test_a_bank_that_contradicts_itself_is_refused(tmp_path: Path, change) -> None:
    path = tmp_path / "bank.npz"
    save_texture_bank(path, bank_of())
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, **change})
    with pytest.raises(DatasetError, match="bank.npz: a texture bank needs"):
        load_texture_bank(path)


@pytest.mark.parametrize(
    "change",
    [
        {"quality": np.full(2, np.nan, np.float32)},
        {"quality": np.full(2, np.inf, np.float32)},
        {"quality": np.full(2, -1.0, np.float32)},
        {"quality": np.array(["good", "bad"])},
        {"textures": np.zeros((2, 0, 0, 3), np.uint8), "known": np.zeros((2, 0, 0), np.uint8)},
        {"face_model": np.array([None])},
    ],
)
def test_hostile_banks_are_refused_in_one_sentence(tmp_path: Path, change) -> None:
    path = tmp_path / "bank.npz"
    save_texture_bank(path, bank_of())
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, **change})
    with pytest.raises(DatasetError, match="bank.npz: .*make it again"):
        load_texture_bank(path)


def test_files_that_are_no_bank_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none.npz: no such texture bank"):
        load_texture_bank(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    with pytest.raises(DatasetError, match="bad.npz: is not a texture bank"):
        load_texture_bank(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", textures=np.zeros(3))
    with pytest.raises(DatasetError, match="other.npz: is not a texture bank"):
        load_texture_bank(tmp_path / "other.npz")


def write_photograph(folder: Path, name: str, image: np.ndarray, points: np.ndarray) -> None:
    pixels = np.round(255.0 * image).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}.png")
    rows = "\n".join(f"{x} {y}" for x, y in points + 1.0)
    (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")


def run(monkeypatch, **values) -> None:
    defaults = {"face_model": None, "size": 64, "count": None, "light": None}
    monkeypatch.setattr(program, "BATCH", 2)
    monkeypatch.setattr(program.flags, "FLAGS", SimpleNamespace(**{**defaults, **values}))
    program.main([])


@pytest.mark.slow
def test_program_makes_a_bank_and_passes_over_what_it_cannot_read(
    photographs, tmp_path: Path, monkeypatch, capsys
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    write_photograph(folder, "front", *photographs[0])
    grey = np.repeat(photographs[0][0].mean(axis=-1, keepdims=True), 3, axis=-1)
    write_photograph(folder, "grey", grey, photographs[0][1])
    write_photograph(folder, "half", *photographs[0])
    whole = (folder / "half.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    out, light = tmp_path / "bank.npz", tmp_path / "light.npz"
    run(monkeypatch, photos=[str(folder)], out=str(out), light=str(light))
    said = capsys.readouterr()
    assert "half.png: the image is truncated" in said.err
    assert "dropped    1: the picture has no colour" in said.out
    assert "kept 1 of 1 good textures from 3 faces" in said.out
    bank = load_texture_bank(out)
    assert bank.textures.shape == (1, 64, 64, 3) and bank.face_model == load_face_model().version
    assert 0.0 < bank.quality[0] < 1.0 and bank.known.any() and not bank.known.all()
    with Image.open(tmp_path / "bank.png") as sheet:
        assert sheet.size[0] == 4 * 3 * program.SHEET_PX
    mean = np.asarray(load_light_prior(light).mean).reshape(9, 3)
    assert np.abs(mean[program.ODD]).max() < 1e-5 and (mean[0] > 1.5).all() and (mean[2] < 0).all()


def test_program_says_in_one_sentence_why_there_is_no_bank(
    photographs, tmp_path: Path, monkeypatch, capsys
) -> None:
    write_photograph(tmp_path, "half", *photographs[0])
    (tmp_path / "half.png").write_bytes(b"")
    for photos, sentence in (
        (tmp_path, "none of the photographs can be read"),
        (tmp_path / "nowhere", "there is no such folder"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(monkeypatch, photos=[str(photos)], out=str(tmp_path / "bank.npz"))
        assert stopped.value.code == 1 and sentence in capsys.readouterr().err
    assert not (tmp_path / "bank.npz").exists()
