"""Data of the tasks whose answer is text: what the model reads, the references, and both as tokens.

An encoder-decoder reads the source and writes the target: two streams. A decoder reads both in one stream and continues
from the source; of a chat it may learn each of the assistant's turns. `label` is the token that each token predicts,
-100 where that is no target; the end token is one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from research.common.errors import UserError
from research.config.generation import refuse_keys_without_effect
from research.config.schema import Config
from research.data.chat import ASSISTANT, SYSTEM, USER, Chat
from research.data.chat_template import ChatTemplate, Segments
from research.data.cutting import beginning
from research.data.languages import bleu_tokenizer, ends_with, rouge_tokenizer, use_languages
from research.data.long_texts import HEAD_TAIL, TRUNCATE
from research.data.prompt import Template
from research.data.references import log_counts, texts_of
from research.data.shorten import shortened
from research.data.source import Split
from research.metrics.score import LOSS
from research.models.bert_score import bert_score_of
from research.models.generate import positions_of, start_token
from research.models.load import DECODER, ENCODER_DECODER, family_of, load_config
from research.tasks.text_tokens import end_token, joined, limited, one_stream, target_ids, two_streams
from research.training.datamodule import Columns, TaskData

log = logging.getLogger("research")
HEADS: Mapping[str, Any] = {ENCODER_DECODER: AutoModelForSeq2SeqLM, DECODER: AutoModelForCausalLM}
SAMPLE = 2000  # targets whose letters choose the scorers' tokenisers


class TextData(TaskData):
    """Pairs of a source and a target text, or a list of references of which training reads the first."""

    fields = {"source": "source", "target": "target"}
    gold: ClassVar[tuple[str, ...]] = ("target",)
    texts: ClassVar[tuple[str, ...]] = ("source",)
    free: ClassVar[tuple[str, ...]] = ("target",)
    prefix_space = False
    long: ClassVar[tuple[str, ...]] = (TRUNCATE, HEAD_TAIL)  # of the source
    class_column = None
    learned_names = ("tokenizers",)
    metric = "text"
    default_template: ClassVar[str] = "{source}"

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        keys = config.task
        self.own = load_config(config, families=HEADS)
        self.family = str(family_of(self.own))
        one, two = ("input_ids", "label"), ("source.input_ids", "target.input_ids", "target.label")
        self.token_columns = one if self.family == DECODER else two  # type: ignore[misc]
        self.end = end_token(tokenizer, config.model.name)
        self.chat = self._chat_template()
        if self.chat is not None:
            self.end = self.chat.end
        self.template = Template(keys.template) if keys.template else None
        names = (keys.source_language, keys.target_language)
        self.first = use_languages(tokenizer, *names, config.model.name)  # the token that every output begins with
        if self.first is not None and self.family == ENCODER_DECODER and ends_with(tokenizer, self.first):
            self.own.decoder_start_token_id, self.first = self.first, None  # mBART of 2020
        self.tokenizers = {"bleu_tokenizer": "13a", "rouge_tokenizer": "english"}
        self.most_references: int | str = 1
        if keys.references:
            self.optional = (*self.optional, self.gold[0])  # type: ignore[misc]
        if self.template is not None and self.texts[0] not in self.template.names:
            self.optional = (*self.optional, *self.texts)  # type: ignore[misc]
        refuse_keys_without_effect(keys)
        self.bert_score = bert_score_of(keys)
        self._refuse_too_long()
        self._refuse_other_scores()

    @property
    def uses_chat(self) -> bool:
        return bool(self.config.task.chat)

    def _chat_template(self) -> ChatTemplate | None:
        keys = self.config.task
        if not self.uses_chat:
            if keys.chat_template or keys.system:
                raise UserError("task.chat_template and task.system act in a chat alone; set task.chat=true too.")
            return None
        if self.family != DECODER:
            if keys.chat:
                raise UserError(f"task.chat=true is for decoders; {self.config.model.name} is an encoder-decoder.")
            return None
        return ChatTemplate(self.tokenizer, keys.chat_template, self.end, self.config.model.name)

    def _refuse_too_long(self) -> None:
        """Raise UserError where a model has no position for the longest output."""
        positions, keys = positions_of(self.own), self.config.task
        before = self.config.data.max_length if self.family == DECODER else 0
        longest = before + max(keys.max_new_tokens, keys.max_target_tokens)
        if positions and longest > positions:
            after = f" after data.max_length={before}" if before else ""
            raise UserError(
                f"task.max_new_tokens={keys.max_new_tokens} and task.max_target_tokens={keys.max_target_tokens}{after} "
                f"need {longest} positions; {self.config.model.name} has {positions}: lower them."
            )

    def _refuse_other_scores(self) -> None:
        """Raise UserError for a monitored score that task.metrics do not report."""
        known, asked = [score.name for score in (*self.scorer.scores, LOSS)], self.config.trainer.monitor
        if asked is not None and asked not in known:
            raise UserError(
                f"trainer.monitor={asked} is not reported by task.metrics; these report {', '.join(known)}."
            )

    # --- rows -----------------------------------------------------------------------------------------

    @property
    def inputs(self) -> list[str]:
        return list(self.texts)

    def template_of(self, columns: Sequence[str]) -> Template:
        """What the model reads of rows with these columns."""
        plain = self.chat is None and self.family == DECODER
        return self.template or Template(self.default_template + ("\n" if plain else ""))

    def _names(self, columns: Sequence[str]) -> dict[str, str]:
        """Every name a template may use -> the column that has it: fields, the data's own names of them, columns."""
        data = {self.config.data.columns.get(field, usual): field for field, usual in self.fields.items()}
        return {name: name for name in columns} | {name: field for name, field in data.items() if field in columns}

    def prepared(self, split: Split) -> Split:
        """With a source for each example where the template reads other columns: what reports and checks show."""
        columns = [name for name in split.rows.column_names if name != "__line__"]
        names = self._names(columns)
        self.template_of(columns).refuse_missing(names, split.origin)
        if set(self.texts) & {*columns}:
            return split
        values = {name: split.rows[names[name]] for name in self.template_of(columns).names}
        count = len(split.rows)
        texts = [self.template_of(columns).render({k: as_text(v[i]) for k, v in values.items()}) for i in range(count)]
        return with_column(split, self.texts[0], pa.array(texts, pa.string()))

    def golds(self, rows: Mapping[str, Sequence[Any]], count: int) -> list[list[str]]:
        """The references of each row, the first of which is trained on; none where the rows have no gold answers."""
        field = self.gold[0]
        columns = [name for name in (field, *self.config.task.references) if name in rows]
        return [[text for name in columns for text in texts_of(rows[name][i])] for i in range(count)]

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """No labels. Raises UserError for an empty source or target. Chooses the tokenisers of the scorers."""
        targets: list[str] = []
        for split in splits:
            for field in self.texts:
                if field in split.rows.column_names and field not in self.optional:
                    for row, text in enumerate(split.rows[field]):
                        if not text or not text.strip():
                            raise UserError(f"{split.where(row)}: the {field} is empty; fill it in or drop the row.")
            references = self.golds(split.rows[:], len(split.rows))
            for row, golds in enumerate(references):
                if not golds or not all(isinstance(gold, str) and gold.strip() for gold in golds):
                    raise UserError(f"{split.where(row)}: the {self.gold[0]} is empty; fill it in or drop the row.")
                targets += golds[: 1 if len(targets) < SAMPLE else 0]
            log_counts(split, references)
        keys = self.config.task
        chosen = (bleu_tokenizer, rouge_tokenizer)
        self.tokenizers = {choose.__name__: choose(keys.target_language, targets) for choose in chosen}
        return []

    def open(self, learned: Mapping[str, Any] | None = None, only: str | None = None) -> None:
        super().open(learned, only)
        for name, cut in self.cut_targets.items():
            if cut:
                log.warning(
                    "%d of %d examples of %s have a target longer than task.max_target_tokens=%d, which loses its end "
                    "in the loss; scores use the whole texts.",
                    cut, len(self.stores[name]), name, self.config.task.max_target_tokens,
                )  # fmt: skip

    # --- tokens ---------------------------------------------------------------------------------------

    def encode_reads(self) -> list[Any]:
        start = start_token(self.own) if self.family == ENCODER_DECODER else None
        return [self.family, self.end, start, self.first, self.chat.text if self.chat else None]

    def encode(self, rows: Columns) -> Columns:
        count = len(next(iter(rows.values())))
        golds, limit = [texts[:1] for texts in self.golds(rows, count)], self.config.task.max_target_tokens
        if self.chat is not None:
            segments, cut = self.chats(rows, golds)
            longer = [any(is_target and len(ids) > limit for ids, is_target in each) for each in segments]
            return {**one_stream([limited(each, limit) for each in segments]), "cut": cut, "cut_target": longer}
        sources, cut = self.sources(rows, count)
        start = getattr(self.own, "decoder_start_token_id", None)
        targets = target_ids(self.tokenizer, golds, self.end, start, self.family == DECODER)
        were_cut = {"cut": cut, "cut_target": [len(row) > limit for row in targets]}
        targets = [row[:limit] for row in targets]
        if self.family == ENCODER_DECODER:
            return {**two_streams(sources, targets, start_token(self.own)), **were_cut}
        return {**one_stream(joined(sources, targets, self.end)), **were_cut}

    def sources(self, rows: Columns, count: int) -> tuple[list[list[int]], list[bool]]:
        """Tokens of what the model reads of each row, and whether that was cut to `data.max_length` of them."""
        values = self.values(rows, count)
        template, limit = self.template_of(list(rows)), self.config.data.max_length
        texts = [template.render(each) for each in values]
        found: list[list[int]] = self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
        cut = [len(ids) > limit for ids in found]
        for i in np.flatnonzero(cut):
            text = self.fitted(template, values[i], lambda text: len(self.source_ids(text)))
            found[i] = self.source_ids(text)
        return found, cut

    def values(self, rows: Columns, count: int) -> list[dict[str, str]]:
        """What the template names, of each row, without characters that have no room in any case."""
        template, names = self.template_of(list(rows)), self._names(list(rows))
        limit, short = self.config.data.max_length, beginning if self.long_texts == TRUNCATE else whole
        return [
            {name: short(self.tokenizer, as_text(rows[names[name]][i]), limit) for name in template.names}
            for i in range(count)
        ]

    def fitted(self, template: Template, values: dict[str, str], length: Callable[[str], int]) -> str:
        """A rendered template of at most `data.max_length` tokens."""
        shorten = partial(shortened, self.tokenizer, way=self.long_texts)
        return template.fitted(values, self.config.data.max_length, length, shorten)

    def source_ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]
        return found

    def turns(self, source: str) -> Chat:
        system = self.config.task.system
        return [*([{"role": SYSTEM, "content": system}] if system else []), {"role": USER, "content": source}]

    def chats(self, rows: Columns, golds: list[list[str]]) -> tuple[list[Segments], list[bool]]:
        """Each example as a chat of a user and the assistant, and whether its source was cut."""
        chat, template, limit = self.chat, self.template_of(list(rows)), self.config.data.max_length
        assert chat is not None
        found, cut = [], []
        for i, (values, texts) in enumerate(zip(self.values(rows, len(golds)), golds, strict=True)):
            source, where = template.render(values), f"row {i}"
            cut.append(chat.prompt(self.turns(source), where) > limit)
            if cut[-1]:
                source = self.fitted(template, values, lambda text: chat.prompt(self.turns(text), "the prompt"))
            turns = [*self.turns(source), *({"role": ASSISTANT, "content": text} for text in texts)]
            found.append(chat.segments(turns, where, only_last=True))
        return found, cut

    # --- predictions ----------------------------------------------------------------------------------

    def score_settings(self) -> dict[str, Any]:
        keys = self.config.task
        chosen = {
            name: own if (own := getattr(keys, name)) != "auto" else self.tokenizers[name] for name in self.tokenizers
        }
        return {
            "metrics": list(keys.metrics), "references": self.most_references, **chosen,
            "rouge_stemmer": keys.rouge_stemmer, "bertscore": self.bert_score and self.bert_score.signature,
        }  # fmt: skip

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        found = [predictions[i] for i in range(len(split.rows))]
        golds = self.golds(split.rows[:], len(found))
        counts = {len(texts) for texts in golds}
        self.most_references = counts.pop() if len(counts) == 1 else "var"  # of the table that is scored next
        single, several = self.most_references == 1, self.config.task.num_return_sequences > 1
        compared = {"bertscore": self.bert_score([row["text"] for row in found], golds)} if self.bert_score else {}
        return {
            "gold": [(texts[0] if single else texts) if texts else None for texts in golds],
            "prediction": [row["text"] for row in found],
            "ended": [row["ended"] for row in found],
            "stopped_by": [row["stopped_by"] for row in found],
            **({"other_predictions": [row["others"] for row in found]} if several else {}),
            **compared,
        }


def whole(tokenizer: Any, text: str, tokens: int) -> str:
    return text


def as_text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)


def with_column(split: Split, name: str, values: pa.Array) -> Split:
    """The split with a column of its own making."""
    rows = split.rows.add_column(name, values)
    return replace(split, rows=rows)
