"""Faces become targets of cells, and what cells say becomes faces again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfc_jax.crops import Crop
from dfc_jax.systems.detector.cells import EXACT, Targets, decode, loss, targets
from dfc_jax.systems.detector.networks import LARGEST, SMALLEST, STRIDE, Outputs
from dfc_jax.systems.detector.scenes import Boxes, boxes_of_points


def boxes(*faces: tuple[float, float, float, float]) -> Boxes:
    """Of (x, y, edge, roll) each."""
    x, y, edge, roll = np.array(faces, np.float32).T
    return Boxes(np.stack([x, y], axis=-1), edge, roll)


def wanted(*faces: tuple[float, float, float, float], present=None) -> Targets:
    some = boxes(*faces)
    shown = np.ones(len(faces), bool) if present is None else np.array(present)
    return jax.tree.map(np.asarray, targets(some, shown, 16, 16))


def said(cells: Targets) -> Outputs:
    """What a network says that has learnt these targets."""
    return Outputs(np.where(cells.face, 6.0, -6.0), cells.values)


@pytest.mark.parametrize(("x", "y"), [(60.0, 64.0), (63.5, 59.5), (67.9, 71.2)])
@pytest.mark.parametrize("edge", [SMALLEST, 24.0, LARGEST])
def test_every_place_and_size_comes_back(x, y, edge) -> None:
    found, score = decode(said(wanted((x, y, edge, 130.0))), 0.5)
    assert len(score) >= 1 and (score > 0.99).all()
    np.testing.assert_allclose(found.middle, np.broadcast_to([x, y], found.middle.shape), atol=1e-3)
    np.testing.assert_allclose(found.edge, edge, rtol=1e-5)
    np.testing.assert_allclose(found.roll_deg, 130.0, atol=1e-3)


def test_cells_of_a_larger_face_are_more() -> None:
    counts = [wanted((64.0, 64.0, edge, 0.0)).face.sum() for edge in (16.0, 28.0, 44.0)]
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_neighbours_learn_of_the_face_whose_middle_they_lie_in() -> None:
    both = wanted((40.0, 64.0, 20.0, 0.0), (64.0, 64.0, 30.0, 45.0))
    edges = both.edge[both.face]
    assert set(np.round(edges)) == {20.0, 30.0}
    found, _ = decode(said(both), 0.5)
    for middle, edge in ((40.0, 20.0), (64.0, 30.0)):
        np.testing.assert_allclose(found.middle[np.isclose(found.edge, edge)][:, 0], middle, 1e-4)


def test_what_is_doubtful_is_not_learnt_and_what_is_far_off_is_no_face() -> None:
    for edge, known in (
        (SMALLEST - 2.0, False),
        (LARGEST + 6.0, False),
        (200.0, True),
        (5.0, True),
    ):
        cells = wanted((64.0, 64.0, edge, 0.0))
        assert not cells.face.any()
        assert cells.known[8, 8] == known
    hidden = wanted((64.0, 64.0, 30.0, 0.0), present=[False])
    assert not hidden.face.any() and not hidden.known[8, 8] and hidden.known[0, 0]
    shown = wanted((64.0, 64.0, 30.0, 0.0))
    assert shown.face[8, 8] and shown.known[8, 8]
    # Beside its middle a cell may say either.
    ring = int((64.0 + 0.45 * 30.0) // STRIDE)
    assert not shown.face[8, ring] and not shown.known[8, ring]


def test_boxes_of_points_lie_along_the_axes_of_the_face() -> None:
    rng = np.random.default_rng(0)
    upright = np.array([[-10.0, -6.0], [10.0, 14.0]])[rng.integers(2, size=(1, 68, 1)), [0, 1]]
    upright[0, :2] = [[-10.0, -6.0], [10.0, 14.0]]
    for roll in (0.0, 37.0, -150.0):
        points = upright @ Crop(np.zeros(2), 1.0, roll).rotation.T + [50.0, 70.0]
        found = boxes_of_points(points, np.array([roll]))
        centre = Crop(np.zeros(2), 1.0, roll).rotation @ [0.0, 4.0] + [50.0, 70.0]
        np.testing.assert_allclose(found.middle[0], centre, atol=1e-9)
        np.testing.assert_allclose(found.edge, 20.0)
        assert found.roll_deg[0] == roll


def test_the_loss_is_least_where_the_targets_are_said() -> None:
    cells = jax.tree.map(lambda leaf: leaf[None], wanted((60.0, 64.0, 24.0, 20.0)))
    right = jax.tree.map(lambda leaf: leaf[None], said(wanted((60.0, 64.0, 24.0, 20.0))))
    parts = loss(right, cells)
    assert parts["place"] < 0.01 and parts["size"] < 1e-5 and parts["roll"] < 0.01
    weighed = parts["score"] + EXACT * (parts["place"] + parts["size"]) + parts["roll"]
    np.testing.assert_allclose(parts["loss"], weighed, rtol=1e-5)
    changes = {"place": (0, 0.3), "size": (2, 0.2), "roll": (4, 0.5)}
    for name, (index, step) in changes.items():
        values = right.values.copy()
        values[..., index] += step
        worse = loss(Outputs(right.logit, values), cells)
        assert worse[name] > parts[name] + 0.1
        assert all(worse[other] == parts[other] for other in changes if other != name)
    # A tenth of the edge away is an error of a tenth.
    values = right.values.copy()
    values[..., 0] += 2.4 / 16.0
    np.testing.assert_allclose(loss(Outputs(right.logit, values), cells)["place"], 0.1, rtol=1e-3)


def test_scores_are_of_cells_that_matter_alone() -> None:
    cells = jax.tree.map(lambda leaf: leaf[None], wanted((60.0, 64.0, 24.0, 20.0)))
    logit = np.where(cells.known, np.where(cells.face, 6.0, -6.0), 100.0)
    assert loss(Outputs(logit, cells.values), cells)["score"] < 0.5
    wrong = np.where(cells.known & ~cells.face, 6.0, logit)
    assert loss(Outputs(wrong, cells.values), cells)["score"] > 50.0


def test_no_face_has_a_finite_loss_and_gradient() -> None:
    cells = jax.tree.map(lambda leaf: leaf[None], wanted((-1e4, -1e4, 24.0, 0.0)))
    assert not cells.face.any() and cells.known.all()
    zeros = Outputs(jnp.zeros((1, 16, 16)), jnp.zeros((1, 16, 16, 5)))
    value, gradient = jax.value_and_grad(lambda outputs: loss(outputs, cells)["loss"])(zeros)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
