"""Generated files follow the schema, and every key of ours is documented and ruled in its own file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from research.config import component
from research.config.load import in_long_form
from research.config.reference import ROOT, base_yaml, reference_page
from research.config.schema import Config
from research.config.tree import ONE_OF, SOME_OF, sections


def test_base_yaml_and_the_reference_are_current() -> None:
    assert (ROOT / "experiments/base.yaml").read_text() == base_yaml(), "run `make reference`"
    assert (ROOT / "docs/reference.md").read_text() == reference_page(), "run `make reference`"


def test_base_yaml_holds_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(base_yaml())
    content: Any = OmegaConf.to_container(OmegaConf.load(tmp_path / "base.yaml"))
    assert in_long_form(content, "base", tmp_path) | {"task": {"name": "???"}} == OmegaConf.to_container(
        OmegaConf.structured(Config)
    )


@pytest.mark.parametrize("kind", [*ONE_OF.values(), *SOME_OF.values()])
def test_every_key_has_a_help_text(kind: str) -> None:
    own = [component.choose(kind, name) for name in component.names(kind)]
    for section in (Config(), *filter(None, sections(Config()).values()), *own):
        for f in () if isinstance(section, dict) else fields(section):
            is_key = f.name != "name" or not isinstance(section, component.Named)
            assert f.metadata.get("help") or sections(section)[f.name] is not None or not is_key, (section, f.name)
