"""Operations of augmentation: what each changes, and what none may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.common.errors import UserError
from research.config.component import choose, load, names
from research.data.augment.entity import entities
from research.data.augment.hooks import Operation, Training
from research.data.augment.paraphrase import read_paraphrases
from research.data.augment.words import Word, Words, gaps, inserted, text_of, words_of

TABLE = "film\tmovie\tmotion picture\nBad\tawful\na lot\tmuch\n电影\t影片\t片子\n好\t棒\n"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "synonyms.tsv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def operation(name: str, texts: Sequence[Words] = (), tagged: bool = False, **own: Any) -> Operation:
    made: Operation = load("augmentation", name).Augmentation(choose("augmentation", name, **own))
    made.learn(Training(texts, tagged, "[UNK]"))
    return made


def applied(made: Operation, text: str, seed: int = 0) -> str:
    return text_of(made(words_of(text), np.random.default_rng(seed)))


@settings(max_examples=25)
@given(st.text(max_size=30))
def test_a_text_is_its_words(text: str) -> None:
    words = words_of(text)
    assert text_of(words).split() == text.split() and all(word.text and not word.after.strip() for word in words)


def test_chinese_characters_are_words_and_an_apostrophe_is_part_of_one() -> None:
    assert [word.text for word in words_of("Isn't 电影good, ok")] == ["Isn't", "电", "影", "good", ",", "ok"]


def test_words_are_inserted_as_their_script_is_set() -> None:
    english, chinese = words_of("a film."), words_of("好电影。")
    assert [text_of(inserted(english, place, "new")) for place in gaps(english)] == [
        "new a film.", "a new film.", "a film new.", "a film. new",
    ]  # fmt: skip
    assert text_of(inserted(chinese, 1, "新")) == "好新电影。"


def test_synonyms_are_the_longest_entries_with_the_texts_case(table: Path) -> None:
    made = operation("synonym", table=str(table), rate=1.0)
    assert {applied(made, "Film: a lot of.", seed) for seed in range(9)} == {
        "Movie: much of.",
        "Motion picture: much of.",
    }
    assert {applied(made, "电影很好", seed) for seed in range(9)} == {"影片很棒", "片子很棒"}
    assert applied(made, "nothing here") == "nothing here"
    one = operation("synonym", table=str(table), rate=0.01)  # one word at least, as in EDA
    assert {
        applied(one, "bad film", seed).count("bad") + applied(one, "bad film", seed).count("film") for seed in range(9)
    } == {1}


def test_insertion_adds_synonyms_of_the_texts_own_words(table: Path) -> None:
    made = operation("insert", table=str(table), rate=0.5)
    for seed in range(9):
        new = Counter(applied(made, "a bad film here", seed).split()) - Counter(["a", "bad", "film", "here"])
        assert 2 <= new.total() <= 4 and set(new) <= {"awful", "movie", "motion", "picture"}


def test_swap_changes_places_and_deletion_leaves_one(table: Path) -> None:
    swapped = applied(operation("swap", rate=0.3), "one two, three four.")
    assert Counter(words_of(swapped)[i].text for i in (0, 1, 3, 4)) == Counter(["one", "two", "three", "four"])
    assert swapped != "one two, three four." and swapped.count(",") == 1 and swapped.endswith(".")
    assert len(applied(operation("delete", rate=0.99), "one two three").split()) == 1
    kept = sum(len(applied(operation("delete", rate=0.2), " ".join(["w"] * 100), seed).split()) for seed in range(20))
    assert 1500 < kept < 1700  # of 2,000; the deviation is 18


def test_hidden_words_are_the_tokenizers_unknown_one() -> None:
    hidden = applied(operation("word_dropout", rate=0.5), " ".join(["w"] * 200)).split()
    assert set(hidden) == {"w", "[UNK]"} and 70 < hidden.count("[UNK]") < 130


KINDS = ["PER", "LOC"]
mention = st.tuples(
    st.sampled_from(KINDS), st.lists(st.sampled_from(["Anna", "Oslo", "New", "York"]), min_size=1, max_size=3)
)
piece = st.one_of(st.sampled_from(["film", "bad", "a", "lot", ",", "电影"]), mention)


def tagged(pieces: list[Any]) -> list[Word]:
    words: list[Word] = []
    for each in pieces:
        if isinstance(each, str):
            words.append(Word(each))
        else:
            kind, mentioned = each
            words += [Word(text, tag=f"{'I' if i else 'B'}-{kind}") for i, text in enumerate(mentioned)]
    return words


def mentions(words: Words) -> list[tuple[str, ...]]:
    return [(words[a].tag[2:], *(word.text for word in words[a:b])) for a, b in entities(words)]


@settings(max_examples=25)
@given(st.lists(piece, max_size=10), st.integers(0, 99))
def test_no_operation_takes_an_entity_apart(table: Path, pieces: list[Any], seed: int) -> None:
    """Every entity keeps its words, its kind and its place among the entities; IOB2 stays IOB2."""
    words = tagged(pieces)
    for name in names("augmentation"):
        if name == "paraphrase":
            continue
        own: dict[str, Any] = {"table": str(table)} if name in ("synonym", "insert") else {}
        got = operation(name, [words], True, rate=0.9, **own)(words, np.random.default_rng(seed))
        before = "O"
        for word in got:
            assert not word.tag.startswith("I-") or before[2:] == word.tag[2:]
            before = word.tag
        if name == "entity":
            assert [kind for kind, *_ in mentions(got)] == [kind for kind, *_ in mentions(words)]
            assert set(mentions(got)) <= set(mentions(words))
            assert [w.text for w in got if w.tag == "O"] == [w.text for w in words if w.tag == "O"]
        else:
            assert mentions(got) == mentions(words)


def test_an_entity_is_replaced_by_another_of_its_kind() -> None:
    texts = [tagged([("PER", ["Anna"]), "in", ("LOC", ["Oslo"])]), tagged([("LOC", ["New", "York"])])]
    made = operation("entity", texts, True, rate=1.0)
    got = {tuple((w.text, w.tag) for w in made(texts[0], np.random.default_rng(seed))) for seed in range(9)}
    start = (("Anna", "B-PER"), ("in", "O"))
    assert got == {(*start, ("Oslo", "B-LOC")), (*start, ("New", "B-LOC"), ("York", "I-LOC"))}


def test_a_paraphrase_replaces_the_text(tmp_path: Path) -> None:
    (tmp_path / "back.jsonl").write_text(
        '{"text": "a film.", "paraphrase": "one movie."}\n{"text": "b", "paraphrase": "b"}'
    )
    made = operation("paraphrase", [words_of("a film.")], file=str(tmp_path / "back.jsonl"))
    assert applied(made, " a film.") == "one movie." and applied(made, "another") == "another"
    assert read_paraphrases(tmp_path / "back.jsonl") == {"a film.": ["one movie."]}


def test_faults_are_reported_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("synonym", {}, r"augment.synonym needs a table of synonyms: set augment.synonym.table"),
        ("insert", {"table": str(path)}, r"augment.insert.table=.* cannot be read \(No such file"),
        ("paraphrase", {}, r"augment.paraphrase needs a file: write it by `research paraphrase FORWARD"),
        ("paraphrase", {"file": str(path)}, r"augment.paraphrase.file=.* cannot be read"),
        ("entity", {}, r"augment.entity replaces tagged entities, and the task's words have no tags"),
    ]
    for name, own, said in refused:
        with pytest.raises(UserError, match=said):
            operation(name, **own)
    for content, said in {
        "film\tmovie\nalone\n": r"table.tsv, line 2: 'alone' has no synonym; write the word, a tab",
        "\n": r"table.tsv: has no synonyms; write lines of a word",
    }.items():
        path.write_text(content)
        with pytest.raises(UserError, match=said):
            operation("synonym", table=str(path))
    path.write_bytes(b"caf\xe9\tbar")
    with pytest.raises(UserError, match=r"table.tsv is not UTF-8; convert it"):
        operation("synonym", table=str(path))
    path.write_text('{"text": "a"}')
    with pytest.raises(UserError, match=r'table.tsv, line 1: write {"text": "...", "paraphrase": "..."}'):
        operation("paraphrase", file=str(path))
    path.write_text('{"text": "a", "paraphrase": "b"}')
    with pytest.raises(UserError, match="has a paraphrase of none of the 1 training texts"):
        operation("paraphrase", [words_of("c")], file=str(path))
    with pytest.raises(UserError, match=r"augment.paraphrase does not keep the tags of words"):
        operation("paraphrase", tagged=True)
    with pytest.raises(UserError, match="tokenizer has no token for unknown words; use delete"):
        made = load("augmentation", "word_dropout").Augmentation(choose("augmentation", "word_dropout"))
        made.learn(Training([], False, None))
