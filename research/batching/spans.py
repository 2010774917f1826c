"""Span corruption (Raffel et al. 2020, T5): spans of a text are taken out, and written as the target.

How many tokens and spans are taken out is fixed by the length of a text, so that the lengths of source and target are
known before; where they lie is a function of (seed, epoch, example, place) alone.

Legend: L tokens of a text, S spans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from research.common.keyed_random import uniform

Numbers = NDArray[np.int64]
KEPT, NOISE = 4, 5  # channels of the draws, beside those of masks


@dataclass(frozen=True)
class SpanCorruption:
    """Takes out a share `rate` of the tokens in spans of `mean_span` on average."""

    rate: float
    mean_span: float
    sentinels: Numbers  # tokens that stand for the spans, in order
    end: int  # the token that ends source and target
    seed: int

    def counts(self, length: int) -> tuple[int, int]:
        """Tokens that are taken out of a text of so many, and their spans."""
        noise = min(max(round(length * self.rate), 1), max(length - 1, 1))
        spans = min(max(round(noise / self.mean_span), 1), noise, length - noise + 1, len(self.sentinels))
        return noise, spans

    def __call__(self, ids: Numbers, example: int, first: int, epoch: int) -> tuple[Numbers, Numbers]:
        """The source, (L - noise + S + 1,), and what is to be written, (noise + S + 1,), of a text (L,).

        `first`: place of the text in its example. A copy of example i is -1 - i.
        """
        noise, spans = self.counts(len(ids))
        owner = -1 - example if example < 0 else example
        places = first + np.arange(len(ids) + 2)
        source, target, at = list[Numbers](), list[Numbers](), 0
        of_kept = parts(len(ids) - noise + 2, spans + 1, uniform(self.seed, epoch, owner, places, KEPT))
        of_kept[0] -= 1  # a text may begin and end with a span
        of_noise = parts(noise, spans, uniform(self.seed, epoch, owner, places, NOISE))
        for kept, taken, sentinel in zip(of_kept[:-1], of_noise, self.sentinels[:spans, None], strict=True):
            source += [ids[at : at + kept], sentinel]
            target += [sentinel, ids[at + kept : at + kept + taken]]
            at += kept + taken
        end = np.array([self.end])
        return np.concatenate([*source, ids[at:], end]), np.concatenate([*target, end])


def parts(count: int, groups: int, draws: NDArray[np.float64]) -> list[int]:
    """A number as a sum of so many, each 1 or more, all such sums alike likely: cuts fall at the smallest draws."""
    cuts = np.sort(np.argsort(draws[1:count], kind="stable")[: groups - 1]) + 1
    return [int(n) for n in np.diff([0, *cuts, count])]
