"""The stages that are timed are those that an aligner runs."""

from functools import partial

import jax
import numpy as np
import pytest
from paths import ASTRONAUT

from dfc_jax.commands import stages
from dfc_jax.errors import OptionError
from dfc_jax.photo import read_photo

EACH = {"network", "fit", "finish"}
TOTALS = {"total", "total, boxes given", "total, many at once"}


@pytest.mark.slow
def test_every_stage_of_a_face_is_timed(trained) -> None:
    photos = [read_photo(ASTRONAUT)]
    times = partial(stages.stage_times, trained, photos, repeats=3, seconds=0.0)
    found, faces = times(batch=2)
    together = {f"{name}, 2 at once" for name in EACH}
    assert set(found) == {"detector", "crop"} | EACH | together | TOTALS
    assert faces == 1
    for name, stage in found.items():
        assert 0.0 < stage["p10_ms"] <= stage["median_ms"] <= stage["p90_ms"], name
        per_face = name == "crop" or name.split(",")[0] in EACH
        assert stage["per"] == ("face" if per_face else "photograph")
    assert set(times(batch=1)[0]) == {"detector", "crop"} | EACH | TOTALS


@pytest.mark.slow
def test_the_programs_give_what_the_solver_gives(trained) -> None:
    face = trained(read_photo(ASTRONAUT))[0]
    crop = stages.crop_photo(read_photo(ASTRONAUT), face.crop)
    (solution,) = trained.solver.finish(trained.solver.locate([crop]))
    programs = stages._programs(trained.solver, [crop[None]])
    flow, _, segmentation = programs["network"][0]()
    assert segmentation is None
    found = jax.tree.map(np.asarray, programs["finish"][0]())
    np.testing.assert_allclose(flow[0], solution.flow, atol=1e-3)
    np.testing.assert_allclose(found["vertices_mm"][0], solution.vertices_mm, atol=0.1)


def test_photographs_without_a_face_are_one_sentence(trained) -> None:
    grey = np.full((64, 64, 3), 127, np.uint8)
    with pytest.raises(OptionError, match="no photograph shows a face"):
        stages.stage_times(trained, [grey])
