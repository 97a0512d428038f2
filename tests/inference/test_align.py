"""The whole road from a weight file to faces, mostly with an untrained network."""

import dataclasses
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import jax
import numpy as np
import pytest
from faces import in_place, mean_aligner
from paths import ASTRONAUT
from PIL import Image

import dfc_jax
from dfc_jax import cli
from dfc_jax.crops import Crop, apply_affine, box_of_points, crop_of_box
from dfc_jax.errors import PhotoError
from dfc_jax.inference import MAX_RECROPS, align, search, solve
from dfc_jax.inference.detect import Detection, WholeImage
from dfc_jax.morphable.file import load_face_model
from dfc_jax.nets import weights
from dfc_jax.photo import read_photo
from dfc_jax.systems.dfc import networks as variants
from dfc_jax.systems.dfc.template import make_template, template_landmarks


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    spec = variants.SPECS["lite"]
    metadata = {"face_model": load_face_model().version}
    weights.save(path, variants.init(jax.random.key(0), spec), spec, metadata)
    return path


@pytest.mark.slow
def test_load_compiles_all_that_photographs_of_any_size_need(caplog):
    aligner = dfc_jax.load()
    portrait = read_photo(ASTRONAUT)
    with jax.log_compiles():
        align_two_sizes(aligner, portrait)
    assert not [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]
    assert aligner.versions["weights"].startswith("lite-")
    assert aligner.versions["detector"].startswith("detector-")


def align_two_sizes(aligner, portrait):
    for image in (portrait, portrait[:300, 100:400].astype(np.float32) / 255.0):
        (face,) = aligner(image)
        assert face.detector == "dfc"
        assert face.landmarks.shape == (68, 2)
        assert np.isfinite(face.vertices_mm).all()
        assert face.flow.shape == (128, 128, 2)
        points = face.landmarks3d_mm
        projected = face.focal_px * points[:, :2] / points[:, 2:] + face.principal_point
        assert np.abs(projected - face.landmarks).max() < 0.05 / face.crop.scale


def same(one: list[align.Face], other: list[align.Face]) -> bool:
    """Whether all that was found is equal, bit for bit."""
    leaves = [
        jax.tree.leaves([dataclasses.asdict(face) for face in faces]) for faces in (one, other)
    ]
    return len(leaves[0]) == len(leaves[1]) and all(map(np.array_equal, *leaves))


@pytest.mark.slow
def test_eight_threads_get_the_faces_that_one_gets(trained):
    portrait = read_photo(ASTRONAUT)
    pictures = [cv2.resize(portrait, (edge, edge)) for edge in (512, 400, 320, 250)]
    wanted = [trained(picture) for picture in pictures]
    assert all(wanted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(trained, pictures * 2))
    assert all(map(same, found, wanted * 2))


@pytest.mark.slow
def test_an_aligner_works_in_spawned_workers(trained):
    portrait = read_photo(ASTRONAUT)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (found,) = pool.map(trained, [portrait])
    assert same(found, trained(portrait))


@pytest.fixture
def unsolved(monkeypatch):
    """Loading compiles nothing: what it makes solves no crop."""
    monkeypatch.setattr(align, "Solver", lambda *_: None)


def test_a_pickled_aligner_keeps_its_options_and_finds_its_files_from_anywhere(
    weight_file, unsolved, tmp_path, monkeypatch
):
    monkeypatch.chdir(weight_file.parent)
    aligner = dfc_jax.load(
        weight_file.name, detector="none", recrop=3, flip_test=True, runtime="onnx"
    )
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickle.dumps(aligner))
    assert isinstance(again.detector, WholeImage)
    assert again.versions == aligner.versions
    assert again.recrop == 3
    assert again.source == aligner.source
    assert again.source.flip_test
    assert again.source.runtime == "onnx"


def test_an_aligner_made_by_hand_says_that_it_cannot_be_pickled():
    with pytest.raises(pickle.PicklingError, match=r"dfc_jax\.load"):
        pickle.dumps(mean_aligner())


