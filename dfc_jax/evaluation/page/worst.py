"""The worst faces of a set, drawn: true and predicted points on the photograph, or on plain
ground."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from dfc_jax.crops import Crop, apply_affine, box_of_points, crop_photo
from dfc_jax.errors import PhotoError
from dfc_jax.evaluation.page.nodes import extend, node
from dfc_jax.evaluation.page.results import points_of
from dfc_jax.evaluation.page.tables import number
from dfc_jax.photo import read_photo

# Faces of each system, edge of a picture in pixels, and how much larger than the points' box it is.
FACES, EDGE, MARGIN = 6, 240, 1.45
JPEG_QUALITY = 82


def worst(faces: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """The faces with the largest errors by a protocol, the worst one first."""
    known = [(error_of(face, name), face) for face in faces]
    scored = [(error, face) for error, face in known if error is not None]
    return [face for _, face in sorted(scored, key=lambda pair: -pair[0])[:FACES]]


def error_of(face: Mapping[str, Any], name: str) -> float | None:
    """The error of a face by a protocol, None without output or truth."""
    error: float | None = (face.get("errors") or {}).get(name)
    return error


def face_figure(face: Mapping[str, Any], name: str, folder: Path | None = None) -> Element:
    """One face with its points, its name and its error."""
    true, predicted = points_of(face.get("true")), points_of(face.get("predicted"))
    title = str(face.get("name") or "")
    yaw = face.get("yaw_deg")
    told = f"{number(error_of(face, name))} %"
    told += "" if yaw is None else f", yaw {number(yaw, 0)}°"
    caption = node("figcaption", node("span", title), told)
    picture = _picture(face, true, predicted, folder)
    # Where the name is cut off, this shows all of it.
    picture.insert(0, node("title", title))
    return node("figure", picture, caption, class_="face")


def crop_of(true: np.ndarray, predicted: np.ndarray, size: int = EDGE) -> Crop | None:
    """The square around the true points, or the predicted ones where there are no others."""
    for points in (true, predicted):
        box = box_of_points(points)
        if (box[2:] > 0.0).all():
            side = MARGIN * float(max(box[2:]))
            return Crop(box[:2] + box[2:] / 2.0, side, size=size)
    return None


def photo_of(face: Mapping[str, Any], folder: Path | None) -> np.ndarray | None:
    """The photograph (H, W, 3) uint8 of a face; None where it is not in the folder or not to be
    read."""
    path = None if folder is None else _photo_path(face, folder)
    try:
        return None if path is None else read_photo(path)
    except (PhotoError, OSError, ValueError):
        return None


def holds_photos(folder: Path, faces: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a photograph of any of the faces is in the folder."""
    return any(_photo_path(face, folder) is not None for face in faces)


def _photo_path(face: Mapping[str, Any], folder: Path) -> Path | None:
    """The photograph of a face; None where there is no such file in the folder."""
    relative = face.get("photo")
    if not relative:
        return None
    try:
        path = (folder / relative).resolve()
        # A result says which file of the folder to show, not which file of the machine.
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):
        return None


def _picture(
    face: Mapping[str, Any], true: np.ndarray, predicted: np.ndarray, folder: Path | None
) -> Element:
    svg = node("svg", viewBox=f"0 0 {EDGE} {EDGE}", role="img")
    extend(svg, node("rect", width="100%", height="100%", class_="ground"))
    crop = crop_of(true, predicted)
    if crop is None:
        return svg
    image = photo_of(face, folder)
    if image is not None:
        source = f"data:image/jpeg;base64,{_jpeg(image, crop)}"
        extend(svg, node("image", href=source, width=EDGE, height=EDGE))
    place = partial(apply_affine, crop.to_crop)
    true, predicted = place(true), place(predicted)
    for one, other in zip(true, predicted, strict=False):
        if np.isfinite([*one, *other]).all():
            (x1, y1), (x2, y2) = _rounded(one), _rounded(other)
            extend(svg, node("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="apart"))
    for points, style in ((true, "true"), (predicted, "predicted")):
        for x, y in map(_rounded, points[np.isfinite(points).all(axis=-1)]):
            extend(svg, node("circle", cx=x, cy=y, r=1.9, class_=style))
    return svg


def _rounded(point: np.ndarray) -> tuple[float, float]:
    # Pixel centres lie at whole numbers, SVG's at halves.
    return round(float(point[0]) + 0.5, 1), round(float(point[1]) + 0.5, 1)


def _jpeg(image: np.ndarray, crop: Crop) -> str:
    import cv2

    pixels = np.round(255.0 * crop_photo(image, crop)).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    coded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)[1]
    return base64.b64encode(coded.tobytes()).decode()
