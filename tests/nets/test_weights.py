"""Weight files: what is written is read back, and every broken file is explained."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dfc_jax import files
from dfc_jax.errors import ExportError
from dfc_jax.morphable.file import load_face_model
from dfc_jax.nets import weights
from dfc_jax.systems.detector import networks as detector_nets
from dfc_jax.systems.dfc import networks as nets

SPEC = nets.LiteSpec(widths=(4, 4, 4, 4), depths=(0,) * 4, decoder_depths=(0,) * 4)


@pytest.fixture(scope="module")
def variables() -> nets.Variables:
    return jax.device_get(nets.init(jax.random.key(0), SPEC))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, variables: nets.Variables) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "net.safetensors"
    weights.save(path, variables, SPEC, {"command": "none", "nme": 2.5})
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, saved: bytes) -> Path:
    """A file of its own of what was saved once."""
    path = tmp_path / "net.safetensors"
    path.write_bytes(saved)
    return path


def rewrite(path: Path, change_tensors=None, **header: str | None) -> None:
    """Changes tensors, and parts of the header; None takes a part out."""
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = {k: v for k, v in (file.metadata() | header).items() if v is not None}
    if change_tensors:
        change_tensors(tensors)
    save_file(tensors, path, metadata)


# A header from before networks had kinds: fields of both networks, told apart by the family.
UNTAGGED = {
    "family": "lite",
    "tied": False,
    "tail": [2, 2, 2],
    "widths": [4, 4, 4, 4],
    "depths": [0, 0, 0, 0],
    "decoder_depths": [0, 0, 0, 0],
    "descriptors": 0,
    "details": 0,
    "refinements": 0,
    "branches": 2,
    "strict": False,
}


def test_round_trip_keeps_values_spec_and_metadata(path: Path, variables) -> None:
    loaded, spec, metadata = weights.load(path)
    assert spec == SPEC
    assert metadata == {"command": "none", "nme": 2.5}
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(variables), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_file_is_float16_and_nothing_is_left_beside_it(tmp_path: Path, variables) -> None:
    path = tmp_path / "net.safetensors"
    weights.save(path, variables, SPEC, {})
    with safe_open(path, framework="numpy") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {np.dtype(np.float16)}
    assert path.stat().st_size < 2 * sum(x.size for x in jax.tree.leaves(variables)) + 20_000
    assert list(path.parent.iterdir()) == [path]


def test_name_stands_for_a_file_of_the_package(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "WEIGHTS_DIR", path.parent)
    assert weights.load("net")[1] == SPEC
    with pytest.raises(weights.WeightsError, match="^absent: no such.*: net$"):
        weights.load("absent")


def test_a_file_of_any_suffix_is_itself_and_names_of_the_package_come_first(
    path: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "WEIGHTS_DIR", tmp_path / "package")
    (tmp_path / "package").mkdir()
    for name in ("mine", "mine.bin", "net"):
        path.rename(tmp_path / name)
        path = tmp_path / name
        assert weights.load(name)[1] == SPEC
    Path("me.jpg").write_bytes(b"a photograph")
    with pytest.raises(weights.WeightsError, match="^me.jpg: cannot be read.*the names"):
        weights.load("me.jpg")
    with pytest.raises(weights.WeightsError, match=r"^gone.jpg: no such weight file; the names"):
        weights.load("gone.jpg")
    packaged = tmp_path / "package" / "net.safetensors"
    packaged.write_bytes(b"")
    assert weights.resolve("net") == packaged


def test_failed_write_leaves_the_old_file(path: Path, variables, monkeypatch) -> None:
    before = path.read_bytes()

    def fail(tensors, filename, metadata) -> None:
        Path(filename).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(weights, "save_file", fail)
    with pytest.raises(ExportError, match="net.safetensors: cannot be written .disk full"):
        weights.save(path, variables, SPEC, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, variables) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="net.safetensors: cannot be written"):
        weights.save(tmp_path / "file" / "net.safetensors", variables, SPEC, {})


def test_an_error_of_safetensors_while_writing_is_one_of_the_file(
    path: Path, variables, monkeypatch
) -> None:
    def fail(*_) -> None:
        raise SafetensorError("I/O error: disk full")

    monkeypatch.setattr(weights, "save_file", fail)
    with pytest.raises(ExportError, match="net.safetensors: cannot be written .*disk full"):
        weights.save(path, variables, SPEC, {})


@pytest.mark.parametrize("content", [b"", b"not a weight file at all", None])
def test_broken_files_are_named(path: Path, content: bytes | None) -> None:
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(weights.WeightsError, match="net.safetensors: cannot be read"):
        weights.load(path)


def test_folder_is_not_a_weight_file(tmp_path: Path) -> None:
    with pytest.raises(weights.WeightsError, match="no such weight file"):
        weights.load(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[", '{"colour": 3}', '"lite"', '{"widths": [4, 4, 4, 4]}'])
def test_headers_that_name_no_network_are_explained(path: Path, text: str) -> None:
    rewrite(path, spec=text)
    message(path, "header does not describe")


@pytest.mark.parametrize(
    "kind",
    [
        *("", "dfc", "dfc/", "/lite", "dfc/heavy", "nothing/lite", "dfc/lite/lite", "DFC/LITE"),
        *("os/path", "..evaluation/lite", "dfc.lite/lite", "dfc/\u202elite", "x" * 10_000),
    ],
)
def test_kinds_that_do_not_exist_are_explained(path: Path, kind: str) -> None:
    rewrite(path, kind=kind)
    assert len(message(path, "header does not describe")) < 700


def test_a_network_that_the_reader_cannot_use_is_refused(path: Path) -> None:
    assert weights.load(path, nets.NetSpec)[1] == SPEC
    with pytest.raises(weights.WeightsError, match="holds a network dfc/lite"):
        weights.load(path, nets.PaperSpec)


def test_headers_without_a_kind_are_read_as_before(path: Path) -> None:
    rewrite(path, kind=None, spec=json.dumps(UNTAGGED))
    assert weights.load(path)[1] == SPEC
    for optional in ("tail", "descriptors", "details", "refinements", "branches", "strict", "tied"):
        fields = {name: value for name, value in UNTAGGED.items() if name != optional}
        rewrite(path, spec=json.dumps(fields))
        assert weights.load(path)[1] == SPEC


@pytest.mark.parametrize(
    "change", [{"family": "heavy"}, {"family": ["lite"]}, {"family": None}, {"colour": 3}]
)
def test_headers_without_a_kind_that_name_no_network_are_explained(path: Path, change) -> None:
    rewrite(path, kind=None, spec=json.dumps(UNTAGGED | change))
    message(path, "header does not describe")


@pytest.mark.parametrize(
    "change",
    [
        {"depths": [100_000] * 4},
        {"details": 1, "refinements": 100_000},
        {"widths": []},
        {"widths": [0, 4, 4, 4]},
        {"widths": [[4], 4, 4, 4]},
        {"a key\nof two lines": 1},
        {"x" * 10_000: 1},
    ],
)
def test_hostile_sizes_in_a_header_are_explained_in_one_line(path: Path, change) -> None:
    with safe_open(path, framework="numpy") as file:
        fields = json.loads(file.metadata()["spec"])
    rewrite(path, spec=json.dumps(fields | change))
    assert len(message(path, "header does not describe")) < 700
    rewrite(path, kind=None, spec=json.dumps(UNTAGGED | change))
    assert len(message(path, "header does not describe")) < 700


@pytest.mark.parametrize("part", ["spec", "metadata"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "3", "null", "NaN", ""])
def test_deep_json_and_json_that_is_no_object_are_explained(path: Path, part, text) -> None:
    rewrite(path, **{part: text})
    message(path, "header does not describe")


def test_a_face_model_that_is_no_name_is_explained(path: Path) -> None:
    rewrite(path, metadata='{"face_model": [1, 2]}')
    message(path, "header does not describe")


def message(path: Path, words: str) -> str:
    with pytest.raises(weights.WeightsError, match=words) as error:
        weights.load(path)
    assert str(error.value).startswith(f"{path}: ") and str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("dtype", ["int8", "bool", "complex64", "uint64"])
def test_tensors_that_are_no_real_numbers_are_refused(path: Path, dtype) -> None:
    def change(tensors) -> None:
        name = min(tensors)
        tensors[name] = np.ones(tensors[name].shape, dtype)

    rewrite(path, change)
    message(path, "cannot be read")


def test_float64_out_of_the_range_of_float32_is_explained(path: Path) -> None:
    def change(tensors) -> None:
        name = min(tensors)
        tensors[name] = np.full(tensors[name].shape, 1e300)

    rewrite(path, change)
    message(path, "not finite")


def test_every_mutated_file_loads_or_is_explained(path: Path) -> None:
    """Bytes of the header exchanged, doubled and dropped, at random but always the same."""
    good, rng = path.read_bytes(), np.random.default_rng(0)
    header = int.from_bytes(good[:8], "little") + 8
    refused = 0
    for _ in range(200):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            at, kind = int(rng.integers(0, header)), rng.integers(0, 3)
            if kind == 0:
                data[at] = int(rng.integers(0, 256))
            elif kind == 1:
                data[at:at] = data[at : at + int(rng.integers(1, 9))]
            else:
                del data[at : at + int(rng.integers(1, 9))]
        path.write_bytes(data)
        try:
            weights.load(path)
        except weights.WeightsError as error:
            assert str(error).startswith(f"{path}: ") and str(error).isprintable()
            refused += 1
    assert refused > 100


def test_a_strict_network_is_named_by_its_file_and_old_files_are_not_strict(tmp_path) -> None:
    path = tmp_path / "paper.safetensors"
    spec = nets.PaperSpec(widths=(4, 4, 4, 4, 16), strict=True)
    weights.save(path, jax.device_get(nets.init(jax.random.key(0), spec)), spec, {})
    assert weights.load(path)[1] == spec
    with safe_open(path, framework="numpy") as file:
        fields = json.loads(file.metadata()["spec"])
    assert fields.pop("strict") is True
    rewrite(path, spec=json.dumps(fields))
    assert weights.load(path)[1] == dataclasses.replace(spec, strict=False)


def test_file_without_header_is_explained(path: Path) -> None:
    save_file({"x": np.zeros(3, np.float16)}, path)
    with pytest.raises(weights.WeightsError, match="header does not describe"):
        weights.load(path)


def test_tensors_of_another_network_are_explained(path: Path) -> None:
    name = "params/encoder/ConvNorm_0/Conv_0/kernel"

    def missing(tensors) -> None:
        del tensors[name]

    def shape(tensors) -> None:
        tensors[name] = np.zeros((3, 3, 12, 5), np.float16)

    def infinite(tensors) -> None:
        tensors[name] = np.full_like(tensors[name], np.nan)

    good = path.read_bytes()
    for change, words in ((missing, "missing"), (shape, "has shape"), (infinite, "not finite")):
        path.write_bytes(good)
        rewrite(path, change)
        with pytest.raises(weights.WeightsError, match=f"{name}.*{words}"):
            weights.load(path)
    path.write_bytes(good)
    with safe_open(path, framework="numpy") as file:
        fields = json.loads(file.metadata()["spec"])
    rewrite(path, spec=json.dumps(fields | {"tied": True}))
    with pytest.raises(weights.WeightsError, match="target_encoder.*unexpected"):
        weights.load(path)


def test_saving_refuses_what_cannot_be_read_back(tmp_path: Path, variables) -> None:
    path = tmp_path / "net.safetensors"
    huge = jax.tree.map(lambda leaf: leaf + 1e6, variables)
    with pytest.raises(weights.WeightsError, match="not finite in float16"):
        weights.save(path, huge, SPEC, {})
    with pytest.raises(ValueError, match="not of this network"):
        weights.save(path, {"params": variables["params"]}, SPEC, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(path.stem for path in weights.WEIGHTS_DIR.glob("*")))
def test_weights_of_the_package_are_complete(name: str) -> None:
    """Loaded, for the embedded face model, and with an entry in the model card and the README."""
    _, spec, metadata = weights.load(name)
    # Those that bear a network's name hold that network.
    assert nets.SPECS.get(name) == spec or spec.kind.removeprefix("dfc/") in name
    assert metadata["face_model"] == load_face_model().version
    root = weights.WEIGHTS_DIR.parents[2]
    assert f"weights/{name}.safetensors" in (root / "dfc_jax/assets/MODEL_CARD.md").read_text()
    assert f"| `{name}` |" in (root / "README.md").read_text()


def test_the_detector_of_the_package_is_complete() -> None:
    _, spec, metadata = weights.load(files.DETECTOR_FILE)
    assert spec == detector_nets.SPECS["small"]
    assert metadata["calibration"].keys() == {"gain", "shift", "growth"}
    assert "`detector.safetensors`" in (files.ASSETS_DIR / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    "path",
    [*sorted(weights.WEIGHTS_DIR.glob("*")), *sorted(files.ASSETS_DIR.glob("*.safetensors"))],
    ids=lambda path: path.stem,
)
def test_the_packages_own_weights_are_copied_and_read_like_any_others(path, tmp_path) -> None:
    # Copies are held against the network that they name.
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    own, copied = weights.load(path), weights.load(copy)
    assert own[1:] == copied[1:]
    jax.tree.map(np.testing.assert_array_equal, own[0], copied[0])
