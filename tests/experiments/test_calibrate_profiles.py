"""The habit of who annotates profiles is found from what they annotated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation  # noqa: F401

from dfc_jax.camera import project, to_camera
from dfc_jax.fitting import profile_landmarks
from dfc_jax.landmarks68 import MIRROR
from dfc_jax.morphable.linear import shape, surface_positions
from dfc_jax.ops.rotations import angles_to_rotvec
from dfc_jax.types import Camera, FaceParams
from experiments.tools import calibrate_profiles as calibrate

OF_RIGHT = [*range(9), 17, 19, 21, *range(36, 42), *range(27, 34), 48, 51, 57, 62, 66]


def test_left_halves_are_seen_in_a_mirror() -> None:
    points = np.full((2, 68, 2), np.nan)
    points[0, OF_RIGHT] = np.random.default_rng(0).uniform(40, 150, (len(OF_RIGHT), 2))
    points[1] = points[0, MIRROR] * [-1.0, 1.0] + [191.0, 0.0]
    found = calibrate.right_halves(points)
    np.testing.assert_allclose(found[0], points[0])
    np.testing.assert_allclose(found[1], points[0])


@pytest.mark.slow
def test_the_habit_of_simulated_annotators_is_found(model) -> None:
    """They put the brow higher and the outer corner of the eye farther back than the model."""
    keys = jax.random.split(jax.random.key(1), 12)
    heads = FaceParams(
        focal_px=jnp.full(12, 0.75 * 1800.0),
        rotation=jax.vmap(angles_to_rotvec)(
            jnp.stack([jnp.linspace(-85.0, -65.0, 12), jnp.zeros(12), jnp.zeros(12)], axis=-1)
        ),
        translation_mm=jnp.tile(jnp.array([0.0, 0.0, 1800.0]), (12, 1)),
        identity=jax.vmap(lambda key: jax.random.normal(key, (50,)))(keys),
        expression=jnp.zeros((12, model.n_expression)),
    )
    habit = np.zeros((68, 3), np.float32)
    habit[19], habit[36] = [0.0, 4.0, 0.0], [0.0, 0.0, -4.0]

    def seen(params: FaceParams):
        vertices = shape(model, params.identity, params.expression)
        places = surface_positions(vertices, model.triangles, profile_landmarks(model))
        camera = Camera(params.focal_px, calibrate.CENTRE)
        return project(camera, to_camera(params, places + habit))

    points = np.full((12, 68, 2), np.nan, np.float32)
    points[:, OF_RIGHT] = np.asarray(jax.vmap(seen)(heads))[:, OF_RIGHT]
    found, errors = calibrate.habit_of(model, points, rounds=3)
    assert errors[-1] < 0.7 * errors[0]
    assert found[19, 1] > 1.5 and found[36, 2] < -1.5
    others = [number for number in OF_RIGHT if number not in (19, 36)]
    assert np.abs(found[others]).mean() < 0.8
