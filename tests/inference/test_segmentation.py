"""With a segmentation, faces are fitted to what is seen of them, and say what covers them."""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
import pytest
from faces import estimate_of, mean_solution
from masks import TINY, constant, halves
from paths import ASTRONAUT

import dfc_jax
from dfc_jax import files
from dfc_jax.crops import Crop, crop_of_box, crop_photo
from dfc_jax.errors import WeightsError
from dfc_jax.inference import align, judge
from dfc_jax.inference.align import Aligner
from dfc_jax.inference.detect import Detection, WholeImage
from dfc_jax.inference.face import face_of
from dfc_jax.inference.programs import Known, fit_each, lift_each
from dfc_jax.inference.segmentation import (
    Segmentation,
    covered_landmarks,
    load_segmentation,
    occlusion_of,
    segment,
)
from dfc_jax.inference.solve import Buckets, Solver
from dfc_jax.nets import weights
from dfc_jax.photo import read_photo

BOX = (180, 82, 84, 86)
# A sigmoid of this is 1 in float32, and of its negative 0 but for rounding.
SURE = 40.0


@pytest.fixture(scope="module")
def portrait():
    return read_photo(ASTRONAUT)


@pytest.fixture(scope="module")
def with_segmentation(trained):
    """An aligner of the trained network and a segmentation."""

    def make(segmentation: Segmentation, flip_test: bool = False, runtime: str = "jax") -> Aligner:
        variables, spec, _ = weights.load("lite")
        solver = Solver(variables, spec, trained.model, flip_test, runtime, segmentation)
        return Aligner(solver, trained.model, WholeImage(), trained.versions)

    return make


@pytest.fixture(scope="module")
def seen_left(with_segmentation):
    return with_segmentation(halves(SURE, -SURE))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "all.safetensors"
    segmentation = constant(SURE)
    weights.save(path, segmentation.variables, TINY, {})
    return path


