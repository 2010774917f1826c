import json
import logging

import pytest

from research.common.errors import UserError
from research.data.formats import (
    format_of,
    read_conll,
    read_csv,
    read_json,
    read_jsonl,
    read_lines,
    read_squad,
)


def fails(read, path, *fragments):
    """The sentence `read` refuses the file with: one line that names the file and holds every fragment."""
    with pytest.raises(UserError) as caught:
        list(read(path))
    sentence = str(caught.value)
    assert sentence.startswith(path) and "\n" not in sentence
    for fragment in fragments:
        assert fragment in sentence
    return sentence


def squad(context, *questions):
    return json.dumps(
        {"version": "2.0", "data": [{"title": "T", "paragraphs": [{"context": context, "qas": questions}]}]}
    )


def question(row_id, text, start, **more):
    return {"id": row_id, "question": "?", "answers": [{"text": text, "answer_start": start}], **more}


# --- JSON


def test_jsonl_numbers_lines_and_keeps_values(file):
    path = file("a.jsonl", '\ufeff{"text": "2020-01-01", "n": 1}\r\n\r\n{"text": "a\u2028b", "n": null}')
    assert list(read_jsonl(path)) == [
        (1, {"text": "2020-01-01", "n": 1}),
        (3, {"text": "a\u2028b", "n": None}),
    ]


def test_jsonl_names_line_and_column(file):
    path = file("a.jsonl", '{"text": "a"}\n{"text": "b",}\n')
    fails(read_jsonl, path, "line 2, column 14", "not JSON", "one whole JSON object")


@pytest.mark.parametrize("line, kind", [("[1]", "an array"), ('"a"', "a text"), ("3", "a number"), ("null", "null")])
def test_jsonl_line_that_is_not_an_object(file, line, kind):
    fails(read_jsonl, file("a.jsonl", '{"text": "a"}\n' + line), "line 2", kind, "not an object")


def test_half_a_surrogate_pair(file):
    assert next(read_jsonl(file("ok.jsonl", '{"text": "\\ud83d\\ude00"}'))) == (1, {"text": "😀"})
    fails(read_jsonl, file("a.jsonl", '{"text": "\\ud83d"}'), "line 1", "surrogate")
    fails(read_json, file("a.json", '[{"text": "\\ud83d"}]'), "item 1", "surrogate")


def test_json_array(file):
    path = file("a.json", '[{"text": "a"},\n {"text": "b"}]')
    assert format_of(path).name == "json"
    assert list(read_json(path)) == [(1, {"text": "a"}), (2, {"text": "b"})]
    fails(read_json, file("b.json", '[{"text": "a"}, 3]'), "item 2", "a number")
    fails(read_json, file("c.json", '[{"text": "a"},\n {"text": }]'), "line 2, column 11")


def test_json_lines_named_json(file):
    path = file("a.json", '{"text": "a"}\n{"text": "b"}\n')
    fails(format_of(path).read, path, "line 2, column 1", "rename it", ".jsonl")


def test_invalid_utf8_names_the_line(file):
    fails(read_lines, file("a.txt", b"gut\ngr\xfc\xdfe\n"), "line 2", "byte 3 (0xfc)", "UTF-8", "iconv")


# --- CSV


def test_csv_values_stay_text(file):
    path = file("a.csv", "\ufefftext,label\r\nNA,007\r\nnull,\r\n2020-01-01,1.50\r\n")
    rows = [row for _, row in read_csv(path)]
    assert rows == [
        {"text": "NA", "label": "007"},
        {"text": "null", "label": ""},
        {"text": "2020-01-01", "label": "1.50"},
    ]


def test_csv_place_is_the_first_line_of_a_record(file):
    path = file("a.csv", 'text,label\n"one\ntwo, ""three""",x\n\nfour,y\n')
    assert list(read_csv(path)) == [
        (2, {"text": 'one\ntwo, "three"', "label": "x"}),
        (5, {"text": "four", "label": "y"}),
    ]


def test_tsv_is_separated_by_tabs(file):
    assert list(read_csv(file("a.tsv", "text\tlabel\na, b\tx\n"))) == [(2, {"text": "a, b", "label": "x"})]


def test_csv_faults(file):
    fails(read_csv, file("a.csv", "text,label\n\nwell, yes,x\n"), "line 3", "3 cells", "2", "a comma")
    fails(read_csv, file("a.tsv", "text\tlabel\na\n"), "line 2", "1 cells", "a TAB")
    fails(read_csv, file("b.csv", 'text,label\na,x\n"never closed,y\nb,x\n'), "line 3", "quot")
    fails(read_csv, file("b.tsv", 'text\tlabel\n"So" he said\tx\n'), "line 2", "quot")
    fails(read_csv, file("c.csv", "text,text\na,b\n"), "line 1", "'text' twice")