AFTER_FORK = """
import multiprocessing, sys
import numpy as np
import dfc_jax

def use(make, answers):
    try:
        make()
        answers.put("worked")
    except ValueError as error:
        answers.put(f"{type(error).__name__}: {error}")

aligner = dfc_jax.load(weights=sys.argv[1], detector="none")
image = np.zeros((64, 64, 3), np.uint8)
(face,) = aligner(image)
context = multiprocessing.get_context("fork")
for make in (
    lambda: aligner(image),
    lambda: aligner.flow_landmarks(face),
    lambda: dfc_jax.load(weights=sys.argv[1]),
):
    answers = context.SimpleQueue()
    child = context.Process(target=use, args=(make, answers))
    child.start()
    child.join(20)
    child.kill()
    print("hung" if answers.empty() else answers.get())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_after_a_fork_an_aligner_says_what_to_do_instead_of_hanging(weight_file):
    command = [sys.executable, "-W", "ignore", "-c", AFTER_FORK, weight_file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    said = done.stdout.splitlines()
    assert len(said) == 3
    for line in said:
        assert line.startswith("ForkError: ")
        assert "'spawn'" in line


@pytest.mark.slow
def test_a_child_forked_before_jax_was_used_loads_and_aligns(weight_file):
    script = """
import os, sys
import numpy as np
import dfc_jax
from dfc_jax import load
child = os.fork()
if child == 0:
    dfc_jax.load(weights=sys.argv[1], detector="none")(np.zeros((64, 64, 3), np.uint8))
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-c", script, weight_file]
    assert subprocess.run(command, timeout=300).returncode == 0


def test_weights_of_another_face_model_are_refused(weight_file, monkeypatch):
    other = dataclasses.replace(load_face_model(), version="other")
    monkeypatch.setattr(align, "load_face_model", lambda path: other)
    with pytest.raises(weights.WeightsError, match=r"untrained\.safetensors.* face model"):
        dfc_jax.load(weights=weight_file)


def mirrored(flow, mask) -> tuple[np.ndarray, np.ndarray]:
    """What the mirror image of a crop should say, if the crop says this."""
    return np.asarray(flow)[:, ::-1] * [-1.0, 1.0], np.asarray(mask)[:, ::-1]


def test_with_the_flip_test_a_crop_and_its_mirror_image_say_the_same(weight_file):
    variables, spec, _ = weights.load(weight_file)
    image = make_template(load_face_model()).image
    code = variants.encode_target(variables, image[None], spec)
    crop = jax.random.uniform(jax.random.key(1), image.shape)
    views = crop, crop[:, ::-1]
    one, other = (
        [leaf[0] for leaf in solve.correspond(view[None], variables, code, spec)] for view in views
    )
    wanted = [(a + b) / 2.0 for a, b in zip(one, mirrored(*other), strict=True)]
    assert np.abs(one[0] - wanted[0]).max() > 1e-3, "they do not say the same by themselves"
    both, turned = (
        [leaf[0] for leaf in solve.correspond(view[None], variables, code, spec, True)]
        for view in views
    )
    for found in (both, mirrored(*turned)):
        for leaf, mean in zip(found, wanted, strict=True):
            np.testing.assert_allclose(leaf, mean, atol=1e-4)


