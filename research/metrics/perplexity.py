"""Perplexity of texts: per token, per word and per byte, from the summed negative log likelihood of each example.

Per token it depends on the tokenizer; per word (separated by blanks, as WikiText is scored) and per byte of UTF-8 the
texts of models with different vocabularies compare. Of masked tokens only the first is defined.

Legend: N examples.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from research.metrics.base import BaseMetric, Blocks, Formula
from research.metrics.examples import Floats
from research.metrics.score import Score

COUNTS = ("nll", "tokens", "words", "bytes")  # columns; nll in nats
NEXT = ("next_right", "next_pairs")  # whether the second text follows the first, where the task asks


class Metric(BaseMetric):
    """exp(sum of nll / sum of units).

    `settings["masked"]`: were tokens masked? `["next_sentence"]`: were pairs judged? `["conditions"]`: what decides.
    """

    scores = (
        Score("perplexity", "perplexity", smaller_is_better=True, low=1.0, high=np.inf),
        Score("word_perplexity", "perplexity per word", smaller_is_better=True, low=1.0, high=np.inf),
        Score("byte_perplexity", "perplexity per byte", smaller_is_better=True, low=1.0, high=np.inf),
        Score("next_sentence_accuracy", "next-sentence accuracy", is_proportion=True),
    )
    columns = (*COUNTS, *NEXT)

    @property
    def signature(self) -> str:
        return "|".join(["perplexity", *self.settings.get("conditions", ())])

    @property
    def sentence(self) -> str:
        return "perplexity of masked tokens" if self.settings.get("masked") else "perplexity"

    def widths(self) -> dict[str, int]:
        return {"likelihood": len(COUNTS), **({"next": 2} if self.settings.get("next_sentence") else {})}

    def counts(self, table: pa.Table) -> Blocks:
        """`likelihood`: nll, tokens, words and bytes of each example. `next`: judged rightly, judged."""
        blocks = {"likelihood": COUNTS, **({"next": NEXT} if self.settings.get("next_sentence") else {})}
        return {
            block: np.column_stack([table.column(name).to_numpy().astype(np.float64) for name in names])
            for block, names in blocks.items()
        }

    def formula(self, name: str) -> Formula | None:
        units = {"perplexity": 1, "word_perplexity": 2, "byte_perplexity": 3}
        if name in units:
            return Formula(("likelihood",), lambda sums: perplexity(sums[..., 0], sums[..., units[name]]))
        if name == "next_sentence_accuracy" and self.settings.get("next_sentence"):
            return Formula(("next",), lambda sums: np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1)))
        return None

    def reported(self, sums: Blocks) -> list[str]:
        names = ["perplexity"]
        if not self.settings.get("masked"):
            names += ["word_perplexity", "byte_perplexity"]
        return [*names, *(["next_sentence_accuracy"] if self.settings.get("next_sentence") else [])]

    def example_scores(self, table: pa.Table) -> Floats:
        """The geometric mean of the tokens' probabilities, 0 to 1."""
        found = self.counts(table)["likelihood"]
        return np.asarray(np.exp(-found[:, 0] / np.maximum(found[:, 1], 1)))

    def shown(self, table: pa.Table) -> tuple[list[str], list[str]]:
        rows = zip(table.column("tokens").to_pylist(), table.column("nll").to_pylist(), strict=True)
        shown = [(f"{tokens} tokens", f"{nll / max(tokens, 1):.3f} nats a token") for tokens, nll in rows]
        return [gold for gold, _ in shown], [prediction for _, prediction in shown]


def perplexity(nll: Floats, units: Floats) -> Floats:
    """exp(nll / units); 1 where there are no units, infinity where the exponent is too large."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(nll / np.maximum(units, 1)))
