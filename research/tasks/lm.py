"""Language modelling: each token from those before it. Training on plain text, and its perplexity.

In training a document is followed by the end token and cut into pieces of `data.max_length`; every token is a target
once, and a piece sees no other. With `task.join` pieces go over the borders of documents, and one document sees the end
of another. In evaluation windows overlap, so that a scored token sees at least `data.max_length - task.stride` before
it, and the end token is not scored. Where the tokenizer has a token that begins texts, the first token is predicted
from it; else it is not scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM

from research.batching.pack import MicroBatch
from research.batching.store import NO_TARGET
from research.common.errors import UserError
from research.config.key import at_least, key
from research.config.schema import Config
from research.models.load import DECODER
from research.tasks.plain_text import PlainTextData, PlainTextModule, affixes, flat
from research.training.datamodule import Columns

HEADS = {DECODER: AutoModelForCausalLM}


@dataclass
class Keys:
    stride: int | None = key(
        None, "tokens from one window of an evaluation to the next; null: half of max_length", at_least(1)
    )
    join: bool = key(False, "training pieces of equal length go over the borders of documents")


class Data(PlainTextData):
    token_columns = ("input_ids", "label")
    heads = HEADS

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        limit = config.data.max_length
        self.stride = config.task.stride or max(1, limit // 2)
        if self.stride > limit:
            raise UserError(
                f"task.stride={self.stride} is more than data.max_length={limit}: tokens between would not be scored."
            )
        self.end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        if self.end is None:
            raise UserError(f"The tokenizer of {config.model.name} has no eos token to end a document with; add one.")
        self.before = affixes(tokenizer)[0]
        if not self.before and tokenizer.bos_token_id == self.end:
            self.before = [tokenizer.bos_token_id]  # GPT-2's way: what ends a document begins the next

    @property
    def conditions(self) -> list[str]:
        begins = "yes" if self.before else "no"
        return [
            f"max_length:{self.config.data.max_length}",
            f"stride:{self.stride}",
            f"bos:{begins}",
            "eos:no",
            "words:blanks",
        ]

    def encode(self, rows: Columns) -> Columns:
        texts = self.tokenizer(rows["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
        documents = [[*self.before, *ids] for ids in texts["input_ids"]]
        if not self.of_train:
            return columns([strided(ids, self.config.data.max_length, self.stride) for ids in documents])
        ended = [[*ids, self.end] for ids in documents]
        if self.config.task.join:
            ended = [flat(ended)]
        return columns([[piece] for ids in ended for piece in pieces(ids, self.config.data.max_length)])


class Module(PlainTextModule):
    auto_classes = HEADS

    def targets_of(self, micro: MicroBatch) -> tuple[MicroBatch, Tensor]:
        return micro, micro.tokens["label"]


Piece = tuple[list[int], list[int]]  # tokens, and what each predicts


def pieces(ids: list[int], limit: int) -> list[Piece]:
    """Every token but the first is a target once; the last of a piece predicts the first of the next."""
    starts = range(0, max(len(ids) - 1, 1), limit)
    return [(ids[a : min(a + limit, len(ids) - 1)] or ids, ids[a + 1 : a + 1 + limit] or [NO_TARGET]) for a in starts]


def strided(ids: list[int], limit: int, stride: int) -> list[Piece]:
    """Windows of at most `limit` tokens, `stride` apart; a token is a target in the first that holds it."""
    inputs, targets = (ids[:-1], ids[1:]) if len(ids) > 1 else (ids or [0], [NO_TARGET])
    found, start, done = [], 0, 0
    while done < len(inputs):
        end = min(start + limit, len(inputs))
        found.append((inputs[start:end], [NO_TARGET] * (done - start) + targets[done:end]))
        start, done = start + stride, end
    return found


def columns(examples: list[list[Piece]]) -> Columns:
    """The store's columns of examples of some windows each."""
    return {
        "input_ids": [flat([ids for ids, _ in example]) for example in examples],
        "label": [flat([labels for _, labels in example]) for example in examples],
        "windows": [[len(ids) for ids, _ in example] for example in examples],
        "targets": [float(sum(label >= 0 for _, labels in example for label in labels)) for example in examples],
    }
