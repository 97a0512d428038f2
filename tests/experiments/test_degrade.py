"""What gets harder: turned, covered, lit from the side, in the dark; how it is scored and drawn."""

import json
from unittest import mock

import numpy as np
import pytest
from absl import flags
from faces import mean_aligner
from PIL import Image

import dfc_jax
from data_pipelines.faces.synthetic import load_assets
from dfc_jax.landmarks68 import N_JAW
from dfc_jax.raster.shade import sh_basis
from experiments import degrade
from experiments.degrade import KINDS, cover, dim, lamp_light, person, quartiles

BOX = np.array([20.0, 40.0, 100.0, 120.0])


@pytest.fixture(scope="module")
def assets():
    return load_assets(mean_aligner().model)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_rectangle_covers_its_share_of_the_box_and_nothing_else(share, seed) -> None:
    image = np.full((200, 160, 3), 7, np.uint8)
    changed = (cover(image, BOX, share, np.random.default_rng(seed)) != 7).any(axis=-1)
    inside = changed[40:160, 20:120]
    assert changed.sum() == inside.sum()
    assert inside.mean() == pytest.approx(share, abs=0.02)
    assert (image == 7).all()


def test_larger_rectangles_of_a_person_are_alike() -> None:
    image = np.zeros((200, 160, 3), np.uint8)
    small, large = (cover(image, BOX, share, person(3).rng) for share in (0.1, 0.3))
    colours = [np.unique(drawn.reshape(-1, 3), axis=0) for drawn in (small, large)]
    np.testing.assert_array_equal(*colours)
    shapes = [np.ptp(np.argwhere(drawn.any(axis=-1)), axis=0) for drawn in (small, large)]
    assert shapes[0][0] / shapes[0][1] == pytest.approx(shapes[1][0] / shapes[1][1], rel=0.1)


def test_every_stop_halves_the_light() -> None:
    rng = np.random.default_rng(0)
    white = np.full((200, 200, 3), 255, np.uint8)
    for stops in (1.0, 3.0):
        light = (dim(white, stops, rng) / 255.0) ** 2.2
        assert light.mean() == pytest.approx(2.0**-stops, rel=0.01)
        # Poisson: the variance of the photons is their number, and 4 of the reading.
        photons = 2000.0 * 2.0**-stops
        assert (light.std() * 2000.0) ** 2 == pytest.approx(photons + 4.0, rel=0.1)


def test_the_lamp_lights_what_faces_it() -> None:
    normals = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    basis = np.asarray(sh_basis(normals))
    front, right, left = (basis @ lamp_light(angle)[:, 0] for angle in (0.0, 90.0, -90.0))
    assert front[0] > 1.0 and front[1] == pytest.approx(front[2], abs=1e-5)
    assert right[1] > 1.0 > right[0] > right[2]
    np.testing.assert_allclose(right[[0, 2, 1]], left, atol=1e-5)


def test_quartiles_are_none_where_they_are_infinite() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, np.inf])
    assert quartiles(values) == {"lower_quartile": 2.0, "upper_quartile": 4.0}
    assert quartiles(np.full(3, np.inf)) == {"lower_quartile": None, "upper_quartile": None}


@pytest.mark.slow
def test_a_level_changes_what_it_says_and_nothing_else(assets) -> None:
    one = person(1)
    assert one.side == -1 and person(2).side == 1
    first = {kind: how.view(assets, one, how.levels[0]) for kind, how in KINDS.items()}
    last = {kind: how.view(assets, one, how.levels[-1]) for kind, how in KINDS.items()}
    np.testing.assert_array_equal(
        first["occlusion"].image, KINDS["occlusion"].view(assets, one, 0.0).image
    )
    for kind in ("occlusion", "side_light", "darkness"):
        np.testing.assert_allclose(first[kind].points, last[kind].points)
        np.testing.assert_array_equal(first[kind].counts, last[kind].counts)
        assert np.abs(first[kind].image.astype(int) - last[kind].image).max() > 60
    assert last["darkness"].image.mean() < 0.2 * first["darkness"].image.mean()
    # The points of a frontal face are in the middle, and no jaw point counts.
    middle = first["yaw"].box[:2] + first["yaw"].box[2:] / 2.0
    np.testing.assert_allclose(middle, 127.5, atol=8.0)
    assert first["yaw"].counts.sum() > 40 and not first["yaw"].counts[:N_JAW].any()
    # In profile, half of the points are hidden; with a side of -1 the nose points to the right.
    turned = last["yaw"]
    assert turned.counts.sum() < 40
    assert turned.points[30, 0] > turned.points[36:48, 0].mean()


@pytest.mark.slow
def test_the_program_writes_figures_pictures_and_their_numbers(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dfc_jax, "load", lambda weights: mean_aligner())
    how = degrade.dataclasses.replace(KINDS["yaw"], levels=(0.0, 90.0))
    monkeypatch.setitem(KINDS, "yaw", how)
    grid = mock.Mock(wraps=degrade.grid)
    monkeypatch.setattr(degrade, "grid", grid)
    found = degrade.measure(["yaw"], tmp_path / "out", faces=2)
    assert grid.call_args.args[1] == ["0\N{DEGREE SIGN}", "90\N{DEGREE SIGN}"]
    assert json.loads((tmp_path / "out" / "yaw.json").read_text()) == found["yaw"]
    levels = found["yaw"]["levels"]
    assert set(levels) == {"0", "90"} and levels["0"]["n"] == 2
    # The aligner says of every crop that it is frontal.
    assert levels["0"]["mean"] < levels["90"]["mean"]
    assert found["yaw"]["versions"]["weights"] == "fake"
    for name in ("yaw.png", "yaw_faces.png"):
        assert np.asarray(Image.open(tmp_path / "out" / name)).std() > 10


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("")
    values = {"kind": "light", "out": str(tmp_path / "file" / "out"), "faces": 1, "weights": None}
    monkeypatch.setattr(flags, "FLAGS", type("Flags", (), values))
    with pytest.raises(SystemExit):
        degrade.main([])
    assert "this folder cannot be made" in capsys.readouterr().err
