"""How the tests open a split, and how they see one refused."""

import pytest

from research.common.errors import UserError
from research.data.lines import Reading
from research.data.source import Split, open_split

TEXT = {"text": "text"}
LABELLED = {"text": "text", "label": "label"}
TAGGED = {"tokens": "tokens", "tags": "tags"}


def opened(value, fields=TEXT, *, name="train", hub_name=None, hub_config=None, hub_revision=None, **more) -> Split:
    return open_split(
        name=name,
        value=value,
        hub_name=hub_name,
        hub_config=hub_config,
        hub_revision=hub_revision,
        fields=fields,
        **more,
    )


def fails(*fragments, **arguments):
    with pytest.raises(UserError) as caught:
        opened(**arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for fragment in fragments:
        assert fragment in sentence, sentence
    return sentence


def refuses(read, path, *fragments, **how):
    """The sentence a reader refuses the file with: one line that names the file and holds every fragment."""
    with pytest.raises(UserError) as caught:
        list(read(path, Reading(**how)))
    sentence = str(caught.value)
    assert sentence.startswith(path) and "\n" not in sentence
    for fragment in fragments:
        assert fragment in sentence, sentence
    return sentence
