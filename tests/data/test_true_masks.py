"""Masks of a set say where the face is, and where they do not say it."""

import numpy as np
import pytest
from dataset_layouts import write_facesynthetics, write_fasseg
from paths import shared_data
from PIL import Image

from dfc_jax.data.facesynthetics import facesynthetics
from dfc_jax.data.fasseg import fasseg
from dfc_jax.errors import DatasetError


def test_neck_and_brows_of_fasseg_do_not_count(tmp_path):
    """Eyes in row 60 and mouth in row 100 are a box from row 46 to 125, columns 41 to 120."""
    write_fasseg(tmp_path, {"p01146+0+0": (80, 120)})
    path = tmp_path / "p01146+0+0.png"
    classes = np.asarray(Image.open(path)).copy()
    classes[126:150, 60:100] = 1  # neck
    classes[50:53, 70:76] = 2  # a brow
    classes[20:40, 60:100] = 2  # hair above the box
    Image.fromarray(classes).save(path)
    (face,) = fasseg(tmp_path)
    assert face.mask is not None
    mask, counted = face.mask()
    assert mask.dtype == counted.dtype == bool
    assert counted[46:100, 45:118][classes[46:100, 45:118] != 2].all()
    # From the chin, row 125 below the mouth, up to row 100 at the sides: in column 110 to row 106.
    assert counted[105, 110] and not counted[108, 110] and counted[124, 80]
    assert counted[105, 50] and not counted[108, 50]
    assert not counted[126:150, 60:100].any() and not counted[50:53, 70:76].any()
    # Skin that is lower than the mouth and beside the box, as that of the neck in a profile.
    assert not counted[105:120, :38].any() and counted[60:98, :38].all()
    assert mask[96:105, 72:89].all() and mask[75:85, 77:84].all() and mask[42, 90]
    assert counted[20:40, 60:100].all() and not mask[20:40, 60:100].any()
    assert face.mask == fasseg(tmp_path)[0].mask


def test_facesynthetics_counts_no_beard_and_nothing_inside_the_mouth(tmp_path):
    write_facesynthetics(tmp_path, "000000", np.full((70, 2), 5.0))
    assert facesynthetics(tmp_path)[0].mask is None
    classes = np.array([[*range(19), 255]], np.uint8)
    Image.fromarray(classes).save(tmp_path / "000000_seg.png")
    (face,) = facesynthetics(tmp_path)
    assert face.mask is not None
    mask, counted = face.mask()
    assert classes[mask].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert classes[~counted].tolist() == [9, 14, 255]
    (tmp_path / "000000_seg.png").write_bytes(b"\x89PNG")
    with pytest.raises(DatasetError, match=r"000000_seg.png: not a readable mask"):
        face.mask()


def test_true_masks_cover_the_inner_points_that_nothing_hides():
    """Frontal faces of FaceSynthetics: brows, eyes, nose and lips lie on the mask, but for what
    spectacles and masks cover."""
    shares = []
    for face in facesynthetics(shared_data("facesynthetics")):
        assert face.mask is not None
        mask, counted = face.mask()
        x, y = np.rint(face.points[17:]).astype(int).T.clip(0, len(mask) - 1)
        shares.append(mask[y, x][counted[y, x]].mean())
    assert len(shares) == 50 and np.median(shares) > 0.95
