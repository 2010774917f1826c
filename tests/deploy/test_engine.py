"""The engine: rows under a budget, errors that reach one question, deadlines, and the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from research.deploy.engine import Busy, Engine, Late
from research.inference.predictor import Question, Row


def question(number: int, tokens: int = 1) -> Question:
    return Question({"number": number}, {}, tokens, False)


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

    async def ask() -> list[Row]:
        first = engine.submit([question(0)], 60)
        assert model.began.wait(60)
        others = engine.submit([question(1, 4), question(2, 6), question(3, 3), question(4, 70), question(5, 7)], 60)
        assert engine.waiting_tokens == 90
        model.may_answer.set()
        return await asyncio.gather(*first, *others)

    assert [answer["answer"] for answer in asyncio.run(ask())] == [0, 1, 2, 3, 4, 5]
    assert model.rows == [[0], [1, 2], [3], [4], [5]]  # one that is larger than the budget is a row of its own
    assert engine.waiting_tokens == 0
    engine.close()


def test_an_error_reaches_the_question_that_has_it_alone() -> None:
    model = Model()
    model.may_answer.set()
    engine = Engine(model.answer, budget_tokens=100, limit_tokens=1000)

    async def ask() -> list[Row | BaseException]:
        futures = engine.submit([question(number) for number in [*range(16), -1]], 60)
        return await asyncio.gather(*futures, return_exceptions=True)

    *answers, error = asyncio.run(ask())
    assert answers == [{"answer": number} for number in range(16)]
    assert isinstance(error, RuntimeError) and str(error) == "the question -1"
    engine.close()


def test_abandoned_and_late_questions_are_not_computed() -> None:
    model = Model()
    engine = Engine(model.answer, budget_tokens=100, limit_tokens=1000)

    async def ask() -> list[Row | BaseException]:
        futures = engine.submit([question(0)], 60)
        assert model.began.wait(60)
        futures += engine.submit([question(1), question(2)], 60) + engine.submit([question(3)], 0)
        assert futures[1].cancel()
        model.may_answer.set()
        return await asyncio.gather(*futures, return_exceptions=True)

    first, abandoned, kept, late = asyncio.run(ask())
    assert (first, kept) == ({"answer": 0}, {"answer": 2})
    assert isinstance(late, Late) and isinstance(abandoned, asyncio.CancelledError)
    assert model.rows == [[0], [2]]
    engine.close()


def test_the_event_loop_is_woken_once_for_the_answers_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    engine = Engine(model.answer, budget_tokens=100, limit_tokens=1000)

    async def ask() -> int:
        loop, woken = asyncio.get_running_loop(), list[object]()
        first = engine.submit([question(0)], 60)
        assert model.began.wait(60)
        futures = first + engine.submit([question(number) for number in range(1, 30)], 60)
        plain = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: woken.append(plain(*call)))
        model.may_answer.set()
        await asyncio.gather(*futures)
        return len(woken)

    assert asyncio.run(ask()) == len(model.rows) == 2
    engine.close()


def test_too_many_tokens_are_refused_and_the_rest_is_answered_at_the_end() -> None:
    model = Model()
    engine = Engine(model.answer, budget_tokens=10, limit_tokens=20)

    async def ask() -> list[Row]:
        accepted = engine.submit([question(0, 1)], 60)
        assert model.began.wait(60)
        accepted += engine.submit([question(1, 18)], 60)
        with pytest.raises(Busy):
            engine.submit([question(2, 3)], 60)
        closing = threading.Thread(target=engine.close)
        closing.start()
        model.may_answer.set()
        closing.join(60)
        with pytest.raises(Busy):
            engine.submit([question(3)], 60)
        return await asyncio.gather(*accepted)

    assert [answer["answer"] for answer in asyncio.run(ask())] == [0, 1] and not engine.is_alive


def test_an_abandoned_event_loop_does_not_end_the_engine() -> None:
    model = Model()
    engine = Engine(model.answer, budget_tokens=100, limit_tokens=1000)

    async def leave() -> None:
        engine.submit([question(0)], 60)
        assert model.began.wait(60)

    async def ask() -> list[Row]:
        futures = engine.submit([question(1)], 60)
        model.may_answer.set()
        return await asyncio.gather(*futures)

    asyncio.run(leave())
    assert asyncio.run(ask()) == [{"answer": 1}] and engine.is_alive
    engine.close()
