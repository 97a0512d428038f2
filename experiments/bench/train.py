"""How fast the two trainings learn, and which part of a step the time goes to.

The steps are those of `experiments.pretrain` and `experiments.finetune` with the configs
`pretrain_fast` and `finetune_fast`; on a CPU, where these take minutes, of `CPU_BATCH` examples in
float32, one step per call. No data set is needed: the photographs are squares of noise, as many as
a batch, on the device. Of each stage, ``pretrain`` and ``refine``:

    <stage>_batch                  pairs, or photographs, of a step
    <stage>_step_ms                a whole step
    pretrain_pairs_per_s, refine_photos_per_s    of whole steps
    <stage>_compile_s              of the whole step's program, without a cache of programs
    <stage>_<part>_ms              a part of the step, a program of its own:
        examples    pairs are rendered; or photographs augmented, and faces rendered beside them
        forward     the network, as in training
        gradient    loss and gradient for examples that are there, so `forward` is in it
        optimizer   the optimizer and the averaged weights, for a gradient that costs nothing
    <stage>_<part>_share           the same in parts of a whole step
    <stage>_rest_share             what examples, gradient and optimizer leave of it; below 0 where
                                   one program for all costs more than three
    <stage>_xla_mflop_per_example, <stage>_xla_mbyte_per_example    XLA's estimates of a step
    <stage>_<part>_xla_...         and of its parts

Examples are all that the network sees, rendered faces beside photographs too. XLA counts a loop
once, among them that over the steps of a call.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.tree_util import Partial

from data_pipelines.faces.synthetic import load_assets
from data_pipelines.photos.augment import LabelledPhoto
from data_pipelines.photos.shards import RECORD
from dfc_jax.cache import without_kept_programs
from dfc_jax.morphable.file import load_face_model
from dfc_jax.systems.dfc.networks import NetSpec, Variables, apply_train, init
from dfc_jax.systems.dfc.pairs import Examples
from dfc_jax.systems.dfc.task import Compute, make_loss
from dfc_jax.systems.dfc.template import make_template
from dfc_jax.training import (
    Batch,
    LossFn,
    TrainSettings,
    compiled_step,
    create_state,
    make_mesh,
    make_optimizer,
    make_train_step,
    put_batches,
    replicated,
)
from dfc_jax.types import Array
from experiments import finetune, pretrain
from experiments.bench.stopwatch import Stopwatch
from experiments.bench.synthetic import Figures, short
from experiments.configs.dfc import finetune_fast, pretrain_fast

NETWORK = "paper-wide"
CPU_BATCH = 8


def train_suite(watch: Stopwatch, batch: int | None = None, network: str = NETWORK) -> Figures:
    """Both trainings; see the module.

    Args:
      watch: takes the times.
      batch: pairs, or photographs, of a step; None for those of the configs, or of a CPU.
      network: a name of `SPECS`; pretraining takes its "-tied" one.

    Raises:
      ConfigError: there is no such network, or the batch does not split over the devices.
    """
    first = pretrain.settings_of(shrunk(pretrain_fast.get_config(), f"{network}-tied", batch))
    second = finetune.settings_of(shrunk(finetune_fast.get_config(), network, batch))
    model = load_face_model()
    assets, template = load_assets(model), make_template(model, second.augmentation.size)
    pairs = pretrain.batches(first.training.batch, first.template_targets, 0)
    count = second.training.batch
    photos = {"photo": np.arange(count), "number": np.arange(count)}
    importance = jnp.ones((template.size, template.size))
    rendered = pretrain.rendered_examples(first, assets, template)
    augmented = finetune.photo_examples(second, template, importance, assets, noise_photos(count))
    return {
        "network": network,
        "devices": jax.device_count(),
        **stage_figures(watch, "pretrain", "pairs", first, rendered, next(pairs(0))),
        **stage_figures(watch, "refine", "photos", second, augmented, photos),
    }


def shrunk(
    config: ml_collections.ConfigDict, network: str, batch: int | None
) -> ml_collections.ConfigDict:
    """The config with another network and, on a CPU or if asked for, another batch, in which the
    shares of its two kinds of examples stay."""
    on_cpu = jax.default_backend() == "cpu"
    batch = batch or (CPU_BATCH if on_cpu else config.batch)
    for name in ("template_targets", "synthetic_batch"):
        if name in config:
            config[name] = config[name] * batch // config.batch
    config.network, config.batch = network, batch
    if on_cpu:
        config.steps_per_call, config.compute = 1, "float32"
    return config


def noise_photos(count: int) -> LabelledPhoto:
    """Labelled squares of noise, leaves (count, ...), on the device."""
    rng = np.random.default_rng(0)

    def noise(field: np.dtype) -> Array:
        values = rng.integers(
            0, 2 if field.base.kind == "b" else 128, (count, *field.shape), np.uint8
        )
        return jnp.asarray(values.astype(field.base))

    return LabelledPhoto(**{name: noise(RECORD[name]) for name in RECORD.names or ()})


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program, a call of it with its arguments, and the seconds it took to compile."""

    compiled: Any
    call: Callable[[], Any]
    compile_s: float


