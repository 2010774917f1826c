"""Progress of training: what every checkpoint holds beside tensors."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Steps done, the best evaluation so far and what training took, over all attempts at a run."""

    step: int = 0  # optimiser steps done
    best_step: int | None = None
    best_score: float | None = None  # negated where smaller is better
    best_scores: dict[str, float] = field(default_factory=dict)  # all scores of that evaluation
    best_predictions: str | None = None  # sha256 of the file with that evaluation's predictions
    best_of_parts: dict[str, dict[str, float]] = field(default_factory=dict)  # of each: step, score (so), loss
    evaluations_since_best: int = 0
    continue_steps: dict[str, int] = field(default_factory=dict)  # best_steps of evaluations that a longer run has too
    train_seconds: float = 0.0
    tokens: int = 0  # of all global batches so far
    examples: int = 0

    @property
    def best_steps(self) -> dict[str, int]:
        """The step of the best evaluation of each part, and under "" that of the run."""
        steps = {part: int(best["step"]) for part, best in self.best_of_parts.items()}
        return steps if self.best_step is None else {"": self.best_step, **steps}
