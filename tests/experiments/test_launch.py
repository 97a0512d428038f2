"""How programs start: flags, processes, and mistakes as one sentence."""

import configparser
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest
import yaml
from absl import flags
from paths import ROOT

import experiments
from experiments import launch

CONFIG = "experiments/configs/dfc/pretrain_lite.py"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([f"--config={CONFIG}", "--config.stepz=3"], "config has no field 'stepz'.*mean steps"),
        ([f"--config={CONFIG}", "-config.stepz", "3"], "config has no field 'stepz'.*mean steps"),
        (
            ["--config", CONFIG, "--config.synthetic.yaw_dg=3"],
            "config.synthetic .*'yaw_dg'.*yaw_deg",
        ),
        ([f"--config={CONFIG}", "--config.steps.more=3"], "config.steps has no field 'more'$"),
        ([f"--config={CONFIG}", "--noconfig.foo"], "config has no field 'foo'"),
        (["--config=absent.py"], "--config=absent.py: no such file"),
        (["--config=experiments"], "--config=experiments: no such file"),
        (["--config=experiments/launch.py"], r"has no get_config\(\) that returns a ConfigDict"),
    ],
)
def test_mistakes_in_config_flags_are_named(words, message, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(launch.ConfigError, match=message):
        launch.check_config_flags(["program", *words])


def test_right_config_flags_pass(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    launch.check_config_flags(["program", f"--config={CONFIG}", "--config.synthetic.yaw_deg=3"])
    launch.check_config_flags(["program", "--help"])


@pytest.fixture
def parse(monkeypatch):
    """Of a command line with the flags that every program has; they are gone afterwards."""
    before = set(flags.FLAGS)
    monkeypatch.chdir(ROOT)
    launch.define_flags()

    def parse(*words: str) -> flags.FlagValues:
        # The overrides of a config are read from here.
        monkeypatch.setattr(sys, "argv", ["pretrain", *words])
        launch.parse_flags(sys.argv, CONFIG)
        return flags.FLAGS

    yield parse
    flags.FLAGS.unparse_flags()
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config.stepz=3"],
            "--config.stepz: config has no field 'stepz'; did you mean steps, decay_steps?",
        ),
        (["--config.steps=many"], "flag --config.steps=many: invalid literal"),
        (["--wrkdir=x"], "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
        (["--init=x"], "Unknown command line flag 'init'"),
        (["--backgrounds=x"], "Unknown command line flag 'backgrounds'"),
        (["--workdir"], "Missing value for flag --workdir"),
        ([], "--workdir must be given, for example --workdir runs/first; see --help"),
    ],
)
def test_mistakes_in_flags_are_one_sentence(words, message, parse, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(f"--config={CONFIG}", *words)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and line.startswith(f"pretrain: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--config and --workdir must be given, for example --config {} --workdir runs/first"),
        (["--workdir=x"], "--config must be given, for example --config {}"),
        (["--workdir=x", "--config.steps=3"], "--config must be given before .* --config {}"),
    ],
)
def test_a_missing_config_is_one_sentence_with_an_example(words, message, parse, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and re.match("pretrain: " + message.format(CONFIG), line)


def test_the_config_that_a_message_gives_as_an_example_is_there() -> None:
    assert (ROOT / launch.EXAMPLE_CONFIG).is_file()


@pytest.fixture
def kept_to_ourselves(monkeypatch):
    """Warnings as they are seen beside a program; all that it changed is put back."""
    ours, theirs = logging.getLogger("absl"), logging.getLogger("jax")
    level = theirs.level
    monkeypatch.setattr(ours, "filters", list(ours.filters))
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        launch.keep_to_ourselves()
        yield seen
    theirs.setLevel(level)


def test_what_orbax_abandons_is_left_out_and_nothing_else(kept_to_ourselves, capsys) -> None:
    class Lost:
        def __init__(self, message: str) -> None:
            self.message = message

        def __del__(self) -> None:
            raise RuntimeError(self.message)

    async def read() -> None: ...

    read()
    warnings.warn("overflow", RuntimeWarning, stacklevel=1)
    Lost("Event loop is closed")
    Lost("disk is gone")
    assert [str(warning.message) for warning in kept_to_ourselves] == ["overflow"]
    errors = capsys.readouterr().err
    assert "RuntimeError: disk is gone" in errors and "Event loop" not in errors


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("pretrain", "optax"),
        # Plain runs do without it, so that a run finds out when it opens its checkpoints.
        pytest.param("pretrain --config CONFIG --workdir RUN", "orbax", marks=pytest.mark.slow),
        pytest.param("finetune", "tensorboardX", marks=pytest.mark.slow),
        pytest.param("pretrain", "ml_collections", marks=pytest.mark.slow),
        pytest.param("robustness", "matplotlib", marks=pytest.mark.slow),
    ],
)
def test_a_missing_extra_is_one_sentence(line, package, tmp_path: Path) -> None:
    config = "experiments/configs/dfc/tiny.py"
    line = line.replace("CONFIG", config).replace("RUN", str(tmp_path / "run"))
    program, *arguments = line.split()
    raising = f"raise ModuleNotFoundError('No module named {package}', name='{package}')"
    (tmp_path / f"{package}.py").write_text(raising)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{program}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    told = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and told.startswith(f"{program}: needs the package {package}, ")
    assert 'pip install -e ".[train]"' in told and "Traceback" not in done.stderr


