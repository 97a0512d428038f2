"""Writes small sets of annotated faces in the exact formats in which they are given out."""

import io
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from scipy.io import savemat

EDGE = 450
LP_SETS = ("AFW", "HELEN", "IBUG", "LFPW")


@dataclass(frozen=True)
class Sample:
    """One face of 300W-LP or AFLW2000-3D, in the numbers of their files (pixels from 1).

    image (450, 450, 3) uint8; points (68, 2) of every kind; depth (68,); pose (7,), shape (199,),
    expression (29,).
    """

    image: np.ndarray
    pt2d: np.ndarray
    pts_2d: np.ndarray
    pts_3d: np.ndarray
    depth: np.ndarray
    pose: np.ndarray
    shape: np.ndarray
    expression: np.ndarray


def picture(seed: int, edge: int = EDGE) -> np.ndarray:
    """A smooth picture, which survives JPEG."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
    return np.asarray(small.resize((edge, edge), Image.Resampling.BICUBIC))


def face_points(rng: np.random.Generator, edge: int = EDGE) -> np.ndarray:
    return rng.uniform(0.3 * edge, 0.7 * edge, (68, 2))


def sample(seed: int, **given: np.ndarray) -> Sample:
    """A random face, some of its fields given."""
    rng = np.random.default_rng(seed)
    pt2d = face_points(rng)
    random: dict[str, Any] = {
        "image": picture(seed),
        "pt2d": pt2d,
        "pts_2d": pt2d + 1.5,
        "pts_3d": pt2d - 2.5,
        "depth": rng.uniform(-80.0, 80.0, 68),
        "pose": np.array([*rng.uniform(-0.5, 0.5, 3), 225.0, 230.0, -90.0, 1.2e-3]),
        "shape": rng.normal(0.0, 1e5, 199),
        "expression": rng.normal(0.0, 1.0, 29),
    }
    return Sample(**{**random, **given})


def write_jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "JPEG", quality=95)


def write_ibug(folder: Path, name: str, points: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = "\n".join(f"{x + 1:.5f} {y + 1:.5f}" for x, y in points)
    (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    write_jpeg(folder / f"{name}.jpg", picture(0, 300))


def _common(face: Sample) -> dict[str, np.ndarray]:
    """What the .mat files of both sets hold, in their shapes and types."""
    return {
        "Illum_Para": np.zeros((1, 10)),
        "Color_Para": np.ones((1, 7), np.float32),
        "Tex_Para": np.zeros((199, 1)),
        "Shape_Para": face.shape[:, None],
        "Exp_Para": face.expression[:, None],
        "Pose_Para": face.pose[None].astype(np.float32),
        "roi": np.array([[1, 1, EDGE, EDGE]], np.int16),
    }


def write_300w_lp(root: Path, faces: dict[str, Sample], flipped: Sequence[str] = ()) -> None:
    """``SET/NAME.jpg``, ``SET/NAME.mat`` and ``landmarks/SET/NAME_pts.mat`` for names SET/NAME.

    The names in `flipped` get a copy in ``SET_Flip`` too.
    """
    (root / "Code").mkdir(parents=True, exist_ok=True)
    savemat(root / "Code" / "ModelGeneration.mat", {"not_a_face": 1.0})
    copies = {name.replace("/", "_Flip/"): faces[name] for name in flipped}
    for name, face in {**faces, **copies}.items():
        write_jpeg(root / f"{name}.jpg", face.image)
        savemat(root / f"{name}.mat", {"pt2d": face.pt2d.T, **_common(face)})
        landmarks = root / "landmarks" / f"{name}_pts.mat"
        landmarks.parent.mkdir(parents=True, exist_ok=True)
        savemat(landmarks, {"pts_2d": face.pts_2d, "pts_3d": face.pts_3d})


def write_many_300w_lp(root: Path, count: int, edge: int = EDGE) -> None:
    """A set of `count` faces: one picture of `edge` pixels and one .mat file under many names, as
    hard links, which take neither time nor disk space."""
    points = face_points(np.random.default_rng(0), edge)
    write_300w_lp(root, {"AFW/AFW_0_0": sample(0, image=picture(0, edge), pt2d=points)})
    for number in range(1, count):
        for suffix in (".jpg", ".mat"):
            os.link(root / f"AFW/AFW_0_0{suffix}", root / f"AFW/AFW_{number}_0{suffix}")


def write_aflw2000(root: Path, faces: dict[str, Sample]) -> None:
    """``imageNNNNN.jpg`` and ``.mat``, AFLW's 21 points among them (-1 where hidden)."""
    for name, face in faces.items():
        write_jpeg(root / f"{name}.jpg", face.image)
        pt3d = np.concatenate([face.pts_3d.T, face.depth[None]]).astype(np.float32)
        savemat(
            root / f"{name}.mat",
            {"pt2d": -np.ones((2, 21)), "pt3d_68": pt3d, **_common(face)},
        )


