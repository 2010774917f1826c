"""The engine: rows under a budget, errors that reach one question, deadlines, and the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError

import pyarrow as pa
import pytest

from research.deploy.engine import Busy, Engine, Late
from research.inference.predictor import Question, Row

NO_COLUMNS = pa.table({})


def question(number: int, tokens: int = 1) -> Question:
    return Question({"number": number}, NO_COLUMNS, tokens, False)


class Model:
    """Answers with the numbers of the questions, once it is let; keeps the rows that it was given."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.may_answer = threading.Event()
        self.began = threading.Event()

    def answer(self, questions: Sequence[Question]) -> list[Row]:
        self.began.set()
        assert self.may_answer.wait(60)
        numbers = [each.row["number"] for each in questions]
        self.rows.append(numbers)
        if -1 in numbers:
            raise RuntimeError("the question -1")
        return [{"answer": number} for number in numbers]


def test_what_waits_becomes_a_row_within_the_budget() -> None:
    model = Model()
    engine = Engine(model.answer, budget_tokens=10, limit_tokens=1000)
    first = engine.submit([question(0)], 60)
    assert model.began.wait(60)
    others = engine.submit([question(1, 4), question(2, 6), question(3, 3), question(4, 70), question(5, 7)], 60)
    assert engine.waiting_tokens == 90
    model.may_answer.set()
    assert [future.result(60)["answer"] for future in [*first, *others]] == [0, 1, 2, 3, 4, 5]
    assert model.rows == [[0], [1, 2], [3], [4], [5]]  # one that is larger than the budget is a row of its own
    assert engine.waiting_tokens == 0
    engine.close()


def test_an_error_reaches_the_question_that_has_it_alone() -> None:
    model = Model()
    model.may_answer.set()
    engine = Engine(model.answer, budget_tokens=100, limit_tokens=1000)
    numbers = [*range(16), -1]
    futures = engine.submit([question(number) for number in numbers], 60)
    assert [future.result(60)["answer"] for future in futures[:-1]] == list(range(16))
    with pytest.raises(RuntimeError, match="the question -1"):
        futures[-1].result(60)
    engine.close()


def test_abandoned_and_late_questions_are_not_computed() -> None:
    model = Model()
    engine = Engine(model.answer, budget_tokens=100, limit_tokens=1000)
    (first,) = engine.submit([question(0)], 60)
    assert model.began.wait(60)
    abandoned, kept = engine.submit([question(1), question(2)], 60)
    (late,) = engine.submit([question(3)], 0)
    assert abandoned.cancel()
    model.may_answer.set()
    assert kept.result(60) == {"answer": 2} and first.result(60) == {"answer": 0}
    with pytest.raises(Late):
        late.result(60)
    with pytest.raises(CancelledError):
        abandoned.result(60)
    assert model.rows == [[0], [2]]
    engine.close()


def test_too_many_tokens_are_refused_and_the_rest_is_answered_at_the_end() -> None:
    model = Model()
    engine = Engine(model.answer, budget_tokens=10, limit_tokens=20)
    accepted = engine.submit([question(0, 1)], 60)
    assert model.began.wait(60)
    accepted += engine.submit([question(1, 18)], 60)
    with pytest.raises(Busy):
        engine.submit([question(2, 3)], 60)
    closing = threading.Thread(target=engine.close)
    closing.start()
    model.may_answer.set()
    closing.join(60)
    assert [future.result(0)["answer"] for future in accepted] == [0, 1] and not engine.is_alive
    with pytest.raises(Busy):
        engine.submit([question(3)], 60)
