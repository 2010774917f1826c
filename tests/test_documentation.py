"""The Markdown files outside the documentation site: links, length and citation; `make docs` checks the site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from research import __version__

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


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")
