"""Extractive question answering: the span of a context that answers a question, or that there is none.

A long context is cut into overlapping windows; each is a training target (its span, or its first token where it
shows none), and a question's answer is the best span over all its windows (Devlin et al. 2019).

Shapes: T tokens, N windows, L longest window, K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForQuestionAnswering

from research.batching.pack import MicroBatch
from research.batching.plan import Indices
from research.common.errors import UserError
from research.config.component import at_least, key
from research.config.schema import DataConfig
from research.data.answers import NOWHERE, read_answers
from research.data.columns import set_aside
from research.data.cutting import beginning
from research.data.long_texts import WINDOW
from research.data.source import Split
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule

LONGEST_QUESTION_TOKENS = 64
CANDIDATES = 20  # best starts and ends of a window that are combined


@dataclass
class Keys:
    stride: int = key(128, "tokens that two windows of one long context share", at_least(0, "tokens"))
    max_answer_tokens: int = key(30, "longest predicted answer, in tokens", at_least(1))
    rules: Literal["squad", "cmrc"] = key("squad", "squad (v1.1; v2.0 where a question has no answer) or cmrc")


class Data(TaskData):
    fields = {"question": "question", "context": "context", "answers": "answers", "is_impossible": "is_impossible"}
    optional = ("is_impossible",)
    free = ("answers",)
    gold = ("answers",)
    texts = ("question", "context")
    token_columns = ("input_ids", "token_type_ids", "char_start", "char_end")
    window_columns = ("start", "end")
    metric = "squad"
    long = (WINDOW,)
    class_column = None
    learned_names = ("may_have_no_answer",)
    may_have_no_answer = False
    threshold = 0.0  # no answer where its score is above the best span's by more than this

    def _open(self, data: DataConfig, name: str, value: str, limit: int | None) -> Split:
        split = super()._open(data, name, value, limit)
        try:
            return read_answers(split, needed=name != "input")
        except UserError:
            if name != "input":
                raise
            return set_aside(split, "answers")

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """No labels; whether questions may have no answer is read from the data."""
        answered = chain.from_iterable(split.rows["answers"] for split in splits)
        self.may_have_no_answer = any(answers is not None and not answers["text"] for answers in answered)
        return []

    def use_validation_scores(self, validation: Mapping[str, float]) -> None:
        """The no-answer threshold that is best on the validation questions."""
        official = validation.get("best_f1_threshold", 0.0)  # all that older runs have
        self.threshold = validation.get("no_answer_threshold", official)

    def gold_table(self, split: Split) -> pa.Table | None:
        return pa.table({"gold": [answers["text"] for answers in split.rows["answers"]]})

    def score_settings(self) -> dict[str, Any]:
        rules = "squad_v2" if self.may_have_no_answer else self.config.task.rules
        return {"rules": rules, "threshold": self.threshold}

    def encode(self, rows: Columns) -> Columns:
        limit = self.config.data.max_length
        question_limit = min(LONGEST_QUESTION_TOKENS, limit // 3)
        texts = [beginning(self.tokenizer, text.strip(), question_limit) for text in rows["question"]]
        questions = [self._shortened(text, question_limit) for text in texts]
        room = limit - question_limit - self.tokenizer.num_special_tokens_to_add(pair=True)
        tokens = self.tokenizer(
            questions,
            rows["context"],
            truncation="only_second",
            max_length=limit,
            stride=min(self.config.task.stride, room // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        answers = [answer_span(rows, i) for i in range(len(questions))]
        columns: Columns = {name: [[] for _ in questions] for name in (*self.token_columns, "windows", "start", "end")}
        for window, example in enumerate(tokens["overflow_to_sample_mapping"]):
            spans = [
                span if sequence == 1 else (-1, -1)
                for span, sequence in zip(tokens["offset_mapping"][window], tokens.sequence_ids(window), strict=True)
            ]
            start, end = self._target(spans, answers[example])
            for name in ("input_ids", "token_type_ids"):
                columns[name][example] += tokens[name][window] if name in tokens else []
            columns["char_start"][example] += [span[0] for span in spans]
            columns["char_end"][example] += [span[1] for span in spans]
            columns["windows"][example].append(len(spans))
            columns["start"][example].append(start)
            columns["end"][example].append(end)
        if "token_type_ids" not in tokens:
            del columns["token_type_ids"]
        counts = [len(windows) for windows in columns["windows"]]
        return {**columns, "targets": list(map(float, counts)), "several": [count > 1 for count in counts]}

    def _shortened(self, question: str, limit: int) -> str:
        offsets = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return question if len(offsets) <= limit else question[: offsets[limit - 1][1]]

    @staticmethod
    def _target(spans: list[tuple[int, int]], answer: tuple[int, int] | None) -> tuple[int, int]:
        """First and last token of the answer, or (0, 0) where the window does not show all of it."""
        if answer is None:
            return 0, 0
        first, last = answer
        context = [i for i, span in enumerate(spans) if span[0] >= 0]
        if not context or spans[context[0]][0] > first or spans[context[-1]][1] < last:
            return 0, 0
        start = max((i for i in context if spans[i][0] <= first), default=0)
        end = min((i for i in context if spans[i][1] >= last), default=0)
        return (start, end) if start <= end else (0, 0)

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        labelled = "answers" in split.rows.column_names
        columns: Columns = {"gold": [], "prediction": [], "answer": [], "no_answer_score": [], "n_best": []}
        for i, row in enumerate(split.rows):
            spans = [
                {"text": row["context"][first:last], "score": score} for score, first, last in predictions[i]["spans"]
            ]
            answer = spans[0] if spans else {"text": "", "score": -1e9}
            no_answer_score = predictions[i]["no_answer"] - answer["score"]
            withheld = self.may_have_no_answer and no_answer_score > self.threshold
            gold = row["answers"] if labelled else None
            columns["gold"].append(None if gold is None else list(dict.fromkeys(gold["text"])))
            columns["prediction"].append("" if withheld else answer["text"])
            columns["answer"].append(answer["text"])
            columns["no_answer_score"].append(no_answer_score)
            columns["n_best"].append(spans)
        return columns

    def places(
        self, found: dict[str, Any], answer: dict[str, Any], words: Sequence[tuple[int, int]] | None
    ) -> dict[str, Any]:
        """First character and end of the answer in its context."""
        if not answer["prediction"]:
            return {}
        _, first, end = found["spans"][0]
        return {"start": first, "end": end}


def answer_span(rows: Columns, i: int) -> tuple[int, int] | None:
    """First character and end of row i's first answer that occurs in the context, None where there is none."""
    answers = (rows["answers"][i] if "answers" in rows else None) or {"text": [], "answer_start": []}
    placed = zip(answers["text"], answers["answer_start"], strict=True)
    return next(((first, first + len(text)) for text, first in placed if first != NOWHERE), None)


