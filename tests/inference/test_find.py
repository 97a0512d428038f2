"""Our own detector, with a network that sees red squares, finds them in pictures of any size."""

import pickle

import cv2
import jax
import numpy as np
import pytest
from paths import ASTRONAUT

from dfc_jax.inference import find
from dfc_jax.inference.find import FACE_PX, WHOLE_EDGE, FaceDetector, merge
from dfc_jax.nets import weights
from dfc_jax.photo import read_photo
from dfc_jax.systems.detector.cells import targets
from dfc_jax.systems.detector.networks import LARGEST, SMALLEST, STRIDE, DetectorSpec, Outputs, init
from dfc_jax.systems.detector.scenes import Boxes

TINY = DetectorSpec(stem=4, width=6, deep=8, blocks=1)
ROLL, SURE = 30.0, 3.0


def sees_red(variables, canvases, spec) -> Outputs:
    """Says of red squares of the sizes that the network knows what it shall say of faces; of dark
    ones less surely."""
    (canvas,) = np.asarray(canvases)
    red = (canvas[..., 0] > 90) & (canvas[..., 1] < 60)
    _, _, found, middles = cv2.connectedComponentsWithStats(red.astype(np.uint8))
    edges = np.sqrt(found[1:, 4]) - 1.0
    shown = (edges >= SMALLEST) & (edges <= LARGEST)
    if not shown.any():
        cells = len(canvas) // STRIDE
        return Outputs(np.full((1, cells, cells), -9.0), np.zeros((1, cells, cells, 5)))
    boxes = Boxes(middles[1:][shown], edges[shown], np.full(shown.sum(), ROLL))
    cells = targets(boxes, np.ones(len(boxes.edge), bool), *(np.array(canvas.shape[:2]) // STRIDE))
    bright = canvas[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE, 0] > 200
    logit = np.where(cells.face, np.where(bright, SURE, 1.0), -9.0)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], Outputs(logit, cells.values))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "tiny.safetensors"
    weights.save(path, init(jax.random.key(0), TINY), TINY, {})
    return path


@pytest.fixture
def detector(file, monkeypatch):
    """``detector(**options)`` makes one."""
    monkeypatch.setattr(find, "apply", sees_red)
    return lambda **options: FaceDetector(file, **options)


def picture(width: int, height: int, *squares: tuple[float, ...]) -> np.ndarray:
    """Red squares (x, y, edge, brightness) about these middles, on grey."""
    image = np.full((height, width, 3), 120, np.uint8)
    for x, y, edge, *level in squares:
        low, high = (np.round([x + s * edge / 2, y + s * edge / 2]).astype(int) for s in (-1, 1))
        image[low[1] : high[1] + 1, low[0] : high[0] + 1] = [*(level or [255]), 0, 0]
    return image


def assert_found(found, x, y, edge) -> None:
    assert np.abs(found.box[:2] + found.box[2:] / 2 - [x, y]).max() < 0.05 * edge + 0.5
    assert found.box[2] == found.box[3] == pytest.approx(edge, rel=0.1, abs=1.0)
    assert found.roll_deg == pytest.approx(ROLL) and found.kind == "dfc"


@pytest.mark.parametrize("edge", [20, 24, 30, 44, 60, 100, 230, 400])
def test_a_face_of_any_size_is_found_once_where_it_is(detector, edge) -> None:
    (found,) = detector()(picture(640, 480, (300, 240, edge)))
    assert_found(found, 300, 240, edge)
    assert found.score == pytest.approx(1.0 / (1.0 + np.exp(-SURE)))


def test_a_face_that_fills_the_picture_is_found(detector) -> None:
    (found,) = detector()(picture(81, 81, (40, 40, 80)))
    assert_found(found, 40, 40, 80)


@pytest.mark.parametrize(("width", "height"), [(3600, 2400), (2400, 3600), (5000, 300)])
def test_faces_of_large_pictures_lie_on_tiles(detector, width, height) -> None:
    places = [(0.1, 0.2), (0.5, 0.5), (0.33, 0.8), (0.66, 0.3), (0.95, 0.7)]
    squares = [(round(width * x), round(height * y), 60) for x, y in places]
    found = detector()(picture(width, height, *squares))
    assert len(found) == len(squares)
    for square in squares:
        middles = [d.box[:2] + d.box[2:] / 2 for d in found]
        nearest = np.argmin([np.abs(middle - square[:2]).max() for middle in middles])
        assert_found(found[nearest], *square)


def test_several_faces_come_largest_first_and_only_the_surest_as_asked_for(detector) -> None:
    scene = picture(600, 400, (100, 100, 40), (300, 200, 120, 150), (500, 100, 80))
    for options, edges in (({}, [120, 80, 40]), ({"max_faces": 2}, [80, 40])):
        assert [d.box[2] for d in detector(**options)(scene)] == pytest.approx(edges, rel=0.1)


def test_less_sure_faces_are_left_out(detector) -> None:
    scene = picture(300, 300, (100, 100, 40), (200, 200, 40, 150))
    assert len(detector()(scene)) == 2
    assert len(detector(min_score=0.8)(scene)) == 1
    assert detector(min_score=0.99)(scene) == []


def test_faces_smaller_than_asked_for_are_not_looked_for(detector) -> None:
    scene = picture(600, 400, (100, 100, 24), (300, 200, 120))
    assert len(detector()(scene)) == 2
    (found,) = detector(min_face_px=60.0)(scene)
    assert_found(found, 300, 200, 120)


