"""Texts without labels beside the training data: one store and one plan of both.

The unlabelled examples follow the labelled ones and have no target. A step has the labelled examples that it would have
without them, and `ratio` times as many unlabelled ones, which go through epochs of their own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from research.batching.plan import Indices, StepPlan
from research.batching.store import Store, constant, end_to_end

NO_TARGET = -100


@dataclass(frozen=True)
class PlanWithUnlabelled:
    """The plan of the labelled examples, with unlabelled ones in each step."""

    labelled: StepPlan
    unlabelled: Indices  # the numbers of those that are read, in the store of both
    ratio: int

    @property
    def examples(self) -> int:
        """Labelled ones, which an epoch is of."""
        return self.labelled.examples

    @property
    def batch_size(self) -> int:
        return self.labelled.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return self.labelled.steps_per_epoch

    @property
    def own(self) -> StepPlan:
        """That of the unlabelled examples alone, numbered from 0."""
        return StepPlan(len(self.unlabelled), self.ratio * self.labelled.batch_size, self.labelled.seed)

    def global_batch(self, step: int) -> Indices:
        """The labelled examples of a step, then the unlabelled ones."""
        batch: Indices = np.concatenate(
            [self.labelled.global_batch(step), self.unlabelled[self.own.global_batch(step)]]
        )
        return batch


def store_of_both(labelled: Store, unlabelled: Store) -> Store:
    """The examples of one store after those of the other, whose windows say nothing of a target."""
    joint = copy.copy(labelled)
    joint.__dict__.pop("digest", None)
    joint.streams = {}
    for name, stream in labelled.streams.items():
        other = unlabelled.streams[name]
        nothing = constant(other.windows, NO_TARGET)
        joint.streams[name] = replace(
            stream,
            windows=end_to_end([stream.windows, other.windows]),
            tokens={key: end_to_end([column, other.tokens[key]]) for key, column in stream.tokens.items()},
            sequences={key: end_to_end([column, nothing]) for key, column in stream.sequences.items()},
        )
    joint.columns = {}
    for stream in joint.streams.values():
        joint.columns |= {**stream.tokens, **stream.sequences}
    joint.stream_tokens = np.concatenate([labelled.stream_tokens, unlabelled.stream_tokens])
    joint.tokens = joint.stream_tokens.sum(axis=1)
    joint.targets = np.concatenate([labelled.targets, np.zeros(len(unlabelled))])
    return joint
