"""A hook of mkdocs: the notebook as a page, its code and the outputs it was saved with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add `notebook.md`."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join(part for cell in cells for part in parts_of(cell))
    files.append(File.generated(config, "notebook.md", content=text))
    return files


def parts_of(cell: dict[str, Any]) -> list[str]:
    """A cell as Markdown: its text, or its code and what it gave."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        shown = output.get("data", {})
        if "text/html" in shown:
            parts.append("".join(shown["text/html"]))
        elif "text/plain" in shown:
            parts.append("```text\n" + "".join(shown["text/plain"]) + "\n```")
    return parts