def write_reannotated(root: Path, points: np.ndarray, listed: Sequence[str] | None = None) -> None:
    """``AFLW2000-3D-Reannotated.pts68.npy`` (n, 2 or 3, 68), and the list of its photographs."""
    np.save(root / "AFLW2000-3D-Reannotated.pts68.npy", points.astype(np.float32))
    if listed is not None:
        (root / "AFLW2000-3D_crop.list").write_text("".join(f"{name}.jpg\n" for name in listed))


AFLW_TABLES = (
    "CREATE TABLE Faces (face_id INTEGER, file_id TEXT, db_id TEXT)",
    "CREATE TABLE FaceImages (image_id INTEGER, db_id TEXT, file_id TEXT, filepath TEXT,"
    " bw INTEGER, width INTEGER, height INTEGER)",
    "CREATE TABLE FaceRect (face_id INTEGER, x INTEGER, y INTEGER, w INTEGER, h INTEGER,"
    " annot_type_id INTEGER)",
    "CREATE TABLE FacePose (face_id INTEGER, roll REAL, pitch REAL, yaw REAL,"
    " annot_type_id INTEGER)",
    "CREATE TABLE FaceMetaData (face_id INTEGER, sex TEXT, occluded INTEGER, glasses INTEGER,"
    " bw INTEGER, annot_type_id INTEGER)",
    "CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL)",
    "CREATE TABLE FeatureCoordTypes (feature_id INTEGER, descr TEXT, code TEXT, x REAL, y REAL,"
    " z REAL)",
)


@dataclass(frozen=True)
class AflwFace:
    """One face of AFLW: its photograph, box, roll, pitch and yaw in radians, and points by name."""

    filepath: str
    box: tuple[int, int, int, int] | None
    pose: tuple[float, float, float] | None
    points: dict[str, tuple[float, float]]


def write_aflw(root: Path, names: Sequence[str], faces: dict[int, AflwFace]) -> None:
    """``aflw.sqlite`` of faces by number, and ``flickr/``; `names` are those of the features."""
    root.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(root / "aflw.sqlite")) as opened, opened:
        for table in AFLW_TABLES:
            opened.execute(table)
        for number, name in enumerate(names, start=1):
            row = (number, name, f"C{number}", 0.0, 0.0, 0.0)
            opened.execute("INSERT INTO FeatureCoordTypes VALUES (?, ?, ?, ?, ?, ?)", row)
        for number, face in faces.items():
            _insert_aflw(opened, list(names), number, face)
            write_jpeg(root / "flickr" / face.filepath, picture(number, 200))


def _insert_aflw(opened: sqlite3.Connection, names: list[str], number: int, face: AflwFace) -> None:
    file = Path(face.filepath).name
    opened.execute("INSERT INTO Faces VALUES (?, ?, 'flickr')", (number, file))
    image = (number, file, face.filepath)
    opened.execute("INSERT INTO FaceImages VALUES (?, 'flickr', ?, ?, 0, 200, 200)", image)
    if face.box is not None:
        opened.execute("INSERT INTO FaceRect VALUES (?, ?, ?, ?, ?, 1)", (number, *face.box))
    if face.pose is not None:
        opened.execute("INSERT INTO FacePose VALUES (?, ?, ?, ?, 1)", (number, *face.pose))
    for name, point in face.points.items():
        row = (number, names.index(name) + 1, *point)
        opened.execute("INSERT INTO FeatureCoords VALUES (?, ?, ?, ?)", row)


def write_pifa(root: Path, boxes: np.ndarray, points: np.ndarray, visible: np.ndarray) -> None:
    """``BoundingBox.mat``, ``Landmark.mat`` and ``TestImages/`` of boxes (n, 4), points (n, k, 2)
    and visible (n, k), all counted from 1."""
    root.mkdir(parents=True, exist_ok=True)
    stored = np.concatenate([points[..., 0], points[..., 1], visible], axis=1)
    savemat(root / "BoundingBox.mat", {"bboxesT": boxes, "bboxesTr": boxes[:1]})
    savemat(root / "Landmark.mat", {"phisT": stored, "phisTr": stored[:1]})
    for row in range(len(boxes)):
        write_jpeg(root / "TestImages" / f"{row + 1}.jpg", picture(row, 200))


