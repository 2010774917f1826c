"""BERTScore (Zhang et al. 2020): how well the tokens of a text match those of its reference in an encoder's vectors.

F1 of each token's largest cosine to a token of the other text, as the package `bert-score` computes it without idf
weights and rescaling. Tokens that open and close a text are matched and do not count; of several references the best
does.

Shapes: L tokens of a text, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

from research.common.errors import UserError
from research.common.text import one_line
from research.models.load import usable_positions, without_advice
from research.models.parameters import fingerprint

TEXTS_AT_ONCE = 64
Vectors = tuple[Tensor, Tensor]  # (L, W) of length 1; (L,) whether a token counts


def bert_score_of(keys: Any) -> BertScore | None:
    """What scores the outputs of a task with these keys, if asked for. Raises UserError for keys without effect."""
    asked = "bertscore" in keys.metrics
    if asked and keys.bertscore_model is None:
        raise UserError("task.metrics has bertscore, which needs task.bertscore_model: the folder of an encoder.")
    for name in ("bertscore_model", "bertscore_layer"):
        if not asked and getattr(keys, name) is not None:
            raise UserError(
                f"task.{name} acts with bertscore among task.metrics alone; add it there, or remove the key."
            )
    return BertScore(keys.bertscore_model, keys.bertscore_layer) if asked else None


class BertScore:
    """Scores texts by the outputs of one layer of an encoder."""

    def __init__(self, name: str, layer: int | None) -> None:
        """Raises UserError for an encoder that is not there, and for a layer that it has not."""
        try:
            with without_advice():
                self.tokenizer: Any = AutoTokenizer.from_pretrained(name, add_prefix_space=True)
                own = AutoConfig.from_pretrained(name)
        except Exception as error:  # each class fails in a way of its own
            raise UserError(f"task.bertscore_model={name} cannot be loaded: {one_line(error)}") from None
        self.name, self.layers = name, int(own.num_hidden_layers)
        self.layer = layer or self.layers
        self.longest = usable_positions(own)
        if self.layer > self.layers:
            raise UserError(f"task.bertscore_layer={layer}: {name} has {self.layers} layers.")

    @cached_property
    def model(self) -> Any:
        with without_advice():
            found = AutoModel.from_pretrained(self.name, dtype=torch.float32, attn_implementation="eager").eval()
        return found.to("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def signature(self) -> str:
        """What decides the scores beside the texts."""
        weights = fingerprint(self.model.state_dict())[:12]
        return f"model:{Path(self.name).name}|weights:{weights}|layer:{self.layer} of {self.layers}|idf:no|rescaled:no"

    def __call__(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """The score of each text; not a number where it has no reference."""
        distinct = sorted({*texts, *(gold for golds in references for gold in golds)}, key=len)
        of = dict(zip(distinct, self._vectors(distinct), strict=True))
        rows = zip(texts, references, strict=True)
        return [max((f1(of[text], of[gold]) for gold in golds), default=math.nan) for text, golds in rows]

    @torch.inference_mode()
    def _vectors(self, texts: Sequence[str]) -> Iterator[Vectors]:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            batch = self.tokenizer(
                [text.strip() for text in texts[start : start + TEXTS_AT_ONCE]],
                padding=True,
                truncation=True,
                max_length=self.longest,
                return_special_tokens_mask=True,
                return_tensors="pt",
            ).to(self.model.device)
            special = batch.pop("special_tokens_mask").bool()
            states = self.model(**batch, output_hidden_states=True).hidden_states[self.layer]
            for row, there, closing in zip(
                states.cpu(), batch["attention_mask"].cpu().bool(), special.cpu(), strict=True
            ):
                yield torch.nn.functional.normalize(row[there], dim=-1), ~closing[there]


def f1(text: Vectors, gold: Vectors) -> float:
    """0 where a text has no tokens."""
    if not (text[1].any() and gold[1].any()):
        return 0.0
    cosines = text[0] @ gold[0].T  # (L of the text, L of the reference)
    precision, recall = (float(cosines.amax(dim)[own].mean()) for dim, (_, own) in ((1, text), (0, gold)))
    return 2 * precision * recall / (precision + recall)