def test_the_flip_test_is_an_option_of_load(weight_file, monkeypatch):
    asked, correspond = [], solve.correspond

    def asking(*arguments):
        asked.append(arguments[-1])
        return correspond(*arguments)

    monkeypatch.setattr(solve, "correspond", asking)
    for option in ({}, {"flip_test": True}):
        dfc_jax.load(weights=weight_file, recrop=0, **option)(read_photo(ASTRONAUT))
    assert set(asked[: len(asked) // 2]) == {False}
    assert set(asked[len(asked) // 2 :]) == {True}


def test_a_second_crop_is_made_from_the_first_landmarks():
    image = np.zeros((400, 300, 3), np.uint8)
    (once,), (twice,) = (mean_aligner(recrop=n)(image) for n in (0, 1))
    wanted = crop_of_box(box_of_points(once.landmarks))
    np.testing.assert_allclose(twice.crop.to_photo, wanted.to_photo, atol=1e-4)
    np.testing.assert_array_equal(twice.box, once.box)


def standing(crop_image: np.ndarray) -> solve.Solution:
    """The mean face as if found in the crop, with doubts unless the crop's top is bright."""
    sure = crop_image[:64].mean() > crop_image[64:].mean() + 0.5
    return dataclasses.replace(mean_aligner().solver.solve(None), residual_px=0.5 if sure else 1.5)


def test_a_face_upside_down_is_found_by_turning_the_crop():
    upright = np.zeros((200, 200, 3), np.uint8)
    upright[:100] = 255
    for turns in range(4):
        image = np.rot90(upright, -turns)  # clockwise
        for recrop, residual in ((0, 0.5 if turns == 0 else 1.5), (1, 0.5)):
            (face,) = mean_aligner(solver=standing, recrop=recrop)(image)
            assert face.residual_crop_px == residual
        x, y = face.landmarks[27:31].mean(axis=0) - face.landmarks[8]  # from chin to nose
        assert np.isclose(np.rad2deg(np.arctan2(x, -y)) % 360.0, 90.0 * turns, atol=1.0)
        points = face.landmarks3d_mm
        projected = face.focal_px * points[:, :2] / points[:, 2:] + face.principal_point
        np.testing.assert_allclose(projected, face.landmarks, atol=1e-3)
        in_camera = face.rotation @ [0.0, 1.0, 0.0]
        turn = np.deg2rad(90.0 * turns)
        np.testing.assert_allclose(in_camera, [np.sin(turn), -np.cos(turn), 0.0], atol=1e-5)


@pytest.mark.parametrize(("residual", "chosen"), [(1.35, 180.0), (1.45, 0.0)])
def test_a_face_is_turned_only_for_a_surer_fit(residual, chosen):
    def solver(crop_image: np.ndarray) -> solve.Solution:
        sure = crop_image[:64].mean() > crop_image[64:].mean() + 0.5
        return dataclasses.replace(original, residual_px=residual if sure else 1.5)

    original = mean_aligner().solver.solve(None)
    image = np.zeros((200, 200, 3), np.uint8)
    image[100:] = 255
    (face,) = mean_aligner(solver=solver)(image)
    assert face.crop.roll_deg % 360.0 == pytest.approx(chosen)


@pytest.mark.parametrize(("kind", "tries"), [("dfc", 1), ("given", 4)])
def test_a_detectors_box_of_a_head_that_is_clear_from_another_is_not_turned(kind, tries):
    unclear = []

    def solver(crop_image: np.ndarray) -> solve.Solution:
        clear = crop_image.mean() > 0.9
        if not clear:
            unclear.append(crop_image)
        return dataclasses.replace(original, residual_px=0.5 if clear else 1.5)

    def detector(image):
        boxes = [(130.0, 130.0, 60.0, 60.0), (70.0, 70.0, 180.0, 180.0)]
        return [Detection(np.array(box), 0.9, kind) for box in boxes]

    original = in_place(mean_aligner().model)
    image = np.zeros((320, 320, 3), np.uint8)
    image[90:230, 90:230] = 255
    (face,) = mean_aligner(detector=detector, solver=solver)(image)
    assert face.residual_crop_px == 0.5
    assert len(unclear) == tries


def test_a_new_crop_that_fits_worse_is_not_taken():
    original = mean_aligner().solver.solve(None)
    residuals = iter([1.0, 9.0])
    image = np.zeros((400, 300, 3), np.uint8)
    aligner = mean_aligner(
        solver=lambda crop: dataclasses.replace(original, residual_px=next(residuals))
    )
    (face,) = aligner(image)
    assert face.residual_crop_px == 1.0


def test_the_upright_crop_does_not_depend_on_the_tilt():
    image = np.zeros((400, 400, 3), np.uint8)
    (face,) = mean_aligner(recrop=0)(image)
    wanted = apply_affine(
        search.upright_crop(face.landmarks, face.rotation).to_crop, face.landmarks
    )
    roll = np.deg2rad(50.0)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    rotation = face.rotation.copy()
    rotation[:2] = turn @ rotation[:2]
    landmarks = face.landmarks @ turn.T + 70.0
    crop = search.upright_crop(landmarks, rotation)
    # The pose is float32, which rounds the side of a crop by as much.
    np.testing.assert_allclose(apply_affine(crop.to_crop, landmarks), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({"centre": [101.0, 99.0], "side_px": 84.0, "roll_deg": 365.0}, True),
        ({"roll_deg": 349.0}, False),
        ({"roll_deg": 12.0}, False),
        ({"centre": [100.0, 107.0]}, False),
        ({"side_px": 68.0}, False),
    ],
)
def test_a_crop_is_made_anew_only_where_it_shows_the_face_otherwise(change, alike):
    crop = Crop(np.full(2, 100.0), 80.0)
    change = {name: np.asarray(value) for name, value in change.items()}
    assert search.stands_alike(dataclasses.replace(crop, **change), crop) == alike


def test_a_fit_that_is_not_finite_is_no_face():
    aligner = mean_aligner()
    solution = aligner.solver.solve(None)
    bad = dataclasses.replace(solution, focal_px=solution.focal_px * np.nan)
    assert mean_aligner(solver=lambda crop: bad)(np.zeros((64, 64, 3), np.uint8)) == []


def test_little_matchable_is_uncertain():
    solution = mean_aligner().solver.solve(None)
    image = np.zeros((64, 64, 3), np.uint8)
    for mask, status in ((solution.matchability, "ok"), (solution.matchability * 0, "uncertain")):
        found = dataclasses.replace(solution, matchability=mask)
        (face,) = mean_aligner(solver=lambda crop, s=found: s)(image)
        assert face.status == status
        assert ("little_matched" in face.reasons) == (status == "uncertain")


class TopBright:
    """Finds one face, in the middle, in pictures whose top is brighter than the rest."""

    def __init__(self):
        self.calls = 0

    def __call__(self, image: np.ndarray) -> list[Detection]:
        self.calls += 1
        half = image.shape[0] // 2
        if image[:half].mean() <= image[half:].mean() + 50:
            return []
        middle = (np.array(image.shape[1::-1]) - 1) / 2.0
        return [Detection(np.concatenate([middle - 30.0, [60.0, 60.0]]), 1.0, "given")]


def test_a_photograph_on_its_side_is_searched_turned_and_an_upright_one_only_once():
    upright = np.zeros((240, 200, 3), np.uint8)
    upright[:120] = 255
    for turns, calls in enumerate((1, 4, 4, 4)):
        detector = TopBright()
        image = np.rot90(upright, -turns)  # clockwise
        (face,) = mean_aligner(detector=detector, solver=standing)(image)
        assert face.status == "ok"
        assert detector.calls == calls
        x, y = face.landmarks[27:31].mean(axis=0) - face.landmarks[8]  # from chin to nose
        assert np.isclose(np.rad2deg(np.arctan2(x, -y)) % 360.0, 90.0 * turns, atol=1.0)


def test_looking_once_searches_only_the_upright_photograph():
    detector = TopBright()
    image = np.zeros((200, 200, 3), np.uint8)
    image[100:] = 255
    assert mean_aligner(detector=detector, recrop=0)(image) == []
    assert detector.calls == 1


@pytest.mark.parametrize(
    "turn_deg", [45, 90, *(pytest.param(turn, marks=pytest.mark.slow) for turn in (135, 180, 270))]
)
def test_a_portrait_turned_in_its_plane_is_found_and_aligned_as_the_upright_one(turn_deg, trained):
    aligner = trained
    portrait = read_photo(ASTRONAUT)[:300, 70:370]
    (wanted,) = aligner(portrait)
    turn = cv2.getRotationMatrix2D((149.5, 149.5), turn_deg, 1.0)
    turn[:, 2] += 70.0
    turned = cv2.warpAffine(portrait, turn, (440, 440), borderValue=(90, 90, 90))
    sure = [face for face in aligner(turned) if face.status == "ok"]
    away = [np.abs(face.landmarks - apply_affine(turn, wanted.landmarks)).mean() for face in sure]
    assert len(sure) == 1
    assert away[0] < 0.04 * wanted.box[2]


@pytest.mark.parametrize("box", [(1, 2, 3), (0, 0, -1, 5), (np.nan, 0, 5, 5), (70, 0, 9, 9)])
def test_impossible_boxes_are_refused(box):
    with pytest.raises(PhotoError, match="the box"):
        mean_aligner()(np.zeros((64, 64, 3), np.uint8), boxes=[box])


@pytest.mark.parametrize("given", [str(ASTRONAUT), ASTRONAUT, Image.open(ASTRONAUT)])
def test_a_photograph_may_be_a_path_or_a_picture_of_pillow(given):
    box = (160, 80, 140, 150)
    assert mean_aligner()(given, boxes=[box]) == mean_aligner()(read_photo(ASTRONAUT), boxes=[box])


@pytest.mark.parametrize("given", [None, np.zeros((2, 64, 64, 3), np.uint8), "no.jpg"])
def test_what_is_no_photograph_is_refused_before_anything_is_looked_for(given):
    with pytest.raises(PhotoError):
        mean_aligner(lambda image: pytest.fail("it was looked at"))(given)


def test_results_are_compared_by_value():
    image = np.zeros((300, 200, 3), np.uint8)
    (face,), (same,) = mean_aligner()(image), mean_aligner()(image)
    assert face == same
    assert face.crop == same.crop
    (other,) = mean_aligner()(image[:200])
    assert face != other
    assert face.crop != other.crop
    assert face != dataclasses.replace(face, expression=face.expression | {"jawOpen": 0.5})
    assert face != "face"
    assert [other, face].index(same) == 1


@pytest.mark.parametrize("recrop", [7, -1, 4, 1.5, 1.0, True, "2", None])
def test_a_number_of_crops_out_of_range_is_refused(recrop):
    with pytest.raises(align.OptionError, match=r"recrop needs a whole number from 0 to 3; got "):
        dfc_jax.load(recrop=recrop)


def test_the_command_and_load_allow_the_same_numbers_of_crops(unsolved):
    for recrop in (0, MAX_RECROPS, np.int64(2)):
        assert dfc_jax.load(recrop=recrop).recrop == recrop
        arguments = ["align", "a.png", "--out", "o", "--recrop", str(recrop)]
        assert cli._parser().parse_args(arguments).recrop == recrop


def test_reading_photographs_is_public_and_import_stays_light():
    assert dfc_jax.read_photo is read_photo
    assert set(dfc_jax.__all__) <= set(dir(dfc_jax))
    assert set(dfc_jax.__all__) == {*dfc_jax._HOMES, "__version__"}
    assert all(getattr(dfc_jax, name).__doc__ for name in dfc_jax._HOMES)
    with pytest.raises(dfc_jax.UserError, match="no such file"):
        dfc_jax.read_photo("no.jpg")
    program = "import sys, dfc_jax; assert not {'jax', 'cv2', 'PIL', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_landmarks_of_flow_mesh_and_blend():
    """A flow that leads every pixel straight to the template, moved by (6, -4) pixels."""
    aligner = mean_aligner(recrop=0)
    solution, model = aligner.solver.solve(None), aligner.model
    template = make_template(model)
    wanted = np.asarray(template_landmarks(template))
    flow = np.broadcast_to(np.float32([6.0, -4.0]), solution.flow.shape)
    mask = np.asarray(template.valid, np.float32)
    mask[:64] = 0.0  # brows and eyes are hidden
    moved = dataclasses.replace(solution, flow=flow, matchability=mask)
    aligner = mean_aligner(recrop=0, solver=lambda crop: moved)
    (face,) = aligner(np.zeros((300, 300, 3), np.uint8))
    points, support = aligner.flow_landmarks(face)
    lips = slice(48, 60)
    in_crop = apply_affine(face.crop.to_crop, points)
    np.testing.assert_allclose(in_crop[lips], wanted[lips] - [6.0, -4.0], atol=0.05)
    assert (support[lips] > 1.0).all()
    hidden = [*range(27), *range(36, 42)]
    np.testing.assert_array_equal(points[hidden], face.landmarks[hidden])
    assert (support[hidden] == 0.0).all()
    blend = aligner.blended_landmarks(face)
    # The variance of the mesh's landmarks is 2.5 crop pixels^2; see `mean_solution`.
    share = (2.5 * support / (2.5 * support + align.FLOW_VARIANCE))[:, None]
    wanted = share * (points - face.landmarks)
    np.testing.assert_allclose(blend - face.landmarks, wanted, atol=1e-4)