# --- CoNLL


def test_conll_takes_first_and_last_column(file):
    path = file(
        "a.conll",
        "-DOCSTART- -X- O\r\n\r\nEU NNP B-NP B-ORG\r\nsaid VBZ B-VP O\r\n\r\n\r\nPeter NNP B-NP B-PER\r\n",
    )
    assert list(read_conll(path)) == [
        (3, {"tokens": ["EU", "said"], "tags": ["B-ORG", "O"]}),
        (7, {"tokens": ["Peter"], "tags": ["B-PER"]}),
    ]


def test_conll_tokens_that_python_takes_for_blanks(file):
    path = file("a.conll", "東\tB-LOC\n\u3000\tO\nNew York\tB-LOC\n \t \n#\tO\n")
    assert [row["tokens"] for _, row in read_conll(path)] == [["東", "\u3000", "New York"], ["#"]]
    assert next(read_conll(file("b.conll", "a \xa0 O\n\xa0 X O\n")))[1]["tokens"] == ["a", "\xa0"]


def test_conll_without_tags(file):
    assert list(read_conll(file("a.txt", "New\nYork\n\nis\n"))) == [
        (1, {"tokens": ["New", "York"]}),
        (4, {"tokens": ["is"]}),
    ]


def test_conll_faults(file):
    fails(read_conll, file("a.conll", "EU\tB-ORG\nrejects\n"), "line 2", "'rejects' has no tag")
    fails(read_conll, file("b.conll", "EU\tB-ORG\nrejects\t\n"), "line 2", "'rejects' has no tag")
    fails(read_conll, file("c.conll", "EU\tB-ORG\n\tO\n"), "line 2", "token is missing")
    fails(read_conll, file("d.conll", "EU B-ORG\nNew York B-LOC\n"), "line 2", "3 columns", "2", "TAB")


# --- SQuAD


def test_squad_rows(file):
    context = "Ada met Bob. Ada left."
    qas = question("q1", "Bob", 8), {"id": 2, "question": "Who?", "is_impossible": True, "answers": []}
    assert list(read_squad(file("a.json", squad(context, *qas)))) == [
        (
            1,
            {
                "id": "q1",
                "title": "T",
                "context": context,
                "question": "?",
                "answers": {"text": ["Bob"], "answer_start": [8]},
                "is_impossible": False,
            },
        ),
        (
            2,
            {
                "id": "2",
                "title": "T",
                "context": context,
                "question": "Who?",
                "answers": {"text": [], "answer_start": []},
                "is_impossible": True,
            },
        ),
    ]


@pytest.mark.parametrize(
    "given, found",
    [(0, 0), (12, 12), (24, 24), (1, 0), (6, 0), (7, 12), (13, 12), (18, 12), (19, 24), (99, 24), (-1, 0)],
)
def test_squad_moves_a_start_to_the_nearest_occurrence(file, caplog, given, found):
    context = "Ada........ Ada........ Ada"  # at 0, 12 and 24
    with caplog.at_level(logging.WARNING):
        rows = list(read_squad(file("a.json", squad(context, question("q", "Ada", given)))))
    assert rows[0][1]["answers"] == {"text": ["Ada"], "answer_start": [found]}
    assert len(caplog.records) == (given != found)


def test_squad_counts_the_moved(file, caplog):
    qas = [question(f"q{i}", "Ada", start) for i, start in enumerate([1, 2, 0])]
    list(read_squad(file("a.json", squad("Ada met Bob.", *qas))))
    assert [record.getMessage().split(": ")[1][:7] for record in caplog.records] == ["moved 2"]


def test_squad_answer_that_is_not_in_the_context(file):
    path = file("a.json", squad("Ada met Bob.", question("q7", "Eve", 4)))
    fails(read_squad, path, "question q7", "'Eve'", "answer_start 4", "'met'", "mend")


@pytest.mark.parametrize(
    "content, fragments",
    [
        ('{"version": "1.1"}', ["'data'", "missing"]),
        ('{"data": [{"title": "T"}]}', ["data[0]", "'paragraphs'"]),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "?"}]}]}]}',
            ["data[0].paragraphs[0].qas[0]", "'id'"],
        ),
        ('{"data": [{"paragraphs": [{"qas": [{"id": "a", "question": "?"}]}]}]}', ["'context'"]),
    ],
)
def test_squad_of_another_shape(file, content, fragments):
    fails(read_squad, file("a.json", content), *fragments)
