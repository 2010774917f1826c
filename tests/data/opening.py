"""How the tests open a split, and how they see one refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from research.common.errors import UserError
from research.data.lines import Reading
from research.data.opening import open_split
from research.data.source import Split

Content = bytes | str | list[dict[str, Any]]
WriteFile = Callable[[str, Content], str]  # of the fixture `file`
TEXT = {"text": "text"}
LABELLED = {"text": "text", "label": "label"}
TAGGED = {"tokens": "tokens", "tags": "tags"}


def opened(
    value: Any,
    fields: Any = TEXT,
    *,
    name: str = "train",
    hub_name: str | None = None,
    hub_config: str | None = None,
    hub_revision: str | None = None,
    **more: Any,
) -> Split:
    return open_split(
        name=name,
        value=value,
        hub_name=hub_name,
        hub_config=hub_config,
        hub_revision=hub_revision,
        fields=fields,
        **more,
    )


def fails(*fragments: str, **arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        opened(**arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for fragment in fragments:
        assert fragment in sentence, sentence
    return sentence


def refuses(read: Any, path: str, *fragments: str, **how: Any) -> str:
    """The sentence a reader refuses the file with: one line that names the file and holds every fragment."""
    with pytest.raises(UserError) as caught:
        list(read(path, Reading(**how)))
    sentence = str(caught.value)
    assert sentence.startswith(path) and "\n" not in sentence
    for fragment in fragments:
        assert fragment in sentence, sentence
    return sentence
