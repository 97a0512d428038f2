"""What the tests of the training programs share: stand-ins for photographs, faces and networks."""

from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from paths import ROOT
from tiny import SIZE

from data_pipelines.photos.labels import PhotoSet
from data_pipelines.photos.squares import STORED_PX
from dfc_jax.data.faces import AnnotatedFace, FaceSet
from dfc_jax.errors import DatasetError
from experiments import finetune, launch, photographs, pretrain

CONFIGS = ROOT / "experiments" / "configs" / "dfc"


def _programs_of(name: str) -> tuple[ModuleType, ...]:
    if name == "tiny":
        return pretrain, finetune
    return ({"pretrain": pretrain, "finetune": finetune}[name.split("_")[0]],)


# By the name of a config, which begins with that of its program.
PROGRAMS = {
    path.stem: _programs_of(path.stem)
    for path in sorted(CONFIGS.glob("*.py"))
    if path.stem != "__init__"
}


def drawn_photos() -> PhotoSet:
    """Seven random pictures with a disc of labels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:STORED_PX, :STORED_PX]
    disc = (x - 95.5) ** 2 + (y - 95.5) ** 2 < 60.0**2
    angle = np.linspace(0.0, 2 * np.pi, 68, endpoint=False)
    circle = 95.5 + 48.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    template = (np.stack([x, y], axis=-1) - 95.5) * SIZE / 144.0 + (SIZE - 1) / 2.0
    return PhotoSet(
        names=np.array([f"{n}.jpg" for n in range(7)]),
        images=rng.integers(0, 255, (7, STORED_PX, STORED_PX, 3), np.uint8),
        points=np.repeat(circle[None], 7, axis=0).astype(np.float32),
        annotated=np.ones((7, 68), bool),
        template_xy=np.repeat(template[None], 7, axis=0).astype(np.float16),
        matchable=np.repeat(disc[None], 7, axis=0),
        error=np.full(7, 1.0),
        contour=np.ones(7, bool),
        profile=np.zeros(7, bool),
        pose=np.zeros((7, 3)),
    )


def drawn_faces() -> FaceSet:
    """The faces of `drawn_photos`, and a broken one."""
    photos = drawn_photos()

    def read(name: str) -> AnnotatedFace:
        if name == "broken":
            raise DatasetError("8.jpg: is broken")
        encoded = cv2.imencode(".png", np.zeros((192, 192, 3), np.uint8))[1].tobytes()
        return AnnotatedFace(Path(name), photos.points[0], name, encoded=encoded)

    return FaceSet("drawn", [*photos.names, "broken"], read)


def label_drawn(*given) -> PhotoSet:
    """`drawn_photos` of the squares, which are the last argument."""
    names = list(drawn_photos().names)
    return drawn_photos().select(np.array([names.index(square.face.name) for square in given[-1]]))


def give_photos(patch: pytest.MonkeyPatch, count: int = 7) -> list[tuple]:
    """Every folder holds `drawn_faces`, or the first so many; returns what was asked for."""
    asked: list[tuple] = []

    def open_sets(folders, layout):
        asked.append((folders, layout))
        return drawn_faces() if count == 7 else drawn_faces()[:count]

    patch.setattr(photographs, "open_sets", open_sets)
    patch.setattr(photographs, "label_fitted", label_drawn)
    return asked


def failure(capsys, train) -> str:
    """What a program that fails says on stderr: one line."""
    with pytest.raises(SystemExit) as stop:
        launch.run_program(train)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def no_run(*_):
    raise AssertionError("the run was started")
