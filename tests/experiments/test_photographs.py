"""Labelled photographs and their copies are made once, and again where that matters."""

import dataclasses
import types
from pathlib import Path

import numpy as np
from programs import drawn_photos, give_photos, label_drawn

from data_pipelines.photos import turned
from dfc_jax.data.lp_model import LPModel
from dfc_jax.morphable.file import load_face_model
from experiments import photographs

TEMPLATE = types.SimpleNamespace(size=128)


def test_with_basel_the_labels_are_those_given(patched, monkeypatch, tmp_path: Path) -> None:
    give_photos(monkeypatch)
    calls = []
    monkeypatch.setattr(
        photographs, "label_given", lambda *given: calls.append(given) or label_drawn(*given)
    )
    photographs.load_photos(tmp_path, ["somewhere"], "model", TEMPLATE, "300w-lp", "lp")
    ((lp, template, squares),) = calls
    assert (lp, template) == ("lp", TEMPLATE)
    assert [square.face.name for square in squares] == list(drawn_photos().names)


def test_labels_of_another_face_model_or_template_are_made_again(
    patched, monkeypatch, tmp_path: Path
) -> None:
    asked = give_photos(monkeypatch)
    monkeypatch.setattr(photographs, "label_given", label_drawn)
    model = load_face_model()
    moved = dataclasses.replace(model, mean_mm=model.mean_mm.at[0, 0].add(1e-3))
    deviations = np.ones(3), np.ones(2)
    lp, moved_lp = LPModel(model, *deviations), LPModel(moved, *deviations)
    wider = LPModel(model, *deviations)._replace(sigma=np.full(3, 2.0))
    larger = types.SimpleNamespace(size=256)
    made_from = [
        (model, TEMPLATE),
        (moved, TEMPLATE),
        (model, larger),
        *((some.model, TEMPLATE, "ibug", some) for some in (lp, moved_lp, wider)),
    ]
    for _ in range(2):
        for each in made_from:
            photographs.load_photos(tmp_path, ["somewhere"], *each)
        assert len(asked) == len(made_from), "once for each, and then no more"
    monkeypatch.setattr(photographs, "LABELS_VERSION", photographs.LABELS_VERSION + 1)
    photographs.load_photos(tmp_path, ["somewhere"], *made_from[0])
    assert len(asked) == len(made_from) + 1, "and again where labels are made in another way"


def test_turned_copies_stand_behind_the_photographs(patched, monkeypatch, tmp_path) -> None:
    give_photos(monkeypatch)
    photos, asked = photographs.load_photos(tmp_path, ["somewhere"], None, TEMPLATE), []

    def turned_photos(model, template, some, changes):
        asked.append((changes.yaw_deg, changes.pitch_deg))
        return dataclasses.replace(some, error=some.error + 100.0 * len(asked))

    monkeypatch.setattr(turned, "turned_photos", turned_photos)
    told = {"copies": 2, "seed": 0, "yaw_deg": 60.0, "pitch_deg": 20.0, "expression_share": 0.1}

    def with_turned(photos=photos, model=None, **others):
        return photographs.with_turned(tmp_path, photos, model, TEMPLATE, **told | others)

    both = with_turned()
    np.testing.assert_allclose(
        both.error, np.concatenate([photos.error + offset for offset in (0.0, 100.0, 200.0)])
    )
    yaws, pitches = np.swapaxes(asked, 0, 1)
    assert yaws.shape == (2, len(photos)) and not np.array_equal(*yaws)
    assert 20.0 < np.abs(yaws).max() <= 60.0 and 5.0 < np.abs(pitches).max() <= 20.0
    again = with_turned()
    assert len(asked) == 2, "the copies are kept in the workdir"
    np.testing.assert_array_equal(again.error, both.error)
    with_turned(photos.select(np.arange(3)))
    assert len(asked) == 4, "other photographs have other copies"
    moved = photographs.load_photos(tmp_path, ["elsewhere"], None, TEMPLATE)
    with_turned(moved)
    assert len(asked) == 6, "and those of the same names elsewhere"
    with_turned(model={"mean_mm": np.zeros(3)})
    assert len(asked) == 8, "and those that another face model turns"
    for other in ({"pitch_deg": 25.0}, {"expression_share": 0.8}):
        with_turned(**other)
    assert len(asked) == 12, "and those of another pitch, or of other expressions"
    assert len(with_turned(copies=0)) == len(photos)


def test_profiles_are_not_turned(patched, monkeypatch, tmp_path) -> None:
    give_photos(monkeypatch)
    profile = np.arange(7) % 3 == 0
    photos = photographs.load_photos(tmp_path, ["somewhere"], None, TEMPLATE)
    photos = dataclasses.replace(photos, profile=profile)
    asked: list[str] = []

    def turned_photos(model, template, some, changes):
        asked.extend(some.names)
        return some

    monkeypatch.setattr(turned, "turned_photos", turned_photos)
    told = {"copies": 1, "seed": 0, "yaw_deg": 60.0, "pitch_deg": 20.0}
    both = photographs.with_turned(tmp_path, photos, None, TEMPLATE, **told)
    assert asked == list(photos.names[~profile]) and len(both) == 7 + len(asked)
    alone = photos.select(np.flatnonzero(profile))
    assert len(photographs.with_turned(tmp_path, alone, None, TEMPLATE, **told)) == len(alone)


def test_a_folder_that_names_its_layout_has_labels_of_its_own(
    patched, monkeypatch, tmp_path: Path
) -> None:
    asked = give_photos(monkeypatch)
    for folders in (["there"], ["cfp=there"], ["300w-lp=there"], ["cfp=there"]):
        photographs.load_photos(tmp_path, folders, None, TEMPLATE)
    assert [folders for folders, _ in asked] == [["there"], ["cfp=there"], ["300w-lp=there"]]
