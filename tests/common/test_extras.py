"""Optional extras: a command that misses one names it, and what needs none runs without."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from research.cli import main
from research.common import extras
from tests.report.synthetic import write_run

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
REPORTING = {name.split(">")[0].replace("-", "_") for name in EXTRAS["report"]}


def imported(path: Path) -> set[str]:
    """The packages a module imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.process
def test_only_reporting_imports_what_comes_with_the_extra() -> None:
    assert {"matplotlib", "jinja2", "wandb_workspaces"} <= REPORTING
    users = {
        path.relative_to(ROOT / "research") for path in (ROOT / "research").rglob("*.py") if imported(path) & REPORTING
    }
    assert len(users) > 5
    assert {str(path) for path in users if path.parts[0] != "report"} == {
        "continual/report.py",
        "rounds/active_report.py",
        "sweep/figures.py",
    }


@pytest.mark.process
@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_report_names_the_extra_that_is_missing(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs" / "one")
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)  # the import system's own way to say that it is not there
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "paper")]) == 2
    said = capsys.readouterr().err
    assert f"{missing} is not installed; it comes with the extra [report]: pip install 'research[report]'." in said


def test_packages_of_no_extra_get_no_advice() -> None:
    assert extras.advice(ModuleNotFoundError("No module named 'nowhere'", name="nowhere")) is None
    assert extras.advice(ModuleNotFoundError("No module named 'torch'", name="torch.cuda")) is None
