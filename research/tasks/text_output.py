"""What the tasks share whose answer is text: how source and target are encoded, the loss, generation in evaluation.

An encoder-decoder reads the source and writes the target: two streams. A decoder reads both in one stream and goes on
from the source. `label` is the token that each token predicts, -100 where that is no target; the end token is one.

Shapes: K targets, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from research.batching.pack import MicroBatch
from research.common.errors import UserError
from research.config.generation import refuse_keys_without_effect
from research.config.schema import Config
from research.data.long_texts import HEAD_TAIL, TRUNCATE, encoded_texts
from research.data.source import Split
from research.models.generate import Generator, end_tokens, positions_of, start_token
from research.models.load import DECODER, ENCODER_DECODER, family_of, load_config
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule

log = logging.getLogger("research")
NO_TARGET = -100
HEADS: Mapping[str, Any] = {ENCODER_DECODER: AutoModelForSeq2SeqLM, DECODER: AutoModelForCausalLM}


class TextData(TaskData):
    """Pairs of a source and a target text. Its task has the keys template, max_target_tokens and max_new_tokens."""

    fields = {"source": "source", "target": "target"}
    gold = ("target",)
    texts = ("source", "target")
    prefix_space = False
    long = (TRUNCATE, HEAD_TAIL)  # of the source
    class_column = None
    learned_names = ()
    default_template: ClassVar[str] = "{source}"

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        self.own = load_config(config, families=HEADS)
        self.family = str(family_of(self.own))
        one, two = ("input_ids", "label"), ("source.input_ids", "target.input_ids", "target.label")
        self.token_columns = one if self.family == DECODER else two  # type: ignore[misc]
        self.end = end_token(tokenizer, config.model.name)
        refuse_keys_without_effect(config.task)
        self._refuse_too_long()

    def _refuse_too_long(self) -> None:
        """Raise UserError where a model has no position for the longest output."""
        positions, keys = positions_of(self.own), self.config.task
        before = self.config.data.max_length if self.family == DECODER else 0
        longest = before + max(keys.max_new_tokens, keys.max_target_tokens)
        if positions and longest > positions:
            after = f" after data.max_length={before}" if before else ""
            raise UserError(
                f"task.max_new_tokens={keys.max_new_tokens} and task.max_target_tokens={keys.max_target_tokens}{after} "
                f"need {longest} positions; {self.config.model.name} has {positions}."
            )

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """No labels. Raises UserError for an empty source or target."""
        for split in splits:
            for field in self.texts:
                if field in split.rows.column_names:
                    for row, text in enumerate(split.rows[field]):
                        if not text or not text.strip():
                            raise UserError(f"{split.where(row)}: the {field} is empty.")
        return []

    def open(self, learned: Mapping[str, Any] | None = None, only: str | None = None) -> None:
        super().open(learned, only)
        for name, store in self.stores.items():
            last = [int(labels[-1]) for labels in store.columns[self.token_columns[-1]].rows(np.arange(len(store)))]
            cut = sum(label != self.end for label in last)
            if cut:
                log.warning(
                    "%d of %d targets of %s are longer than task.max_target_tokens=%d and lose their end in the loss; "
                    "scores use the whole texts.", cut, len(store), name, self.config.task.max_target_tokens,
                )  # fmt: skip

    def score_settings(self) -> dict[str, Any]:
        return {}

    def encode_reads(self) -> list[Any]:
        return [self.family, self.end, getattr(self.own, "decoder_start_token_id", None)]

    def encode(self, rows: Columns) -> Columns:
        count, limit = len(rows["source"]), self.config.data.max_length
        template = self.config.task.template or (self.default_template + ("\n" if self.family == DECODER else ""))
        texts = [template.replace("{source}", text) for text in rows["source"]]
        read = encoded_texts(self.tokenizer, texts, [None] * count, limit, self.long_texts)
        targets = self._targets(rows["target"]) if rows.get("target") else [[]] * count
        columns = self._as_one if self.family == DECODER else self._as_two
        return {**columns(read["input_ids"], targets), "cut": read["cut"]}

    def _targets(self, texts: list[str]) -> list[list[int]]:
        """Token ids with the end token, which a target that is cut lacks: its text did not end there."""
        limit = self.config.task.max_target_tokens
        plain = {"add_special_tokens": False} if self.family == DECODER else {}
        rows = self.tokenizer(text_target=texts, return_attention_mask=False, **plain)["input_ids"]
        return [(row if row[-1:] == [self.end] else [*row, self.end])[:limit] for row in rows]

    def _as_two(self, sources: list[list[int]], targets: list[list[int]]) -> Columns:
        """The decoder reads the target one token behind what it predicts."""
        start = start_token(self.own)
        labels = [target or [NO_TARGET] for target in targets]
        inputs = [[start, *target[:-1]] for target in targets]
        return {
            "source.input_ids": sources,
            "source.windows": [[len(row)] for row in sources],
            "target.input_ids": inputs,
            "target.label": labels,
            "target.windows": [[len(row)] for row in inputs],
            "targets": [float(len(target)) for target in targets],
        }

    def _as_one(self, sources: list[list[int]], targets: list[list[int]]) -> Columns:
        """Source and target in one row, without its last token, which predicts nothing."""
        prompts = [row[:-1] if row[-1:] == [self.end] and len(row) > 1 else row for row in sources]
        rows = [[*prompt, *target] for prompt, target in zip(prompts, targets, strict=True)]
        inputs = [row[:-1] if target else row for row, target in zip(rows, targets, strict=True)]
        labels = [
            [*[NO_TARGET] * (len(prompt) - 1), *(target or [NO_TARGET])]
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        return {
            "input_ids": inputs,
            "label": labels,
            "windows": [[len(row)] for row in inputs],
            "targets": [float(len(target)) for target in targets],
        }

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        found = [predictions[i] for i in range(len(split.rows))]
        gold = split.rows["target"] if "target" in split.rows.column_names else [None] * len(found)
        several = self.config.task.num_return_sequences > 1
        return {
            "gold": pa.array(gold, pa.string()).to_pylist(),
            "prediction": [row["text"] for row in found],
            "ended": [row["ended"] for row in found],
            "stopped_by": [row["stopped_by"] for row in found],
            **({"other_predictions": [row["others"] for row in found]} if several else {}),
        }


class TextModule(TaskModule):
    """Cross entropy of the targets, and generated text in evaluation."""

    auto_classes = HEADS

    def __init__(self, config: Config, backbone: Any, data: TextData, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        if self.sharded:
            raise UserError(f"task '{config.task.name}' generates text, which trainer.strategy=fsdp does not: use ddp.")
        model = backbone.model
        first = getattr(model.generation_config, "forced_bos_token_id", None)
        ends = end_tokens(model, data.end)
        self.generate = Generator(backbone, data.tokenizer, config.task, config.seed, ends, first)
        model.generation_config = self.generate.settings  # also in the exported model

    def notes(self) -> dict[str, Any]:
        return {"generation": self.generate.signature}

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor | None]:
        """And the scores (K, V) where a method compares them; they would fill the memory."""
        labels = self.backbone.predicting(micro).tokens["label"]
        asked = (labels >= 0).nonzero().squeeze(1)  # (K,)
        if self.training and self.compares_logits:
            logits = self.backbone.vocabulary_logits(micro, asked)
            return self.cross_entropy(logits, labels[asked]), logits
        smoothing = self.config.optim.label_smoothing if self.training else 0.0
        return self.backbone.vocabulary_losses(micro, asked, labels[asked], smoothing)[0], None

    def target_logits(self, micro: MicroBatch, outputs: Tensor) -> list[Tensor]:
        return [outputs]

    def outputs(self, micro: MicroBatch) -> None:
        """Nothing: what is decoded is generated."""

    def decode(self, micro: MicroBatch, outputs: None) -> dict[int, dict[str, Any]]:
        generated = self.generate(micro)
        return {
            row: {"text": each.text, "ended": each.ended, "stopped_by": each.stopped_by, "others": list(each.others)}
            for row, each in zip(micro.examples.tolist(), generated, strict=True)
        }


def end_token(tokenizer: Any, name: str) -> int:
    """The token that ends a target. Raises UserError where the tokenizer has none."""
    for end in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if end is not None:
            return int(end)
    raise UserError(f"The tokenizer of {name} has neither an eos nor a sep token to end a text with; add one to it.")