def test_packages_of_the_train_extra_are_known_to_be_optional() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = re.findall(r"^([\w-]+)", setup["options.extras_require"]["train"], re.MULTILINE)
    assert experiments.EXTRAS.keys() == {name.removesuffix("-checkpoint") for name in listed}


def test_flags_reach_the_program(parse) -> None:
    values = parse(f"--config={CONFIG}", "--workdir=x", "--config.synthetic.yaw_deg=3")
    assert values.config.synthetic.yaw_deg == 3.0 and values.config.is_locked
    assert (values.workdir, values.coordinator, values.distributed) == ("x", None, False)


@pytest.mark.slow
def test_a_program_that_fails_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.pretrain", f"--config={CONFIG}"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'run'}", "--config.batch=7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    message = "pretrain: config.batch is 7, which does not split evenly over 2 devices"
    assert done.stderr.splitlines()[-1] == message
    assert not (tmp_path / "run").exists()


def test_jobset_starts_as_many_processes_as_it_tells_them(parse) -> None:
    jobset = yaml.safe_load((ROOT / "experiments/cluster/jobset.yaml").read_text())["spec"]
    (replicated,) = jobset["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "experiments.pretrain"]
    assert [variable["name"] for variable in container["env"]] == ["COORDINATOR"]
    index = {"$(COORDINATOR)": "dfc-worker-0-0.dfc", "$(JOB_COMPLETION_INDEX)": "1"}
    line = "\n".join(container["args"])
    for name, value in index.items():
        line = line.replace(name, value)
    values = parse(*line.splitlines())
    assert values.coordinator == f"dfc-worker-0-0.dfc:{container['ports'][0]['containerPort']}"
    assert values.num_processes == job["completions"] == job["parallelism"]
    assert values.process_id == 1 and job["completionMode"] == "Indexed"
    assert jobset["coordinator"]["replicatedJob"] == replicated["name"]
    assert (replicated["replicas"], job["backoffLimit"]) == (1, 0)
    assert pod["terminationGracePeriodSeconds"] >= 60
    (mount,) = container["volumeMounts"]
    assert values.workdir.startswith(mount["mountPath"])
    assert mount["name"] in [volume["name"] for volume in pod["volumes"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("here:1", 2, None), "go together"),
        (("here", 2, 0), "--coordinator=here: must be host:port"),
        (("here:1", 2, 2), "--process_id=2 is not one of 2"),
    ],
)
def test_process_flags_that_make_no_sense_are_refused(arguments, message) -> None:
    with pytest.raises(launch.ConfigError, match=message):
        launch.connect(*arguments, detect=False)


def test_processes_are_found_under_slurm_or_on_request(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **settings: calls.append(settings))
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    launch.connect(None, None, None, detect=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    launch.connect(None, None, None, detect=False)
    assert not calls
    launch.connect(None, None, None, detect=True)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    launch.connect(None, None, None, detect=False)
    assert calls == [{}, {}]

    def alone(**_):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", alone)
    with pytest.raises(launch.ConfigError, match="did not find each other: DEADLINE.* out$"):
        launch.connect("here:1", 2, 0, detect=False)


def test_a_process_of_several_does_not_wait_for_the_others_to_fail(monkeypatch, capsys) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code + 100)

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit, match="101"):
        launch.run_program(lambda: 1 / 0)
    assert capsys.readouterr().err.endswith("ZeroDivisionError: division by zero\n")