def test_only_pixels_that_show_the_face_are_matched_and_weigh_both_probabilities(template):
    size = template.size
    flow, probability = np.zeros((1, size, size, 2), np.float32), np.full((1, size, size), 0.9)
    chance = np.where(np.arange(size) < size // 2, 0.8, 0.5)
    given = template, flow, probability.astype(np.float32)
    shown = lift_each(*given, np.broadcast_to(chance, (1, size, size)).astype(np.float32))
    every = lift_each(*given)
    pixels = slice(0, -12)
    used, all_used = (np.asarray(each.weight)[0, pixels] > 0.0 for each in (shown, every))
    x = np.asarray(shown.points_px)[0, pixels, 0]
    assert used.sum() > 400 and x[used].max() == size // 2 - 1
    np.testing.assert_allclose(np.asarray(shown.weight)[0, pixels][used], 0.9 * 0.8, rtol=1e-6)
    assert np.asarray(every.points_px)[0, pixels, 0][all_used].max() > size // 2
    # The eyes: six landmarks of one lie in the right half, where 0.9 * 0.5 still supports them.
    eyes = [np.asarray(each.weight)[0, -12:] for each in (shown, every)]
    assert (eyes[0] <= eyes[1]).all() and (eyes[0] > 0.0).sum() >= 6


def test_a_face_that_is_nowhere_has_no_points_and_is_none(with_segmentation, portrait):
    aligner = with_segmentation(constant(-SURE))
    crop = crop_photo(portrait, crop_of_box(np.array(BOX)))[None]
    solver = aligner.solver
    seen = solver.network(crop)
    assert float(np.max(seen[2])) < 1e-6
    lifted = lift_each(solver.template, *seen)
    assert not np.any(lifted.weight)
    _, residual = fit_each(aligner.model, lifted, Known(np.full((1, 2), 63.5, np.float32)))
    assert np.isinf(residual).all()
    assert solver.locate(list(crop)) == [None]
    assert aligner(portrait, boxes=[BOX]) == []
    assert aligner(portrait) == []
    (found,) = aligner.many([portrait], boxes=[[BOX]])
    assert found.error is None and found.faces == []


@pytest.mark.parametrize("flip_test", [False, True])
def test_where_all_is_face_the_results_are_those_without(
    with_segmentation, trained, portrait, flip_test
):
    aligner = with_segmentation(constant(SURE), flip_test)
    plain = trained
    if flip_test:
        variables, spec, _ = weights.load("lite")
        solver = Solver(variables, spec, trained.model, True)
        plain = Aligner(solver, trained.model, WholeImage(), trained.versions)
    (face,), (wanted,) = aligner(portrait, boxes=[BOX]), plain(portrait, boxes=[BOX])
    assert (wanted.segmentation, wanted.occlusion, wanted.covered) == (None, None, None)
    assert wanted.evidence.visible_share is None
    np.testing.assert_array_equal(wanted.visible, wanted.matchability)
    assert face.status == wanted.status == "ok"
    np.testing.assert_allclose(face.matchability, wanted.matchability, atol=1e-5)
    np.testing.assert_allclose(face.landmarks, wanted.landmarks, atol=1e-2)
    np.testing.assert_allclose(face.vertices_mm, wanted.vertices_mm, rtol=1e-3, atol=0.5)
    np.testing.assert_allclose(face.refined_flow, wanted.refined_flow, atol=1e-2)
    assert (face.refined_mask != wanted.refined_mask).mean() < 1e-3
    np.testing.assert_array_equal(face.segmentation, np.ones((128, 128), np.float32))
    assert not face.occlusion.any() and not face.covered.any()
    assert face.evidence.visible_share == 1.0


def test_half_a_face_is_covered_where_the_mask_says_so(seen_left, trained, portrait):
    (face,) = seen_left(portrait, boxes=[BOX])
    left = np.arange(128) < 64
    np.testing.assert_allclose(face.segmentation, np.broadcast_to(left, (128, 128)), atol=1e-6)
    assert not face.occlusion[:, left].any()
    fitted = face.occlusion > 0.5
    assert 1000 < fitted.sum() and set(np.unique(np.round(face.occlusion, 3))) == {0.0, 1.0}
    # The portrait's face, found without the half: the other half lies where it did.
    (whole,) = trained(portrait, boxes=[BOX])
    np.testing.assert_allclose(face.landmarks, whole.landmarks, atol=6.0)
    x = face.crop.to_crop[0] @ np.append(face.landmarks, np.ones((68, 1)), axis=1).T
    assert face.covered[27:][x[27:] > 66.5].all() and not face.covered[x < 61.0].any()
    share = face.evidence.visible_share
    assert 0.3 < share < 0.7
    assert (face.visible[:, ~left] < 1e-6).all()
    points = np.asarray(seen_left.flow_landmarks(face)[1])
    assert not points[face.covered & (x > 70.0)].any()


def test_the_arrays_are_the_faces_own(seen_left, portrait):
    faces = seen_left(portrait, boxes=[BOX, BOX])
    for number, face in enumerate(faces):
        for array in (face.segmentation, face.occlusion, face.covered):
            assert array.flags.owndata
            array[...] = number
    assert all((face.occlusion == number).all() for number, face in enumerate(faces))


def test_threads_get_the_same_faces(seen_left, portrait):
    (wanted,) = seen_left(portrait, boxes=[BOX])
    with ThreadPoolExecutor(4) as pool:
        calls = pool.map(lambda _: seen_left(portrait, boxes=[BOX])[0], range(8))
    assert all(face == wanted for face in calls)


def test_the_segmentation_compiles_nothing_after_loading(seen_left, portrait, caplog):
    seen_left(portrait, boxes=[BOX])
    caplog.clear()
    with jax.log_compiles():
        seen_left(portrait[:300, 100:400], boxes=[(80, 82, 84, 86)])
    assert not [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]


@pytest.mark.slow
def test_onnx_runtime_and_the_segmentation_go_together(with_segmentation, seen_left, portrait):
    aligner = with_segmentation(halves(SURE, -SURE), runtime="onnx")
    (face,), (wanted,) = aligner(portrait, boxes=[BOX]), seen_left(portrait, boxes=[BOX])
    np.testing.assert_array_equal(face.segmentation, wanted.segmentation)
    np.testing.assert_allclose(face.landmarks, wanted.landmarks, atol=0.1)
    np.testing.assert_array_equal(face.covered, wanted.covered)


@pytest.mark.slow
def test_people_of_a_video_say_what_covers_them(seen_left, portrait):
    aligner = Aligner(
        seen_left.solver, seen_left.model, lambda _: [Detection(np.array(BOX), 1.0, "dfc")], {}
    )
    frames = list(aligner.track([portrait] * 3, fps=30.0))
    people = [face for frame in frames for face in frame.faces.values()]
    assert len(people) == 3
    for face in people:
        assert face.covered.any() and not face.covered.all()
        assert face.occlusion.shape == (128, 128)


def test_with_the_flip_test_a_mask_is_the_mean_of_the_crops_and_its_mirror_images():
    crops = np.zeros((2, 32, 32, 3), np.float32)
    plain, both = (np.asarray(segment(crops, halves(SURE, -SURE), flip)) for flip in (False, True))
    assert plain.shape == (2, 32, 32)
    np.testing.assert_allclose(
        plain[:, :, [0, 15, 16, 31]], [[[1.0, 1.0, 0.0, 0.0]] * 32] * 2, atol=1e-6
    )
    np.testing.assert_allclose(both, 0.5)


def test_occlusion_is_what_is_not_the_face_where_the_face_is_fitted():
    segmentation = np.array([[1.0, 0.25], [0.0, 0.0]], np.float32)
    fitted = np.array([[True, True], [True, False]])
    found = occlusion_of(segmentation, fitted)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0.0, 0.75], [1.0, 0.0]])


