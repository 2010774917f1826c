"""The runs that a process serves: each a predictor with an engine, replaced without losing a request."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from research.common.errors import UserError
from research.common.files import read_json
from research.data.source import file_sha256
from research.deploy.drift import Drift, Reference, reference_of
from research.deploy.engine import Busy, Engine, Late
from research.deploy.exported import load_exported
from research.deploy.feedback import Feedback
from research.deploy.growing_text import GrowingText
from research.deploy.manifest import MANIFEST, verify
from research.deploy.monitoring import Monitor
from research.deploy.served_runs import REFERENCE, SETTINGS
from research.inference.predictor import BadInput, Predictor, Question, Row, trained_of
from research.models.blocked_weights import block_weights
from research.models.generate import Watcher
from research.tracking.run import Run

log = logging.getLogger("research.serve")


@dataclass(frozen=True)
class Limits:
    """What a process takes."""

    body_bytes: int = 1_000_000
    texts: int = 256  # of one request
    waiting_tokens: int = 65_536  # of one run; above them requests are refused until some are answered
    timeout_seconds: float = 10.0  # from a request to its answer
    feedback: Path | None = None  # folder that keeps feedback; None: the process alone does


def predictor_at(path: Path, precision: str | None) -> Predictor:
    """The predictor of a run folder or an exported one. Raises UserError where it is damaged or something else."""
    if not (path / SETTINGS).is_file():
        return Predictor(trained_of(Run.read(path)), precision)
    if wrong := verify(path):
        raise UserError(f"{path}: {wrong[0]}; export it again.")
    return load_exported(path, precision)


def digest_of(path: Path) -> str:
    """The sha256 of what lists the hashes of all files of a folder."""
    return file_sha256(path / (MANIFEST if (path / SETTINGS).is_file() else "result.json"))


def reference_at(path: Path, has_labels: bool) -> Reference | None:
    """What a run or an exported folder predicted on its own test data."""
    if not (path / SETTINGS).is_file():
        return reference_of(Run.read(path), has_labels)
    content = read_json(path / REFERENCE)
    return None if content is None else Reference(content["labels"], content["confidence"])


class Served:
    """One run with its engine."""

    def __init__(self, name: str, path: Path, precision: str | None, limits: Limits, monitor: Monitor) -> None:
        """Load the model and compute a long and a short row, so that the first request does not wait for that."""
        self.name, self.path = name, path
        self.predictor = predictor_at(path, precision)
        if self.predictor.device.type == "cpu":
            block_weights(self.predictor.module, self.predictor.dtype)
        self.warm()
        self.engine = Engine(
            self.predictor.answer, self.predictor.budget_tokens, limits.waiting_tokens, partial(monitor.row, name)
        )
        task, labels, sha256 = self.predictor.config.task.name, self.predictor.data.labels, digest_of(path)
        reference = reference_at(path, bool(labels))
        drift = None if reference is None else Drift(reference)
        monitor.add_run(name, task, sha256, labels, lambda: self.engine.waiting_tokens, drift)
        kept = None if limits.feedback is None else limits.feedback / f"{name}.jsonl"
        self.feedback = Feedback(self.predictor.data.scorer, sha256, kept)

    def warm(self) -> None:
        """Compute rows of both extremes of length. Raises UserError for a model that gives no numbers."""
        data = self.predictor.data
        for words in (self.predictor.config.data.max_length, 1):
            text = "a " * words
            row = {field: text.split() if field in data.text_lists else text for field in self.predictor.required}
            try:
                questions = [self.predictor.question(row)]
            except Exception as error:  # a task whose rows need more than text
                log.info("%s is not warmed: %s", self.name, error)
                return
            try:
                self.predictor.answer(questions)
            except FloatingPointError as error:
                raise UserError(f"{self.path}: {error}; its weights are damaged or do not fit the precision.") from None


class Service:
    """All runs of a process by name."""

    def __init__(self, runs: Mapping[str, Path], precision: str | None = None, limits: Limits | None = None) -> None:
        self.limits, self.precision = limits or Limits(), precision
        self.monitor = Monitor()
        self.runs = {name: self._load(name, path) for name, path in runs.items()}
        self.is_ready = True

    def _load(self, name: str, path: Path) -> Served:
        return Served(name, path, self.precision, self.limits, self.monitor)

    def reload(self) -> None:
        """Load every run again; requests are answered by the old model until the new one is ready."""
        for name, served in list(self.runs.items()):
            try:
                self.runs[name] = self._load(name, served.path)
            except UserError as error:
                log.error("%s is served as before: %s", name, error)
                continue
            served.engine.close()
            log.warning("%s was loaded again", name)

    def close(self) -> None:
        """Answer what waits, then end."""
        self.is_ready = False
        for served in self.runs.values():
            served.engine.close()

    async def answer(self, name: str, rows: Sequence[Any]) -> list[Row]:
        """The answers to the rows of one request.

        Raises KeyError for an unknown run, BadInput for a wrong row, Busy, Late, and what computing raises.
        """
        over = threading.Event()
        futures = self._submitted(name, rows, lambda output: over.is_set())
        try:
            answers = await asyncio.gather(*futures)
        finally:
            over.set()
            for future in futures:
                future.cancel()  # one request's error, time or client ends all that it asked
        return [self._noted(name, answer) for answer in answers]

    async def stream(self, name: str, row: Any, most_tokens: int | None = None) -> AsyncIterator[str | Row]:
        """The text of an answer, part by part while it is generated, then the whole answer; raises as `answer` does.

        `most_tokens` ends it earlier. Nothing more is generated once the iterator is closed.
        """
        growing = GrowingText(self.limits.timeout_seconds, most_tokens)
        (future,) = self._submitted(name, [row], growing.watch)
        future.add_done_callback(lambda done: growing.parts.put_nowait(None))
        try:
            while (part := await growing.next_part()) is not None:
                yield part
            answer = future.result()
            if growing.is_late:
                raise Late
            if rest := growing.rest_of(answer["prediction"]):
                yield rest
            yield self._noted(name, answer)
        finally:
            growing.is_over = True
            future.cancel()

    def _noted(self, name: str, answer: Row) -> Row:
        """The answer, counted and with an id that feedback may name."""
        self.monitor.answer(name, answer)
        answer["id"] = secrets.token_hex(8)
        self.runs[name].feedback.remember(answer["id"], answer)
        return answer

    def take_feedback(self, name: str, entries: Sequence[Any]) -> int:
        """Count gold answers to answers given before; returns how many. Raises BadInput at the first wrong one."""
        for i, entry in enumerate(entries):
            if not isinstance(entry, Mapping) or not {"id", "gold"} <= entry.keys():
                raise BadInput(f'feedback[{i}]: must be an object such as {{"id": "...", "gold": "..."}}')
            try:
                self.runs[name].feedback.add(entry["id"], entry["gold"])
            except BadInput as error:
                raise BadInput(f"feedback[{i}]: {error}; those before it were counted") from None
            self.monitor.feedback.labels(name).inc()
        return len(entries)

    def _submitted(self, name: str, rows: Sequence[Any], watcher: Watcher) -> list[asyncio.Future[Row]]:
        served = self.runs[name]
        questions = [self._question(served.predictor, i, row) for i, row in enumerate(rows)]
        for question in questions:
            question.watcher = watcher
        try:
            return served.engine.submit(questions, self.limits.timeout_seconds)
        except Busy:
            if self.runs[name] is served:
                raise
            return self._submitted(name, rows, watcher)  # it was loaded again in this moment

    @staticmethod
    def _question(predictor: Predictor, index: int, row: Any) -> Question:
        if not isinstance(row, Mapping):
            raise BadInput(f'inputs[{index}]: must be an object such as {{"text": "..."}}')
        try:
            return predictor.question(row)
        except BadInput as error:
            raise BadInput(f"inputs[{index}]: {error}") from None
