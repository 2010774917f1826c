"""Reader of SQuAD v1.1 and v2.0 JSON (Rajpurkar et al., 2016, 2018) and of data in its form, such as CMRC 2018."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from research.common.errors import UserError
from research.data.json_files import Row, Rows, load_json
from research.data.lines import BY_NAME, Reading


def read_squad(path: str, reading: Reading = BY_NAME) -> Rows:
    """Questions in file order, numbered from 1.

    Rows hold id, title, context, question, answers {"text": [...], "answer_start": [...]} and is_impossible; a
    question without the key `answers` has null, one without `is_impossible` too, and an answer without
    `answer_start` has -1. What these say of a question is for the task to read.
    """
    questions = _questions(path, load_json(path, reading))
    for number, (article, paragraph, question, where) in enumerate(questions, 1):
        row_id = _get(question, "id", (str, int), where)
        yield (
            number,
            {
                "id": str(row_id),
                "title": _get(article, "title", str, where, default=""),
                "context": _get(paragraph, "context", str, where),
                "question": _get(question, "question", str, where),
                "answers": _answers(question, where, f"{path}, question {row_id}"),
                "is_impossible": _get(question, "is_impossible", (bool, type(None)), where),
            },
        )


def _answers(question: Any, where: str, place: str) -> dict[str, list[Any]] | None:
    if question.get("answers") is None:
        return None
    answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
    for answer in _get(question, "answers", list, where):
        answers["text"].append(_get(answer, "text", str, place))
        start = _get(answer, "answer_start", int, place, default=-1)
        answers["answer_start"].append(max(-1, min(start, 2**31 - 1)))
    return answers


def _questions(path: str, document: Any) -> Iterator[tuple[Row, Row, Row, str]]:
    """(article, paragraph, question, where) of every question in file order."""
    for i, article in enumerate(_get(document, "data", list, path)):
        at_article = f"{path}, data[{i}]"
        for j, paragraph in enumerate(_get(article, "paragraphs", list, at_article)):
            at_paragraph = f"{at_article}.paragraphs[{j}]"
            for k, question in enumerate(_get(paragraph, "qas", list, at_paragraph)):
                yield article, paragraph, question, f"{at_paragraph}.qas[{k}]"


def _get(parent: Any, key: str, kind: type | tuple[type, ...], where: str, default: Any = None) -> Any:
    value = parent.get(key, default) if isinstance(parent, Mapping) else None
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise UserError(f"{where}: '{key}' is missing or not as in a SQuAD file ({value!r:.40}); correct it there")
    return value