def test_covered_are_landmarks_around_which_most_of_the_fitted_face_is_occluded():
    """A face of 12 x 12 pixels, columns 4 to 15, something before its columns 10 to 15."""
    fitted, occlusion = np.zeros((20, 20), bool), np.zeros((20, 20), np.float32)
    fitted[4:16, 4:16] = True
    occlusion[4:16, 10:16] = 0.9
    places = {
        (6, 8): False,
        (9.4, 8): False,  # two of five columns around it: 0.4 * 0.9
        (10, 8): True,  # three of five: 0.54
        (14, 8): True,
        (16, 10): True,  # beside the outline, where all of the face there is covered
        (3, 10): False,
        (18, 10): False,  # nothing of the face within two pixels
        (-3, 10): False,
        (14, 25): False,
    }
    found = covered_landmarks(occlusion, fitted, np.array(list(places), np.float32))
    assert found.dtype == bool
    assert dict(zip(places, found.tolist(), strict=True)) == places
    assert not covered_landmarks(0.5 * (occlusion > 0), fitted, np.array([[14.0, 8.0]])).any()
    everywhere = np.ones((20, 20), bool)
    beside = np.array([[-3.0, 5.0], [5.0, 20.0], [0.0, 19.0]])
    found = covered_landmarks(everywhere.astype(np.float32), everywhere, beside)
    assert found.tolist() == [False, False, True]


def test_what_lies_outside_the_photograph_is_not_covered(model):
    solution = jax.tree.map(np.asarray, mean_solution(model))
    solution = dataclasses.replace(solution, segmentation=np.zeros((128, 128), np.float32))
    crop, box = Crop(np.array([63.5, 63.5]), 128.0), Detection(np.full(4, 40.0), 1.0, "given")
    names = model.expression_names
    evidence = judge.Evidence(0.4, 0.96, 0.95, 0.5, 0.0)
    make = partial(face_of, solution, evidence, box, crop, names)
    whole, cut = make((128, 128, 3)), make((128, 64, 3))
    assert whole.occlusion[:, 64:].any() and not cut.occlusion[:, 64:].any()
    np.testing.assert_array_equal(whole.occlusion[:, :64], cut.occlusion[:, :64])
    x = np.asarray(solution.landmarks_px)[:, 0]
    assert whole.covered[x > 68].any() and not cut.covered[x > 68].any()


