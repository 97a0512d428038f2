"""The kinds of results of a photograph, by the names that `dfc align --outputs` takes.

Each has the endings of its files, by the names under which the JSON lists them, and a function that
writes them.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dfc_jax.export.obj import ObjSpace, write_mtl, write_obj
from dfc_jax.files import write_npz
from dfc_jax.photo import write_picture, write_png

if TYPE_CHECKING:
    from dfc_jax.export.gltf import Head
    from dfc_jax.export.renders import Renders
    from dfc_jax.export.texture import TextureMaker
    from dfc_jax.inference.draw import MeshView
    from dfc_jax.inference.face import Face
    from dfc_jax.inference.scene import Scene
    from dfc_jax.morphable.linear import FaceModel


class Studio:
    """What the writers of all photographs share.

    Args:
      model: of the faces.
      space: of the meshes, see `docs/ALIGN_SCHEMA.md`.
    """

    def __init__(self, model: "FaceModel", space: ObjSpace) -> None:
        from dfc_jax.morphable.linear import PARTS

        self.model, self.space = model, space
        self.triangles, self.uv = np.asarray(model.triangles), np.asarray(model.uv)
        # The neck is there for renders; over a photograph it would hide collars and hair.
        self.shown = np.asarray(model.triangle_part) != PARTS.index("neck")

    @cached_property
    def texture_maker(self) -> "TextureMaker":
        """For the model."""
        from dfc_jax.export.texture import TextureMaker

        return TextureMaker(self.model)


class Dress(NamedTuple):
    """Textures of a face, uint8: complete RGB (S, S, 3), and RGBA (S, S, 4) of what is shown."""

    complete: np.ndarray
    masked: np.ndarray


class Shot:
    """A photograph (H, W, 3) uint8 RGB with its faces; what several writers need is made once, when
    the first of them asks for it."""

    def __init__(self, studio: Studio, image: np.ndarray, faces: Sequence["Face"]) -> None:
        self.studio, self.image, self.faces = studio, image, faces

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.shape[1], self.image.shape[0]

    @cached_property
    def views(self) -> list["MeshView"]:
        """Each face as its camera sees it."""
        from dfc_jax.inference.draw import look_at

        studio = self.studio
        return [look_at(face, studio.model.triangles, studio.shown) for face in self.faces]

    @cached_property
    def dresses(self) -> list[Dress]:
        """The textures of each face."""
        from dfc_jax.export.texture import masked

        make, dresses = self.studio.texture_maker, []
        for face, view in zip(self.faces, self.views, strict=True):
            seen = make.see(self.image, face, view)
            dresses.append(Dress(make.complete(seen), masked(seen)))
        return dresses

    @cached_property
    def scene(self) -> "Scene":
        """The faces before one camera."""
        from dfc_jax.inference.scene import make_scene

        return make_scene(self.faces, self.size)

    @cached_property
    def renders(self) -> "Renders":
        """What that camera sees of them."""
        from dfc_jax.export.renders import render_scene

        return render_scene(self.scene, self.studio.model)

    def mesh(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Vertices and normals (V, 3) of a face in the space of the meshes."""
        face = self.faces[index]
        vertices, normals = face.vertices_mm, np.asarray(self.views[index].normals)
        if self.studio.space == "model":
            return (vertices - face.translation_mm) @ face.rotation, normals @ face.rotation
        return vertices, normals

    def head(
        self,
        index: int,
        rotation: np.ndarray | None = None,
        translation_mm: np.ndarray | None = None,
    ) -> "Head":
        """A face for a GLB, in a pose."""
        from dfc_jax.export.gltf import Head

        face = self.faces[index]
        weights = face.weights
        texture, name = self.dresses[index].complete, f"face{index + 1}"
        return Head(face.identity, weights, texture, rotation, translation_mm, name=name)


Places = dict[str, Path]


class FaceKind(NamedTuple):
    """Files of each face: name in the JSON to what follows the name of the face; their writer, of
    the photograph, the index of the face and the place of each file; and whether there is something
    to write of a face."""

    endings: dict[str, str]
    write: Callable[[Shot, int, Places], None]
    applies: Callable[["Face"], bool] = lambda face: True


class PhotoKind(NamedTuple):
    """The same of files of which a photograph with faces has one."""

    endings: dict[str, str]
    write: Callable[[Shot, Places], None]


def _npz(shot: Shot, index: int, places: Places) -> None:
    """What the JSON leaves out, see `docs/ALIGN_SCHEMA.md`."""
    face = shot.faces[index]
    write_npz(
        places["npz"],
        flow=face.flow,
        mask=face.matchability,
        refined_flow=face.refined_flow,
        refined_mask=face.refined_mask,
        crop_to_photo=face.crop.to_photo,
        vertices_mm=face.vertices_mm,
        landmarks_px=face.landmarks,
        **({} if face.segmentation is None else {"segmentation": face.segmentation}),
        **({} if face.occlusion is None else {"occlusion": face.occlusion}),
    )


def _obj(shot: Shot, index: int, places: Places) -> None:
    studio = shot.studio
    vertices, normals = shot.mesh(index)
    material = places["mtl"].name
    write_obj(places["obj"], vertices, studio.triangles, studio.uv, normals, material, studio.space)
    write_mtl(places["mtl"], places["texture"].name)
    write_picture(places["texture"], shot.dresses[index].complete)


