"""What a service tells Prometheus: requests, latency, rows, tokens, refusals, labels and confidence; never a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from research.deploy.drift import Drift

SECONDS = tuple(0.002 * 2**i for i in range(13))  # 2 ms to 8 s
EXAMPLES = tuple(2**i for i in range(10))
SHARES = tuple(i / 20 for i in range(1, 21))
MOST_LABELS = 200  # of a run; a label beyond them is counted as `other`


class Monitor:
    """The counters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry, "namespace": "research"}
        self.requests = Counter("requests_total", "Answered requests", ["run", "code"], **made)
        self.seconds = Histogram("request_seconds", "Time to an answer", ["run"], buckets=SECONDS, **made)
        self.examples = Histogram("batch_examples", "Texts computed together", ["run"], buckets=EXAMPLES, **made)
        self.tokens = Counter("tokens_total", "Tokens computed", ["run"], **made)
        self.computing = Counter("compute_seconds_total", "Time of computing", ["run"], **made)
        self.waiting = Gauge("waiting_tokens", "Tokens that wait to be computed", ["run"], **made)
        self.labels = Counter("predictions_total", "Predicted labels", ["run", "label"], **made)
        self.confidence = Histogram("confidence", "Highest probability", ["run"], buckets=SHARES, **made)
        self.failures = Counter("failures_total", "Answers that could not be computed", ["run", "reason"], **made)
        self.feedback = Counter("feedback_total", "Answers that got feedback", ["run"], **made)
        self.drift = Gauge("drift_p", "Chance that the answers are like the run's own", ["run", "of"], **made)
        self.info = Gauge("run_info", "The runs that are served", ["run", "task", "sha256"], **made)
        self._known: dict[str, set[str]] = {}
        self._drift: dict[str, Drift | None] = {}

    def add_run(
        self, name: str, task: str, sha256: str, labels: list[str], waiting: Callable[[], int], drift: Drift | None
    ) -> None:
        """Say which run is served; `waiting` is asked for its tokens, and `drift`, whenever metrics are read."""
        self._drift[name] = drift
        if drift is not None:
            self.drift.labels(name, "labels").set_function(drift.p_labels)
            self.drift.labels(name, "confidence").set_function(drift.p_confidence)
        self.info.labels(name, task, sha256).set(1)
        self.waiting.labels(name).set_function(waiting)
        self._known[name] = set(labels[:MOST_LABELS])

    def row(self, run: str, examples: int, tokens: int, seconds: float) -> None:
        """Count a computed row."""
        self.examples.labels(run).observe(examples)
        self.tokens.labels(run).inc(tokens)
        self.computing.labels(run).inc(seconds)

    def answer(self, run: str, answer: dict[str, Any]) -> None:
        """Count a prediction: its label where the run has labels, and how sure it is."""
        known, prediction = self._known[run], answer.get("prediction")
        drift = self._drift[run]
        if drift is not None:
            drift.add(answer)
        if isinstance(prediction, dict):  # of several heads
            prediction = [value for value in prediction.values() if isinstance(value, str)]
        for label in prediction if isinstance(prediction, list) else [prediction]:
            if known:
                self.labels.labels(run, label if label in known else "other").inc()
        probabilities = answer.get("probabilities")
        if isinstance(probabilities, dict) and probabilities:
            self.confidence.labels(run).observe(max(probabilities.values()))

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