@pytest.mark.parametrize(("share", "reasons"), [(0.2, ("little_visible",)), (0.6, ()), (None, ())])
def test_a_fit_of_which_little_is_a_face_is_doubtful(share, reasons):
    good = judge.Evidence(0.4, 0.96, 0.95, 0.5, share)
    assert judge.doubts(good) == reasons
    assert judge.is_clear(good) == (not reasons)


def test_the_visible_share_is_of_the_fitted_face_on_the_photograph(model):
    solution = jax.tree.map(np.asarray, mean_solution(model))
    left = np.arange(128) < 48
    some = dataclasses.replace(solution, segmentation=np.tile(left, (128, 1)).astype(np.float32))
    crop = Crop(np.array([63.5, 63.5]), 128.0)
    fitted = solution.fitted_mask
    for width in (128, 64):
        on = fitted & (np.arange(128) < width)
        found = judge.weigh(estimate_of(some), some, crop, (128, width, 3)).visible_share
        assert found == pytest.approx((on & left).sum() / on.sum())
    assert judge.weigh(estimate_of(solution), solution, crop, (128, 128)).visible_share is None


@pytest.fixture
def unsolved(monkeypatch):
    """Loading compiles nothing; what a solver would be made of is returned."""
    asked = []
    monkeypatch.setattr(align, "Solver", lambda *given: asked.append(given))
    return asked


def test_load_takes_a_file_and_a_copy_in_another_process_finds_it(
    file, unsolved, tmp_path, monkeypatch
):
    monkeypatch.chdir(file.parent)
    aligner = dfc_jax.load(detector="none", segmentation=file.name)
    assert aligner.versions["segmentation"] == files.file_version(file)
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(aligner))
    assert again.versions == aligner.versions
    assert again.source == aligner.source and again.source.segmentation == file
    for *_, segmentation in unsolved:
        assert segmentation.spec == TINY
        assert float(segmentation.variables["params"]["logits"]["bias"][0]) == SURE


def test_without_one_nothing_is_read_and_nothing_named(unsolved):
    aligner = dfc_jax.load(detector="none")
    assert aligner.source.segmentation is None and unsolved[0][-1] is None
    assert set(aligner.versions) == {"dfc_jax", "weights", "face_model"}


def test_the_name_is_that_of_the_packages_own_once_there_is_one(file, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"^segmentation: there are no such weights .* file"):
        monkeypatch.setattr(files, "SEGMENTATION_FILE", tmp_path / "segmentation.safetensors")
        load_segmentation("segmentation")
    (tmp_path / "segmentation.safetensors").write_bytes(file.read_bytes())
    assert load_segmentation("segmentation").spec == TINY
    with pytest.raises(WeightsError, match="give the name segmentation, a file or none"):
        load_segmentation("nowhere")


def test_another_network_and_a_damaged_file_are_one_sentence(file, unsolved):
    other = files.WEIGHTS_DIR / "lite.safetensors"
    with pytest.raises(WeightsError, match=r"lite\.safetensors: holds a network dfc/lite"):
        dfc_jax.load(detector="none", segmentation=other)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(WeightsError, match=r"all\.safetensors: cannot be read as safetensors"):
        dfc_jax.load(detector="none", segmentation=file)
    with pytest.raises(WeightsError, match=r"^nothing: there are no such weights"):
        dfc_jax.load(detector="none", segmentation="nothing")
    assert unsolved == []


@pytest.mark.slow
def test_a_batch_finds_what_single_crops_do(seen_left, portrait, monkeypatch):
    """On the sizes of an accelerator, three crops are padded to four."""
    solver = seen_left.solver
    crop = crop_photo(portrait, crop_of_box(np.array(BOX)))
    crops = [np.roll(crop, shift, axis=1) for shift in (-4, 0, 4)]
    one_by_one = solver.finish(solver.locate(crops))
    monkeypatch.setattr(solver, "buckets", Buckets((1, 4), 2, padded=True))
    for single, one in zip(one_by_one, solver.finish(solver.locate(crops)), strict=True):
        np.testing.assert_allclose(one.segmentation, single.segmentation, atol=1e-6)
        np.testing.assert_allclose(one.landmarks_px, single.landmarks_px, atol=0.2)
