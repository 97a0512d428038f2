"""300W-LP and AFLW2000-3D as TFDS prepares them, read from array_record files, no TensorFlow.

TFDS itself needs TensorFlow, SciPy and importlib_resources to *prepare* the two sets, once, on any
machine:

    tfds build the300w_lp aflw2k3d --file_format array_record

What it stores: points divided by 450 (`landmarks_origin`, `landmarks_2d`, `landmarks_3d` are
`pt2d`, `pts_2d` and `pts_3d` of 300W-LP; `landmarks_68_3d_xy_normalized` and `landmarks_68_3d_z`
the rows of `pt3d_68`), the parameters unchanged, no names. It leaves out the flipped copies of
300W-LP and the parameters of AFLW2000-3D.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from data_pipelines.sources.extras import required
from dfc_jax.data.faces import AnnotatedFace, FaceSet, Parameters
from dfc_jax.data.layouts import Readers
from dfc_jax.data.lp import JAW_OF, LP_EDGE_PX, N_EXPRESSION, N_POSE, N_SHAPE, LPPoints
from dfc_jax.errors import DatasetError
from dfc_jax.landmarks68 import N_LANDMARKS

BUILDERS = ("the300w_lp", "aflw2k3d")
FEATURE_OF: dict[LPPoints, str] = {
    "pt2d": "landmarks_origin",
    "pts_2d": "landmarks_2d",
    "pts_3d": "landmarks_3d",
}


def tfds_faces(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    points: LPPoints = "pt2d",
) -> FaceSet[int]:
    """The faces of a prepared TFDS data set, in the order of its files.

    Args:
      name: ``the300w_lp`` or ``aflw2k3d``.
      data_dir: where TFDS prepared it; its own default if left out.
      split: e.g. ``train`` or ``train[:10%]``.
      points: which annotation of `the300w_lp`; see `dfc_jax.data.lp`.

    Raises:
      DatasetError: the extra `tfds` is not installed, or the set is not there.
      ValueError: no such points.
    """
    if points not in FEATURE_OF:
        raise ValueError(f"there are no points {points!r}; choose from {get_args(LPPoints)}")
    if name not in BUILDERS:
        raise DatasetError(f"tfds:{name}: is not one of {', '.join(BUILDERS)}")
    source = _data_source(name, data_dir, split)
    make = _aflw2k3d if name == "aflw2k3d" else partial(_the300w_lp, which=points)

    def read(index: int) -> AnnotatedFace:
        label = f"{name}/{split}/{index:06d}"
        try:
            record = source[index]
        except Exception as error:  # a broken file makes the readers below raise almost anything
            raise DatasetError(f"{label}: cannot be read; prepare the data set again") from error
        return make(record, label)

    return FaceSet(f"tfds:{name}", range(len(source)), read)


# By the names that programs and `dfc evaluate` give these layouts; the folder is the data_dir.
READERS: Readers = {f"tfds:{name}": partial(tfds_faces, name) for name in BUILDERS}


def _data_source(name: str, data_dir: str | os.PathLike[str] | None, split: str) -> Any:
    tfds = required("tensorflow_datasets")
    required("array_record")
    try:
        return tfds.data_source(
            name,
            split=split,
            data_dir=None if data_dir is None else os.fspath(data_dir),
            download=False,
            # Photographs stay files until somebody looks at them.
            decoders={"image": tfds.decode.SkipDecoding()},
        )
    except Exception as error:
        reason = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
        raise DatasetError(
            f"tfds:{name}: split {split} is not prepared as array_record in {data_dir or 'TFDS'}; "
            f"run: tfds build {name} --file_format array_record ({reason})"
        ) from error


def _the300w_lp(record: Mapping[str, Any], label: str, which: LPPoints) -> AnnotatedFace:
    points = _feature(record, FEATURE_OF[which], (N_LANDMARKS, 2), label) * LP_EDGE_PX - 1.0
    parameters = Parameters(
        _feature(record, "pose_params", (N_POSE,), label),
        _feature(record, "shape_params", (N_SHAPE,), label),
        _feature(record, "exp_params", (N_EXPRESSION,), label),
    )
    return AnnotatedFace(
        photo=Path(label),
        points=points,
        name=label,
        jaw=JAW_OF[which],
        parameters=parameters,
        pose_deg=parameters.pose_deg,
        encoded=_encoded(record, label),
    )


def _aflw2k3d(record: Mapping[str, Any], label: str) -> AnnotatedFace:
    xy = _feature(record, "landmarks_68_3d_xy_normalized", (N_LANDMARKS, 2), label)
    return AnnotatedFace(
        photo=Path(label),
        points=xy * LP_EDGE_PX - 1.0,
        name=label,
        jaw="surface",
        depth_px=_feature(record, "landmarks_68_3d_z", (N_LANDMARKS, 1), label)[:, 0],
        encoded=_encoded(record, label),
    )


def _feature(
    record: Mapping[str, Any], name: str, shape: tuple[int, ...], label: str
) -> np.ndarray:
    value = np.asarray(record.get(name), np.float64) if name in record else np.zeros(0)
    if value.shape != shape:
        raise DatasetError(f"{label}: {name} is {value.shape}, not {shape}; another data set")
    if not np.isfinite(value).all():
        raise DatasetError(f"{label}: {name} holds numbers that are not finite; leave it out")
    return value


def _encoded(record: Mapping[str, Any], label: str) -> bytes:
    image = record.get("image")
    if not isinstance(image, bytes):
        raise DatasetError(f"{label}: holds no encoded image; it belongs to another data set")
    return image
