"""Mirrors a run to loggers of Lightning's (CSV, TensorBoard, MLflow, a user's own), beside W&B.

metrics.jsonl and result.json are the truth: a logger that fails says so once and is silent from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from research.common.errors import UserError
from research.common.text import one_line
from research.config import component
from research.config.component import Named
from research.tracking.run import Run

log = logging.getLogger("research")


class Mirrors:
    """The loggers of a run, for rank zero."""

    def __init__(self, run: Run, chosen: Mapping[str, Named], config: dict[str, Any]) -> None:
        """Raises UserError for a logger whose file or package is missing or faulty."""
        self.run, self.last_step = run, 0
        self.loggers: dict[str, Any] = {}
        for name, keys in chosen.items():
            make = component.load("logger", keys.name).Logger
            with self._harmless(name, "could not start"):
                self.loggers[name] = make(keys, run.path)
                self.loggers[name].log_hyperparams(config)
                for row in run.metrics() if getattr(make, "starts_over", False) else ():
                    self.loggers[name].log_metrics({key: row[key] for key in row if key != "step"}, row["step"])

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One row of metrics."""
        self.last_step = step
        for name in list(self.loggers):
            with self._harmless(name, "stopped recording"):
                self.loggers[name].log_metrics(dict(scalars), step)

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None:
        """Record the final test scores and close."""
        test = (summary.get("metrics") or {}).get("test") or {}
        for name in list(self.loggers):
            with self._harmless(name, "was not closed in order"):
                if test:
                    scores = {f"test/{score}": value for score, value in test.items()}
                    self.loggers[name].log_metrics(scores, summary.get("steps", self.last_step))
                self.loggers[name].finalize("success" if exit_code == 0 else "failed")
        self.loggers = {}

    @contextmanager
    def _harmless(self, name: str, what: str) -> Iterator[None]:
        """Turns any error but one of the user's into a warning, after which that logger is silent."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            log.warning("The logger %s %s (%s); the run folder has everything.", name, what, one_line(error))
            self.loggers.pop(name, None)
