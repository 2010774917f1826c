"""Answers of a SQuAD-form file as questions are trained on and scored by: moved, or nowhere in the context."""

import json

import pytest

from research.data.answers import read_answers
from tests.data.opening import WriteFile, opened

FIELDS = {"question": "question", "context": "context", "answers": "answers"}
CONTEXT = "张三在北京大学读书。李四在北京大学教书。"


def test_answers_moved_and_answers_not_in_the_context_are_counted(
    file: WriteFile, caplog: pytest.LogCaptureFixture
) -> None:
    """As in CMRC 2018: a second gold answer that is a summary, and a start that is off by some characters."""
    answers = [
        [("北京大学", 3), ("北大", 3)],  # the second one is not in the context
        [("北京大学", 12)],  # moved to 13
        [("李四", 10)],  # as given
    ]
    questions = [
        {"id": f"q{i}", "question": "？", "answers": [{"text": text, "answer_start": start} for text, start in each]}
        for i, each in enumerate(answers)
    ]
    paragraphs = [{"context": CONTEXT, "qas": questions}]
    path = file("dev.json", json.dumps({"data": [{"title": "T", "paragraphs": paragraphs}]}))
    split = read_answers(opened(path, FIELDS), needed=True)
    assert split.rows["answers"][:] == [
        {"text": ["北京大学", "北大"], "answer_start": [3, -1]},
        {"text": ["北京大学"], "answer_start": [13]},
        {"text": ["李四"], "answer_start": [10]},
    ]
    assert f"{path}: moved 1 answer_start to the nearest occurrence" in caplog.text
    assert f"{path}: 1 answers do not occur in their context; they count in scoring alone" in caplog.text