class Module(TaskModule):
    auto_class = AutoModelForQuestionAnswering
    monitor = "f1"
    targets_are_tokens = True

    def outputs(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Start and end logits, each (N, L), minus infinity after a window's end."""
        logits = self.backbone.token_logits(micro)
        start, end = (micro.pad(logits[name], -torch.inf) for name in ("start_logits", "end_logits"))
        return start, end

    def loss(self, micro: MicroBatch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The mean of the start's and the end's cross entropy, over the tokens of each window and no padding."""
        start, end = self.outputs(micro)
        smoothing = self.config.optim.label_smoothing if self.training else 0.0
        targets = (micro.sequences["start"], micro.sequences["end"])
        losses = [window_loss(x, target, smoothing) for x, target in zip((start, end), targets, strict=True)]
        return torch.stack(losses).sum() / 2, (start, end)

    def target_logits(self, micro: MicroBatch, outputs: tuple[Tensor, Tensor]) -> list[Tensor]:
        return list(outputs)

    def target_examples(self, micro: MicroBatch) -> Indices:
        return micro.examples

    def decode(self, micro: MicroBatch, outputs: tuple[Tensor, Tensor]) -> dict[int, dict[str, Any]]:
        start, end = (x.float().cpu() for x in outputs)
        starts = micro.pad(micro.tokens["char_start"], -1).cpu()
        ends = micro.pad(micro.tokens["char_end"], -1).cpu()
        scores, firsts, lasts = best_spans(start, end, starts >= 0, self.config.task.max_answer_tokens)  # each (N, K)
        first_chars, last_chars = starts.gather(1, firsts), ends.gather(1, lasts)
        no_answer = (start[:, 0] + end[:, 0]).tolist()
        decoded: dict[int, dict[str, Any]] = {}
        for n, row in enumerate(micro.examples.tolist()):
            found = decoded.setdefault(row, {"spans": [], "no_answer": no_answer[n]})
            found["no_answer"] = min(found["no_answer"], no_answer[n])
            cells = zip(scores[n].tolist(), first_chars[n].tolist(), last_chars[n].tolist(), strict=True)
            found["spans"] += [cell for cell in cells if np.isfinite(cell[0])]
        for found in decoded.values():
            distinct: dict[tuple[int, int], tuple[float, int, int]] = {}
            for cell in sorted(found["spans"], key=lambda cell: -cell[0]):
                distinct.setdefault(cell[1:], cell)
            found["spans"] = list(distinct.values())[:CANDIDATES]
        return decoded


def window_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Summed cross entropy of (N, L) logits; label smoothing spreads over a window's tokens, not over its padding."""
    log_p = torch.log_softmax(logits, 1)
    loss = F.nll_loss(log_p, target, reduction="sum")
    if not smoothing:
        return loss
    inside = logits > -torch.inf
    uniform = log_p.masked_fill(~inside, 0).sum(1) / inside.sum(1)
    return (1 - smoothing) * loss - smoothing * uniform.sum()


def best_spans(start: Tensor, end: Tensor, context: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best CANDIDATES spans of each window: scores, first and last tokens, each (N, K).

    start, end: (N, L) logits; context: (N, L) bool. A span lies in the context and has at most `longest` tokens;
    the score of a place that holds none is minus infinity.
    """
    K = min(CANDIDATES, start.shape[1])
    hidden = torch.full_like(start, -torch.inf)
    start_scores, firsts = torch.where(context, start, hidden).topk(K, dim=1)
    end_scores, lasts = torch.where(context, end, hidden).topk(K, dim=1)
    length = lasts[:, None, :] - firsts[:, :, None]  # (N, K, K)
    scores = start_scores[:, :, None] + end_scores[:, None, :]
    scores = scores.masked_fill((length < 0) | (length >= longest), -torch.inf).flatten(1)
    best, index = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1)
    return best, firsts.gather(1, index // K), lasts.gather(1, index % K)
