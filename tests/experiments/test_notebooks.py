"""The notebooks run from the first cell to the last, with settings that take seconds."""

import os
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from dataset_layouts import write_ibug
from paths import ROOT

from dfc_jax.morphable.file import load_face_model
from dfc_jax.morphable.linear import landmarks3d

pytestmark = pytest.mark.slow

NOTEBOOKS = ROOT / "experiments" / "notebooks"
TINY = {
    "synthetic_factors": {
        "SIZE": 32,
        "STEPS": 10,
        "BATCH": 2,
        "HELD_OUT": 4,
        "WITHOUT": ("nothing", "light"),
    },
    "paper_claims": {
        "SIZE": 32,
        "STEPS": 10,
        "HELD_OUT": 2,
        "BATCH_SYNTHETIC": 2,
        "BATCH_PHOTOS": 2,
        "WITHOUT": ("second branch",),
    },
}
PICTURES = {"synthetic_factors": 2, "paper_claims": 1}


def parameters_of(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return cell


def annotated(folder: Path) -> Path:
    """A folder of six pictures, annotated with the mean face in six places."""
    model, rng = load_face_model(), np.random.default_rng(0)
    face = np.asarray(landmarks3d(model, model.mean_mm))[:, :2] * [1.0, -1.0]
    for n in range(6):
        points = face * rng.uniform(0.6, 0.9) + rng.uniform(95.0, 105.0, 2)
        write_ibug(folder, str(n), points)
    return folder


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_notebook(name: str, tmp_path: Path, monkeypatch) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    changes = {**TINY[name], "WORKDIR": str(tmp_path / "run")}
    cell = parameters_of(notebook)
    if "PHOTOS" in cell.source:
        changes["PHOTOS"] = [str(annotated(tmp_path / "photos"))]
    missing = [key for key in changes if key not in cell.source]
    assert not missing, f"{name} has no parameters {missing}"
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in changes.items())
    # Seconds of compilation count here, those of running do not.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    (table,) = (c for c in notebook.cells if "scores" in c.metadata.get("tags", ()))
    lines = table.outputs[0].text.splitlines()
    for line, left_out in zip(lines[1:], changes["WITHOUT"], strict=True):
        assert line.startswith(left_out)
    pictures = [o for c in notebook.cells for o in c.get("outputs", ()) if "data" in o]
    assert sum("image/png" in output.data for output in pictures) == PICTURES[name]
