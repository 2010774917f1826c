"""Imports inside the package run downwards only, those for type checkers included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import research

ROOT = Path(research.__file__).parent
ORDER = [
    "common", "config", "cluster", "data", "batching", "models", "adapters", "methods", "metrics", "tracking",
    "training", "tasks", "inference", "retrieval", "report", "deploy", "sweep", "continual", "rounds", "cli", "api",
]  # fmt: skip


def imported(tree: ast.AST, names: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each module of `names` that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:  # `from research.common import compat` imports a module
                found = [name for name in (f"{node.module}.{alias.name}", node.module) if name in names]
                yield from ((node.lineno, name) for name in found[:1])


def modules(root: Path) -> dict[str, Path]:
    """The package's modules by name."""
    files = {path.relative_to(root.parent).with_suffix("").parts: path for path in root.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for parts, path in files.items()}


def upward_imports(root: Path, order: list[str]) -> list[str]:
    """Imports of a later package of `order` by an earlier one."""
    files = modules(root)
    wrong = []
    for name, path in files.items():
        if "." not in name:  # the package itself offers what api defines
            continue
        place = order.index(name.split(".")[1])
        for line, other in imported(ast.parse(path.read_text(encoding="utf-8")), set(files)):
            if "." in other and order.index(other.split(".")[1]) > place:
                wrong.append(f"{path.relative_to(root)}:{line} imports {other}")
    return wrong


def circle_on_loading(root: Path) -> list[str]:
    """Modules that import each other when they are loaded; empty where there is no such circle."""
    files = modules(root)
    graph = {}
    for name, path in files.items():
        top = ast.parse(path.read_text(encoding="utf-8"))
        top.body = [node for node in top.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        graph[name] = {other for _, other in imported(top, set(files))}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_package_imports_a_later_one() -> None:
    assert upward_imports(ROOT, ORDER) == []


def test_no_modules_import_each_other_when_they_are_loaded() -> None:
    assert circle_on_loading(ROOT) == []


def test_an_upward_import_and_a_circle_are_found(tmp_path: Path) -> None:
    root = tmp_path / "package"
    for name, text in {
        "__init__.py": "",
        "low/__init__.py": "",
        "low/a.py": "def f():\n    from package.high import b\n",
        "high/__init__.py": "",
        "high/b.py": "from package.high.c import x\n",
        "high/c.py": "import package.high.b\nimport package.low.a\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert upward_imports(root, ["low", "high"]) == ["low/a.py:2 imports package.high.b"]
    assert set(circle_on_loading(root)) == {"package.high.b", "package.high.c"}
