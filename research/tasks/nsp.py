"""Next-sentence prediction beside masked language modelling, BERT's pretraining (Devlin et al. 2019).

Documents are cut into pieces of `data.max_length` at words, and each piece into two segments. In half of the pairs the
second is replaced by as many tokens of other documents, from a word on. Which pairs, and by what, is drawn in each
epoch, a function of (seed, epoch, place in the split) alone; in evaluation it is always the same.

Legend: P plain tokens of a split, W windows, K masked tokens, N pairs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForPreTraining
from transformers.models.auto.modeling_auto import MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES as ARCHITECTURES

from research.batching.pack import MicroBatch
from research.batching.store import INPUT, NO_TARGET, Store
from research.common.errors import UserError
from research.common.keyed_random import uniform
from research.config.key import above, key
from research.config.schema import Config
from research.data.source import Split
from research.models.linear_cross_entropy import plain_cross_entropy
from research.models.load import ENCODER
from research.tasks.masked_text import EVALUATION, MaskedData, MaskedKeys, MaskedModule
from research.tasks.plain_text import affixes, flat
from research.training.datamodule import Columns
from research.training.unsmoothed_loss import note_unsmoothed

Numbers = NDArray[np.int64]
IS_NEXT, IS_OTHER = 0, 1  # as in BERT's head
WHETHER, WHENCE = 6, 7  # channels of the draws, beside those of masks and spans


@dataclass
class Keys(MaskedKeys):
    next_weight: float = key(20.0, "masked tokens that a pair counts as in the loss", above(0))


class Data(MaskedData):
    """Encoded as true pairs, with the column `next` of each window: IS_NEXT, or NO_TARGET where it is one segment."""

    token_columns = ("input_ids", "token_type_ids", "word")
    window_columns = ("next", "piece")
    heads = {ENCODER: AutoModelForPreTraining}

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        if self.own.model_type not in ARCHITECTURES:
            raise UserError(
                f"{config.model.name} is a '{self.own.model_type}' model, which has no head for next sentences; task "
                f"'nsp' trains {', '.join(ARCHITECTURES)}. Task 'mlm' takes the others."
            )

    def open(self, learned: Mapping[str, Any] | None = None, only: str | None = None) -> None:
        super().open(learned, only)
        if self.trains and "train" in self.stores:
            drawn = partial(drawn_pairs, self.stores["train"], self.config.order_seed)
            self.pairs = lru_cache(maxsize=2)(drawn)

    def training_store(self, step: int) -> Store:
        return self.pairs(step // self.plan.steps_per_epoch)

    def make_store(self, split: Split) -> Store:
        store = super().make_store(split)
        if (store.columns["piece"].flat() == 0).sum() < 2:
            raise UserError(
                f"{split.origin}: has one document, and a segment that does not come next is taken from another; part "
                "the text into documents (by blank lines in a .txt file), or use task 'mlm'."
            )
        return store if self.of_train else drawn_pairs(store, self.config.order_seed, EVALUATION)

    def encode(self, rows: Columns) -> Columns:
        before, after = affixes(self.tokenizer)
        room = self.config.data.max_length - len(before) - 2 * len(after)
        texts = self.tokenizer(rows["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
        columns: Columns = {name: [] for name in (*self.token_columns, *self.window_columns, "windows", "targets")}
        for row, ids in enumerate(texts["input_ids"]):
            words = [-1 if word is None else word for word in texts.word_ids(row)]
            pieces = [self._piece(ids[a:b], words[a:b], before, after) for a, b in bounds(words, room)]
            if self.of_train:
                for number, piece in enumerate(pieces):
                    self._append(columns, [piece], number)
            else:
                self._append(columns, pieces, 0)
        return columns

    def _piece(self, ids: list[int], words: list[int], before: list[int], after: list[int]) -> dict[str, list[int]]:
        """The columns of a piece: two segments, parted at the word nearest below its middle; one of a single word."""
        starts = [i for i in range(1, len(ids)) if words[i] != words[i - 1]]
        at = max((i for i in starts if i <= len(ids) // 2), default=min(starts, default=len(ids)))
        none = [-1] * len(after)
        first, second = [*before, *ids[:at], *after], [*ids[at:], *after] if at < len(ids) else []
        return {
            "input_ids": first + second,
            "token_type_ids": [0] * len(first) + [1] * len(second),
            "word": [-1] * len(before) + words[:at] + none + (words[at:] + none if second else []),
        }

    def _append(self, columns: Columns, pieces: list[dict[str, list[int]]], first: int) -> None:
        for name in self.token_columns:
            columns[name].append(flat([piece[name] for piece in pieces]))
        paired = [1 in piece["token_type_ids"] for piece in pieces]
        columns["next"].append([IS_NEXT if each else NO_TARGET for each in paired])
        columns["piece"].append([first + i for i in range(len(pieces))])
        columns["windows"].append([len(piece["word"]) for piece in pieces])
        masked = sum(self.masking.count(sum(word >= 0 for word in piece["word"])) for piece in pieces)
        columns["targets"].append(masked + self.config.task.next_weight * sum(paired))

    @property
    def conditions(self) -> list[str]:
        return [*super().conditions, "pairs"]

    def score_settings(self) -> dict[str, Any]:
        return {**super().score_settings(), "next_sentence": True}

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        found = [predictions[i] for i in range(len(split.rows))]
        judged = {name: [row[name] for row in found] for name in ("next_right", "next_pairs")}
        return {**super().table(split, predictions), **judged}


def bounds(words: list[int], room: int) -> list[tuple[int, int]]:
    """Where pieces of at most so many tokens begin and end, at words unless one is longer than that."""
    found, start = [], 0
    while start < len(words):
        end = min(start + room, len(words))
        if end < len(words):
            end = next((i for i in range(end, start, -1) if words[i] != words[i - 1]), end)
        found.append((start, end))
        start = end
    return found or [(0, 0)]


def drawn_pairs(store: Store, seed: int, epoch: int) -> Store:
    """A store of true pairs with half of the second segments replaced by tokens of other documents."""
    stream = store.streams[INPUT]
    ids, words, types = (stream.tokens[name].flat() for name in ("input_ids", "word", "token_type_ids"))
    lengths, piece, following = stream.windows.flat(), stream.sequences["piece"].flat(), stream.sequences["next"].flat()
    numbers = np.arange(len(lengths))
    window = np.repeat(numbers, lengths)
    other = (following == IS_NEXT) & (uniform(seed, epoch, numbers, WHETHER) < 0.5)  # (W,)

    plain = np.flatnonzero(words >= 0)  # (P,) the text of all documents, one after the other
    document = np.cumsum(piece == 0)  # (W,)
    of_plain = document[window[plain]]
    first, end = (np.searchsorted(of_plain, document, side) for side in ("left", "right"))  # (W,) of its document
    begins = np.diff(words[plain], prepend=-1) != 0
    begins |= np.diff(window[plain], prepend=-1) != 0
    word_start = np.maximum.accumulate(np.where(begins, np.arange(len(plain)), 0))  # (P,)

    def among_all(place: Numbers, own: Numbers) -> Numbers:
        """A place among the tokens of all documents but that of a window, as one among all tokens."""
        return np.where(place < first[own], place, place + end[own] - first[own])

    rest = len(plain) - (end - first)  # (W,) tokens of the other documents
    start = word_start[among_all((uniform(seed, epoch, numbers, WHENCE) * rest).astype(np.int64), numbers)]
    start -= np.where(start < first, 0, end - first)
    replaced = np.flatnonzero((types == 1) & (words >= 0) & other[window])
    own = window[replaced]
    counts = np.bincount(own, minlength=len(lengths))
    inside = np.arange(len(replaced)) - (np.cumsum(counts) - counts)[own]
    source = plain[among_all((start[own] + inside) % rest[own], own)]
    new_ids, new_words = ids.copy(), words.copy()
    new_ids[replaced] = ids[source]
    new_words[replaced] = words[source] + words.max() + 1  # no word of the first segment
    return store.with_values({"input_ids": new_ids, "word": new_words, "next": np.where(other, IS_OTHER, following)})


class Module(MaskedModule):
    auto_classes = {ENCODER: AutoModelForPreTraining}
    exports_programs = False

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Any]:
        """Of masked tokens and of pairs; methods that compare logits compare those of the masked tokens."""
        micro, labels = self.targets_of(micro)
        asked = (labels >= 0).nonzero().squeeze(1)  # (K,)
        model: Any = self.backbone.model
        states = self.backbone.hidden_states(micro.first)  # (T, width)
        scores = model.cls.predictions(states[asked]).float()  # (K, V)
        smoothing = self.config.optim.label_smoothing if self.training else 0.0
        loss, nll = plain_cross_entropy(scores, labels[asked], smoothing)
        note_unsmoothed(self, micro, nll)
        starts = torch.from_numpy(np.cumsum(micro.lengths) - micro.lengths).to(states.device)
        following = micro.sequences["next"]
        pairs = model.cls.seq_relationship(model.base_model.pooler(states[starts][:, None])).float()  # (N, 2)
        of_pairs = F.cross_entropy(pairs, following, reduction="sum", ignore_index=NO_TARGET)
        loss = loss + self.config.task.next_weight * of_pairs
        if self.training and self.compares_logits:
            return loss, scores
        return loss, (asked, nll, pairs)

    def decode(self, micro: MicroBatch, outputs: Any) -> dict[int, dict[str, Any]]:
        asked, nll, pairs = outputs
        found = super().decode(micro, (asked, nll))
        rows, owner = np.unique(micro.examples, return_inverse=True)
        following = micro.sequences["next"].cpu().numpy()
        judged = following != NO_TARGET
        right = pairs.argmax(1).cpu().numpy() == following
        for name, counted in (("next_right", right & judged), ("next_pairs", judged)):
            for row, count in zip(rows.tolist(), np.bincount(owner, counted, len(rows)).tolist(), strict=True):
                found[row][name] = int(count)
        return found
