"""The people of a video, from frame to frame.

A person is looked for where they should be by now, with the identity and the focal length of all
their frames so far; the detector looks at a frame only now and then, and where somebody is lost.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from dfc_jax.crops import CROP_LIFT, CROP_SCALE, Crop, box_of_points, crop_photo
from dfc_jax.errors import VideoError
from dfc_jax.inference.appearance import Appearance, appearance
from dfc_jax.inference.detect import Detection, Detector, shared
from dfc_jax.inference.face import Face
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


class _Seen:
    """A face in a frame (H, W, 3); what it looks like is found when somebody asks."""

    def __init__(self, image: np.ndarray, fit: Fit, face: Face) -> None:
        self.fit, self.face = fit, face
        self._image = image

    @cached_property
    def looks(self) -> Appearance:
        return appearance(crop_photo(self._image, self.face.crop), self.face)


# Mean difference of colours from which two faces are of two people; the same face in other light
# stays below.
_OTHER = 0.12
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
    """Follows the people of one video; each `frame` is a `Job` for `dfc_jax.inference.schedule`.

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
        self._detected_s = -np.inf
        self._cuts = _Cuts()

    def frame(self, time_s: float, image: np.ndarray) -> Job[Tracked]:
        """The people of the next frame (H, W, 3) uint8 RGB, at a time later than the last.

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
        followed = {} if cut else (yield from self._followed(time_s, image))
        if cut or self._is_time_to_detect(time_s, followed):
            self._detected_s = time_s
            followed |= yield from self._find(time_s, image, followed)
        faces = {number: self._noted(time_s, number, followed[number]) for number in followed}
        self._last_s = time_s
        return Tracked(time_s, image, dict(sorted(faces.items())), cut)

    def _is_time_to_detect(self, time_s: float, followed: dict[int, _Seen]) -> bool:
        settings = self._settings
        if settings.max_people is not None and len(followed) >= settings.max_people:
            return False
        away = [time_s - each.seen_s for each in self._people if each.number not in followed]
        urgent = not followed or min(away, default=np.inf) < settings.missed_s
        wait_s = settings.lost_s if urgent else settings.detect_s
        return time_s - self._detected_s >= wait_s - 1e-6

    def _followed(self, time_s: float, image: np.ndarray) -> Job[dict[int, _Seen]]:
        """Those who are found where they should be by now."""
        people = [each for each in self._people if time_s - each.seen_s <= self._settings.hold_s]
        looks = (self._look(person, image, person.expected_crop(time_s)) for person in people)
        found = yield from together(looks)
        seen = [(one, each) for one, each in zip(people, found, strict=True) if each is not None]
        return {person.number: one for person, one in seen if _is_whose(person, one, seen)}

    def _look(self, person: Person, image: np.ndarray, crop: Crop) -> Job[_Seen | None]:
        """The person in a crop, or in one around the face that is there."""
        edge = crop.side_px / CROP_SCALE
        middle = crop.centre + crop.rotation @ np.array([0.0, CROP_LIFT * edge])
        box = np.concatenate([middle - edge / 2.0, [edge, edge]])
        names = self._model.expression_names
        search = Search(image, names, self._settings.recrop, person.known)
        found = yield from search.in_crop(Detection(box, 1.0, "followed", crop.roll_deg), crop)
        return None if found is None else _Seen(image, *found)

    def _find(
        self, time_s: float, image: np.ndarray, followed: dict[int, _Seen]
    ) -> Job[dict[int, _Seen]]:
        """Those whom the detector finds beside the `followed` ones."""
        (found,) = yield [Work(partial(self._detector, image))]
        taken = [box_of_points(seen.face.landmarks) for seen in followed.values()]
        free = [
            one for one in found if all(shared(one.landmark_box, box) < _COVERED for box in taken)
        ]
        search = Search(image, self._model.expression_names, self._settings.recrop)
        found = yield from together(search.in_crop(one, one.crop) for one in free)
        new = [_Seen(image, *one) for one in found if one is not None]
        people = self._recognized(self._distinct(new, followed), followed, time_s)
        # Once more, with what is known of each.
        again = yield from together(
            self._look(person, image, seen.fit.crop) for person, seen in people
        )
        return {
            person.number: seen
            for (person, _), seen in zip(people, again, strict=True)
            if seen is not None
        }

    def _distinct(self, new: Sequence[_Seen], followed: dict[int, _Seen]) -> list[_Seen]:
        """Without those that are the same face as another, and no more than are wanted."""
        kept = list(followed.values())
        for seen in sorted(new, key=lambda seen: -seen.face.confidence):
            if all(_distance(seen.face, other.face) > _SAME_FACE for other in kept):
                kept.append(seen)
        return kept[: self._settings.max_people][len(followed) :]

    def _recognized(
        self, new: Sequence[_Seen], followed: dict[int, _Seen], time_s: float
    ) -> list[tuple[Person, _Seen]]:
        """New faces, each with the person: one of the lost who looks alike, or somebody else."""
        lost = [person for person in self._people if person.number not in followed]
        unlike = np.array([[person.looks.apart(seen.looks) for person in lost] for seen in new])
        rows, columns = linear_sum_assignment(np.minimum(unlike.reshape(len(new), len(lost)), 1.0))
        pairs = zip(rows, columns, strict=True)
        known = {row: lost[column] for row, column in pairs if unlike[row, column] < _OTHER}
        found = []
        for row, seen in enumerate(new):
            # Who was seen before may come back half hidden; a new face has to be sure.
            if row in known or not seen.face.reasons:
                person = known.get(row) or self._somebody(time_s, seen)
                found.append((person, seen))
        return found

    def _somebody(self, time_s: float, seen: _Seen) -> Person:
        number = len(self._people) + 1
        assert self._size is not None
        centre = (np.array(self._size) - 1.0) / 2.0
        person = Person(number, self._model, centre, self._settings.smooth, seen.looks)
        person.learn(time_s, seen.fit, seen.face)
        self._people.append(person)
        return person

    def _noted(self, time_s: float, number: int, seen: _Seen) -> Face:
        """The face, of which the person takes note; for later, too, where there is no doubt."""
        person = self._people[number - 1]
        if not seen.face.reasons:
            person.learn(time_s, seen.fit, seen.face)
            person.remember(time_s, lambda: seen.looks, _OTHER / 2.0)
        return person.saw(time_s, seen.face, jumped=person.seen_s != self._last_s)


def _is_whose(person: Person, seen: _Seen, all_seen: Sequence[tuple[Person, _Seen]]) -> bool:
    """Whether a face is this person's, of all who are found in it: theirs who looks like it."""
    rivals = [
        (other, theirs)
        for other, theirs in all_seen
        if other is not person and _distance(seen.face, theirs.face) <= _SAME_FACE
    ]
    own = person.looks.apart(seen.looks) if rivals else 0.0
    return all((own, person.number) < (o.looks.apart(s.looks), o.number) for o, s in rivals)


def _distance(one: Face, other: Face) -> float:
    """Mean distance of two faces' landmarks, in parts of the larger one's box."""
    edge = max(box_of_points(face.landmarks)[2:].max() for face in (one, other))
    return float(np.linalg.norm(one.landmarks - other.landmarks, axis=-1).mean() / edge)


class _Cuts:
    """Says of every frame whether another scene begins with it."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual: deque[float] = deque(maxlen=15)

    def __call__(self, image: np.ndarray) -> bool:
        # Of fewer pixels, whose mean is as good.
        few = max(1, image.shape[0] // _ROWS)
        small = cv2.resize(image[::few, ::few], _THUMBNAIL, interpolation=cv2.INTER_AREA) / 255.0
        last, self._last = self._last, small
        if last is None:
            return False
        change = float(np.abs(small - last).mean())
        usual = float(np.median(self._usual)) if self._usual else 0.0
        cut = change > max(_CUT, _CUT_TIMES * usual)
        if not cut:
            self._usual.append(change)
        return cut
