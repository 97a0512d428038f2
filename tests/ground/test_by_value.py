"""Dataclasses that hold arrays compare by value; a generated == would raise."""

import dataclasses
import importlib
import pkgutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import data_pipelines
import dfc_jax
from dfc_jax.crops import Crop
from dfc_jax.data.faces import AnnotatedFace
from dfc_jax.inference.detect import Detection
from dfc_jax.types import ByValue, Camera


def modules():
    for package in (dfc_jax, data_pipelines):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                yield importlib.import_module(info.name)
            except ImportError:  # of a dependency that is not installed
                continue


def dataclasses_with_arrays():
    for module in modules():
        for kind in vars(module).values():
            if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
                continue
            types = [str(field.type) for field in dataclasses.fields(kind)]
            if kind.__module__ == module.__name__ and any("rray" in name for name in types):
                yield kind


def test_every_dataclass_with_arrays_compares_by_value():
    kinds = list(dataclasses_with_arrays())
    assert len(kinds) > 30
    wrong = [kind.__qualname__ for kind in kinds if kind.__eq__ is not ByValue.__eq__]
    assert not wrong


@pytest.mark.parametrize("library", [np, jnp])
def test_equal_are_those_with_equal_values_in_all_fields(library):
    def camera(*point, **options):
        return Camera(library.float32(9.0), library.asarray(point), **options)

    assert camera(1.0, 2.0) == camera(1.0, 2.0)
    assert camera(1.0, 2.0) != camera(1.0, 3.0)
    assert camera(1.0, 2.0) != camera(1.0, 2.0, 2.0)
    assert camera(1.0, 2.0) != camera(1.0, 2.0, projection="orthographic")
    assert camera(1.0, 2.0) != (1.0, 2.0)


def test_a_face_with_hidden_points_equals_itself_read_again():
    def face(hidden: int) -> AnnotatedFace:
        points = np.zeros((68, 2))
        points[hidden] = np.nan
        return AnnotatedFace(Path("a.jpg"), points, "a", pose_deg=np.array([30.0, 0.0, np.nan]))

    assert face(3) == face(3)
    assert face(3) != face(4)


def test_crops_and_detections_compare():
    crop = Crop(np.zeros(2), 8.0)
    assert crop == Crop(np.zeros(2), 8.0)
    assert crop != Crop(np.zeros(2), 8.0, size=64)
    found = Detection(np.arange(4.0), 1.0, "given")
    assert found == Detection(np.arange(4.0), 1.0, "given")
    assert found != Detection(np.arange(4.0), 1.0, "whole")
