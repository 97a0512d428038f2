"""The notebooks run from the first cell to the last, with settings that take seconds."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "experiments" / "notebooks"
TINY = {
    "synthetic_factors": {
        "SIZE": 32,
        "STEPS": 10,
        "BATCH": 2,
        "HELD_OUT": 4,
        "WITHOUT": ("nothing", "light"),
    },
}


def parameters_of(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return cell


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_notebook(name: str, tmp_path: Path, monkeypatch) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    changes = {**TINY[name], "WORKDIR": str(tmp_path)}
    cell = parameters_of(notebook)
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
    assert [line.split()[0] for line in lines[1:]] == list(changes["WITHOUT"])
    pictures = [o for c in notebook.cells for o in c.get("outputs", ()) if "data" in o]
    assert sum("image/png" in output.data for output in pictures) == 2