def compiled_anew(build: Callable[[], Any]) -> tuple[Any, float]:
    """What `build` compiles, even where a cache has it, and the seconds that took."""
    with without_kept_programs():
        start = time.perf_counter()
        compiled = build()
        return compiled, time.perf_counter() - start


def program(function: Any, *args: Any) -> Program:
    """That of a jitted function."""
    compiled, seconds = compiled_anew(lambda: function.lower(*args).compile())
    return Program(compiled, lambda: compiled(*args), seconds)


def stepping(loss: LossFn, training: TrainSettings, variables: Variables, *rest: Any) -> Program:
    """That of `make_train_step`; each call goes on from the state of the one before. `rest` are the
    arguments after the state."""
    optimizer, mesh = make_optimizer(training.optimizer), make_mesh()
    step: Any = make_train_step(loss, optimizer, mesh, ema_decay=training.ema_decay)
    state = create_state(variables, optimizer, mesh, ema=training.ema_decay > 0)
    compiled, seconds = compiled_anew(lambda: compiled_step(step, state, *rest))

    def call() -> Any:
        nonlocal state
        state, metrics = compiled(*step.args, state, *rest)
        return metrics

    return Program(compiled, call, seconds)


def stage_figures(
    watch: Stopwatch,
    stage: str,
    unit: str,
    settings: pretrain.PretrainSettings | finetune.FinetuneSettings,
    examples: Partial,
    batch: Batch,
) -> Figures:
    """The figures of one training; `examples` and a `batch` are those of its task."""
    training, spec = settings.training, settings.spec
    mesh, key = make_mesh(), jax.random.key(0)
    start = init(jax.random.key(1), spec)
    variables, examples = jax.device_put((start, examples), replicated(mesh))
    one, several = (put_batches([batch] * n, mesh) for n in (1, training.steps_per_call))
    batch = jax.tree.map(lambda leaf: leaf[0], one)
    loss = partial(make_loss, spec, settings.loss)
    step = stepping(loss(examples), training, variables, several, key, 1.0)
    make = program(jax.jit(lambda examples, *rest: examples(*rest)), examples, batch, key)
    made: Examples = make.call()
    given = loss(Partial(lambda made, *_: made, made))
    forward = jax.jit(partial(_forward, spec, settings.loss.compute))
    parts = {
        "examples": make,
        "forward": program(forward, variables, made),
        "gradient": program(jax.jit(_gradient), given, variables, batch, key),
        "optimizer": stepping(_squares, training, variables, one, key, 1.0),
    }
    step_ms = watch.median_ms(step.call) / training.steps_per_call
    figures = {
        "batch": training.batch,
        "step_ms": round(step_ms, 3),
        f"{unit}_per_s": short(1e3 * training.batch / step_ms),
        "compile_s": short(step.compile_s),
        **_estimates(step, len(made.source)),
    }
    shares = {}
    for name, part in parts.items():
        ms = watch.median_ms(part.call)
        shares[name] = ms / step_ms
        figures |= {f"{name}_ms": ms, f"{name}_share": short(ms / step_ms)}
        estimates = _estimates(part, len(made.source))
        figures |= {f"{name}_{estimate}": value for estimate, value in estimates.items()}
    rest = 1.0 - shares["examples"] - shares["gradient"] - shares["optimizer"]
    figures["rest_share"] = short(rest)
    return {f"{stage}_{name}": value for name, value in figures.items()}


def _forward(spec: NetSpec, compute: Compute, variables: Variables, made: Examples) -> Any:
    crops = made.source.astype(compute), made.target.astype(compute)
    return apply_train(variables, *crops, spec)


def _gradient(loss: LossFn, variables: Variables, batch: Batch, key: Array) -> Any:
    def loss_of(params: Variables) -> Any:
        return loss({**variables, "params": params}, batch, key)

    return jax.value_and_grad(loss_of, has_aux=True)(variables["params"])


def _squares(variables: Variables, batch: Batch, key: Array) -> Any:
    """A loss whose gradient costs nothing: it is the parameters."""
    params = jax.tree.leaves(variables["params"])
    state = {name: leaf for name, leaf in variables.items() if name != "params"}
    return sum(jnp.sum(leaf**2) for leaf in params) / 2.0, (state, {})


def _estimates(program: Program, examples: int) -> Figures:
    """XLA's, of the program of one device, for each of `examples` on all devices."""
    found = program.compiled.cost_analysis() or {}
    each = jax.device_count() / examples / 1e6
    return {
        "xla_mflop_per_example": short(found.get("flops", 0.0) * each),
        "xla_mbyte_per_example": short(found.get("bytes accessed", 0.0) * each),
    }
