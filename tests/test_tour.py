"""docs/tour.ipynb: executed from the top with its small settings, and without outputs in the repository."""

import re
from pathlib import Path

import pytest
from doc_blocks import ROOT

nbformat = pytest.importorskip("nbformat", reason="the extra notebook is not installed")
TOUR = ROOT / "docs" / "tour.ipynb"


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def text_of(outputs):
    shown = [output.get("data", {}) for output in outputs]
    return "\n".join(str(data.get(kind)) for data in shown for kind in ("text/html", "text/markdown", "text/plain"))


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    assert outputs_of(notebook) == []


@pytest.mark.usefixtures("minilm_folder")
def test_it_runs_from_the_top(tmp_path, monkeypatch):
    pytest.importorskip("ipykernel")
    pytest.importorskip("ipywidgets")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("FLOODX_TOUR", "small")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = outputs_of(notebook)
    run = Path(tmp_path, "runs", "tour")
    assert (run / "export" / "model.safetensors").is_file()
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2  # the live one, of which the last state is kept, and the run's
    said = text_of(outputs)
    assert "Flood level:" in said
    assert "soup" in said and "<font color" in said
    assert re.search(r"The model \*\*(fooled|held)\*\*, after \d+ queries; \d+ words changed", said)
    assert "interactive(" in said
