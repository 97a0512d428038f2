"""The training of the detector, start to end, with a tiny network and drawn photographs."""

import dataclasses
import itertools
import types

import jax
import numpy as np
import pytest
from programs import give_photos
from quick import quick_compilation  # noqa: F401
from runs import assert_cut_off_run_continues, opened

from data_pipelines.photos import turned
from dfc_jax.errors import ConfigError, WeightsError
from dfc_jax.inference.find import FaceDetector
from dfc_jax.nets import weights
from dfc_jax.systems.detector import networks
from dfc_jax.systems.detector.networks import DetectorSpec
from dfc_jax.training.run import run
from experiments import detector
from experiments.configs.detector.small import get_config

TINY = DetectorSpec(stem=4, width=6, deep=8, blocks=1)


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.SPECS, "tiny", TINY)
        # Nothing is rendered: that takes a minute to compile.
        patch.setattr(detector, "of_rendered", lambda *_: detector.no_patches())
        patch.setattr(detector, "SCENES", 4)
        patch.setattr(turned, "turned_photos", lambda model, template, photos, *_: photos)
        give_photos(patch)
        yield patch


def small_config(**changes):
    config = get_config().unlock()
    config.network = "tiny"
    config.steps, config.batch, config.warmup_steps = 6, 4, 1
    config.log_every, config.save_every, config.keep_last = 1, 2, 1
    config.held_out, config.rendered = 2, 0
    config.scenes.patches, config.scenes.size = 2, 64
    config.update(changes)
    return config.lock()


@pytest.fixture(scope="module")
def trained(patched, tmp_path_factory):
    """The folder of a run, its last state, and what `run` was called with."""
    folder, calls = tmp_path_factory.mktemp("detector") / "run", []
    with pytest.MonkeyPatch.context() as recorder:
        recorder.setattr(detector, "run", lambda *args: calls.append(args) or run(*args))
        state = detector.train(small_config(), folder, ["somewhere"])
    ((task, _, settings, _),) = calls
    return folder, state, task, settings


def test_weights_are_those_of_a_detector(trained) -> None:
    folder, *_ = trained
    _, spec, metadata = weights.load(folder / "weights.safetensors", DetectorSpec)
    assert spec == TINY and metadata["network"] == "tiny" and metadata["steps"] == 6
    assert {"held_out_loss", "held_out_recall", "held_out_precision"} <= metadata["scores"].keys()
    assert all(np.isfinite(value) for value in metadata["scores"].values())
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    assert isinstance(FaceDetector(folder / "weights.safetensors")(picture), list)


def test_a_run_that_was_cut_off_goes_on(trained, tmp_path) -> None:
    _, _, task, settings = trained
    # The order of a header of safetensors is random.
    task = dataclasses.replace(task, save=lambda file, _, metadata: file.write_text(str(metadata)))
    whole = tmp_path / "whole", run(task, opened(tmp_path / "whole"), settings)
    assert_cut_off_run_continues(task, settings, tmp_path / "again", whole)


def test_scenes_differ_and_repeat_themselves_by_their_step(trained) -> None:
    _, _, task, _ = trained
    scenes = task.loss.args[0]
    batch = next(task.batches(0))
    first, again, later = (scenes(batch, jax.random.key(n)).image for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(first) == 4 and (first != later).any() and (first[0] != first[1]).any()
    assert all(
        np.array_equal(a["scene"], batch["scene"]) for a in itertools.islice(task.batches(7), 2)
    )


def test_the_groups_are_those_of_the_shares(patched) -> None:
    settings = detector.settings_of(small_config(rendered=0))
    asked = []

    class Photos:
        def __init__(self, count: int) -> None:
            self.index = np.arange(count)

        profile = np.array([False, True, True, False, False])

        def __len__(self) -> int:
            return len(self.index)

        def select(self, index):
            chosen = Photos(len(index))
            chosen.index, chosen.profile = self.index[index], self.profile[index]
            return chosen

    with pytest.MonkeyPatch.context() as patch:
        none = detector.no_patches()

        def record(photos, *key):
            asked.append((list(photos.index), bool(key)))
            return none

        patch.setattr(detector, "of_photographs", record)
        patch.setattr(detector, "of_things", lambda *_: none)
        patch.setattr(detector, "bank_of", lambda groups, shares: (len(groups), shares))
        assets = types.SimpleNamespace(backgrounds=None)
        found = detector.make_bank(settings, Photos(5), 4, assets, 0, 0)
    assert asked == [([0, 3], False), ([1, 2], False), ([4], False), ([0, 1, 2, 3], True)]
    assert found == (7, settings.shares)


def test_false_alarms_of_other_weights_are_things_too(trained, monkeypatch) -> None:
    folder, *_ = trained
    monkeypatch.setattr(detector, "ALARM", 1e-4)
    settings = detector.settings_of(small_config())
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    assets = types.SimpleNamespace(backgrounds=noise)
    none = detector.no_patches()
    for name in ("of_photographs", "of_rendered", "of_things"):
        monkeypatch.setattr(detector, name, lambda *_: none)
    monkeypatch.setattr(detector, "bank_of", lambda groups, _: groups)

    class Photos:
        profile = np.zeros(0, bool)

        def __len__(self) -> int:
            return 0

        def select(self, index):
            return self

    groups = [
        detector.make_bank(settings, Photos(), 0, assets, 0, 0, file)
        for file in (None, str(folder / "weights.safetensors"))
    ]
    assert [len(each[-1].face) > 0 for each in groups] == [False, True]
    assert not groups[1][-1].face.any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": "huge"}, "there is no detector 'huge'; choose from"),
        ({"shares": (1.0,)}, "config.shares needs 7 numbers"),
        ({"shares": (0.0,) * 7}, "config.shares needs 7 numbers"),
        ({"rendered": -1}, "config.rendered is -1; it must be"),
        ({"batch": 3}, "config.batch is 3; it must be even"),
        ({"turned": -1}, "config.turned is -1; it must be at least 0"),
        ({"scenes": {"patches": 0}}, "config.scenes.patches is 0"),
        ({"scenes": {"size": 100}}, "config.scenes.size is 100"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(patched, changes, words) -> None:
    with pytest.raises(ConfigError, match=words):
        detector.settings_of(small_config(**changes))


def test_a_config_of_another_program_is_refused() -> None:
    from experiments.configs.dfc.finetune_lite import get_config as of_finetune

    with pytest.raises(ConfigError, match="it is a config of another program"):
        detector.settings_of(of_finetune())


def test_weights_of_another_network_are_refused(trained, tmp_path) -> None:
    other = dataclasses.replace(TINY, blocks=2)
    file = tmp_path / "other.safetensors"
    weights.save(file, networks.init(jax.random.key(0), other), other, {})
    with pytest.raises(WeightsError, match="holds another network"):
        detector.train(small_config(), tmp_path / "run", ["somewhere"], init_from=str(file))


def test_without_held_out_photographs_there_are_no_scores(patched, tmp_path) -> None:
    config = small_config(held_out=0, steps=2, best_metric="")
    detector.train(config, tmp_path / "run", ["somewhere"])
    _, _, metadata = weights.load(tmp_path / "run" / "weights.safetensors", DetectorSpec)
    assert metadata["scores"] == {}
