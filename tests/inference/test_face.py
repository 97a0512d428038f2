"""A face is the caller's own, to keep and to change."""

import dataclasses

import numpy as np
from paths import ASTRONAUT

from dfc_jax.inference.face import Face
from dfc_jax.photo import read_photo


def arrays_of(face: Face) -> dict[str, np.ndarray]:
    values = {field.name: getattr(face, field.name) for field in dataclasses.fields(face)}
    values["crop.centre"] = face.crop.centre
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def test_the_arrays_of_faces_can_be_written_to_and_share_no_memory(trained):
    picture = read_photo(ASTRONAUT)
    boxes = [(180, 82, 84, 86)] * 2
    (found,) = trained.many([picture], boxes=[boxes])
    faces = [*trained(picture, boxes=boxes), *found.faces]
    assert len(faces) == 4
    for number, face in enumerate(faces):
        for array in arrays_of(face).values():
            assert array.flags.owndata
            array[...] = number
    for number, face in enumerate(faces):
        for name, array in arrays_of(face).items():
            assert (array == array.dtype.type(number)).all(), name
    (again,) = trained(picture, boxes=boxes[:1])
    assert again.status == "ok"
