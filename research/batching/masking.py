"""Which tokens are masked, and by what: functions of (seed, epoch, example, place) alone.

The number of masked tokens of a sequence is fixed by its length, as in BERT's own code, so that the targets of a step
are known before it. Which ones they are changes from epoch to epoch, and neither ranks, workers, micro-batches nor a
resume do. A token's decisions come from the numbers of its own place.

Legend: T tokens of a row, U units (tokens or words) of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from research.common.keyed_random import uniform

Numbers = NDArray[np.int64]
PRIORITY, LENGTH, DECISION, REPLACEMENT = range(4)  # what a place draws
SPAN_STOP, SPAN_LONGEST = 0.2, 10  # SpanBERT's lengths are geometric, cut at ten words
MASKED, REPLACED = 0.8, 0.9  # bounds: mask token, random token, or the token itself (Devlin et al. 2019)


@dataclass(frozen=True)
class Masking:
    """How tokens are masked: single `token`s, whole `word`s, or `span`s of words (Joshi et al. 2020)."""

    unit: Literal["token", "word", "span"]
    rate: float
    mask: int  # the token that stands for a masked one
    replacements: Numbers  # tokens a random one is drawn from
    seed: int

    def count(self, maskable: int) -> int:
        """Masked tokens of a sequence with so many that may be."""
        return min(maskable, max(1, round(self.rate * maskable)))

    def __call__(
        self, ids: Numbers, words: Numbers, lengths: Numbers, examples: Numbers, epoch: int
    ) -> tuple[Numbers, NDArray[np.bool_]]:
        """The tokens of a row (T,) with masks in them, and which are targets (T,).

        words: (T,) the word of each token, counted within its sequence, and -1 for special tokens. examples: (N,) that
        the sequences belong to; those of one stand together, and places count through them. A copy of example i is
        -1 - i.
        """
        place, owner = places(lengths, examples)
        owner = np.where(owner < 0, -1 - owner, owner)
        priority, length, decision, replacement = (
            uniform(self.seed, epoch, owner, place, channel) for channel in (PRIORITY, LENGTH, DECISION, REPLACEMENT)
        )
        chosen = np.zeros(len(ids), bool)
        decided_at = np.arange(len(ids))  # a span is masked, replaced or kept as a whole
        for start, end in zip(np.cumsum(lengths) - lengths, np.cumsum(lengths), strict=True):
            for unit in self._units(words[start:end], priority[start:end], length[start:end]):
                chosen[start + unit] = True
                if self.unit == "span":
                    decided_at[start + unit] = start + unit[0]
        by = decision[decided_at]
        drawn = self.replacements[(replacement * len(self.replacements)).astype(np.int64)]
        out = np.where(chosen & (by < MASKED), self.mask, ids)
        return np.where(chosen & (by >= MASKED) & (by < REPLACED), drawn, out), chosen

    def _units(self, words: Numbers, priority: NDArray[np.float64], length: NDArray[np.float64]) -> list[Numbers]:
        """The places of each masked unit of a sequence, up to `count` tokens; one that would exceed it is left out."""
        maskable = np.flatnonzero(words >= 0)
        left = self.count(len(maskable))
        if self.unit == "token":
            return [maskable[np.argsort(priority[maskable], kind="stable")[:left]]]
        starts = maskable[np.diff(words[maskable], prepend=-1) != 0]  # (U,) first token of each word
        groups = np.split(maskable, np.searchsorted(maskable, starts)[1:])
        free, found = np.ones(len(groups), bool), list[Numbers]()
        for u in np.argsort(priority[starts], kind="stable").tolist():
            reach = min(u + self._words_of_span(length[starts[u]]), len(groups))
            taken = list[Numbers]()
            while u < reach and free[u] and len(groups[u]) <= left:
                free[u] = False
                left -= len(groups[u])
                taken.append(groups[u])
                u += 1
            if taken:
                found.append(np.concatenate(taken))
            if not left:
                break
        return found

    def _words_of_span(self, number: float) -> int:
        if self.unit == "word":
            return 1
        return min(1 + int(np.log1p(-number) / np.log(1 - SPAN_STOP)), SPAN_LONGEST)


def places(lengths: Numbers, examples: Numbers) -> tuple[Numbers, Numbers]:
    """Of each token of a row its place in its example (T,), and the example (T,)."""
    owner = np.repeat(examples, lengths)
    starts = np.cumsum(lengths) - lengths
    is_first = np.append(True, examples[1:] != examples[:-1])
    first = np.maximum.accumulate(np.where(is_first, starts, 0))
    return np.arange(lengths.sum()) - np.repeat(first, lengths), owner
