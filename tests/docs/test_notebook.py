"""The notebook: stored without outputs, its names exist, and it runs from the top to the bottom."""

import ast
import importlib
import re

import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook):
    """Return the trees of its code cells, without magics."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return [ast.parse(re.sub(r"^( *)%.*", r"\1pass", source, flags=re.MULTILINE)) for source in sources]


def test_it_is_valid_and_stored_without_outputs(notebook):
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_its_names_of_korser_exist(notebook):
    names = []
    for node in (node for tree in code_of(notebook) for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("korser"):
            names += [(node.module, name.name) for name in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "korser":
            names.append(("korser", node.attr))
    missing = [f"{module}.{name}" for module, name in names if not hasattr(importlib.import_module(module), name)]
    assert len(names) > 10 and missing == []


def test_the_pages_that_it_names_exist(notebook):
    pages = re.findall(r"`(docs/[\w/-]+\.md)`", "\n".join(cell.source for cell in notebook.cells))
    assert len(pages) > 5 and [page for page in pages if not (ROOT / page).is_file()] == []


@pytest.mark.slow
def test_it_runs(notebook, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("onnxscript")
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", ()) for output in outputs) >= 8
    assert len(list((tmp_path / "results").iterdir())) == 6, "two models with three seeds"
    assert (tmp_path / "my-emotion-model" / "model.onnx").is_file()