def test_nothing_is_found_on_an_empty_or_tiny_picture(detector) -> None:
    for width, height in ((300, 200), (1, 1), (5000, 1), (3, 3000)):
        assert detector()(picture(width, height)) == []


def test_a_large_picture_is_searched_for_larger_faces(detector) -> None:
    def first_edge(width, height, **options):
        tiles = detector(**options)._plan(width, height)
        return max(tile.x + tile.width for tile in tiles)

    assert first_edge(300, 200) == 300 and first_edge(640, 480) == 512
    assert first_edge(8 * WHOLE_EDGE, 6 * WHOLE_EDGE) == 4 * WHOLE_EDGE
    assert first_edge(6000, 4000, min_face_px=4 * FACE_PX) == 1500
    # A square of 640 pixels would just not fit one canvas.
    assert 360 < first_edge(640, 640) < 512
    assert first_edge(640, 640, min_face_px=FACE_PX) == 640
    # However small the faces: no more than the most canvases.
    assert first_edge(20_000, 20_000, min_face_px=1.0) < 4000


def test_a_started_and_an_unpickled_detector_find_the_same(detector) -> None:
    scene, plain = picture(300, 300, (100, 100, 40)), detector()
    plain.start()
    plain.wait()
    (wanted,), (found,) = plain(scene), pickle.loads(pickle.dumps(plain))(scene)
    assert wanted == found


def test_the_network_itself_answers_for_every_canvas(file) -> None:
    """Fresh weights: no cell is sure of a face."""
    noise = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    assert FaceDetector(file)(noise) == []
    assert FaceDetector(file, min_score=1e-4)(noise)


@pytest.fixture(scope="module")
def shipped() -> FaceDetector:
    """With the weights of the package."""
    return FaceDetector()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """A photograph of one face."""
    return read_photo(ASTRONAUT)


# The landmark box of that face: x, y, width, height.
PORTRAIT_BOX = np.array([178.0, 87.0, 95.0, 93.0])


def changed(matrix: np.ndarray, size: tuple[int, int], portrait: np.ndarray) -> np.ndarray:
    """The portrait as an affine map shows it, on grey."""
    shrunk = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    smooth = cv2.GaussianBlur(portrait, (0, 0), 0.4 / shrunk) if shrunk < 1.0 else portrait
    return cv2.warpAffine(smooth, matrix, size, borderValue=(120, 120, 120))


@pytest.mark.parametrize("turn_deg", [0, 45, 90, 180, 270])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_portrait_is_found_at_every_size_and_tilt(shipped, portrait, turn_deg, scale) -> None:
    matrix = cv2.getRotationMatrix2D((255.5, 255.5), turn_deg, scale)
    edge = int(max(640, 800 * scale))
    matrix[:, 2] += edge / 2.0 - 255.5
    image = changed(matrix, (edge, edge), portrait)
    middle = matrix[:, :2] @ (PORTRAIT_BOX[:2] + PORTRAIT_BOX[2:] / 2.0) + matrix[:, 2]
    # Beside the face it may see one in an emblem of the suit, or in the whole head.
    found = min(
        shipped(image),
        key=lambda one: np.linalg.norm(one.box[:2] + one.box[2:] / 2.0 - middle) + one.box[2],
    )
    edge = PORTRAIT_BOX[2] * scale
    # So close that the aligner finds the face from there.
    assert np.linalg.norm(found.box[:2] + found.box[2:] / 2.0 - middle) < 0.5 * edge
    assert 0.5 * edge < found.box[2] < 2.0 * edge


def test_the_portrait_is_found_where_the_picture_is_cut_to_the_face(shipped, portrait) -> None:
    x, y, width, height = PORTRAIT_BOX.astype(int)
    found, *_ = shipped(portrait[y : y + height, x : x + width])
    assert found.box[2] == pytest.approx(95.0, rel=0.35)


def test_there_is_no_face_in_patterns(shipped) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    waves = np.stack([127.0 + 90.0 * np.sin(x / 9.0 + y / step) for step in (5, 11, 23)], axis=-1)
    noise = cv2.resize(rng.integers(0, 255, (30, 40, 3), np.uint8), (640, 480))
    for picture in (waves.astype(np.uint8), noise, np.zeros((480, 640, 3), np.uint8)):
        assert shipped(picture) == []


def test_cells_of_one_face_are_averaged_and_others_are_faces_of_their_own() -> None:
    middle = np.array([[10.0, 10.0], [12.0, 10.0], [100.0, 10.0], [11.0, 10.0], [11.0, 10.0]])
    edges, rolls = np.array([20.0, 20.0, 20.0, 35.0, 60.0]), np.array([170.0, -170.0, 0.0, 0, 90.0])
    first, second, larger = merge(Boxes(middle, edges, rolls), np.array([0.9, 0.9, 0.8, 0.5, 0.4]))
    np.testing.assert_allclose(first.box, [1.0, 0.0, 20.0, 20.0], atol=1e-9)
    assert abs(first.roll_deg) == pytest.approx(180.0) and first.score == 0.9
    np.testing.assert_allclose(second.box, [90.0, 0.0, 20.0, 20.0], atol=1e-9)
    # The fourth is too large to be averaged and not large enough for another face, unlike the last.
    np.testing.assert_allclose(larger.box, [-19.0, -20.0, 60.0, 60.0], atol=1e-9)
    assert merge(Boxes(np.zeros((0, 2)), np.zeros(0), np.zeros(0)), np.zeros(0)) == []
