"""What acts on each token that is generated: sampling that belongs to an example, and what stops an output.

Shapes: N sequences, V vocabulary, L tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from research.batching.plan import random_bits


class KeyedSampling(LogitsProcessor):
    """Makes greedy search a sample: the largest of scores with Gumbel noise is distributed as their softmax.

    The noise of a sequence comes from a stream of its own, (seed, example, copy): it does not depend on the batch.
    Maddison et al. 2014, A* Sampling.
    """

    def __init__(
        self, streams: Sequence[tuple[int, ...]], temperature: float, top_k: int | None = None, top_p: float = 1.0
    ) -> None:
        self.streams = [random_bits(seed, *key) for seed, *key in streams]
        self.warpers: list[Any] = [TemperatureLogitsWarper(float(temperature))]
        if top_k is not None:
            self.warpers.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            self.warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores: (N, V)."""
        for warp in self.warpers:
            scores = warp(input_ids, scores)
        bits = np.stack([stream.random_raw(scores.shape[1]) for stream in self.streams])
        uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # inside (0, 1)
        noise: Tensor = torch.from_numpy(-np.log(-np.log(uniform))).to(scores)
        return scores + noise


class StopStrings(StoppingCriteria):
    """Stops a sequence once one of these texts stands in its output; its cutting is left to who reads it."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], skipped: int) -> None:
        self.tokenizer, self.texts, self.skipped = tokenizer, texts, skipped
        self.reach = max(len(text.encode()) for text in texts) + 8  # tokens: a token has one byte at least

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """input_ids: (N, L), prompts first. Returns (N,) bool."""
        tails = input_ids[:, max(self.skipped, input_ids.shape[1] - self.reach) :]
        found = self.tokenizer.batch_decode(tails, skip_special_tokens=True)
        return torch.tensor([any(stop in text for stop in self.texts) for text in found], device=input_ids.device)


class Watched(StoppingCriteria):
    """Shows each example's output so far to its watcher, and ends the output where the watcher says so."""

    def __init__(
        self,
        watchers: Sequence[Callable[[Any], bool] | None],
        output_of: Callable[[list[int]], Any],
        skipped: int,
        copies: int,
    ) -> None:
        """`output_of` generated tokens: an `Output`. An example is the first of `copies` sequences."""
        self.watchers, self.output_of, self.skipped, self.copies = watchers, output_of, skipped, copies
        self.ended: dict[int, Any] = {}  # the output of each sequence that has ended

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """input_ids: (N, L), prompts first. Returns (N,) bool."""
        firsts = input_ids[:: self.copies, self.skipped :].tolist()
        places = range(0, len(input_ids), self.copies)
        for place, watcher, tokens in zip(places, self.watchers, firsts, strict=True):
            if watcher is not None and place not in self.ended:
                output = self.output_of(tokens)
                if watcher(output) or output.ended:
                    self.ended[place] = output
        stops = torch.tensor([place in self.ended for place in places], device=input_ids.device)
        return stops.repeat_interleave(self.copies)


def stable_beginning(text: str, stops: Sequence[str]) -> str:
    """The beginning of an unfinished text that no further token changes: without half a letter or half a stop text."""
    text = text.rstrip("\ufffd")
    halves = [stop[:n] for stop in stops for n in range(1, len(stop))]
    reach = max((len(half) for half in halves if text.endswith(half)), default=0)
    return text[: len(text) - reach].rstrip()
