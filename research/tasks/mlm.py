"""Masked language modelling (Devlin et al. 2019): tokens that were masked, from all others around them.

Which tokens are masked is drawn for each epoch, a function of (seed, epoch, example, place) alone; in evaluation it
is always the same. Documents are cut into pieces of `data.max_length`, special tokens included.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import AutoModelForMaskedLM

from research.config.key import key
from research.models.load import ENCODER
from research.tasks.masked_text import MaskedData, MaskedKeys, MaskedModule
from research.tasks.plain_text import affixes, flat
from research.training.datamodule import Columns


@dataclass
class Keys(MaskedKeys):
    join: bool = key(False, "training pieces of equal length go over the borders of documents")


class Data(MaskedData):
    token_columns = ("input_ids", "word")
    heads = {ENCODER: AutoModelForMaskedLM}

    def encode(self, rows: Columns) -> Columns:
        before, after = affixes(self.tokenizer)
        room = self.config.data.max_length - len(before) - len(after)
        texts = self.tokenizer(rows["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
        documents = [
            list(zip(ids, (-1 if word is None else word for word in texts.word_ids(i)), strict=True))
            for i, ids in enumerate(texts["input_ids"])
        ]
        if self.of_train and self.config.task.join:
            documents = [joined(documents)]
        cut = [[tokens[a : a + room] for a in range(0, max(len(tokens), 1), room)] for tokens in documents]
        examples = [[piece] for pieces in cut for piece in pieces] if self.of_train else cut
        around = [(token, -1) for token in before], [(token, -1) for token in after]
        with_ends = [[[*around[0], *piece, *around[1]] for piece in example] for example in examples]
        maskable = [[sum(word >= 0 for _, word in piece) for piece in example] for example in examples]
        return {
            "input_ids": [[token for piece in example for token, _ in piece] for example in with_ends],
            "word": [[word for piece in example for _, word in piece] for example in with_ends],
            "windows": [[len(piece) for piece in example] for example in with_ends],
            "targets": [float(sum(map(self.masking.count, each))) for each in maskable],
        }


def joined(documents: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """All documents as one, no two words of different ones with the same number."""
    first, parts = 0, []
    for document in documents:
        parts.append([(token, word + first if word >= 0 else word) for token, word in document])
        first += 1 + max((word for _, word in document), default=0)
    return flat(parts)


class Module(MaskedModule):
    auto_classes = {ENCODER: AutoModelForMaskedLM}
