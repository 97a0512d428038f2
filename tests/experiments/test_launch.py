"""How programs start and stop: flags, processes, signals, the folder of a run."""

import configparser
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
import yaml
from absl import flags
from paths import ROOT
from tiny import config_of

import experiments
from experiments import launch, stages, workdir

CONFIG = "experiments/configs/dfc/pretrain_lite.py"
METADATA = {"stage": "pretrain", "network": "lite-tied", "face_model": "1"}


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
        (["--config=experiments/workdir.py"], r"has no get_config\(\) that returns a ConfigDict"),
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
    """Of a command line with the flags of the programs; they are gone afterwards."""
    before = set(flags.FLAGS)
    monkeypatch.chdir(ROOT)
    launch.define_flags()

    def parse(*words: str) -> flags.FlagValues:
        # The overrides of a config are read from here.
        monkeypatch.setattr(sys, "argv", ["pretrain", *words])
        launch.parse_flags(sys.argv)
        return flags.FLAGS

    yield parse
    flags.FLAGS.unparse_flags()
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.stepz=3"], "--config.stepz: config has no field 'stepz'; did you mean steps?"),
        (["--config.steps=many"], "flag --config.steps=many: invalid literal"),
        (["--wrkdir=x"], "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
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
    example = launch.EXAMPLES["config"]
    assert stop.value.code == 1 and re.match("pretrain: " + message.format(example), line)
    assert (ROOT / example).is_file()


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("pretrain", "optax"),
        ("finetune", "orbax"),
        ("finetune", "tensorboardX"),
        ("pretrain", "ml_collections"),
        ("robustness", "matplotlib"),
    ],
)
def test_a_missing_extra_is_one_sentence(program, package, tmp_path: Path) -> None:
    raising = f"raise ModuleNotFoundError('No module named {package}', name='{package}')"
    (tmp_path / f"{package}.py").write_text(raising)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{program}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(f"{program}: needs the package {package}, ")
    assert 'pip install -e ".[train]"' in line


def test_packages_of_the_train_extra_are_known_to_be_optional() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = re.findall(r"^([\w-]+)", setup["options.extras_require"]["train"], re.MULTILINE)
    assert experiments.EXTRAS.keys() == {name.removesuffix("-checkpoint") for name in listed}


def test_flags_reach_the_program(parse) -> None:
    values = parse(f"--config={CONFIG}", "--workdir=x", "--config.synthetic.yaw_deg=3")
    assert values.config.synthetic.yaw_deg == 3.0 and values.config.is_locked
    assert (values.workdir, values.init, values.distributed) == ("x", None, False)


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
    ("program", "send", "requeued"),
    [
        ("trap 'exit 0' TERM; touch $W/ready; while :; do sleep 0.05; done", True, True),
        ("trap 'exit 1' TERM; touch $W/ready; while :; do sleep 0.05; done", True, False),
        ("exit 0", False, True),
        ("touch $W/weights.safetensors", False, False),
        ("exit 3", False, False),
    ],
    ids=["stopped", "failed when stopped", "only the step stopped", "finished", "failed"],
)
def test_slurm_requeues_what_was_stopped(program, send, requeued, tmp_path: Path) -> None:
    """With stand-ins for srun, scontrol and the program."""
    stubs = {
        "srun": 'echo "$@" > $W/started; shift; exec "$@"',
        "scontrol": 'echo "$@" > $W/requeued',
        "python": program,
    }
    for name, text in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": str(tmp_path / "python"),
        "SLURM_JOB_ID": "42",
        "W": str(tmp_path),
    }
    script = ["bash", "experiments/cluster/slurm.sh", "pretrain", f"--workdir={tmp_path}"]
    job = subprocess.Popen(script, cwd=ROOT, env=environment)
    while send and not (tmp_path / "ready").exists():
        time.sleep(0.01)
    if send:
        job.terminate()
    code = job.wait(timeout=60)
    assert code == {"exit 3": 3}.get(program, 0 if requeued or not send else 1)
    assert f"-m experiments.pretrain --workdir={tmp_path}" in (tmp_path / "started").read_text()
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 42\n"


def test_slurm_asks_for_the_signal_that_the_programs_wait_for() -> None:
    script = (ROOT / "experiments/cluster/slurm.sh").read_text()
    assert re.search(r"^#SBATCH --signal=B:TERM@\d+$", script, re.MULTILINE)
    assert "#SBATCH --requeue" in script and "#SBATCH --open-mode=append" in script
    processes = re.search(r"--ntasks-per-node=(\d+)", script)[1]
    assert f"--gpus-per-node={processes}" in script, "JAX gives each task one GPU"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 301, "config.steps is 301, which is not a multiple of config.steps_per_call"),
        ("log_every", 7, "config.log_every is 7, which is not a multiple"),
        ("save_every", 250, "config.save_every is 250, which is not a multiple"),
        ("steps_per_call", 0, "config.steps_per_call is 0; it must be at least 1"),
        ("log_every", 0, "config.log_every is 0; it must be at least 1"),
        ("compute", "float16", "config.compute is 'float16'; choose 'float32' or 'bfloat16'"),
        ("norm", "l3", "config.norm is 'l3'; choose 'l2' or 'l1' or 'charbonnier'"),
        ("reduction", "max", "config.reduction is 'max'; choose 'sum' or 'mean'"),
        ("keep_last", 0, "config.keep_last is 0; it must be at least 1"),
        ("template_targets", 17, r"config.template_targets is 17; .* config.batch \(16\)"),
        ("template_targets", -1, "config.template_targets is -1"),
        ("warmup_steps", 300, "warm-up must be shorter"),
    ],
)
def test_numbers_that_do_not_fit_together_are_named(field, value, message) -> None:
    config = config_of("pretrain_lite").unlock()
    config.steps, config.log_every, config.save_every, config.warmup_steps = 300, 20, 100, 30
    config.steps_per_call = 20
    stages.check_config(config)
    config[field] = value
    with pytest.raises(launch.ConfigError, match=message):
        stages.check_config(config)


