"""The program from crops to faces runs where only JAX is, and finds what the solver finds."""

import subprocess
import sys

import numpy as np
import pytest

from dfc_jax.export.programs import face_program, serialized
from dfc_jax.nets.weights import load

# As in docs/RUNTIMES.md.
ALONE = """
import sys
import jax, numpy as np
from jax import export

with open("face.jax", "rb") as file:
    program = export.deserialize(bytearray(file.read()))
found = jax.jit(program.call)(np.load("crops.npy"))
np.savez("found.npz", **found)
assert "dfc_jax" not in sys.modules and "flax" not in sys.modules
"""


@pytest.mark.slow
def test_faces_are_those_of_the_solver_in_a_process_with_jax_alone(trained, template, tmp_path):
    variables, spec, _ = load("lite")
    program = face_program(variables, spec, trained.model, template)
    (tmp_path / "face.jax").write_bytes(serialized(program, template.size, {}))
    image = np.asarray(template.image)
    crops = np.stack([image, image[:, ::-1] * 0.8, np.zeros_like(image)]).astype(np.float32)
    np.save(tmp_path / "crops.npy", crops)
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, check=True)
    found = dict(np.load(tmp_path / "found.npz"))
    wanted = trained.solver.locate(list(crops))
    assert found["status"].shape == (3,)
    for i, estimate in enumerate(wanted):
        assert found["sound"][i] == (estimate is not None)
        if estimate is None:
            continue
        dense = estimate.dense
        np.testing.assert_allclose(found["flow"][i], dense.flow, atol=1e-3)
        np.testing.assert_allclose(found["landmarks_px"][i], estimate.landmarks_px, atol=0.02)
        np.testing.assert_allclose(found["vertices_mm"][i], dense.vertices_mm, atol=0.05, rtol=1e-3)
        np.testing.assert_allclose(found["identity"][i], dense.params.identity, atol=0.02)
        assert found["residual_px"][i] == pytest.approx(estimate.residual_px, abs=1e-3)
