"""The step plan: which examples make an optimiser step, and how they lie on ranks and micro-batches.

Pure functions of their arguments, in two halves that never mix:

    what is learned    (seed, epoch) -> order of the examples -> global batches
    how it is laid out  global batch -> ranks, balanced by tokens -> micro-batches under a token budget

The second half changes speed and memory and, up to rounding, nothing else. Resuming is asking for step k.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def random_bits(seed: int, *key: int) -> np.random.Philox:
    """A bit stream that belongs to (seed, *key) alone: the same for every layout, worker and resume."""
    return np.random.Philox(np.random.SeedSequence([seed, *key]))


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, examples: int) -> Indices:
    """The order in which an epoch sees its examples.

    Sorting raw random bits, not `Generator.permutation`, whose stream may change between numpy versions.
    """
    order = np.argsort(random_bits(seed, epoch).random_raw(examples), kind="stable")
    order.setflags(write=False)
    return order


@dataclass(frozen=True)
class Layout:
    """How examples lie on ranks and in micro-batches; it changes speed and memory, not the result."""

    rank: int
    ranks: int
    budget_tokens: int  # of a micro-batch
    packed: bool
    sharded: bool = False  # the ranks share one model out, and need equally many micro-batches
    sparse_rows: bool = False  # of the embedding, only the rows that a step uses are trained
    steps: range = range(0)  # of the plan, up to the next evaluation


@dataclass(frozen=True)
class StepPlan:
    """`batch_size` examples in each optimiser step, over all devices; the last batch of an epoch may be smaller."""

    examples: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.examples // self.batch_size)

    def global_batch(self, step: int) -> Indices:
        """Indices of the examples of optimiser step `step`, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        return epoch_order(self.seed, epoch, self.examples)[start : start + self.batch_size]


def assign_to_ranks(batch: Indices, tokens: Indices, ranks: int) -> list[Indices]:
    """Assign a batch to ranks so that they hold nearly equal tokens: longest first, to the emptiest rank.

    `tokens[i]` is the length of example `batch[i]`. A rank may get nothing.
    """
    order = by_length(tokens)
    if ranks == 1:
        return [batch[order]]
    load = np.zeros(ranks, dtype=np.int64)
    owner = np.empty(len(batch), dtype=np.int64)
    for i in order:
        owner[i] = load.argmin()
        load[owner[i]] += tokens[i]
    return [batch[order[owner[order] == rank]] for rank in range(ranks)]


def micro_batches(batch: Indices, tokens: Indices, budget_tokens: int, padded: bool = False) -> list[Indices]:
    """Cut a rank's share, longest example first, into micro-batches of at most `budget_tokens`.

    `tokens` are those of each example, (examples,) or (examples, streams). Padded, a micro-batch costs its count times
    the longest of each stream. An example above the budget gets its own.
    """
    order = by_length(tokens)
    lengths = (tokens if tokens.ndim > 1 else tokens[:, None])[order]
    cuts, start, cost, longest = [], 0, 0, [0] * lengths.shape[1]
    for position, (length, total) in enumerate(zip(lengths.tolist(), lengths.sum(axis=1).tolist(), strict=True)):
        longest = list(map(max, longest, length))
        cost = (position - start + 1) * sum(longest) if padded else cost + total
        if cost > budget_tokens and position > start:
            cuts.append(position)
            start, cost, longest = position, total, length
    return [batch[part] for part in np.split(order, cuts)] if len(batch) else []


def by_length(tokens: Indices) -> Indices:
    """Indices of the examples, that of most tokens first; `tokens` (examples,) or (examples, streams)."""
    total = tokens.sum(axis=1) if tokens.ndim > 1 else tokens
    order: Indices = np.argsort(-total, kind="stable")
    return order


def evaluation_share(tokens: Indices, rank: int, ranks: int, budget_tokens: int, padded: bool = False) -> list[Indices]:
    """The micro-batches of one rank in an evaluation, sorted by length: every example once over all ranks.

    They are cut from the data alone and given to the ranks in turn, undivided: a micro-batch is the same on one rank
    and on many, and so are its outputs, to the bit. In generated text a rounding can change a word.
    """
    order = by_length(tokens)
    return micro_batches(order, tokens[order], budget_tokens, padded)[rank::ranks]