def _flow(shot: Shot, index: int, places: Places) -> None:
    from dfc_jax.systems.dfc.draw import flow_picture

    face = shot.faces[index]
    write_png(places["flow"], flow_picture(face.flow, face.matchability))


def _mask(shot: Shot, index: int, places: Places) -> None:
    from dfc_jax.systems.dfc.draw import mask_picture

    write_png(places["mask"], mask_picture(shot.faces[index].matchability))


def _occlusion(shot: Shot, index: int, places: Places) -> None:
    from dfc_jax.systems.dfc.draw import mask_picture

    occlusion = shot.faces[index].occlusion
    assert occlusion is not None
    write_png(places["occlusion"], mask_picture(occlusion))


def _is_segmented(face: "Face") -> bool:
    return face.occlusion is not None


def _glb(shot: Shot, index: int, places: Places) -> None:
    from dfc_jax.export.gltf import write_glb

    face, upright = shot.faces[index], shot.studio.space == "model"
    pose = (None, None) if upright else (face.rotation, face.translation_mm)
    write_glb(places["glb"], shot.studio.model, shot.head(index, *pose))


def _ply(shot: Shot, index: int, places: Places) -> None:
    from dfc_jax.export.ply import vertex_colours, write_ply

    studio = shot.studio
    vertices, normals = shot.mesh(index)
    colours = vertex_colours(shot.dresses[index].complete, studio.uv)
    write_ply(places["ply"], vertices, studio.triangles, colours, normals, studio.space)


def _texture(shot: Shot, index: int, places: Places) -> None:
    write_png(places["masked_texture"], shot.dresses[index].masked)


def _pts(shot: Shot, index: int, places: Places) -> None:
    from dfc_jax.export.pts import write_pts

    write_pts(places["pts"], shot.faces[index].landmarks)


def _mat(shot: Shot, index: int, places: Places) -> None:
    from dfc_jax.export.aflw2000 import write_aflw2000

    write_aflw2000(places["mat"], shot.faces[index], shot.size[1])


def _overlay(shot: Shot, places: Places) -> None:
    from dfc_jax.inference.draw import overlay

    triangles = shot.studio.model.triangles
    write_png(places["overlay"], overlay(shot.image, shot.faces, triangles, shot.views))


def _depth(shot: Shot, places: Places) -> None:
    from dfc_jax.export.renders import write_depth_npy, write_depth_png

    write_depth_png(places["depth"], shot.renders.depth_mm)
    write_depth_npy(places["depth_npy"], shot.renders.depth_mm)


def _normals(shot: Shot, places: Places) -> None:
    write_png(places["normals"], shot.renders.normals)


def _pncc(shot: Shot, places: Places) -> None:
    write_png(places["pncc"], shot.renders.pncc)


def _livelink(shot: Shot, places: Places) -> None:
    from dfc_jax.export.livelink import write_livelink

    names = shot.studio.model.expression_names
    weights = np.array([face.weights for face in shot.faces])
    angles = [[face.angles_deg[n] for n in ("yaw", "pitch", "roll")] for face in shot.faces]
    write_livelink(places["livelink"], names, weights, np.array(angles))


def _scene(shot: Shot, places: Places) -> None:
    from dfc_jax.export.gltf import View, write_glb

    scene, studio = shot.scene, shot.studio
    poses = zip(scene.rotation, scene.translation_mm, strict=True)
    heads = [shot.head(index, *pose) for index, pose in enumerate(poses)]
    view = View(scene.focal_px, scene.width, scene.height)
    write_glb(places["scene_glb"], studio.model, heads, view)
    count, n_vertices = scene.vertices_mm.shape[:2]
    triangles = np.concatenate([studio.triangles + n_vertices * i for i in range(count)])
    write_obj(places["scene_obj"], scene.vertices_mm.reshape(-1, 3), triangles)


FACE_KINDS = {
    "npz": FaceKind({"npz": ".npz"}, _npz),
    "obj": FaceKind({"obj": ".obj", "mtl": ".mtl", "texture": "_texture.jpg"}, _obj),
    "flow": FaceKind({"flow": "_flow.png"}, _flow),
    "mask": FaceKind({"mask": "_mask.png"}, _mask),
    "occlusion": FaceKind({"occlusion": "_occlusion.png"}, _occlusion, _is_segmented),
    "glb": FaceKind({"glb": ".glb"}, _glb),
    "ply": FaceKind({"ply": ".ply"}, _ply),
    "texture": FaceKind({"masked_texture": "_texture.png"}, _texture),
    "pts": FaceKind({"pts": ".pts"}, _pts),
    "mat": FaceKind({"mat": ".mat"}, _mat),
}
PHOTO_KINDS = {
    "overlay": PhotoKind({"overlay": "_overlay.png"}, _overlay),
    "depth": PhotoKind({"depth": "_depth.png", "depth_npy": "_depth.npy"}, _depth),
    "normals": PhotoKind({"normals": "_normals.png"}, _normals),
    "pncc": PhotoKind({"pncc": "_pncc.png"}, _pncc),
    "livelink": PhotoKind({"livelink": "_livelink.csv"}, _livelink),
    "scene": PhotoKind({"scene_glb": "_scene.glb", "scene_obj": "_scene.obj"}, _scene),
}
