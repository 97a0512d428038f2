"""How long things take, as JSON: medians in milliseconds after warm-up.

    python -m experiments.bench --suite cpu --json -

`cpu` is one face per call, as `dfc align` works, on whatever device JAX uses, and how long a new
process takes to its first face (seconds); with `--batch N` also the network's throughput. It also
says how accurate the landmarks are, and how many programs are compiled by loading an aligner and
by calling anything again. `synthetic` is the generator of training pairs, its stages and its
floor: see `experiments.bench.synthetic`. `train` is a step of both trainings and its parts: see
`experiments.bench.train`. `fit` is the fit of the face model beside solvers of others, with
`--batch N` of so many faces at once: see `experiments.bench.fit`. Close other programs.

    python -m experiments.bench --suite cpu --gate experiments/bench/baselines/cpu2.json

exits with 1 if something got worse than in that file (see `experiments.bench.gate`), a sentence
for each; times that are worse are measured twice, since other programs cost time too. With `--json`
in place of `--gate`, the same command makes the file again.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from data_pipelines.faces.synthetic import SyntheticSettings, sample_params
from dfc_jax.camera import crop_camera, to_camera
from dfc_jax.crops import crop_photo
from dfc_jax.errors import UserError
from dfc_jax.files import print_or_write_json
from dfc_jax.fitting import fit
from dfc_jax.inference import DEFAULT_DETECTOR
from dfc_jax.inference.align import DEFAULT_WEIGHTS, load
from dfc_jax.inference.detectors import make_detector
from dfc_jax.inference.schedule import Batches
from dfc_jax.inference.solve import Solver
from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import FaceModel, shape
from dfc_jax.nets import weights
from dfc_jax.photo import read_photo
from dfc_jax.raster.flow import fragments_of
from dfc_jax.raster.render import render
from dfc_jax.systems.dfc.labels import flow_to_template
from dfc_jax.systems.dfc.lift import lift
from dfc_jax.systems.dfc.networks import (
    SPECS,
    NetSpec,
    Variables,
    apply_with_code,
    encode_target,
    init,
)
from dfc_jax.systems.dfc.template import Template, make_template
from dfc_jax.texture.appearance import part_vertex_colors
from dfc_jax.types import Array, Correspondences
from experiments.bench.accuracy import accuracy_figures
from experiments.bench.compiles import compiles
from experiments.bench.fit import FACES, fit_figures
from experiments.bench.gate import check_comparable, read_baseline, regressions
from experiments.bench.start import start_figures
from experiments.bench.stopwatch import Stopwatch
from experiments.bench.synthetic import PAIRS, Figures, matmul_ms, synthetic_suite
from experiments.bench.train import NETWORK, train_suite

PHOTO = Path(__file__).parents[2] / "examples" / "astronaut.jpg"


def cpu_suite(watch: Stopwatch, batch: int | None = None) -> Figures:
    """The parts of aligning one face; with `batch`, crops per second of the lite network too."""
    # First, while nothing is compiled that it has in common with the rest.
    aligned = aligner_figures(watch)
    model = load_face_model()
    template = make_template(model)
    variables, spec = lite_network()
    figures = {
        **aligned,
        "network_lite_ms": network_ms(watch, variables, spec, template),
        "network_paper_ms": network_ms(
            watch, init(jax.random.key(0), SPECS["paper"]), SPECS["paper"], template
        ),
        "fit_ms": fit_ms(watch, model, template),
        "render_128_ms": render_ms(watch, model, template),
        **photo_figures(watch, Solver(variables, spec, model)),
        **start_figures(PHOTO),
    }
    if batch is not None:
        milliseconds = network_ms(watch, variables, spec, template, batch)
        figures |= {
            "batch": batch,
            "network_lite_crops_per_s": round(1e3 * batch / milliseconds, 1),
        }
    return figures


def aligner_figures(watch: Stopwatch) -> Figures:
    """Programs compiled by loading an aligner and aligning a photograph, and its accuracy."""
    before = compiles()
    aligner = load()
    image = read_photo(PHOTO)
    aligner(image)
    loaded = compiles()
    aligner(image)
    watch.compiles_again += compiles() - loaded
    return {"compiles_load": loaded - before, **accuracy_figures(aligner, PHOTO)}


def lite_network() -> tuple[Variables, NetSpec]:
    """The default weights; untrained ones, which take as long, where there are none."""
    if weights.resolve(DEFAULT_WEIGHTS).is_file():
        variables, spec, _ = weights.load(DEFAULT_WEIGHTS)
        return variables, spec
    return init(jax.random.key(0), SPECS["lite"]), SPECS["lite"]


def network_ms(
    watch: Stopwatch, variables: Variables, spec: NetSpec, template: Template, batch: int = 1
) -> float:
    """The network alone on crops (batch, S, S, 3), the template's code kept."""
    variables = jax.device_put(variables)
    code = encode_target(variables, template.image[None], spec)
    crops = jnp.repeat(template.image[None], batch, axis=0)
    return watch.median_ms(apply_with_code, variables, crops, code, spec)


