"""The Markdown files outside the documentation site: links, length and citation; `make docs` checks the site."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from research import __version__
from research.cli import main
from research.config import component
from research.tracking.run import Run

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "STYLE.md", "docs/example-report/README.md")


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if not ((ROOT / page).parent / link.partition("#")[0]).exists()]
    assert links or page == "STYLE.md"
    assert missing == []


def test_readme_has_at_most_250_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


def test_layout_in_the_readme_names_every_package() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout")[2]
    packages = {path.parent.name for path in (ROOT / "research").glob("*/__init__.py")}
    assert packages - set(re.findall(r"^  (\w+)/ ", text, re.MULTILINE)) == set()


@pytest.mark.parametrize("kind", ["adapter", "method"])
def test_each_adapter_and_method_has_a_section_of_five_lines(kind: str) -> None:
    text = (ROOT / "docs" / f"{kind}s.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    own = {name: section for title, section in sections.items() for name in title.split(", ")}
    last = {"adapter": "Export", "method": "Measured"}[kind]
    for name in component.names(kind):
        lines = re.findall(r"^- (\w+?)s?:", own.get(name, ""), re.MULTILINE)
        assert lines == ["When", "Key", "Paper", "Cost", last], name


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")


@pytest.mark.slow
def test_own_code_of_the_documentation_is_trained(
    tiny_model: Path,
    task_data: dict[str, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "own-code.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.DOTALL))
    components = {"my_task.py", "my_metric.py", "my_method.py", "my_adapter.py", "my_callback.py"}
    assert set(files) == {*components, "fit.py", "own_module.py"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    shown = yaml.safe_load(next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)))
    experiment = {
        **shown,
        "model": {"name": str(tiny_model)},
        "data": task_data["sentiment"],
        "optim": {"batch_size": 4, "epochs": 1},
        "wandb": {"mode": "disabled"},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(experiment), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "mine.yaml", "run_dir=run"]) == 0
    said = "".join(capsys.readouterr())
    assert "learning rate at step 10: " in said
    assert "weights of layer norms and the head trained" in " ".join(said.split())
    assert main(["evaluate", "run"]) == 0
    recorded = Run.read("run").result or {}
    assert f"{recorded['metrics']['test']['error_rate']:.4f}" in capsys.readouterr().err
    for name in ("fit.py", "own_module.py"):
        exec(compile(files[name], name, "exec"), {"__name__": name})
    assert re.search(r"^tensor\(0\.\d+\)$", capsys.readouterr().out, re.MULTILINE)