def write_pointing04(root: Path, faces: dict[str, tuple[int, int, int, int]]) -> None:
    """``Person01/personne01146+0+0.jpg`` and ``.txt`` by name, of centres and sizes."""
    for number, (name, box) in enumerate(faces.items()):
        person = name.removeprefix("personne")[:2]
        photo = root / f"Person{person}" / f"{name}.jpg"
        write_jpeg(photo, picture(number, 200))
        lines = [photo.name.replace("personne", "person"), "", "Face", *map(str, box)]
        photo.with_suffix(".txt").write_text("\n".join(lines) + "\n")


def write_cfp(folder: Path, points: dict[str, np.ndarray]) -> None:
    """``NAME.jpg`` in the folder, and the points (68, 2) of all in one file beside the folder."""
    for number, name in enumerate(points):
        write_jpeg(folder / f"{name}.jpg", picture(number, 200))
    table = {
        "names": np.array(list(points)),
        "side": np.array(["R"] * len(points)),
        "points": np.stack(list(points.values())).astype(np.float32),
    }
    np.savez_compressed(folder.with_name(f"{folder.name}.npz"), **table)


def write_fasseg(folder: Path, faces: dict[str, tuple[int, int]]) -> None:
    """``NAME.jpg`` and the mask ``NAME.png`` of a face whose skin goes from the left edge to column
    `right` of 200, about eyes and mouth whose middle is in column `x`, in rows 60 and 100."""
    for number, (name, (x, right)) in enumerate(faces.items()):
        mask = np.zeros((200, 200), np.uint8)
        mask[40:130, : right + 1] = 1
        mask[56:65, x - 8 : x + 9] = 3
        mask[75:85, x - 3 : x + 4] = 4
        mask[96:105, x - 8 : x + 9] = 5
        write_jpeg(folder / f"{name}.jpg", picture(number, 200))
        Image.fromarray(mask).save(folder / f"{name}.png")


def write_facesynthetics(folder: Path, name: str, points: np.ndarray) -> None:
    """``NAME.jpg`` and ``NAME.pts`` of 70 points, counted from 1."""
    rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in points)
    write_jpeg(folder / f"{name}.jpg", picture(0, 200))
    (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 70\n{{\n{rows}\n}}\n")


def tfds_record(face: Sample, name: str) -> dict[str, Any]:
    """What TFDS' builder makes of a face, its image as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(face.image).save(file, "JPEG", quality=95)
    if name == "aflw2k3d":
        return {
            "image": file.getvalue(),
            "landmarks_68_3d_xy_normalized": (face.pts_3d / EDGE).astype(np.float32),
            "landmarks_68_3d_z": face.depth[:, None].astype(np.float32),
        }
    return {
        "image": file.getvalue(),
        "landmarks_origin": (face.pt2d / EDGE).astype(np.float32),
        "landmarks_2d": (face.pts_2d / EDGE).astype(np.float32),
        "landmarks_3d": (face.pts_3d / EDGE).astype(np.float32),
        "roi": np.array([1, 1, EDGE, EDGE], np.float32),
        "illum_params": np.zeros(10, np.float32),
        "color_params": np.ones(7, np.float32),
        "tex_params": np.zeros(199, np.float32),
        "shape_params": face.shape.astype(np.float32),
        "exp_params": face.expression.astype(np.float32),
        "pose_params": face.pose.astype(np.float32),
    }


def write_tfds(data_dir: Path, name: str, faces: dict[str, Sample]) -> None:
    """The data set `name` in array_record files, by TFDS' own builder and writer.

    Only where the builder gets its examples from is replaced.
    """
    import tensorflow_datasets as tfds

    def split_generators(self: Any, _: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        def examples() -> Iterator[tuple[str, dict[str, Any]]]:
            for key, face in faces.items():
                record = tfds_record(face, name)
                yield key, {**record, "image": io.BytesIO(record["image"])}

        return {"train": examples()}

    with mock.patch.object(tfds.builder_cls(name), "_split_generators", split_generators):
        builder = tfds.builder(name, data_dir=str(data_dir), file_format="array_record")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