def fit_ms(watch: Stopwatch, model: FaceModel, template: Template) -> float:
    """The fit of 50 identity and all expression coefficients to 1,024 correspondences."""
    points = exact_correspondences(jax.random.key(0), model, template)
    return watch.median_ms(fit, model, points, template.camera.principal_point)


@jax.jit
def exact_correspondences(key: Array, model: FaceModel, template: Template) -> Correspondences:
    """1,024 correspondences without noise, of a random face in a random pose."""
    params = sample_params(key, model, SyntheticSettings(size=template.size))
    vertices = to_camera(params, shape(model, params.identity, params.expression))
    camera = crop_camera(params, template.size)
    seen = fragments_of(vertices, model.triangles, camera, template.size)
    flow, matchable = flow_to_template(seen, template)
    return lift(template, flow, matchable.astype(jnp.float32))


def render_ms(watch: Stopwatch, model: FaceModel, template: Template) -> float:
    """Rasterizing and shading the mean face, at the template's size."""
    light = jnp.zeros((9, 3)).at[0].set(2.0).at[2].set(-1.0)
    colors = part_vertex_colors(model)

    def draw() -> Any:
        return render(
            template.vertices_mm,
            model.triangles,
            template.camera,
            template.size,
            vertex_colors=colors,
            sh=light,
        )

    return watch.median_ms(draw)


def photo_figures(watch: Stopwatch, solver: Batches) -> Figures:
    """Detection, crop and everything after it, on the example photograph."""
    image, detector = read_photo(PHOTO), make_detector(DEFAULT_DETECTOR)
    crop = detector(image)[0].crop
    one = crop_photo(image, crop)
    sixteen = [np.roll(one, shift, axis=1) for shift in range(-8, 8)]

    def align(crops: list[np.ndarray], largest: int | None = None) -> list[Any]:
        located = solver.locate(crops, largest)
        return solver.finish([found for found in located if found is not None], largest)

    return {
        "detect_ms": watch.median_ms(detector, image),
        "detect_haar_ms": watch.median_ms(make_detector("haar"), image),
        "crop_ms": watch.median_ms(crop_photo, image, crop),
        "align_total_ms": watch.median_ms(align, [one]),
        "align_batch16_ms_per_face": round(watch.median_ms(align, sixteen, 16) / 16, 3),
    }


def fit_suite(watch: Stopwatch, batch: int | None = None) -> Figures:
    """The fit beside solvers of others, with `batch` different faces at once; and the network."""
    model = load_face_model()
    template = make_template(model)
    milliseconds = network_ms(
        watch, init(jax.random.key(0), SPECS["paper"]), SPECS["paper"], template
    )
    keys = jax.random.split(jax.random.key(0), batch or FACES)
    points = jax.lax.map(lambda key: exact_correspondences(key, model, template), keys)
    centre = template.camera.principal_point
    return {
        "network_paper_ms": milliseconds,
        **fit_figures(watch, model, points, centre, milliseconds),
    }


SUITES: dict[str, Callable[..., Figures]] = {
    "cpu": cpu_suite,
    "fit": fit_suite,
    "synthetic": synthetic_suite,
    "train": train_suite,
}


def measure(
    suite: str, batch: int | None = None, watch: Stopwatch | None = None, **options: Any
) -> Figures:
    """The figures of a suite, which takes the `options`, and where and how they were measured."""
    watch = watch or Stopwatch()
    before_ms = matmul_ms(watch)
    figures = SUITES[suite](watch, batch, **options)
    return {
        "suite": suite,
        **figures,
        # The mean of before and after, for other programs that started or ended meanwhile.
        "reference_ms": round((before_ms + matmul_ms(watch)) / 2, 3),
        "compiles_again": watch.compiles_again,
        "samples": watch.samples,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
    }


def main(_) -> None:
    values = flags.FLAGS
    options = {"network": values.network} if values.suite == "train" else {}
    try:
        # Before anything is measured, which takes minutes.
        baseline = read_baseline(Path(values.gate)) if values.gate else None
        figures = measure(values.suite, values.batch, **options)
        print_or_write_json(values.json, figures)
        if baseline is None:
            return
        check_comparable(Path(values.gate), baseline, figures)
    except UserError as error:
        sys.exit(f"bench: {error}")
    worse = regressions(baseline, figures)
    if worse:
        print(f"bench: measuring again; {len(worse)} worse than in {values.gate}", file=sys.stderr)
        worse = regressions(baseline, figures, measure(values.suite, values.batch, **options))
    for sentence in worse:
        print(f"bench: {sentence}", file=sys.stderr)
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    flags.DEFINE_enum("suite", "cpu", sorted(SUITES), "what to measure")
    flags.DEFINE_string("json", "-", "file for the figures; - prints them")
    flags.DEFINE_string("gate", None, "file of earlier figures; exit with 1 if some are worse now")
    flags.DEFINE_integer(
        "batch",
        None,
        f"crops for the network's throughput; pairs at once ({PAIRS}); examples of a training "
        f"step; faces that are fitted at once ({FACES})",
        lower_bound=1,
    )
    flags.DEFINE_string("network", NETWORK, "what the suite train trains")
    app.run(main)
