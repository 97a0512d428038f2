"""Readers of annotated faces: folders of photographs, 300W-LP, AFLW2000-3D, and both from TFDS.

===================  ==========================================================  =================
reader               reads                                                       points
===================  ==========================================================  =================
`ibug`               ``name.jpg`` beside ``name.pts``: 300W, HELEN, AFW, LFPW    the file's
`w300lp`             300W-LP's ``AFW/ HELEN/ IBUG/ LFPW/`` of ``.jpg``, ``.mat`` `pt2d`
`aflw2000`           AFLW2000-3D's ``imageNNNNN.jpg``, ``.mat``                  `pt3d_68`
`tfds_faces`         TFDS `the300w_lp`, `aflw2k3d` in array_record files         the same
===================  ==========================================================  =================

Each returns a `FaceSet`, a sequence that reads a `Face` when it is asked for one, in an order
that does not change. `collect` and `stream` pass over files that cannot be used and say why.

All these files count pixels from 1, as MATLAB does; the readers subtract 1, so that integers are
pixel centres here.
"""

from data_pipelines.readers.faces import (
    Face,
    FaceSet,
    Jaw,
    Parameters,
    Square,
    collect,
    read_square,
    stream,
)
from data_pipelines.readers.folders import aflw2000, ibug, w300lp
from data_pipelines.readers.layouts import LAYOUTS, label_fitted, open_faces, read_sets
from data_pipelines.readers.parameters import LPModel, Posed, label_given, posed, read_lp_model
from data_pipelines.readers.tfds import tfds_faces

__all__ = [
    "LAYOUTS",
    "Face",
    "FaceSet",
    "Jaw",
    "LPModel",
    "Parameters",
    "Posed",
    "Square",
    "aflw2000",
    "collect",
    "ibug",
    "label_fitted",
    "label_given",
    "open_faces",
    "posed",
    "read_lp_model",
    "read_sets",
    "read_square",
    "stream",
    "tfds_faces",
    "w300lp",
]
