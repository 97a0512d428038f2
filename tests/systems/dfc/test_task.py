"""Scores and starting weights of the task, for predictions that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from tiny import SPECS

from dfc_jax.errors import ConfigError, WeightsError
from dfc_jax.nets import weights
from dfc_jax.systems.dfc import networks, task
from dfc_jax.systems.dfc.pairs import Examples

SIZE = 32


@pytest.mark.parametrize("error_px", [0.0, 2.0])
def test_scores_are_those_of_the_flow_in_pixels_of_the_crop(error_px, monkeypatch) -> None:
    """The truth is no flow at all, and the prediction is off by so many pixels to the right."""

    def predicted(variables, source, target, spec):
        flow = jnp.zeros((*source.shape[:3], 2)).at[..., 0].set(error_px)
        logits = jnp.zeros_like(flow).at[..., 1].set(9.0)
        return networks.Outputs(flow, logits)

    monkeypatch.setattr(task, "apply", predicted)
    angle = np.linspace(0.0, 2.0 * np.pi, 68, endpoint=False)
    points = 15.5 + 8.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    def examples(image):
        return Examples(
            source=image,
            target=image[:1],
            flow=jnp.zeros((*image.shape[:3], 2)),
            matchable=jnp.ones(image.shape[:3]),
            points=jnp.tile(points, (len(image), 1, 1)),
        )

    parts = [np.zeros((n, SIZE, SIZE, 3), np.float32) for n in (3, 1)]
    held_out = task.HeldOut("some", lambda: iter(parts), Partial(examples))
    task._scores.clear_cache()
    scores = task.evaluate(SPECS["tiny"], [held_out], {}, jnp.asarray(points))
    task._scores.clear_cache()
    np.testing.assert_allclose(scores["some_epe"], error_px, atol=1e-5)
    assert scores["some_iou"] == 1.0 and scores["some_under_1px"] == float(error_px < 1.0)
    np.testing.assert_allclose(scores["some_nme"], 100.0 * error_px / 16.0, atol=0.05)


def test_a_network_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no network 'huge'; choose from \['base', .*'lite'"):
        task.find_spec("huge")


def test_weights_of_another_network_are_refused_before_anything_is_made(tmp_path) -> None:
    file, spec = tmp_path / "tiny.safetensors", SPECS["tiny"]
    weights.save(file, networks.init(jax.random.key(0), spec), spec, {})
    with pytest.raises(WeightsError, match=r"holds another network .* \(lite\)"):
        task.start_from(str(file), networks.SPECS["lite"], "lite")


@pytest.mark.parametrize(
    "change", [{"norm": "l3"}, {"reduction": "max"}, {"frame": "camera"}, {"compute": "int8"}]
)
def test_choices_that_do_not_exist_are_named(change) -> None:
    (name,) = change
    with pytest.raises(ConfigError, match=rf"config\.{name} is .*; choose '"):
        task.LossSettings(**change)
