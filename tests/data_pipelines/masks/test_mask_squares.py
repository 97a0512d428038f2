"""What is known of squares: renders, fitted photographs, masks, and pictures without a face."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dataset_layouts import write_fasseg

from data_pipelines.faces.occluders import OccluderSettings
from data_pipelines.faces.synthetic import SyntheticSettings, load_assets
from data_pipelines.masks import squares as module
from data_pipelines.masks.squares import (
    FACE,
    OTHER,
    UNKNOWN,
    certain_part,
    fitted_region,
    of_masks,
    of_nothing,
    of_photographs,
    of_rendered,
)
from data_pipelines.photos.augment import LabelledPhoto
from data_pipelines.photos.squares import STORED_PX, read_square
from dfc_jax.crops import apply_affine
from dfc_jax.data.fasseg import fasseg
from dfc_jax.landmarks68 import BROWS
from dfc_jax.morphable.linear import PARTS
from dfc_jax.systems.dfc.template import make_template, template_landmarks


@pytest.fixture(scope="module")
def template(model):
    return make_template(model, 64)


def test_what_hair_may_cover_is_not_certain(model, template) -> None:
    certain = np.asarray(certain_part(model, template))
    part = np.asarray(model.triangle_part)[np.asarray(template.fragments.pix_to_face)]
    brow = float(template_landmarks(template)[BROWS, 1].min())
    rows = np.arange(64)
    assert certain[int(brow) + 1 :, 32].sum() > 25
    assert not certain[rows < brow - 3].any()
    assert not certain[part == PARTS.index("ears")].any()
    assert not certain[part == PARTS.index("neck")].any()


def fitted(points, matchable, row: float):
    """The region where all that is matchable lies in one row of a template that is certain from
    row 10 on."""
    certain = jnp.broadcast_to(jnp.arange(20)[:, None] >= 10, (20, 20))
    xy = jnp.broadcast_to(jnp.array([5.0, row]), (*matchable.shape, 2))
    return np.asarray(fitted_region(certain, xy, jnp.asarray(matchable), jnp.asarray(points)))


@pytest.fixture(scope="module")
def points(model):
    """The landmarks of the mean face in a square."""
    return module._mean_points(model, 1)[0]


def test_the_fitted_mesh_is_the_face_where_that_is_certain(points) -> None:
    matchable = np.zeros((STORED_PX, STORED_PX), bool)
    matchable[100:150, 60:130] = True
    region = fitted(points, matchable, 15.0)
    # The border is 2.4 pixels wide: 0.025 of the landmark box, which is half of the square.
    assert (region[102:148, 62:128] == FACE).all()
    for row in (98, 101):
        assert (region[row, 62:128] == UNKNOWN).all()
    assert (region[:, 0] == OTHER).all() and region[191, 95] == OTHER
    # Hair may hang anywhere on the head: above the eyes, 30 pixels above the brows.
    assert region[int(points[19, 1]) - 30, 95] == UNKNOWN
    above = fitted(points, matchable, 5.0)
    assert (above[100:117, 60:130] == UNKNOWN).all()
    assert above[120, 95] == FACE  # between the lips


def test_photographs_are_labelled_by_the_template(model, template, points) -> None:
    """A face as wide as the template, brought into a square as it is."""
    scale = STORED_PX / 64
    xy = np.stack(np.meshgrid(*[np.arange(STORED_PX) / scale] * 2), axis=-1)
    landmarks = scale * np.asarray(template_landmarks(template))
    lips_open = landmarks.copy()
    lips_open[65:68, 1] += 12.0
    place = np.minimum(np.round(xy).astype(int), 63)
    matchable = np.asarray(template.valid)[place[..., 1], place[..., 0]]
    mouth = int(landmarks[66, 1]) + 5
    matchable[mouth - 3 : mouth + 4, 80:110] = False

    class Stored:
        def __len__(self) -> int:
            return 3

        def as_example(self, index):
            return jax.tree.map(
                lambda leaf: np.repeat(leaf[None], len(index), axis=0),
                LabelledPhoto(
                    np.full((STORED_PX, STORED_PX, 3), 7, np.uint8),
                    xy.astype(np.float16),
                    matchable,
                    lips_open.astype(np.float32),
                    np.ones(68, bool),
                ),
            )

    squares = of_photographs(Stored(), model, template)
    assert squares.images.shape == (3, STORED_PX, STORED_PX, 3) and (squares.images == 7).all()
    (region, *_), nose = squares.regions, landmarks[30].astype(int)
    assert region[nose[1], nose[0]] == FACE
    forehead = int(landmarks[19, 1]) - 12
    assert region[forehead, nose[0]] == UNKNOWN
    # The inside of the mouth is the face's, though no part of the template.
    assert region[mouth, nose[0]] == FACE


def test_masks_are_cut_out_as_their_photographs_are(tmp_path, model) -> None:
    write_fasseg(tmp_path, {"p01146+0+0": (80, 120), "p02146+0+0": (70, 120)})
    squares, problems = of_masks(fasseg(tmp_path), model)
    assert squares.regions.shape == (2, STORED_PX, STORED_PX) and not problems
    face = fasseg(tmp_path)[0]
    to_square = read_square(face).to_square
    seen, counted = face.mask()
    for x, y in ((80, 60), (100, 80), (150, 80), (30, 50), (60, 120), (100, 125)):
        column, row = np.round(apply_affine(to_square, np.array([x, y], float))).astype(int)
        known = (FACE if seen[y, x] else OTHER) if counted[y, x] else UNKNOWN
        assert squares.regions[0, row, column] == known
    assert set(np.unique(squares.regions)) == {OTHER, FACE, UNKNOWN}
    # Where there is no photograph, there is no face.
    assert (squares.regions[squares.images.sum(axis=-1) == 0] != FACE).all()


def test_a_mask_that_cannot_be_read_stops_no_other(tmp_path, model) -> None:
    write_fasseg(tmp_path, {"p01146+0+0": (80, 120), "p02146+0+0": (70, 120)})
    (tmp_path / "p01146+0+0.jpg").unlink()
    squares, (problem,) = of_masks(fasseg(tmp_path), model)
    assert len(squares.images) == 1 and "p01146+0+0.jpg" in problem


def test_pictures_without_a_face_have_none(model) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, 50, 50, 3), np.uint8)
    squares = of_nothing(pictures, model)
    assert squares.images.shape == (2, STORED_PX, STORED_PX, 3)
    assert not squares.regions.any()
    low, high = squares.points[0].min(axis=0), squares.points[0].max(axis=0)
    # A face could be in the middle of a square, half as wide.
    np.testing.assert_allclose((high - low).max(), STORED_PX / 2, rtol=0.01)
    assert len(of_nothing(pictures[:0], model).images) == 0


@pytest.mark.slow
def test_renders_know_the_face_that_nothing_covers(model) -> None:
    bald = OccluderSettings(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    settings = SyntheticSettings(yaw_deg=5.0, wide_yaw=0.0, wide_roll=0.0, occluders=bald)
    squares = of_rendered(jax.random.key(0), 3, load_assets(model), settings)
    assert squares.images.shape == (3, STORED_PX, STORED_PX, 3)
    for region, own in zip(squares.regions, squares.points, strict=True):
        nose, chin, mouth = own[30], own[8], own[66]
        # All faces wear a mask over mouth and nose.
        assert region[int(mouth[1]), int(mouth[0])] == OTHER
        between = ((own[27] + own[21]) / 2.0).astype(int)
        assert region[between[1], between[0]] == FACE
        brow = own[BROWS].min(axis=0)[1]
        assert UNKNOWN in region[: int(brow), int(nose[0])]
        assert (region[int(chin[1]) + 15 :] != FACE).all()
        # The picture shows twice the landmark box.
        edge = (own.max(axis=0) - own.min(axis=0)).max()
        assert STORED_PX / 2 / 1.25 < edge < STORED_PX / 2 * 1.25
    same = of_rendered(jax.random.key(0), 3, load_assets(model), dataclasses.replace(settings))
    np.testing.assert_array_equal(same.images, squares.images)
