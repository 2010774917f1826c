"""Long texts are cut before they are tokenised, and give the same tokens."""

import random

import pytest

from research.data.cutting import beginning, end
from tests.conftest import WORDS, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("tokens", [1, 8, 30])
@pytest.mark.parametrize("kind", ["words", "one word", "blanks first", "short"])
def test_the_tokens_kept_are_those_of_the_whole_text(tokenizer, kind, tokens):
    rng = random.Random(tokens)
    words = " ".join(rng.choices(WORDS, k=20 if kind == "short" else 4_000))
    text = {"one word": "x" * 9_000 + " " + words, "blanks first": " " * 5_000 + words + " " * 5_000}.get(kind, words)
    first, last = beginning(tokenizer, text, tokens), end(tokenizer, text, tokens)
    assert ids(tokenizer, first)[:tokens] == ids(tokenizer, text)[:tokens]
    assert ids(tokenizer, last)[-tokens:] == ids(tokenizer, text)[-tokens:]
    assert text.startswith(first) and text.endswith(last)
    if kind == "words":
        assert len(first) == len(last) == 40 * tokens


def test_what_is_tokenised_does_not_grow_with_the_text(tokenizer):
    seen = []

    def watched(text, **how):
        seen.append(len(text))
        return tokenizer(text, **how)

    text = "good film " * 500_000
    assert len(beginning(watched, text, 32)) == len(end(watched, text, 32)) == 1280
    assert seen == [1280, 1280]
