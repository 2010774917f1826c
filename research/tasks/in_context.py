"""In-context classification by a decoder: demonstrations in the prompt, and the likelihood of each label after it.

Brown et al. 2020, Language Models are Few-Shot Learners. k training examples, drawn by `seed` with each class's share,
stand in the prompt before the text, and the score of a label is the log likelihood of its word; the probabilities are
their softmax over the labels, calibrated where `task.calibrate` asks for it (Zhao et al. 2021). Nothing is trained:
`optim.max_steps` is 0.

Shapes: T tokens, N sequences, E examples, C labels, K tokens of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from research.batching.pack import MicroBatch
from research.batching.store import NO_TARGET
from research.common.errors import UserError
from research.config.key import at_least, key
from research.config.schema import Config
from research.data.labels import gold_labels
from research.data.long_texts import HEAD_TAIL, TRUNCATE
from research.data.prompt import Template
from research.data.sample import sampled
from research.data.shorten import shortened
from research.data.source import Split
from research.models.load import DECODER
from research.tasks.calibrated import CalibratedModule
from research.tasks.classification import Data as Classification
from research.training.datamodule import Columns


@dataclass
class Keys:
    template: str = key("{text}\nLabel:", "a text in the prompt; a blank and its label's word follow")
    verbalizer: dict[str, str] = key({}, "label: its word; a label without one is its own word")
    demonstrations: int = key(0, "training examples in the prompt", at_least(0))
    separator: str = key("\n\n", "between them, and before the text")
    normalize: bool = key(False, "a label's log likelihood is the mean over its tokens, not their sum")
    calibrate: bool = key(False, "divide the probabilities in evaluation by those for texts without content")


class Data(Classification):
    fields = {"text": "text", "label": "label"}
    optional = ()
    texts = ("text",)
    token_columns = ("input_ids", "next")
    learned_names = ("labels", "shown")
    long = (TRUNCATE, HEAD_TAIL)
    prefix_space = False
    head = ()

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        self.shown: list[list[str]] = []  # text and label of each demonstration
        self.template = Template(config.task.template)
        if self.template.names != ["text"]:
            raise UserError(f"task.template={config.task.template!r} must name {{text}}, and nothing else.")

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """The labels. Chooses the demonstrations. Raises UserError where training has fewer, or two share a word."""
        labels = super().collect(splits)
        keys = self.config.task
        unknown = sorted({*keys.verbalizer} - {*labels})
        if unknown:
            raise UserError(f"task.verbalizer names {', '.join(unknown)}, but the labels are {', '.join(labels)}.")
        words = [keys.verbalizer.get(label, label) for label in labels]
        if twice := [word for word in words if words.count(word) > 1]:
            raise UserError(f"task.verbalizer: '{twice[0]}' is the word of two labels; each needs one of its own.")
        train = next((split for split in splits if split.name == "train"), None)
        count = 0 if train is None else len(train.rows)
        if count < keys.demonstrations:
            raise UserError(f"task.demonstrations={keys.demonstrations}: there are {count} training examples.")
        if train is not None:
            golds = [str(label) for label in gold_labels(train)]
            chosen = sampled(count, golds, keys.demonstrations, self.config.seed)
            order = np.random.default_rng([self.config.seed, 0xC0]).permutation(chosen)
            self.shown = [[train.rows[int(i)]["text"], golds[int(i)]] for i in order]
        return labels

    def encode(self, rows: Columns) -> Columns:
        words = [self.config.task.verbalizer.get(label, label) for label in self.labels]
        answers = [self.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
        limit = self.config.data.max_length - max(map(len, answers))
        prompt, shorten = self._prompt(), partial(shortened, self.tokenizer, way=self.long_texts)
        columns: Columns = {name: [] for name in ("input_ids", "next", "windows", "cut")}
        for text in rows["text"]:
            read = prompt.fitted({"text": text}, limit, lambda text: len(self._ids(text)), shorten)
            ids = self._ids(read)
            columns["input_ids"].append([token for answer in answers for token in [*ids, *answer[:-1]]])
            columns["next"].append([n for answer in answers for n in [*[NO_TARGET] * (len(ids) - 1), *answer]])
            columns["windows"].append([len(ids) + len(answer) - 1 for answer in answers])
            columns["cut"].append(read != prompt.render({"text": text}))
        return {**columns, **self.targets(rows, columns["windows"])}

    def _prompt(self) -> Template:
        """The demonstrations, then the template."""
        keys = self.config.task
        shown = [
            f"{self.template.render({'text': text})} {keys.verbalizer.get(label, label)}{keys.separator}"
            for text, label in self.shown
        ]
        return Template("".join(shown).replace("{", "{{").replace("}", "}}") + keys.template)

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        return found


class Module(CalibratedModule):
    auto_classes = {DECODER: AutoModelForCausalLM}
    exports_programs = False

    def __init__(self, config: Config, backbone: Any, data: Any, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        if total_steps:
            raise UserError(
                "task 'in_context' trains nothing: set optim.max_steps=0; task 'generation' fine-tunes a decoder."
            )

    def label_scores(self, micro: MicroBatch) -> Tensor:
        words = micro.tokens["next"]
        asked = (words >= 0).nonzero().squeeze(1)  # (K,)
        _, nll = self.backbone.vocabulary_losses(micro, asked, words[asked])  # (K,)
        lengths = torch.from_numpy(micro.lengths).to(nll.device)
        mine = torch.repeat_interleave(torch.arange(len(lengths), device=nll.device), lengths)[asked]
        scores = nll.new_zeros(len(lengths)).index_add(0, mine, -nll)  # (N,)
        if self.config.task.normalize:
            scores = scores / torch.bincount(mine, minlength=len(lengths))
        return scores.view(-1, len(self.data.labels))
