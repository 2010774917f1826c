"""Answers questions that wait, together: what waits becomes the next packed row, up to a budget of tokens.

Nothing is held back to fill a row: a question that reaches an idle engine is computed alone, and while a row is
computed the next one gathers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from research.inference.predictor import Question, Row


class Busy(Exception):
    """More tokens wait than the engine takes."""


class Late(Exception):
    """The deadline passed before there was an answer."""


@dataclass(eq=False)
class Waiting:
    """A question with its deadline by the monotonic clock, and the future of its answer."""

    question: Question
    deadline: float
    future: asyncio.Future[Row]


class Engine:
    """One thread that computes; `answer` labels questions together, `on_row` receives the questions of each row."""

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], list[Row]],
        budget_tokens: int,
        limit_tokens: int,
        on_row: Callable[[int, int, float], None] = lambda examples, tokens, seconds: None,
    ) -> None:
        self.answer, self.budget_tokens, self.limit_tokens, self.on_row = answer, budget_tokens, limit_tokens, on_row
        self.waiting_tokens = 0
        self._queue: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, questions: Sequence[Question], timeout_seconds: float) -> list[asyncio.Future[Row]]:
        """Let questions wait for their answers, all or none: futures of the event loop that runs. Raises Busy.

        A future gets Late where the time is over, and the error of computing where its own question has one; a
        cancelled one is not computed.
        """
        tokens = sum(question.tokens for question in questions)
        deadline = time.monotonic() + timeout_seconds
        loop = asyncio.get_running_loop()
        waiting = [Waiting(question, deadline, loop.create_future()) for question in questions]
        with self._changed:
            if self._closed or (self._queue and self.waiting_tokens + tokens > self.limit_tokens):
                raise Busy
            self._queue.extend(waiting)
            self.waiting_tokens += tokens
            self._changed.notify()
        return [each.future for each in waiting]

    def close(self) -> None:
        """Answer what waits, take nothing more, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _work(self) -> None:
        while row := self._next_row():
            live = [each for each in row if not each.future.cancelled()]
            late = [each for each in live if each.deadline < time.monotonic()]
            deliver([(each, Late()) for each in late])
            if live := [each for each in live if each not in late]:
                self._compute(live)

    def _next_row(self) -> list[Waiting]:
        """What is computed next: what waits, in its order, within the budget; nothing once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            row: list[Waiting] = []
            tokens = 0
            while self._queue and (not row or tokens + self._queue[0].question.tokens <= self.budget_tokens):
                each = self._queue.popleft()
                row.append(each)
                tokens += each.question.tokens
            self.waiting_tokens -= tokens
            return row

    def _compute(self, row: list[Waiting]) -> None:
        """Compute a row; one that fails is halved, so that an error reaches the question that has it alone."""
        began = time.perf_counter()
        try:
            answers = self.answer([each.question for each in row])
        except Exception as error:
            if len(row) == 1:
                deliver([(row[0], error)])
            else:
                self._compute(row[: len(row) // 2])
                self._compute(row[len(row) // 2 :])
            return
        self.on_row(len(row), sum(each.question.tokens for each in row), time.perf_counter() - began)
        deliver(list(zip(row, answers, strict=True)))


def deliver(outcomes: Sequence[tuple[Waiting, Row | Exception]]) -> None:
    """Give futures their answers or errors; an event loop is woken once for all of its own."""
    for loop, group in groupby(outcomes, lambda outcome: outcome[0].future.get_loop()):
        with suppress(RuntimeError):  # a closed loop: no client waits
            loop.call_soon_threadsafe(deliver_here, list(group))


def deliver_here(outcomes: Sequence[tuple[Waiting, Row | Exception]]) -> None:
    """Give futures of the event loop that runs their answers or errors; some may have been cancelled."""
    for waiting, outcome in outcomes:
        if waiting.future.done():
            continue
        if isinstance(outcome, Exception):
            waiting.future.set_exception(outcome)
        else:
            waiting.future.set_result(outcome)
