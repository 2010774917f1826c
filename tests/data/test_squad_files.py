"""SQuAD files as rows."""

import json
from typing import Any

import pytest

from research.data.squad_files import read_squad
from tests.data.opening import Content, WriteFile, refuses


def squad(context: str, *questions: Any) -> str:
    return json.dumps(
        {"version": "2.0", "data": [{"title": "T", "paragraphs": [{"context": context, "qas": questions}]}]}
    )


def question(row_id: str, text: str, start: int, **more: Any) -> dict[str, Any]:
    return {"id": row_id, "question": "?", "answers": [{"text": text, "answer_start": start}], **more}


def test_squad_rows(file: WriteFile) -> None:
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
                "is_impossible": None,
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


def test_what_a_question_says_of_its_answers(file: WriteFile) -> None:
    """No key, an empty list, and a text without a place are three different things."""
    qas = [
        {"id": "a", "question": "?"},
        {"id": "b", "question": "?", "answers": []},
        {"id": "c", "question": "?", "answers": [{"text": "Ada"}], "is_impossible": False},
        {"id": "d", "question": "?", "answers": [{"text": "", "answer_start": -1}], "is_impossible": True},
    ]
    rows = [row for _, row in read_squad(file("a.json", squad("Ada left.", *qas)))]
    assert [row["answers"] for row in rows] == [
        None,
        {"text": [], "answer_start": []},
        {"text": ["Ada"], "answer_start": [-1]},
        {"text": [""], "answer_start": [-1]},
    ]
    assert [row["is_impossible"] for row in rows] == [None, None, False, True]


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
def test_squad_of_another_shape(file: WriteFile, content: Content, fragments: str) -> None:
    refuses(read_squad, file("a.json", content), *fragments)
