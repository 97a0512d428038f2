"""The people of videos: the same numbers throughout, found again, steady and not late."""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from faces import in_place, mean_aligner
from footage import FPS, Actor, Studio
from scipy.optimize import linear_sum_assignment

from dfc_jax.crops import apply_affine, box_of_points
from dfc_jax.errors import OptionError, VideoError
from dfc_jax.inference import learn
from dfc_jax.inference.detect import Detection
from dfc_jax.inference.person import Person
from dfc_jax.inference.schedule import run
from dfc_jax.inference.search import Fit
from dfc_jax.inference.track import Tracker, TrackSettings
from dfc_jax.ops.rotations import head_rotation

# Frames of the film's parts: somebody stands still, then turns; two others cross after a cut; back
# to the first, who comes nearer, and before whom something passes.
STILL, TURNING, CROSSING, APART, NEARING, HIDING = 32, 62, 48, 12, 30, 26
NOISE = 6.0


def turning_yaw(frame):
    return 10.0 + 30.0 * np.sin(2.0 * np.pi * frame / 60.0)


def actors(frame):
    """Who is in a frame of the film, in which scene, and columns that something covers."""
    first = Actor(1, (10.0, 4.0, 0.0), (-30.0, 10.0, 700.0))
    if frame < STILL:
        return [first], 3, None
    frame -= STILL
    if frame < TURNING:
        turn = np.sin(2.0 * np.pi * frame / 60.0)
        smile = 0.5 + 0.5 * np.sin(4.0 * np.pi * frame / 60.0)
        place = (-30.0 + 60.0 * turn, 10.0, 700.0)
        return [Actor(1, (turning_yaw(frame), 4.0, 8.0 * turn), place, smile)], 3, None
    frame -= TURNING
    if frame < CROSSING + APART:
        x = -120.0 + 240.0 * min(frame / (CROSSING - 1), 1.0)
        near = Actor(2, (15.0, 0.0, 0.0), (x, 0.0, 700.0))
        return [near, Actor(5, (-15.0, 0.0, 0.0), (-x, 10.0, 850.0))], 1, None
    frame -= CROSSING + APART
    depth = max(1200.0 - 600.0 * frame / (NEARING - 1), 600.0)
    covered = 24 * (frame - NEARING) - 260
    columns = None if frame < NEARING else (covered, covered + 260)
    return [Actor(1, (-10.0, 0.0, 0.0), (0.0, 0.0, depth))], 3, columns


LENGTH = STILL + TURNING + CROSSING + APART + NEARING + HIDING
CUTS = [STILL + TURNING, STILL + TURNING + CROSSING + APART]


class Film(NamedTuple):
    """Frames, the truth of each, and the columns that something covers."""

    frames: list
    truths: list
    covered: list


@pytest.fixture(scope="module")
def film(model):
    studio, frames, truths, covers = Studio(model), [], [], []
    for number in range(LENGTH):
        who, scene, columns = actors(number)
        image, truth = studio.film(who, scene, NOISE, seed=number)
        if columns is not None:
            image[:, max(columns[0], 0) : max(columns[1], 0)] = (60, 90, 70)
        frames.append(image)
        truths.append(truth)
        covers.append(columns)
    return Film(frames, truths, covers)


@pytest.fixture(scope="module")
def raw(trained, film):
    return list(trained.track(film.frames, fps=FPS, smooth=False))


@pytest.fixture(scope="module")
def smooth(trained, film):
    return list(trained.track(film.frames, fps=FPS))


def apart(face, truth):
    """Mean distance of the landmarks, in parts of the true box."""
    edge = np.ptp(truth.landmarks, axis=0).max()
    return np.linalg.norm(face.landmarks - truth.landmarks, axis=-1).mean() / edge


def matched(found, truths):
    """Who has which number in a frame: pairs of truth and (number, face)."""
    people = list(found.faces.items())
    cost = np.array([[apart(face, truth) for _, face in people] for truth in truths])
    pairs = zip(*linear_sum_assignment(cost.reshape(len(truths), len(people))), strict=True)
    return [(truths[i], *people[j]) for i, j in pairs if cost[i, j] < 0.2]


