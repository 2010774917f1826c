"""Long texts are cut before they are tokenised, and give the same tokens."""

import random
from typing import Any

import pytest

from research.data.cutting import beginning, end
from tests.conftest import WORDS, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.in_check(2)
@pytest.mark.parametrize("tokens", [1, 8, 30])
@pytest.mark.parametrize("kind", ["words", "one word", "blanks first", "short"])
def test_the_tokens_kept_are_those_of_the_whole_text(tokenizer: Any, kind: str, tokens: Any) -> None:
    rng = random.Random(tokens)
    words = " ".join(rng.choices(WORDS, k=20 if kind == "short" else 4_000))
    text = {"one word": "x" * 9_000 + " " + words, "blanks first": " " * 5_000 + words + " " * 5_000}.get(kind, words)
    first, last = beginning(tokenizer, text, tokens), end(tokenizer, text, tokens)
    assert ids(tokenizer, first)[:tokens] == ids(tokenizer, text)[:tokens]
    assert ids(tokenizer, last)[-tokens:] == ids(tokenizer, text)[-tokens:]
    assert text.startswith(first) and text.endswith(last)
    if kind == "words":
        assert len(first) == len(last) == 40 * tokens


def test_what_is_tokenised_does_not_grow_with_the_text(tokenizer: Any) -> None:
    seen = []

    def watched(text: str, **how: Any) -> Any:
        seen.append(len(text))
        return tokenizer(text, **how)

    text = "good film " * 500_000
    assert len(beginning(watched, text, 32)) == len(end(watched, text, 32)) == 1280
    assert seen == [1280, 1280]
