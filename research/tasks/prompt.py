"""Classification as a cloze: a masked language model fills the gap of a template, and each label has a word for it.

Schick & Schütze 2021, Exploiting Cloze Questions for Few Shot Text Classification (PET), with a template and a
verbaliser by hand, as in LM-BFF (Gao et al. 2021). The logits of a label are those of its word at the mask, and the
loss is the cross entropy over the labels' words alone. With `optim.max_steps: 0` it is zero-shot.

Of a long text the text is cut, never the template or its mask.

Shapes: T tokens, E examples, C labels, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM

from research.batching.pack import MicroBatch
from research.common.errors import UserError
from research.config.key import key
from research.config.schema import Config
from research.data.long_texts import HEAD_TAIL, TRUNCATE
from research.data.prompt import Template
from research.data.shorten import shortened
from research.data.source import Split
from research.tasks.calibrated import CalibratedModule
from research.tasks.classification import Data as Classification
from research.training.datamodule import Columns

log = logging.getLogger("research")
MASK = "mask"


@dataclass
class Keys:
    template: str = key("{text} It was {mask}.", "what the model reads: {text}, {text_pair} and one {mask}")
    verbalizer: dict[str, str] = key({}, "label: its word at the mask, one token; a label without one is its own word")
    calibrate: bool = key(False, "divide the probabilities in evaluation by those for texts without content")


class Data(Classification):
    token_columns = ("input_ids", "token_type_ids", "mask")
    long = (TRUNCATE, HEAD_TAIL)
    prefix_space = False
    head = ()

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        if tokenizer.mask_token_id is None:
            raise UserError(f"The tokenizer of {config.model.name} has no mask token, which task 'prompt' fills.")
        self.template = with_mask(config.task.template, tokenizer.mask_token)

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """The labels. Raises UserError for a template without a field, and words that are not one token each."""
        for split in splits:
            self.template.refuse_missing([name for name in self.texts if name in split.rows.column_names], split.origin)
        labels = super().collect(splits)
        unknown = sorted({*self.config.task.verbalizer} - {*labels})
        if unknown:
            raise UserError(f"task.verbalizer names {', '.join(unknown)}, but the labels are {', '.join(labels)}.")
        words_of(labels, self.config.task.verbalizer, self.tokenizer, self.leading_blank)
        return labels

    @property
    def leading_blank(self) -> bool:
        """Does a blank stand before the mask?"""
        return " {mask}" in self.config.task.template

    @cached_property
    def word_ids(self) -> list[int]:
        """The token of each label."""
        return words_of(self.labels, self.config.task.verbalizer, self.tokenizer, self.leading_blank)

    def encode(self, rows: Columns) -> Columns:
        mask, limit = self.tokenizer.mask_token, self.config.data.max_length
        shorten = partial(shortened, self.tokenizer, way=self.long_texts)
        texts, cut = [], []
        for i in range(len(rows["text"])):
            values = {name: (rows[name][i] or "").replace(mask, " ") for name in self.template.names if name in rows}
            values = dict.fromkeys(self.template.names, "") | values
            texts.append(self.template.fitted(values, limit, self._length, shorten))
            cut.append(texts[-1] != self.template.render(values))
        tokens = self.tokenizer(texts, return_attention_mask=False, verbose=False)
        columns = {name: list(tokens[name]) for name in self.token_columns if name in tokens}
        masks = [[int(token == self.tokenizer.mask_token_id) for token in ids] for ids in columns["input_ids"]]
        for i, row in enumerate(masks):
            if sum(row) != 1:
                raise UserError(f"example {i}: {texts[i]!r} has {sum(row)} mask tokens, which must be one.")
        windows = [[len(ids)] for ids in columns["input_ids"]]
        return {**columns, "mask": masks, "windows": windows, "cut": cut, **self.targets(rows, windows)}

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text, verbose=False)["input_ids"])


def with_mask(text: str, mask_token: str) -> Template:
    """The template with the tokenizer's mask in its place. Raises UserError unless there is exactly one."""
    template = Template(text)
    masks = [name for _, name in template.parts].count(MASK) + text.count(mask_token)
    if masks != 1 or mask_token in text or template.names == [MASK]:
        raise UserError(f"task.template={text!r} must have one {{mask}} and a field such as {{text}}.")

    def plain(literal: str) -> str:
        return literal.replace("{", "{{").replace("}", "}}")

    parts = (plain(literal) + (mask_token if name == MASK else f"{{{name}}}" if name else "")
             for literal, name in template.parts)  # fmt: skip
    return Template("".join(parts))


def words_of(labels: Sequence[str], words: dict[str, str], tokenizer: Any, blank: bool) -> list[int]:
    """The token of each label's word. Raises UserError for a word of several tokens, and for one of two labels."""
    found: dict[int, str] = {}
    for label in labels:
        word = words.get(label, label)
        ids = tokenizer(f" {word}" if blank else word, add_special_tokens=False)["input_ids"]
        said = f"task.verbalizer: '{word}', the word of label '{label}',"
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            pieces = ", ".join(tokenizer.convert_ids_to_tokens(ids))
            raise UserError(f"{said} is not one token of the model but {len(ids)} ({pieces}); choose another word.")
        if ids[0] in found:
            raise UserError(f"{said} is that of label '{found[ids[0]]}' too; each label needs a word of its own.")
        found[ids[0]] = label
    return list(found)


class Module(CalibratedModule):
    auto_class = AutoModelForMaskedLM
    exports_programs = False  # the vocabulary is scored at the mask alone

    def __init__(self, config: Config, backbone: Any, data: Any, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        if any(not name.startswith(backbone.model.base_model_prefix) for name in backbone.model.new_weights):
            log.warning(
                "%s has no pretrained head that predicts words: without training its answers are chance.",
                config.model.name,
            )

    def label_scores(self, micro: MicroBatch) -> Tensor:
        asked = micro.tokens["mask"].nonzero().squeeze(1)  # (E,)
        logits = self.backbone.vocabulary_logits(micro, asked)  # (E, V)
        data: Any = self.data
        return logits[:, torch.tensor(data.word_ids, device=logits.device)]
