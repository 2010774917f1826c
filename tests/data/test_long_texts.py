"""Long texts: which tokens are kept, in which windows."""

from __future__ import annotations

from typing import Any

import pytest

from research.data.long_texts import HEAD_TAIL, TRUNCATE, WINDOW, encoded_texts
from tests.conftest import make_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def read(tokenizer: Any, text: str, pair: str | None, limit: int, long: str) -> tuple[list[str], bool, bool]:
    """The windows as text, whether text was lost, and whether there are several windows."""
    columns = encoded_texts(tokenizer, [text], [pair], limit, long)
    ids, windows = columns["input_ids"][0], []
    for length in columns["windows"][0]:
        windows.append(tokenizer.decode(ids[:length]).replace("[CLS] ", "").removesuffix(" [SEP]"))
        ids = ids[length:]
    assert ids == []
    return windows, columns["cut"][0], columns["several"][0]


def spaced(letters: str) -> str:
    return " ".join(letters)


def test_the_ways_of_a_single_text(tokenizer: Any) -> None:
    text = spaced(LETTERS)  # 26 tokens, and room for 8 between [CLS] and [SEP]
    assert read(tokenizer, text, None, 10, TRUNCATE) == ([spaced("abcdefgh")], True, False)
    assert read(tokenizer, text, None, 10, HEAD_TAIL) == ([spaced("ab" + "uvwxyz")], True, False)
    # four windows of 8 over 26 tokens begin at 0, 6, 12 and 18
    assert read(tokenizer, text, None, 10, WINDOW) == (
        [spaced(LETTERS[start : start + 8]) for start in (0, 6, 12, 18)],
        False,
        True,
    )
    assert read(tokenizer, spaced(LETTERS[:16]), None, 10, WINDOW)[0] == [spaced("abcdefgh"), spaced("ijklmnop")]


def test_the_ways_of_a_pair(tokenizer: Any) -> None:
    text, pair = spaced(LETTERS), "x y"  # room for 13 - 3 - 2 = 8 tokens of the text
    assert read(tokenizer, text, pair, 13, HEAD_TAIL) == ([spaced("ab" + "uvwxyz") + " [SEP] x y"], True, False)
    windows, cut, several = read(tokenizer, pair, text, 13, WINDOW)
    assert windows == [f"x y [SEP] {spaced(LETTERS[s : s + 8])}" for s in (0, 6, 12, 18)] and several and not cut
    both = read(tokenizer, text, spaced(LETTERS[:20]), 13, WINDOW)  # the shorter text has half of the room
    assert all(window.endswith("[SEP] a b c d e") for window in both[0]) and both[1] and len(both[0]) == 6


@pytest.mark.parametrize("long", [TRUNCATE, HEAD_TAIL, WINDOW])
def test_a_text_with_room_is_encoded_as_the_tokenizer_does(tokenizer: Any, long: str) -> None:
    texts, pairs = ["good film", "", "a b c d e f g h"], [None, "Oslo", None]
    columns = encoded_texts(tokenizer, texts, pairs, 10, long)
    expected = [tokenizer(t, p)["input_ids"] if p else tokenizer(t)["input_ids"] for t, p in zip(texts, pairs)]  # noqa: B905
    assert columns["input_ids"] == expected and columns["windows"] == [[len(row)] for row in expected]
    assert columns["cut"] == columns["several"] == [False] * 3


def test_head_and_tail_of_a_very_long_text_are_those_of_the_whole(tokenizer: Any) -> None:
    text = f"Anna is {'good film ' * 5_000} Oslo river"
    [window], cut, _ = read(tokenizer, text, None, 10, HEAD_TAIL)
    assert window == "anna is good film good film oslo river" and cut
    assert len(read(tokenizer, text, None, 10, WINDOW)[0]) == 1251  # of 8 tokens, over 10,004
