"""The people of a video, from frame to frame.

A person is looked for where they should be by now, with the identity and the focal length of all
their frames so far; the detector looks at a frame only now and then, and where somebody is lost.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from dfc_jax.crops import CROP_LIFT, CROP_SCALE, Crop, box_of_points
from dfc_jax.errors import VideoError
from dfc_jax.inference.detect import Detection, Detector, shared
from dfc_jax.inference.face import Face
from dfc_jax.inference.learn import OTHER, Learner, looks_of
from dfc_jax.inference.person import Person
from dfc_jax.inference.schedule import Job, Work, together
from dfc_jax.inference.search import Fit, Search
from dfc_jax.morphable.linear import FaceModel


@dataclass(frozen=True)
class TrackSettings:
    """How people are followed.

    Attributes:
      smooth: smooth pose, expression, and what is learnt of a person, over time.
      max_people: the most that are followed at a time; None for all.
      detect_s: seconds between looks of the detector while nobody is lost.
      lost_s: the same while somebody is missed, or nobody is there.
      missed_s: how long somebody is missed.
      hold_s: how long they are looked for where they were.
      recrop: how often, at most, a crop is made anew around a face that is not where it should be.
    """

    smooth: bool = True
    max_people: int | None = None
    detect_s: float = 1.0
    lost_s: float = 0.2
    missed_s: float = 3.0
    hold_s: float = 0.5
    recrop: int = 1


class Tracked(NamedTuple):
    """The people of a frame.

    Attributes:
      time_s: of the frame.
      image: (H, W, 3) uint8 RGB.
      faces: by the number of the person, which stays the same through the video; without those
        that the frame does not show.
      cut: whether another scene begins here.
    """

    time_s: float
    image: np.ndarray
    faces: dict[int, Face]
    cut: bool


class Looked(NamedTuple):
    """Who is where in a frame, before it is finished.

    Attributes:
      time_s, image, cut: as in `Tracked`.
      fits: by the number of the person.
    """

    time_s: float
    image: np.ndarray
    fits: dict[int, Fit]
    cut: bool


# Two fits whose landmarks lie nearer than this, on average, in parts of the larger box, are to one
# face.
_SAME_FACE = 0.25
# Boxes with more than this part of the smaller one in common are taken for the same face while a
# detector looks for others.
_COVERED = 0.4
# Frames are compared by thumbnails of so many pixels; a cut changes them by this much of the range
# from black to white at least, and by so many times as much as the frames before.
_THUMBNAIL, _ROWS = (32, 18), 180
_CUT, _CUT_TIMES = 0.08, 4.0


class Tracker:
    """Follows the people of one video.

    For each frame, `look` says where they are and `note` makes their faces of that, and learns from
    them. While a thread notes one frame, another may look at the next; what is learnt is used from
    the next call of `adopt` on, which is for when nobody notes.

    Args:
      model: the face model.
      detector: finds faces.
      settings: see there.
    """

    def __init__(self, model: FaceModel, detector: Detector, settings: TrackSettings) -> None:
        self._model, self._detector, self._settings = model, detector, settings
        self._people: list[Person] = []
        self._size: tuple[int, int] | None = None
        self._last_s: float | None = None
        self._noted: frozenset[int] = frozenset()
        self._detected_s = -np.inf
        self._cuts = _Cuts()

    def look(self, time_s: float, image: np.ndarray) -> Job[Looked]:
        """Where people are in the next frame (H, W, 3) uint8 RGB, at a time later than the last.

        Raises:
          VideoError: the frame has another size than those before.
        """
        size = image.shape[1], image.shape[0]
        self._size = self._size or size
        if size != self._size:
            sizes = [f"{width} x {height}" for width, height in (size, self._size)]
            raise VideoError(
                f"a frame of {sizes[0]} pixels follows one of {sizes[1]}; "
                "all frames of a video need one size"
            )
        cut = self._cuts(image)
        fits = {} if cut else (yield from self._followed(time_s, image))
        if cut or self._is_time_to_detect(time_s, fits):
            self._detected_s = time_s
            fits |= yield from self._find(time_s, image, fits)
        for number, fit in fits.items():
            person = self._people[number - 1]
            person.saw(time_s, fit, jumped=person.seen_s != self._last_s)
        self._last_s = time_s
        return Looked(time_s, image, dict(sorted(fits.items())), cut)

    def note(self, looked: Looked) -> Job[Tracked]:
        """The faces of the next frame that was looked at, of which the people's learners learn."""
        time_s, image, fits, cut = looked
        search = Search(image, self._model.expression_names, self._settings.recrop)
        faces = yield from together(search.finish(fit) for fit in fits.values())
        people = {}
        for (number, fit), face in zip(fits.items(), faces, strict=True):
            learner, jumped = self._people[number - 1].learner, number not in self._noted
            people[number] = learner(time_s, image, fit, face, jumped)
        self._noted = frozenset(people)
        return Tracked(time_s, image, people, cut)

    def adopt(self) -> None:
        """Use what was learnt of the people by now."""
        for person in self._people:
            person.adopt()

    def _is_time_to_detect(self, time_s: float, followed: dict[int, Fit]) -> bool:
        settings = self._settings
        if settings.max_people is not None and len(followed) >= settings.max_people:
            return False
        away = [time_s - each.seen_s for each in self._people if each.number not in followed]
        urgent = not followed or min(away, default=np.inf) < settings.missed_s
        wait_s = settings.lost_s if urgent else settings.detect_s
        return time_s - self._detected_s >= wait_s - 1e-6

    def _followed(self, time_s: float, image: np.ndarray) -> Job[dict[int, Fit]]:
        """Those who are found where they should be by now."""
        people = [each for each in self._people if time_s - each.seen_s <= self._settings.hold_s]
        looks = (self._look(person, image, person.expected_crop(time_s)) for person in people)
        found = yield from together(looks)
        fits = [(one, each) for one, each in zip(people, found, strict=True) if each is not None]
        return {person.number: fit for person, fit in fits if _is_whose(person, fit, fits, image)}

    def _look(self, person: Person, image: np.ndarray, crop: Crop) -> Job[Fit | None]:
        """The person in a crop, or in one around the face that is there."""
        edge = crop.side_px / CROP_SCALE
        middle = crop.centre + crop.rotation @ np.array([0.0, CROP_LIFT * edge])
        box = np.concatenate([middle - edge / 2.0, [edge, edge]])
        names = self._model.expression_names
        search = Search(image, names, self._settings.recrop, person.known)
        return (yield from search.in_crop(Detection(box, 1.0, "followed", crop.roll_deg), crop))

    def _find(
        self, time_s: float, image: np.ndarray, followed: dict[int, Fit]
    ) -> Job[dict[int, Fit]]:
        """Those whom the detector finds beside the `followed` ones."""
        (found,) = yield [Work(partial(self._detector, image))]
        taken = [box_of_points(fit.landmarks) for fit in followed.values()]
        free = [
            one for one in found if all(shared(one.landmark_box, box) < _COVERED for box in taken)
        ]
        search = Search(image, self._model.expression_names, self._settings.recrop)
        fits = yield from together(search.in_crop(one, one.crop) for one in free)
        new = self._distinct([fit for fit in fits if fit is not None], followed)
        people = yield from self._recognized(new, followed, time_s, search)
        # Once more, with what is known of each.
        again = yield from together(self._look(one, image, fit.crop) for one, fit in people)
        return {
            person.number: fit
            for (person, _), fit in zip(people, again, strict=True)
            if fit is not None
        }

    def _distinct(self, new: Sequence[Fit], followed: dict[int, Fit]) -> list[Fit]:
        """Without those that are the same face as another, and no more than are wanted."""
        kept = list(followed.values())
        for fit in sorted(new, key=lambda fit: -fit.confidence):
            if all(_distance(fit, other) > _SAME_FACE for other in kept):
                kept.append(fit)
        return kept[: self._settings.max_people][len(followed) :]

    def _recognized(
        self, new: Sequence[Fit], followed: dict[int, Fit], time_s: float, search: Search
    ) -> Job[list[tuple[Person, Fit]]]:
        """New faces, each with the person: one of the lost who looks alike, or somebody else."""
        lost = [person for person in self._people if person.number not in followed]
        looks = [looks_of(search.image, fit) for fit in new]
        unlike = np.array([[person.memory.looks.apart(own) for person in lost] for own in looks])
        rows, columns = linear_sum_assignment(np.minimum(unlike.reshape(len(new), len(lost)), 1.0))
        pairs = zip(rows, columns, strict=True)
        known = {row: lost[column] for row, column in pairs if unlike[row, column] < OTHER}
        found = []
        for row, fit in enumerate(new):
            # Who was seen before may come back half hidden; a new face has to be sure.
            if row in known:
                found.append((known[row], fit))
            elif not (yield from search.finish(fit)).reasons:
                found.append((self._somebody(time_s, search.image, fit), fit))
        return found

    def _somebody(self, time_s: float, image: np.ndarray, fit: Fit) -> Person:
        centre = (np.array(image.shape[1::-1]) - 1.0) / 2.0
        learner = Learner(self._model, centre, self._settings.smooth, time_s, image, fit)
        person = Person(len(self._people) + 1, centre, learner)
        self._people.append(person)
        return person


