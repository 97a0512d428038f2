"""Bundles: what lies in them, what is refused, and that they train where there is JAX alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest
from dataset_layouts import write_ibug
from paths import ROOT
from tiny import config_of

from data_pipelines.faces.backgrounds import load_backgrounds
from data_pipelines.sources.packed import packed
from dfc_jax.errors import ConfigError, WeightsError
from dfc_jax.morphable.file import load_face_model
from dfc_jax.nets import weights
from dfc_jax.photo import write_png
from dfc_jax.systems.dfc.networks import SPECS, init
from dfc_jax.systems.dfc.template import make_template, template_landmarks
from experiments import bundle, bundled
from experiments.packages import PACKAGES

# What `pip install jax` brings along.
WITH_JAX = ("jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Six photographs with the landmarks of a frontal face, and one without points."""
    folder = tmp_path_factory.mktemp("bundle") / "photos"
    landmarks = np.asarray(template_landmarks(make_template(load_face_model())))
    for number in range(6):
        write_ibug(folder, f"face{number}", 60.0 + (1.2 + 0.05 * number) * landmarks)
    (folder / "broken.pts").write_text("version: 1\nn_points: 68\n{\n}\n")
    return folder


@pytest.fixture(scope="module")
def written(photos, tmp_path_factory) -> Path:
    """A bundle of both stages of the config `tiny`, trained in a minute."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "backgrounds").mkdir()
    write_png(folder / "backgrounds" / "one.png", np.full((40, 40, 3), 90, np.uint8))
    first = init(jax.random.key(0), SPECS["lite-tied"])
    weights.save(folder / "start.safetensors", first, SPECS["lite-tied"], {})
    bundle.write_bundle(
        folder / "made",
        bundle.stages_of(config_of("tiny"), config_of("tiny"), True, 0.25),
        minutes=2.0,
        photos=[str(photos)],
        sources={"backgrounds": str(folder / "backgrounds"), "textures": None, "light": None},
        init_from=str(folder / "start.safetensors"),
    )
    return folder / "made"


def test_a_bundle_holds_all_that_its_stages_read(written: Path) -> None:
    read = bundled.read_bundle(written)
    assert [(name, share) for name, share, _ in read.stages] == [("pretrain", 0.25), ("refine", 1)]
    for _, _, config in read.stages:
        assert config.plain and config.save_minutes == 1.0 and config.schedule == "constant"
        assert config.synthetic.to_dict() == config_of("tiny").synthetic.to_dict()
    assert [face.name for face in packed(written / "photos.npz")] == [f"face{n}" for n in range(6)]
    assert load_backgrounds(read.file("backgrounds")).shape == (1, 160, 160, 3)
    _, spec, _ = weights.load(read.file("init"))
    assert spec == SPECS["lite-tied"] and read.sources["textures"] is None
    assert (written / "source" / "dfc_jax" / "assets" / "face_model.npz").is_file()
    assert not list((written / "source").rglob("*.safetensors"))
    pins = (written / "packages" / "packages.txt").read_text().split()
    assert pins == [f"{name}=={metadata.version(name)}" for name in PACKAGES]
    assert all(".abi3." in file.name for file in (written / "packages").rglob("*.so"))
    size = sum(file.stat().st_size for file in written.rglob("*") if file.is_file())
    assert size < 30e6


def test_a_bundle_appears_whole_or_not_at_all(written: Path, photos, tmp_path: Path) -> None:
    stages = bundle.stages_of(config_of("tiny"), None, True, 0.5)

    def write(out: Path, **changes) -> None:
        bundle.write_bundle(out, stages, **{"minutes": 1.0, "photos": [str(photos)], **changes})

    with pytest.raises(ConfigError, match=r"made: is there already; remove it or choose another"):
        write(written)
    with pytest.raises(ConfigError, match=r"would take .* MB \(packages .*--most_mb is 5; raise"):
        write(tmp_path / "large", most_mb=5.0)
    with pytest.raises(ConfigError, match=r"--minutes is 0; it must be above 0"):
        write(tmp_path / "short", minutes=0.0)
    paper = tmp_path / "paper.safetensors"
    weights.save(paper, init(jax.random.key(0), SPECS["paper-tied"]), SPECS["paper-tied"], {})
    with pytest.raises(WeightsError, match=r"paper.safetensors: holds another network than"):
        write(tmp_path / "other", init_from=str(paper))
    assert [path.name for path in tmp_path.iterdir()] == ["paper.safetensors"]


def test_stages_that_do_not_fit_are_refused() -> None:
    tiny, paper = config_of("tiny"), config_of("pretrain_paper")
    with pytest.raises(WeightsError, match=r"--pretrain: holds another network .*\(lite-tied\)"):
        bundle.stages_of(tiny, paper, True, 0.5)
    with pytest.raises(ConfigError, match="--pretrain comes before a refinement; add --photos"):
        bundle.stages_of(tiny, paper, False, 0.5)
    with pytest.raises(ConfigError, match=r"--pretrain_share is 1; it must be between 0 and 1"):
        bundle.stages_of(tiny, tiny, True, 1.0)
    with pytest.raises(ConfigError, match="has no augment; it is a config of another program"):
        bundle.stages_of(paper, None, True, 0.5)
    (alone,) = bundle.stages_of(paper, None, False, 0.5)
    assert (alone.name, alone.share) == ("pretrain", 1.0)


def test_the_schedule_scales_to_the_clock() -> None:
    config = config_of("finetune_fast").unlock()
    stage = bundled.within(bundle.by_clock(config), 5.0)
    assert (stage.minutes, stage.decay_minutes) == (5.0, pytest.approx(2.0))
    config.minutes, config.decay_minutes = 9.0, 6.0
    stage = bundled.within(bundle.by_clock(config), 3.0)
    assert (stage.minutes, stage.decay_minutes) == (3.0, pytest.approx(2.0))


def test_a_damaged_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"bundle.json: cannot be read; copy the bundle again"):
        bundled.read_bundle(tmp_path)


def bare_python(folder: Path) -> tuple[Path, str]:
    """This Python with JAX alone: a program, and the PYTHONPATH it needs."""
    packages = folder / "jax_alone"
    packages.mkdir()
    for name in WITH_JAX:
        for part in {
            file.parts[0] for file in metadata.files(name) or () if ".." not in file.parts
        }:
            (packages / part).symlink_to(metadata.distribution(name).locate_file(part))
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    program.chmod(0o755)
    return program, str(packages)


def newest_python(folder: Path) -> tuple[Path, str]:
    """Python 3.12 with the newest JAX that it can be given, alone."""
    found = [*Path("~/.pyenv/versions").expanduser().glob("3.12*/bin/python3"), "python3.12"]
    for python in found:
        done = subprocess.run([python, "-m", "venv", folder / "venv"], capture_output=True)
        if done.returncode == 0:
            break
    else:
        pytest.skip("there is no Python 3.12 here")
    pip = [folder / "venv" / "bin" / "pip", "install", "--quiet", "jax<0.12"]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("JAX cannot be installed here")
    return folder / "venv" / "bin" / "python", ""


def start(folder: Path, python: tuple[Path, str], minutes: float) -> subprocess.Popen:
    """``run.sh``, without anything of this environment."""
    program, path = python
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            ["sh", folder / "run.sh", "--minutes", str(minutes)],
            cwd="/",
            env={"PATH": os.defpath, "PYTHON": program, "PYTHONPATH": path, "HOME": folder},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


@pytest.mark.slow
@pytest.mark.parametrize("make_python", [bare_python, newest_python])
def test_a_bundle_trains_resumes_and_exports_where_there_is_jax_alone(
    make_python: Callable[[Path], tuple[Path, str]], photos, tmp_path: Path
) -> None:
    config = config_of("tiny").unlock()
    config.steps_per_call = config.log_every = 1
    stages = bundle.stages_of(config, None, True, 0.5)
    bundle.write_bundle(tmp_path / "made", stages, minutes=9.0, photos=[str(photos)])
    folder = Path(shutil.move(tmp_path / "made", tmp_path / "elsewhere"))
    settings = json.loads((folder / "bundle.json").read_text())
    settings["stages"][0]["config"]["save_minutes"] = 0.001
    (folder / "bundle.json").write_text(json.dumps(settings))
    python = make_python(tmp_path)
    checkpoints = folder / "runs" / "refine" / "checkpoints"

    def steps() -> list[int]:
        return sorted(int(file.stem) for file in checkpoints.glob("[0-9]*.npz"))

    with start(folder, python, 30.0) as killed:
        deadline = time.monotonic() + 900.0
        while len(steps()) < 2:
            assert killed.poll() is None, (folder / "log.txt").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(killed.pid, signal.SIGKILL)
    assert not (folder / "weights.safetensors").exists()
    saved = steps()[-1]

    with start(folder, python, 1.5) as whole:
        printed, _ = whole.communicate(timeout=900)
    log = (folder / "log.txt").read_text()
    assert f"resumed from step {saved}" in log, log[-3000:]
    variables, spec, header = weights.load(folder / "weights.safetensors")
    assert spec == SPECS["lite-tied"] and header["steps"] > saved
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    assert (folder / "table.txt").read_text() == printed
    assert "refine" in printed and f"held_out_nme {header['scores']['held_out_nme']:.4g}" in printed


def test_a_python_without_jax_is_named(written: Path, tmp_path: Path) -> None:
    program = tmp_path / "bare"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["sh", written / "run.sh"],
        env={"PATH": os.defpath, "PYTHON": program},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"run.sh: {program} is no Python 3.11 or newer with JAX 0.10")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "x"], "--config must be given, for example --config experiments"),
        (
            ["--out", "x", "--config", "CONFIG", "--pretrain", "y.py"],
            "--pretrain=y.py: no such file",
        ),
        (
            ["--out", "x", "--config", "CONFIG", "--pretrain", "CONFIG", "--pretrain.bach=3"],
            "--pretrain.bach: pretrain has no field 'bach'; did you mean batch?",
        ),
        (
            ["--out", "x", "--config", "CONFIG", "--photos", "/nowhere"],
            "/nowhere: there is no such folder",
        ),
        (
            ["--out", "x", "--config", "CONFIG", "--photos", "/nowhere", "--light", "/nowhere.npz"],
            "/nowhere.npz: no such light prior",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(arguments, sentence, tmp_path: Path) -> None:
    config = str(ROOT / "experiments" / "configs" / "dfc" / "tiny.py")
    given = [config if word == "CONFIG" else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bundle", *given],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"bundle: {sentence}")
    assert not list(tmp_path.iterdir())


def test_nothing_of_this_machine_is_written_into_a_bundle(written: Path) -> None:
    texts = [written / "bundle.json", written / "run.sh", written / "packages" / "packages.txt"]
    assert not any(str(ROOT) in file.read_text() for file in texts)
