"""CoNLL columns: which hold the words and the tags, and what is a comment."""

from typing import Any

import pytest

from research.data.conll import read_conll
from research.data.lines import Reading
from tests.data.opening import LABELLED, WriteFile, fails, refuses


def test_conll_takes_first_and_last_column(file: WriteFile) -> None:
    path = file(
        "a.conll",
        "-DOCSTART- -X- O\r\n\r\nEU NNP B-NP B-ORG\r\nsaid VBZ B-VP O\r\n\r\n\r\nPeter NNP B-NP B-PER\r\n",
    )
    assert list(read_conll(path)) == [
        (3, {"tokens": ["EU", "said"], "tags": ["B-ORG", "O"]}),
        (7, {"tokens": ["Peter"], "tags": ["B-PER"]}),
    ]


def test_conll_tokens_that_python_takes_for_blanks(file: WriteFile) -> None:
    path = file("a.conll", "東\tB-LOC\n\u3000\tO\nNew York\tB-LOC\n \t \n#\tO\n")
    assert [row["tokens"] for _, row in read_conll(path)] == [["東", "\u3000", "New York"], ["#"]]
    assert next(read_conll(file("b.conll", "a \xa0 O\n\xa0 X O\n")))[1]["tokens"] == ["a", "\xa0"]


@pytest.mark.slow
def test_conll_without_tags(file: WriteFile) -> None:
    assert list(read_conll(file("a.txt", "New\nYork\n\nis\n"))) == [
        (1, {"tokens": ["New", "York"]}),
        (4, {"tokens": ["is"]}),
    ]


def test_conll_faults(file: WriteFile) -> None:
    refuses(read_conll, file("a.conll", "EU\tB-ORG\nrejects\n"), "line 2", "'rejects' has no tag")
    refuses(read_conll, file("b.conll", "EU\tB-ORG\nrejects\t\n"), "line 2", "'rejects' has no tag")
    refuses(read_conll, file("c.conll", "EU\tB-ORG\n\tO\n"), "line 2", "token is missing")
    refuses(read_conll, file("d.conll", "EU B-ORG\nNew York B-LOC\n"), "line 2", "3 columns", "2", "TAB")


def test_a_table_with_a_header_is_not_taken_for_words_and_tags(file: WriteFile) -> None:
    table = file("a.txt", "text\tlabel\na good film\tgood\n")
    fails("first line looks like the header of a table (text, label)", "data.format: tsv", value=table, fields=LABELLED)
    refuses(read_conll, file("b.txt", "text\tlabel\na\tb\tc\n"), "3 columns", "data.format: tsv")


# --- which columns

Sentences = list[tuple[str, str]]  # words and tags


@pytest.fixture
def sentences() -> Sentences:
    return [("Anna was in Oslo", "B-PER O O B-LOC"), ("1 Acme", "O B-ORG")]


def conll(sentences: Sentences, line: str, before: str = "") -> str:
    """Each word by `line` of (number, word, tag), sentences apart."""
    blocks = (
        before.format(k)
        + "".join(line.format(i, *wt) + "\n" for i, wt in enumerate(zip(w.split(), t.split(), strict=True), 1))
        for k, (w, t) in enumerate(sentences)
    )
    return "\n".join(blocks)


def read(path: str, **how: Any) -> list[tuple[Any, Any]]:
    return [(row["tokens"], row.get("tags")) for _, row in read_conll(path, Reading(**how))]


@pytest.mark.parametrize("before", ["", "# id a-{0} domain=en\n", "# text = B-X O\n", "#\thttp://x.org/{0} [2009]\n"])
@pytest.mark.parametrize("line", ["{1}\t{2}", "{1} _ _ {2}", "{0}\t{1}\t{2}\tO", "{0} {1} {2}", "{0}\t{1}\tX\t_\t{2}"])
def test_words_and_tags_are_found(file: WriteFile, sentences: Sentences, before: str, line: str) -> None:
    expected = [(words.split(), tags.split()) for words, tags in sentences]
    assert read(file("a.conll", conll(sentences, line, before))) == expected


def test_columns_by_number_and_name(file: WriteFile, sentences: Sentences) -> None:
    words = [words.split() for words, _ in sentences]
    nested = conll(sentences, "{0}\t{1}\t{2}\tB-X")
    path = file("a.conll", nested)
    refuses(read_conll, path, "columns 3 and 4 hold tags", "`data.columns.tags: 3`")
    assert read(path, tags="3") == [(w, tags.split()) for w, (_, tags) in zip(words, sentences, strict=True)]
    assert read(path, tags="4") == [(w, ["B-X"] * len(w)) for w in words]
    assert [tokens for tokens, _ in read(path, tokens="3", tags="4")] == [tags.split() for _, tags in sentences]
    named = file("b.conll", "# global.columns = ID FORM NE DEPTH\n" + nested)
    assert read(named, tags="NE") == read(path, tags="3")
    refuses(read_conll, named, "no column 'NER'", "ID, FORM, NE, DEPTH", tags="NER")
    refuses(read_conll, path, "no column 'NE'", "1 to 4", tags="NE")
    refuses(read_conll, path, "has 4 columns", "data.columns.tokens is 5", tokens="5")
    assert read(path, tags="5") == [(w, None) for w in words]  # a file to predict may lack its gold


def test_conllu_spans_and_empty_nodes_are_no_words(file: WriteFile) -> None:
    lines = ["1-2\tim\t_", "1\tin\tO", "2\tdem\tO", "2.1\t_\t_", "3\tHaus\tB-LOC"]
    assert read(file("a.conllu", "\n".join(lines)), tags="3") == [(["in", "dem", "Haus"], ["O", "O", "B-LOC"])]


def test_numbers_that_are_words(file: WriteFile) -> None:
    assert read(file("a.conll", "1\tO\n2\tO\n\n1\tB-X\n")) == [(["1", "2"], ["O", "O"]), (["1"], ["B-X"])]
    assert read(file("b.conll", "2\tCD\tO\n3\tCD\tO\n")) == [(["2", "3"], ["O", "O"])]


def test_the_word_of_a_number_sign_is_no_comment(file: WriteFile) -> None:
    content = "#\tO\n1\tO\n\n# a comment\nsong\tO\n#\tO\n# \tO\n"
    assert read(file("a.conll", content)) == [(["#", "1"], ["O", "O"]), (["song", "#", "#"], ["O", "O", "O"])]
    refuses(read_conll, file("b.conll", "song\tO\n# a late comment\n"), "line 2", "a comment stands before")