def _is_whose(
    person: Person, fit: Fit, fits: Sequence[tuple[Person, Fit]], image: np.ndarray
) -> bool:
    """Whether a face is this person's, of all who are found in it: theirs who looks like it."""

    def unlike(person: Person, fit: Fit) -> tuple[float, int]:
        return person.memory.looks.apart(looks_of(image, fit)), person.number

    rivals = [
        (other, theirs)
        for other, theirs in fits
        if other is not person and _distance(fit, theirs) <= _SAME_FACE
    ]
    return not rivals or unlike(person, fit) < min(unlike(*rival) for rival in rivals)


def _distance(one: Fit, other: Fit) -> float:
    """Mean distance of two fits' landmarks, in parts of the larger one's box."""
    points = one.landmarks, other.landmarks
    edge = max(box_of_points(own)[2:].max() for own in points)
    return float(np.linalg.norm(points[0] - points[1], axis=-1).mean() / edge)


class _Cuts:
    """Says of every frame whether another scene begins with it."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual: deque[float] = deque(maxlen=15)

    def __call__(self, image: np.ndarray) -> bool:
        # Of fewer pixels, whose mean is as good.
        few = max(1, image.shape[0] // _ROWS)
        size = image.shape[1] // few, image.shape[0] // few
        fewer = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
        small = cv2.resize(fewer, _THUMBNAIL, interpolation=cv2.INTER_AREA) / 255.0
        last, self._last = self._last, small
        if last is None:
            return False
        change = float(np.abs(small - last).mean())
        usual = float(np.median(self._usual)) if self._usual else 0.0
        cut = change > max(_CUT, _CUT_TIMES * usual)
        if not cut:
            self._usual.append(change)
        return cut
