"""The notebook of the documentation runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.mark.slow
@pytest.mark.process
def test_every_cell_runs(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    changes = {
        "os.chdir(repository)": f"os.chdir({str(tmp_path)!r})",
        "models/all-MiniLM-L6-v2": str(tiny_model),
        "epochs: 2": "epochs: 0.2",
        "trials: 2": "trials: 1",
    }
    for old, new in changes.items():
        cell = next(cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    shown = {cell.source.splitlines()[-1]: texts(cell) for cell in notebook.cells if cell.cell_type == "code"}
    assert "A - B = " in next(text for last, text in shown.items() if "research.compare" in last)
    assert "tables" in next(text for last, text in shown.items() if "report.iterdir" in last)
    assert "complete" in next(text for last, text in shown.items() if last.startswith("trials"))
    assert (tmp_path / "runs" / "notebook" / "paper" / "index.html").is_file()


def texts(cell: Any) -> str:
    """What a cell has shown."""
    return "".join(output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_saved_outputs_are_of_a_complete_run() -> None:
    code = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
