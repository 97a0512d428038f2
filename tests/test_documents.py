"""What the documents name is there."""

import re
from pathlib import Path

import pytest
from paths import ROOT

from dfc_jax.evaluation.page import markdown, read_result

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "WORKSPACE.md",
    "docs/ALIGN_SCHEMA.md",
    "docs/COMPOSITE.md",
    "docs/EXPORTS.md",
    "docs/EVALUATE.md",
    "docs/VIDEO.md",
    "docs/RUNTIMES.md",
    "dfc_jax/assets/MODEL_CARD.md",
    "examples/README.md",
)
FOLDERS = "dfc_jax|data_pipelines|experiments|tests|docs|examples"
# What a command in them writes.
WRITTEN = {"dfc_jax/assets/weights/paper.safetensors"}


def code(text: str) -> list[str]:
    """Blocks and words in backticks."""
    blocks = re.findall(r"```.*?```", text, re.DOTALL)
    return blocks + re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def is_there(path: str) -> bool:
    return any(ROOT.glob(path)) or path in WRITTEN


def is_module_or_name(dotted: str) -> bool:
    """A module, or a word in the source of the module before the last dot."""

    def source(name: str) -> Path | None:
        path = ROOT / name.replace(".", "/")
        files = (path.with_suffix(".py"), path / "__init__.py")
        return next((file for file in files if file.exists()), None)

    parent, _, name = dotted.rpartition(".")
    inside = source(parent)
    return bool(source(dotted) or (inside and re.search(rf"\b{name}\b", inside.read_text())))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_and_module_that_a_document_names_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    words = {word for part in code(text) for word in re.findall(r"[\w./<>*-]*[\w>/]", part)}
    words = {word for word in words if not re.search(r"NAME|[<>]", word)}
    paths = {word.rstrip("/") for word in words if re.match(rf"({FOLDERS})/", word)}
    modules = {word for word in words if re.fullmatch(rf"({FOLDERS})(\.[a-z]\w*)+", word)}
    links = set(re.findall(r"\]\(([^)#:]+)\)", text))
    beside = (ROOT / document).parent
    assert paths | links
    assert not {path for path in paths if not is_there(path)}
    assert not {link for link in links if not (beside / link).exists()}
    assert not {name for name in modules if not is_module_or_name(name)}


def test_table_of_results_in_the_readme_is_that_of_the_committed_results() -> None:
    """`dfc report docs/results/*.json --markdown FILE` makes it."""
    files = sorted((ROOT / "docs" / "results").glob("*.json"))
    assert len(files) == 5
    results = [read_result(file) for file in files]
    assert all(not each["faces"] for result in results for each in result["sets"])
    assert markdown(results).strip() in (ROOT / "README.md").read_text()
