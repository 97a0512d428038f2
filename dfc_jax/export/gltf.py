"""Heads as binary glTF 2.0 (GLB): texture, expression shapes as morph targets, pose, animation.

Metres; y up, z towards the viewer. The mesh is the neutral face of an identity; its morph targets
are the model's expression shapes, under the names that three.js and Blender show.
"""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np

from dfc_jax.files import written_aside
from dfc_jax.morphable.linear import FaceModel, shape, vertex_normals
from dfc_jax.types import ByValue

M_PER_MM = 1e-3
# Camera space (y down, z forward) to glTF's (y up, z towards the viewer).
_TO_VIEWER = np.diag([1.0, -1.0, -1.0])
_JPEG_QUALITY = 92
_FLOAT, _USHORT, _UINT = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


@dataclass(frozen=True, eq=False)
class Animation(ByValue):
    """A head over time, F frames.

    Attributes:
      times_s: (F,) seconds, increasing.
      expression: (F, E) weights of the expression shapes.
      rotation: (F, 3, 3) model to camera; None where the head stays as it is.
      translation_mm: (F, 3) model origin in camera space; None likewise.
    """

    times_s: np.ndarray
    expression: np.ndarray
    rotation: np.ndarray | None = None
    translation_mm: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Head(ByValue):
    """A head to write.

    Attributes:
      identity: (K,) coefficients, standard deviations.
      expression: (E,) weights of the expression shapes.
      texture: (H, W, 3) uint8 RGB over the model's uv; without one the head is matt grey.
      rotation: (3, 3) model to camera; None for a head that looks at the viewer.
      translation_mm: (3,) model origin in camera space; None for a head at the origin.
      animation: over time.
      name: of its node.
    """

    identity: np.ndarray
    expression: np.ndarray
    texture: np.ndarray | None = field(default=None, repr=False)
    rotation: np.ndarray | None = None
    translation_mm: np.ndarray | None = None
    animation: Animation | None = None
    name: str = "face"


@dataclass(frozen=True)
class View:
    """A pinhole camera at the origin of camera space, its principal point in the picture's middle.

    Attributes:
      focal_px: focal length, pixels.
      width, height: of the picture, pixels.
    """

    focal_px: float
    width: int
    height: int


def write_glb(
    path: str | os.PathLike[str],
    model: FaceModel,
    heads: Head | Sequence[Head],
    view: View | None = None,
) -> None:
    """Write one head or several of one model as GLB.

    A file takes 12 bytes for each vertex and expression shape, which all its heads share, and the
    textures as JPEG.

    Args:
      path: of the file.
      model: whose triangles, uv and expression shapes they have.
      heads: what to write.
      view: a camera to look at them through; for heads with poses.

    Raises:
      ExportError: the file cannot be written.
      ValueError: an expression has another length than the model's names.
    """
    heads = [heads] if isinstance(heads, Head) else list(heads)
    file = _File()
    shared = _shared(file, model)
    for head in heads:
        if np.shape(head.expression) != (model.n_expression,):
            raise ValueError(
                f"an expression has shape {np.shape(head.expression)}; the model has "
                f"{model.n_expression} expression shapes"
            )
        _add_head(file, model, shared, head)
    if view is not None:
        _add_camera(file, view)
    with written_aside(path) as aside:
        aside.write_bytes(file.to_bytes())


