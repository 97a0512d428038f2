"""The file of a face model: it survives, and every wrong one is refused in one sentence."""

import dataclasses
import struct
import warnings
import zipfile

import jax
import numpy as np
import pytest

from dfc_jax.errors import FaceModelError
from dfc_jax.morphable.file import load_face_model, save_face_model


def test_a_model_survives_its_file(model, tmp_path):
    save_face_model(tmp_path / "again.npz", dataclasses.replace(model, version="again"))
    again = load_face_model(tmp_path / "again.npz")
    assert again.version == "again" and again.expression_names == model.expression_names
    jax.tree.map(
        np.testing.assert_array_equal, dataclasses.replace(again, version=model.version), model
    )
    assert [path.name for path in tmp_path.iterdir()] == ["again.npz"]


def small_arrays(model):
    """The arrays of a file, with few directions so that many of them can be written."""
    points = {
        f"{name}_{field}": np.asarray(getattr(getattr(model, name), field))
        for name in ("landmarks", "contours")
        for field in ("triangle", "barycentric")
    }
    return points | {
        "mean_mm": np.asarray(model.mean_mm),
        "identity_mm": np.asarray(model.identity_mm[..., :1]),
        "expression_mm": np.asarray(model.expression_mm[..., :1]),
        "triangles": np.asarray(model.triangles),
        "uv": np.asarray(model.uv),
        "triangle_part": np.asarray(model.triangle_part),
        "expression_names": np.array(["jawOpen"]),
        "version": np.array("small"),
    }


def test_the_smallest_valid_file_loads(model, tmp_path):
    np.savez(tmp_path / "small.npz", **small_arrays(model))
    assert load_face_model(tmp_path / "small.npz").n_identity == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("uv", None),
        ("version", None),
        ("contours_barycentric", None),
        ("identity_mm", lambda a: a[:-1]),
        ("expression_names", lambda a: np.array(["jawOpen", "jawLeft"])),
        ("triangles", lambda a: a + 1),
        ("triangle_part", lambda a: a[1:]),
        ("triangle_part", lambda a: a + 1),
        ("landmarks_triangle", lambda a: a[:67]),
        ("landmarks_triangle", lambda a: a + 100_000),
        ("contours_triangle", lambda a: a[:, :3]),
        ("mean_mm", lambda a: a[:, :2]),
        ("mean_mm", lambda a: a[0, 0]),
        ("triangles", lambda a: a[:0]),
        ("triangles", lambda a: np.where(a == 7, -1, a.astype(np.int64))),
        ("triangles", lambda a: a.astype(np.float32)),
        ("triangle_part", lambda a: a.astype(np.int8) - 1),
        ("landmarks_triangle", lambda a: -a.astype(np.int64) - 1),
        ("contours_triangle", lambda a: a.astype(np.int64) - 10**6),
        ("contours_triangle", lambda a: a[:, :0]),
        ("mean_mm", lambda a: a[:0]),
        ("mean_mm", lambda a: np.full_like(a, np.nan)),
        ("mean_mm", lambda a: 1e30 * a),
        ("mean_mm", lambda a: a.astype(np.complex64)),
        ("mean_mm", lambda a: a.astype(str)),
        ("identity_mm", lambda a: np.where(a == a[5, 1, 0], np.inf, a)),
        ("expression_mm", lambda a: a.astype(np.float16) * np.float16(np.nan)),
        ("uv", lambda a: np.full_like(a, np.inf)),
        ("landmarks_barycentric", lambda a: 2.0 * a),
        ("contours_barycentric", lambda a: np.full_like(a, -np.inf)),
        ("expression_names", lambda a: np.zeros(1)),
        ("version", lambda a: np.array(3)),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(model, tmp_path, name, change):
    arrays = small_arrays(model)
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    file = tmp_path / "odd.npz"
    np.savez(file, **arrays)
    with pytest.raises(FaceModelError, match=name[:6]) as error:
        load_face_model(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


def test_a_file_that_unpacks_to_more_than_a_gibibyte_is_not_unpacked(model, tmp_path):
    file, arrays = tmp_path / "bomb.npz", small_arrays(model)
    np.savez_compressed(file, **arrays)
    with zipfile.ZipFile(file) as archive:
        declared = archive.getinfo("mean_mm.npy").file_size
    # The directory of the archive says how much each member holds.
    size = struct.pack("<I", declared)
    file.write_bytes(file.read_bytes().replace(size, struct.pack("<I", 2**30 + 1)))
    with pytest.raises(FaceModelError, match="not a readable") as error:
        load_face_model(file)
    assert "holds more than 1024 MiB" in str(error.value.__cause__)


def test_arrays_that_are_no_part_of_a_model_are_left_alone(model, tmp_path):
    file = tmp_path / "more.npz"
    np.savez(file, **small_arrays(model), objects=np.array([{}, None], object))
    with zipfile.ZipFile(file, "a") as archive, archive.open("allow_pickle.npy", "w") as member:
        np.lib.format.write_array(member, np.array(False))
    assert load_face_model(file).version == "small"


def test_every_mutated_file_loads_or_is_explained(model, tmp_path):
    """Arrays cut, turned, retyped and filled at random, but always the same."""
    arrays, rng, refused = small_arrays(model), np.random.default_rng(0), 0
    changes = (
        lambda a: a[..., :0],
        lambda a: a[:1],
        lambda a: a.T,
        lambda a: a[None],
        lambda a: np.roll(a, 1),
        lambda a: a.astype(np.int64) - 3,
        lambda a: a.astype(np.float64) * rng.choice([np.nan, np.inf, 1e200, -1.0, 0.5]),
        lambda a: np.full_like(a, rng.integers(0, 200)),
        lambda a: a.astype(rng.choice(["S8", "U8", "c16", "?", "u8", "f2", "i1", "M8[s]"])),
    )
    names = list(arrays)
    for number in range(150):
        name, change = rng.choice(names), changes[rng.integers(len(changes))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                changed = change(arrays[name])
            except (TypeError, ValueError, IndexError, OverflowError):
                continue
        file = tmp_path / f"{number}.npz"
        np.savez(file, **{**arrays, name: changed})
        try:
            loaded = load_face_model(file)
        except FaceModelError as error:
            refused += 1
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
        else:
            for leaf in jax.tree.leaves(loaded):
                assert np.isfinite(leaf).all()
            assert int(loaded.triangles.min()) >= 0
        file.unlink()
    load_face_model.cache_clear()
    assert refused > 50


def test_model_files_hold_the_documented_arrays(model, tmp_path):
    save_face_model(tmp_path / "model.npz", model)
    with np.load(tmp_path / "model.npz") as file:
        assert set(file.files) == set(small_arrays(model))


@pytest.mark.parametrize("content", [None, b"", b"no archive", "half"])
def test_a_missing_or_broken_file_is_named_in_one_sentence(tmp_path, content):
    file = tmp_path / "model.npz"
    if content == "half":
        np.savez(file, mean_mm=np.zeros((100, 3)))
        content = file.read_bytes()[:1000]
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FaceModelError) as error:
        load_face_model(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


def test_an_array_file_and_a_folder_are_no_models(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    for path in (tmp_path / "array.npy", tmp_path):
        with pytest.raises(FaceModelError, match="not a readable"):
            load_face_model(path)
