"""A face and its labels, for the tests of this folder."""

import jax
import numpy as np
import pytest
from views import view

from dfc_jax.systems.dfc.labels import flow_to_template


@pytest.fixture(scope="module")
def face(model, template):
    """Another face than the template's, a little turned."""
    return view(model, template, yaw=18.0, pitch=-6.0, roll=8.0, seed=1)


@pytest.fixture(scope="module")
def labels(face, template):
    flow, seen = jax.jit(flow_to_template)(face.fragments, template)
    return np.asarray(flow), np.asarray(seen)
