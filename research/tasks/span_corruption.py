"""Span corruption, T5's pretraining (Raffel et al. 2020): an encoder-decoder writes the spans that its source lacks.

Sentinels `<extra_id_0>`, `<extra_id_1>`, ... stand for the spans in the source and before each in the target. Which
spans are taken out is drawn for each epoch, a function of (seed, epoch, example, place) alone; in evaluation it is
always the same. Documents are cut into pieces of `data.max_length`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from research.batching.pack import MicroBatch
from research.batching.spans import SpanCorruption
from research.batching.store import SOURCE, TARGET
from research.common.errors import UserError
from research.config.key import at_least, inside, key
from research.config.schema import Config
from research.models.generate import start_token
from research.models.load import ENCODER_DECODER
from research.tasks.masked_text import EVALUATION
from research.tasks.plain_text import PlainTextData, PlainTextModule, flat
from research.tasks.text_tokens import end_token
from research.training.datamodule import Columns

LATER = -1  # in the store, the place of what is drawn


@dataclass
class Keys:
    mask_rate: float = key(0.15, "share of the tokens that are taken out", inside("(0, 1)"))
    mean_span: float = key(3.0, "tokens of a span on average", at_least(1, "token"))


class Data(PlainTextData):
    token_columns = ("source.input_ids", "target.input_ids", "target.label")
    heads = {ENCODER_DECODER: AutoModelForSeq2SeqLM}
    masked = True
    answers_alone = False  # which spans are taken out depends on a row's place in the file

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        vocabulary, sentinels = tokenizer.get_vocab(), list[int]()
        while (token := vocabulary.get(f"<extra_id_{len(sentinels)}>")) is not None:
            sentinels.append(token)
        if not sentinels:
            raise UserError(
                f"The tokenizer of {config.model.name} has no sentinels <extra_id_0>, <extra_id_1>, ..., which this "
                "task needs: take a T5, or begin with model.name=scratch."
            )
        end, keys = end_token(tokenizer, config.model.name), config.task
        self.corruption = SpanCorruption(keys.mask_rate, keys.mean_span, np.array(sentinels), end, config.order_seed)

    @property
    def conditions(self) -> list[str]:
        keys = self.config.task
        return [f"spans:{keys.mean_span}", f"rate:{keys.mask_rate}", f"seed:{self.config.order_seed}"]

    def encode(self, rows: Columns) -> Columns:
        texts = self.tokenizer(rows["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
        room = self.config.data.max_length - 1
        cut = [[ids[a : a + room] for a in range(0, max(len(ids), 1), room)] for ids in texts["input_ids"]]
        examples = [[piece] for pieces in cut for piece in pieces] if self.of_train else cut
        columns: Columns = {name: [] for name in (*self.token_columns, "source.windows", "target.windows", "targets")}
        for pieces in examples:
            counts = [self.corruption.counts(len(ids)) for ids in pieces]
            shared = list(zip(pieces, counts, strict=True))
            sources = [ids[: len(ids) - n] + [LATER] * (spans + 1) for ids, (n, spans) in shared]
            targets = [ids[len(ids) - n :] + [LATER] * (spans + 1) for ids, (n, spans) in shared]
            columns["source.input_ids"].append(flat(sources))
            columns["source.windows"].append([len(ids) for ids in sources])
            columns["target.input_ids"].append(flat(targets))
            columns["target.label"].append(flat(targets))
            columns["target.windows"].append([len(ids) for ids in targets])
            columns["targets"].append(float(sum(map(len, targets))))
        return columns


class Module(PlainTextModule):
    auto_classes = {ENCODER_DECODER: AutoModelForSeq2SeqLM}
    draws_tokens = True

    @property
    def epoch(self) -> int:
        """Of the spans."""
        return self.step // self.data.plan.steps_per_epoch if self.training else EVALUATION

    def targets_of(self, micro: MicroBatch) -> tuple[MicroBatch, Tensor]:
        """The texts of a micro-batch with spans taken out: what lies in the store is their tokens in order."""
        corruption: SpanCorruption = self.data.corruption  # type: ignore[attr-defined]
        halves = [micro.streams[SOURCE].tokens["input_ids"], micro.streams[TARGET].tokens["label"]]
        cuts = [micro.streams[name].lengths.cumsum()[:-1] for name in (SOURCE, TARGET)]
        pieces = [np.split(half.cpu().numpy(), cut) for half, cut in zip(halves, cuts, strict=True)]
        sources, targets, at, before = [], [], 0, None
        for kept, taken, example in zip(*pieces, micro.streams[SOURCE].examples.tolist(), strict=True):
            ids = np.concatenate([kept[kept != LATER], taken[taken != LATER]])
            at, before = (at if example == before else 0), example
            source, target = corruption(ids, example, at, self.epoch)
            at += len(ids)
            sources.append(source)
            targets.append(target)
        start = start_token(self.backbone.model.config)
        inputs = [np.concatenate([[start], target[:-1]]) for target in targets]
        device = micro.first.positions.device
        read, written, labels = (torch.from_numpy(np.concatenate(x)).to(device) for x in (sources, inputs, targets))
        streams = {
            SOURCE: replace(micro.streams[SOURCE], tokens={"input_ids": read}),
            TARGET: replace(micro.streams[TARGET], tokens={"input_ids": written}),
        }
        return replace(micro, streams=streams), labels
