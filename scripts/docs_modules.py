"""A hook of mkdocs: one page per package of `research`, made from its docstrings."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parent.parent / "research"


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add `api/<package>.md` for each package, and `api/index.md` that lists them."""
    packages = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    for name in packages:
        files.append(File.generated(config, f"api/{name}.md", content=f"# {name}\n\n::: research.{name}\n"))
    rows = "".join(f"- [{name}]({name}.md): {first_line(PACKAGE / name / '__init__.py')}\n" for name in packages)
    files.append(File.generated(config, "api/index.md", content=f"# Modules\n\n{rows}"))
    return files


def first_line(path: Path) -> str:
    """The first line of a module's docstring, or nothing."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