@pytest.mark.parametrize(("batch", "targets"), [(8, 4), (16, 4), (24, 20)])
def test_template_targets_that_do_not_split_over_the_devices_are_refused(
    batch, targets, monkeypatch
) -> None:
    config = config_of("pretrain_lite")
    config.batch, config.template_targets = batch, targets
    stages.check_config(config)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    with pytest.raises(launch.ConfigError, match=f"config.template_targets is {targets}, .* 8 dev"):
        stages.check_config(config)


EIGHT_DEVICES = """
from tiny import config_of
from dfc_jax.training import BatchError, make_mesh, put_batches
from experiments import launch, pretrain, stages

config = config_of("pretrain_lite")
for config.batch in (8, 12, 16, 24):
    for config.template_targets in range(0, config.batch + 1, 4):
        refused = []
        for check in (
            lambda: stages.check_config(config),
            lambda: put_batches([next(pretrain.batches(config)(0))], make_mesh()),
        ):
            try:
                check()
                refused.append(False)
            except (BatchError, launch.ConfigError):
                refused.append(True)
        assert refused[0] == refused[1], (config.batch, config.template_targets, refused)
print("agree")
"""


def test_the_check_refuses_what_eight_devices_cannot_split_and_nothing_else() -> None:
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "agree", done.stderr


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


@pytest.fixture
def handlers():
    """Set the handlers of SIGTERM and SIGINT; those that the shell left, which may ignore SIGINT,
    are back afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def install(handler) -> None:
        for number in numbers:
            signal.signal(number, handler)

    yield install
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_once_and_the_second_acts(number, handlers) -> None:
    def terminated(*_):
        raise KeyboardInterrupt

    handlers(terminated)
    with pytest.raises(KeyboardInterrupt), launch.stop_on_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        os.kill(os.getpid(), number)
    with launch.stop_on_signal():
        assert signal.getsignal(number) is not terminated
    assert signal.getsignal(signal.SIGTERM) is terminated
    assert signal.getsignal(signal.SIGINT) is terminated


def test_signals_that_the_shell_has_off_stay_off(handlers) -> None:
    handlers(signal.SIG_IGN)
    with launch.stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_install_no_handlers() -> None:
    found = []

    def work():
        with launch.stop_on_signal() as stop:
            found.append((stop(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGTERM))]


def a_run(folder: Path, config=None, **changes) -> None:
    """What a run that got as far as step 20 leaves."""
    config = config or config_of("pretrain_lite")
    workdir.open_workdir(folder, config, METADATA | changes)
    workdir.write_config(folder, config, METADATA | changes)
    (folder / "checkpoints" / "20").mkdir(parents=True)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-o")])
def test_a_folder_that_cannot_be_written_is_named(error, tmp_path, monkeypatch) -> None:
    def fail(*_, **__):
        raise error

    a_run(tmp_path)
    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(launch.ConfigError, match=f"{tmp_path}: cannot be written .{error.args[1]}"):
        workdir.open_workdir(tmp_path, config_of("pretrain_lite"), METADATA)


@pytest.mark.parametrize("name", METADATA)
def test_the_folder_of_another_run_is_left_alone(name, tmp_path: Path) -> None:
    a_run(tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(
        launch.ConfigError, match=f"a run with {name} '{METADATA[name]}', this .*'o'"
    ):
        workdir.open_workdir(tmp_path, config_of("pretrain_lite"), METADATA | {name: "o"})
    assert (tmp_path / "config.json").read_text() == before
    # Without checkpoints there is nothing to lose.
    (tmp_path / "checkpoints" / "20").rmdir()
    workdir.open_workdir(tmp_path, config_of("pretrain_lite"), METADATA | {name: "o"})


def test_checkpoints_without_their_config_are_left_alone(tmp_path: Path) -> None:
    a_run(tmp_path)
    for broken in ("", "[]", None):
        (tmp_path / "config.json").unlink()
        if broken is not None:
            (tmp_path / "config.json").write_text(broken)
        with pytest.raises(launch.ConfigError, match="no readable config.json"):
            workdir.open_workdir(tmp_path, config_of("pretrain_lite"), METADATA)
        (tmp_path / "config.json").touch()


def test_settings_that_change_in_a_resumed_run_are_reported(tmp_path: Path, caplog) -> None:
    a_run(tmp_path)
    config = config_of("pretrain_lite")
    with caplog.at_level(logging.WARNING):
        workdir.open_workdir(tmp_path, config, METADATA)
        assert not caplog.records
        config.synthetic.yaw_deg = 3.0
        workdir.open_workdir(tmp_path, config, METADATA)
    (record,) = caplog.records
    assert "config.synthetic.yaw_deg 3.0; until now it was" in record.getMessage()


def test_config_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    a_run(tmp_path)
    before = (tmp_path / "config.json").read_text()
    assert json.loads(before)["network"] == "lite-tied"
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        workdir.write_config(tmp_path, config_of("pretrain_lite"), {"network": "other"})
    assert (tmp_path / "config.json").read_text() == before
