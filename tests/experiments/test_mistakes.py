"""What a program says when its settings, its files or its training are wrong: one sentence."""

from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict
from programs import failure, give_photos, no_run
from quick import quick_compilation  # noqa: F401
from tiny import SIZE, SPECS, STEPS, tiny_config

from dfc_jax.nets import weights
from dfc_jax.systems.dfc import networks as variants
from dfc_jax.training import TrainingDiverged
from experiments import finetune, launch, pretrain


@pytest.mark.parametrize("part", ["synthetic", "augment"])
def test_an_unknown_setting_is_named(part, patched, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(finetune, "run", no_run)
    config = tiny_config("finetune_lite", "tiny").unlock()
    config[part] = ConfigDict({"yaw": 10.0})
    line = failure(capsys, lambda: finetune.train(config, tmp_path / "run", ["x"]))
    kind = {"synthetic": "SyntheticSettings", "augment": "AugmentSettings"}[part]
    assert f"{kind} has no yaw; it has " in line
    assert not (tmp_path / "run").exists(), "a run was begun with a broken config"


def test_wrong_networks_and_weight_files_are_named(
    patched, monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrain, "run", no_run)
    tied, weight_file = SPECS["tiny-tied"], str(tmp_path / "tiny.safetensors")
    weights.save(weight_file, variants.init(jax.random.key(0), tied), tied, {})

    def start(network: str, init_from: str | None):
        config = tiny_config("pretrain_lite", network)
        return failure(capsys, lambda: pretrain.train(config, tmp_path / "run", None, init_from))

    assert "there is no network 'huge'; choose from ['base'" in start("huge", None)
    line = start("lite-tied", weight_file)
    assert f"{weight_file}: holds another network than --config asks for (lite-tied)" in line
    # Tied weights can be untied, but not the other way round.
    paper = tmp_path / "paper.safetensors"
    small = variants.LiteSpec(widths=(4,) * 4, depths=(0,) * 4, decoder_depths=(0,) * 4)
    weights.save(paper, variants.init(jax.random.key(0), small), small, {})
    assert "holds another network" in start("tiny-tied", str(paper))
    assert "absent.safetensors: no such weight file" in start("tiny", "x/absent.safetensors")
    paper.write_bytes(b"nonsense")
    assert "cannot be read as safetensors" in start("tiny", str(paper))
    assert not (tmp_path / "run").exists()


def test_other_mistakes_are_one_sentence(patched, monkeypatch, capsys, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    config = tiny_config("pretrain_lite", "tiny-tied")
    line = failure(capsys, lambda: pretrain.train(config, file / "run"))
    assert f"{file / 'run'}: cannot be written (Not a directory)" in line
    sources = {"backgrounds": str(tmp_path)}
    line = failure(capsys, lambda: pretrain.train(config, tmp_path / "a", sources))
    assert f"{tmp_path}: holds no readable .jpg or .png picture" in line
    config.warmup_steps = STEPS
    line = failure(capsys, lambda: pretrain.train(config, tmp_path / "b"))
    assert "warm-up must be shorter than the run" in line

    config = tiny_config("finetune_lite", "tiny")
    config.synthetic.size = 64
    line = failure(capsys, lambda: finetune.train(config, tmp_path / "c", ["x"]))
    assert "config.augment.size is 32 and config.synthetic.size 64" in line
    config.synthetic.size = SIZE
    config.held_out = 7
    give_photos(monkeypatch)
    line = failure(capsys, lambda: finetune.train(config, tmp_path / "d", ["x"]))
    assert "there are 7 usable photographs and 7 are held out, which leaves none to train" in line
    config = tiny_config("pretrain_lite", "tiny")
    line = failure(capsys, lambda: finetune.train(config, tmp_path / "e", ["x"]))
    assert "--config has no augment; it is a config of another program" in line

    def diverge():
        raise TrainingDiverged("the loss of step 3 is nan")

    assert "the loss of step 3 is nan" in failure(capsys, diverge)
    with pytest.raises(ZeroDivisionError):
        launch.run_program(lambda: 1 / 0)