class _File:
    """The JSON of a file, and its one buffer."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "dfc_jax"},
            "scene": 0,
            "scenes": [{"nodes": []}],
        }
        self.parts: list[bytes] = []
        self.length = 0

    def add(self, kind: str, item: dict[str, Any]) -> int:
        """Append to the list of a kind, such as "meshes"; its index there."""
        items = self.json.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def add_node(self, node: dict[str, Any]) -> int:
        """A node of the scene."""
        index = self.add("nodes", node)
        self.json["scenes"][0]["nodes"].append(index)
        return index

    def add_bytes(self, content: bytes, **more: Any) -> int:
        """A view of the buffer."""
        view = {"buffer": 0, "byteOffset": self.length, "byteLength": len(content), **more}
        padded = content + bytes(-len(content) % 4)
        self.parts.append(padded)
        self.length += len(padded)
        return self.add("bufferViews", view)

    def add_array(self, array: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """An accessor of n values or of n vectors; `bounds` where the format wants them."""
        if array.dtype.kind == "f":
            array, component = array.astype("<f4"), _FLOAT
        else:
            small = array.max(initial=0) < 0xFFFF
            array, component = (
                (array.astype("<u2"), _USHORT) if small else (array.astype("<u4"), _UINT)
            )
        rows = array.reshape(len(array), -1)
        more = {} if target is None else {"target": target}
        accessor: dict[str, Any] = {
            "bufferView": self.add_bytes(np.ascontiguousarray(rows).tobytes(), **more),
            "componentType": component,
            "count": len(rows),
            "type": _KINDS[rows.shape[1]],
        }
        if bounds:
            accessor |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        return self.add("accessors", accessor)

    def to_bytes(self) -> bytes:
        """The whole file."""
        if self.length:
            self.json["buffers"] = [{"byteLength": self.length}]
        text = json.dumps(self.json, allow_nan=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", self.length, b"BIN\0") + b"".join(self.parts)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _shared(file: _File, model: FaceModel) -> dict[str, Any]:
    """Accessors of what all heads of a model share."""
    shapes = M_PER_MM * np.moveaxis(np.asarray(model.expression_mm), -1, 0)
    # A texture's row 0 is v = 1 for the model, and v = 0 in glTF.
    uv = np.asarray(model.uv) * [1.0, -1.0] + [0.0, 1.0]
    return {
        "indices": file.add_array(np.asarray(model.triangles).ravel(), _ELEMENT_BUFFER),
        "uv": file.add_array(uv, _ARRAY_BUFFER),
        "targets": [
            {"POSITION": file.add_array(deltas, _ARRAY_BUFFER, bounds=True)} for deltas in shapes
        ],
    }


def _add_head(file: _File, model: FaceModel, shared: dict[str, Any], head: Head) -> None:
    neutral = shape(model, jnp.asarray(head.identity), jnp.zeros(0))
    normals = np.asarray(vertex_normals(neutral, model.triangles))
    attributes = {
        "POSITION": file.add_array(M_PER_MM * np.asarray(neutral), _ARRAY_BUFFER, bounds=True),
        "NORMAL": file.add_array(normals, _ARRAY_BUFFER),
        "TEXCOORD_0": shared["uv"],
    }
    primitive = {
        "attributes": attributes,
        "indices": shared["indices"],
        "material": _add_material(file, head.texture),
        "targets": shared["targets"],
    }
    mesh = {
        "name": head.name,
        "primitives": [primitive],
        "weights": np.asarray(head.expression, float).tolist(),
        "extras": {"targetNames": list(model.expression_names)},
    }
    node: dict[str, Any] = {"name": head.name, "mesh": file.add("meshes", mesh)}
    if head.rotation is not None:
        node["rotation"] = _quaternions(head.rotation[None])[0].tolist()
    if head.translation_mm is not None:
        node["translation"] = _positions(head.translation_mm).tolist()
    index = file.add_node(node)
    if head.animation is not None:
        _add_animation(file, index, head.animation, head.name)


def _add_material(file: _File, texture: np.ndarray | None) -> int:
    """The photograph's colours as they are, its light included; or matt grey."""
    if texture is None:
        matt = {"baseColorFactor": [0.7, 0.7, 0.7, 1.0], "metallicFactor": 0.0}
        return file.add("materials", {"pbrMetallicRoughness": matt})
    coded = cv2.imencode(".jpg", texture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    image = {"bufferView": file.add_bytes(coded.tobytes()), "mimeType": "image/jpeg"}
    index = file.add("textures", {"source": file.add("images", image)})
    file.json["extensionsUsed"] = ["KHR_materials_unlit"]
    material = {
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": index},
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0,
        },
        "extensions": {"KHR_materials_unlit": {}},
    }
    return file.add("materials", material)


def _add_animation(file: _File, node: int, animation: Animation, name: str) -> None:
    times = file.add_array(np.asarray(animation.times_s, np.float32), bounds=True)
    tracks = {"weights": np.asarray(animation.expression, np.float32).ravel()}
    if animation.rotation is not None:
        tracks["rotation"] = _quaternions(animation.rotation)
    if animation.translation_mm is not None:
        tracks["translation"] = _positions(animation.translation_mm)
    channels: list[dict[str, Any]] = []
    samplers: list[dict[str, Any]] = []
    for path, values in tracks.items():
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
        samplers.append(
            {"input": times, "interpolation": "LINEAR", "output": file.add_array(values)}
        )
    file.add("animations", {"name": name, "channels": channels, "samplers": samplers})


def _add_camera(file: _File, view: View) -> None:
    perspective = {
        "aspectRatio": view.width / view.height,
        "yfov": 2.0 * float(np.arctan2(view.height / 2.0, view.focal_px)),
        "znear": 0.01,
        "zfar": 1000.0,
    }
    camera = file.add("cameras", {"type": "perspective", "perspective": perspective})
    file.add_node({"name": "camera", "camera": camera})


def _positions(translation_mm: np.ndarray) -> np.ndarray:
    """Camera space (..., 3), mm, to glTF's, m."""
    return M_PER_MM * np.asarray(translation_mm, np.float64) @ _TO_VIEWER


def _quaternions(rotation: np.ndarray) -> np.ndarray:
    """Model to camera (F, 3, 3) as glTF's unit quaternions (F, 4) x, y, z, w, each the one of its
    two signs that is nearer to the frame before."""
    from scipy.spatial.transform import Rotation  # here: slow to import

    found = Rotation.from_matrix(_TO_VIEWER @ np.asarray(rotation, np.float64)).as_quat()
    same = np.sum(found[1:] * found[:-1], axis=1) >= 0.0
    found[1:] *= np.cumprod(np.where(same, 1.0, -1.0))[:, None]
    return found