def is_free(truth, others, columns):
    """Whether nothing is before an actor's face."""
    low, high = truth.landmarks.min(axis=0), truth.landmarks.max(axis=0)
    if columns is not None and columns[0] < high[0] and columns[1] > low[0]:
        return False
    return all(
        np.any(other.landmarks.max(axis=0) + 25 < low)
        or np.any(other.landmarks.min(axis=0) - 25 > high)
        for other in others
        if other is not truth
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raw", "smooth"])
def test_everyone_keeps_their_number_and_is_found_again(kind, film, request):
    tracked = request.getfixturevalue(kind)
    assert [i for i, frame in enumerate(tracked) if frame.cut] == CUTS
    owner, missing, longest = {}, dict.fromkeys((1, 2, 5), 0), 0
    for number, frame in enumerate(tracked):
        pairs = matched(frame, film.truths[number])
        assert len(pairs) == len(frame.faces), f"frame {number} shows somebody who is not there"
        for truth, person_number, _ in pairs:
            assert owner.setdefault(truth.who, person_number) == person_number, number
        seen = {truth.who for truth, *_ in pairs}
        for truth in film.truths[number]:
            free = is_free(truth, film.truths[number], film.covered[number])
            missing[truth.who] = missing[truth.who] + 1 if free and truth.who not in seen else 0
        longest = max(longest, *missing.values())
    assert sorted(owner.values()) == [1, 2, 3]
    assert longest <= 0.3 * FPS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raw", "smooth"])
def test_poses_and_landmarks_are_those_of_the_actors(kind, film, request):
    angles, errors = [], []
    for number, frame in enumerate(request.getfixturevalue(kind)):
        for truth, _, face in matched(frame, film.truths[number]):
            if is_free(truth, film.truths[number], film.covered[number]):
                turn = face.rotation @ np.asarray(head_rotation(truth.params.rotation)).T
                angles.append(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
                errors.append(apart(face, truth))
    assert len(errors) > 150
    assert np.mean(angles) < 4.0
    assert np.mean(errors) < 0.03


@pytest.mark.slow
def test_still_face_trembles_a_third_as_much_and_less(raw, smooth):
    def trembling(tracked):
        faces = [frame.faces[1] for frame in tracked[8:STILL]]
        landmarks = [face.landmarks.ravel() for face in faces]
        weights = [list(face.expression.values()) for face in faces]
        depths = [face.translation_mm[2:] for face in faces]
        return [np.diff(each, axis=0).std(axis=0).mean() for each in (landmarks, weights, depths)]

    for before, after in zip(trembling(raw), trembling(smooth), strict=True):
        assert after < before / 3.0


@pytest.mark.slow
def test_moving_face_is_less_than_two_frames_late(film, smooth):
    turning = range(STILL, STILL + TURNING)
    faces = [smooth[number].faces[1] for number in turning]
    # By how many frames a truth that is as much later fits best.
    delays, frames = np.arange(-3.0, 6.0, 0.1), np.arange(TURNING)

    def late(found, wanted):
        inner = slice(8, TURNING - 5)
        misfits = []
        for delay in delays:
            shifted = np.interp(frames - delay, frames, wanted)
            difference = (found - shifted)[inner]
            misfits.append(np.std(difference))
        return delays[int(np.argmin(misfits))]

    yaws = np.array([face.angles_deg["yaw"] for face in faces])
    places = np.array([face.landmarks[:, 0].mean() for face in faces])
    truths = [film.truths[number][0] for number in turning]
    true_places = np.array([truth.landmarks[:, 0].mean() for truth in truths])
    assert late(yaws, turning_yaw(frames)) < 2.0
    assert late(places, true_places) < 2.0


@pytest.mark.slow
def test_person_has_one_identity_and_focal_length_that_settle(smooth):
    faces = [frame.faces[1] for frame in smooth if 1 in frame.faces]
    identities = np.array([face.identity for face in faces])
    steps = np.linalg.norm(np.diff(identities, axis=0), axis=1)
    assert steps.max() < 0.25 * np.linalg.norm(identities[-1])
    focals = np.array([face.focal_px for face in faces[STILL + TURNING :]])
    # Nearer, the face says more of it.
    assert focals.max() / focals.min() < 1.1
    np.testing.assert_allclose([face.principal_point for face in faces], 159.5, atol=1e-3)


# From here on without a network: the mean face is found in every crop.


@pytest.fixture(autouse=True)
def learnt(request, monkeypatch):
    if "slow" in request.keywords:
        return
    monkeypatch.setattr(learn, "_together", lambda *_: (np.zeros(3), np.log(300.0)))
    monkeypatch.setattr(
        learn, "_keyframe", lambda fit: learn.Keyframe(None, fit.rotation, np.zeros(53))
    )


BOXES = {"left": (40.0, 60.0, 60.0, 60.0), "right": (200.0, 60.0, 60.0, 60.0)}


def frame_of(**levels):
    """A frame in which each of the boxes has a colour of its own."""
    image = np.full((180, 320, 3), 90, np.uint8)
    for name, level in levels.items():
        x, y, width, height = map(int, BOXES[name])
        image[y - 40 : y + height + 40, x - 40 : x + width + 40] = level
    return image


class Finder:
    """Finds whatever it is told, and counts how often it is asked."""

    def __init__(self):
        self.boxes, self.asked = [], 0

    def __call__(self, image):
        self.asked += 1
        return [Detection(np.array(BOXES[name]), 0.9, "given") for name in self.boxes]


def frames_of(tracker, solver, images, start=0):
    found = []
    for number, image in enumerate(images):
        looked = run(tracker.look((start + number) / FPS, image), solver)
        tracker.adopt()
        found.append(run(tracker.note(looked), solver))
    return found


@pytest.fixture
def stage(model):
    finder, solution = Finder(), in_place(model)
    aligner = mean_aligner(detector=finder, solver=lambda crop: solution)
    return finder, aligner, Tracker(aligner.model, finder, TrackSettings(smooth=False))


def test_detector_looks_once_a_second_while_all_are_there(stage):
    finder, aligner, tracker = stage
    finder.boxes = ["left", "right"]
    found = frames_of(tracker, aligner.solver, [frame_of(left=50, right=200)] * 61)
    assert all(sorted(frame.faces) == [1, 2] for frame in found)
    assert finder.asked == 3


def test_somebody_who_is_gone_at_the_second_look_is_not_looked_for(stage, model):
    finder, _, _ = stage
    finder.boxes = ["left"]
    looks, solution = iter([True]), in_place(model)
    aligner = mean_aligner(solver=lambda crop: solution if next(looks, False) else nowhere(model))
    tracker = Tracker(aligner.model, finder, TrackSettings(smooth=False))
    found = frames_of(tracker, aligner.solver, [frame_of(left=50)] * 10)
    assert all(frame.faces == {} for frame in found)


def nowhere(model):
    """A fit that shows no face."""
    solution = in_place(model)
    return dataclasses.replace(solution, matchability=0.0 * solution.matchability)


def test_detector_looks_more_often_while_nobody_is_there(stage):
    finder, aligner, tracker = stage
    found = frames_of(tracker, aligner.solver, [frame_of()] * 30)
    assert all(frame.faces == {} for frame in found)
    assert finder.asked == 5


def test_person_who_comes_back_elsewhere_is_known_by_their_looks(stage):
    finder, aligner, tracker = stage
    finder.boxes = ["left"]
    frames_of(tracker, aligner.solver, [frame_of(left=50)] * 10)
    finder.boxes = ["right"]
    tracker._people[0].seen_s = -10.0  # long ago
    (again,) = frames_of(tracker, aligner.solver, [frame_of(right=50)], start=400)
    assert list(again.faces) == [1]
    tracker._people[0].seen_s = -10.0
    (other,) = frames_of(tracker, aligner.solver, [frame_of(right=200)], start=800)
    assert list(other.faces) == [2]


@pytest.mark.parametrize("whose", [1, 2])
def test_two_in_one_face_are_one_and_it_is_who_looks_like_it(stage, whose):
    finder, aligner, tracker = stage
    finder.boxes = ["left", "right"]
    frames_of(tracker, aligner.solver, [frame_of(left=50, right=200)] * 2)
    # Both are looked for where one of them is.
    for one in tracker._people:
        one.fit = tracker._people[whose - 1].fit
    finder.boxes = []
    (found,) = frames_of(tracker, aligner.solver, [frame_of(left=50, right=200)], start=2)
    assert list(found.faces) == [whose]


def test_cut_is_noticed_and_asks_the_detector(stage):
    finder, aligner, tracker = stage
    finder.boxes = ["left"]
    rng = np.random.default_rng(0)
    places = [cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (320, 180)) for _ in range(2)]
    noisy = [
        np.clip(place + 8.0 * rng.standard_normal(place.shape), 0, 255).astype(np.uint8)
        for place in [places[0]] * 10 + [places[1]] * 10
    ]
    found = frames_of(tracker, aligner.solver, noisy[:10])
    assert finder.asked == 1
    found += frames_of(tracker, aligner.solver, noisy[10:11], start=10)
    assert finder.asked == 2
    found += frames_of(tracker, aligner.solver, noisy[11:], start=11)
    assert [i for i, frame in enumerate(found) if frame.cut] == [10]


def test_no_more_people_than_are_wanted(stage):
    finder, aligner, _ = stage
    finder.boxes = ["left", "right"]
    images = [frame_of(left=50, right=200)] * 3
    found = list(aligner.track(images, fps=FPS, max_people=1))
    assert all(len(frame.faces) == 1 for frame in found)


@pytest.mark.parametrize("fps", [0, -5.0, float("nan"), float("inf")])
def test_rates_that_are_none_are_refused(stage, fps):
    _, aligner, _ = stage
    with pytest.raises(OptionError, match="fps needs a positive number"):
        aligner.track([frame_of(left=50)], fps=fps)


@pytest.fixture
def fit(stage):
    """A fit to a frame, and the frame."""
    _, aligner, _ = stage
    image = frame_of(left=50)
    (face,) = aligner(image, boxes=[BOXES["left"]])
    estimate = aligner.solver.locate([image])[0]
    return Fit(Detection(face.box, 1.0, "given"), face.crop, estimate), image


def learner_of(fit, image, smooth=False, centre=(159.5, 89.5)):
    return learn.Learner(None, np.array(centre), smooth, 0.0, image, fit)


def test_crop_moves_on_with_the_face(fit):
    fit, image = fit
    one = Person(1, np.zeros(2), learner_of(fit, image))
    one.saw(0.0, fit, jumped=True)
    still = one.expected_crop(0.1)
    crop = dataclasses.replace(fit.crop, centre=fit.crop.centre + [3.0, 0.0])
    one.saw(0.1, dataclasses.replace(fit, crop=crop), jumped=False)
    np.testing.assert_allclose(one.expected_crop(0.2).centre - still.centre, [6.0, 0.0], atol=1e-6)
    # But not out of sight.
    far = one.expected_crop(100.0).centre - still.centre
    assert np.linalg.norm(far - [3.0, 0.0]) < 0.26 * still.side_px


def test_known_focal_length_and_principal_point_are_those_of_the_frame(fit):
    fit, image = fit
    one = Person(1, np.array([159.5, 89.5]), learner_of(fit, image))
    known = one.known(fit.crop)
    assert known.focal_px == pytest.approx(300.0 * fit.crop.scale)
    back = apply_affine(fit.crop.to_photo, known.principal_point)
    np.testing.assert_allclose(back, [159.5, 89.5])


def test_what_is_learnt_is_used_once_it_is_adopted(fit):
    fit, image = fit
    learner = learner_of(fit, image)
    one = Person(1, np.zeros(2), learner)
    before = one.known(fit.crop).focal_px
    learner.memory = learner.memory._replace(log_focal=learner.memory.log_focal + 1.0)
    assert one.known(fit.crop).focal_px == before
    one.adopt()
    assert one.known(fit.crop).focal_px == pytest.approx(np.e * before)


def test_keyframes_are_those_that_differ_most(fit):
    learner = learner_of(*fit)
    learner._keyframes.clear()
    for yaw in [0, 1, 2, 30, 31, 60, -30, -60, 15, 45, -15, -45, 75, 0]:
        turn = np.deg2rad(yaw)
        rotation = np.array(
            [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        )
        learner._collect(learn.Keyframe(None, rotation, np.zeros(3)))
    kept = learner._keyframes
    assert len(kept) == learn.N_KEYFRAMES
    gaps = [a.apart(b) for i, a in enumerate(kept) for b in kept[i + 1 :]]
    assert min(gaps) >= 1.0
    still = learn.Keyframe(None, np.eye(3), np.array([0.0, 0.0, 0.0]))
    smiling = learn.Keyframe(None, np.eye(3), np.array([0.0, 1.0, 0.0]))
    assert still.apart(smiling) > 1.0


def test_pictures_of_different_sizes_are_refused(aligner):
    with pytest.raises(VideoError, match="a frame of 40 x 60 pixels follows one of 40 x 50"):
        list(aligner.track([np.zeros((50, 40, 3), np.uint8), np.zeros((60, 40, 3), np.uint8)]))


def test_numbers_that_make_no_sense_are_refused_at_once(aligner):
    for number in (0, -1, 1.5, "2"):
        with pytest.raises(OptionError, match="max_people needs a whole number"):
            aligner.track([], max_people=number)


def test_missing_video_is_named_at_once(aligner, tmp_path):
    with pytest.raises(VideoError, match="there is no such file"):
        aligner.track(tmp_path / "none.mp4")


def test_box_of_a_followed_face_is_where_it_was_looked_for(stage):
    finder, aligner, tracker = stage
    finder.boxes = ["left"]
    found = frames_of(tracker, aligner.solver, [frame_of(left=50)] * 2)
    face = found[1].faces[1]
    assert face.detector == "followed"
    np.testing.assert_allclose(
        face.box[:2] + face.box[2:] / 2,
        box_of_points(face.landmarks)[:2] + box_of_points(face.landmarks)[2:] / 2,
        atol=25.0,
    )
