"""Zero-shot classification by natural language inference: does the text entail "This example is <label>."?

Yin et al. 2019, Benchmarking Zero-shot Text Classification. Each label is a hypothesis, and its logit is that of
entailment; the probabilities are their softmax over the labels. `model.name` is a run, or any model, that was trained
on pairs with a label named entailment. `optim.max_steps: 0` evaluates it as it is; training keeps the same head.

Shapes: N pairs, E examples, C labels, R labels of the inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import AutoConfig

from research.batching.pack import MicroBatch
from research.common.errors import UserError
from research.config.key import key
from research.config.schema import Config
from research.data.long_texts import TRUNCATE, encoded_texts
from research.data.prompt import Template
from research.data.source import Split
from research.tasks.calibrated import CalibratedModule
from research.tasks.classification import Data as Classification
from research.training.datamodule import Columns

ENTAILMENT = "entailment"


@dataclass
class Keys:
    hypothesis: str = key("This example is {label}.", "what each label says of a text, with {label} in it")
    descriptions: dict[str, str] = key(
        {}, "label: what the hypothesis says for it; else data.label_descriptions, or its own name"
    )
    calibrate: bool = key(False, "divide the probabilities in evaluation by those for texts without content")


class Data(Classification):
    fields = {"text": "text", "label": "label"}
    optional = ()
    texts = ("text",)
    long = (TRUNCATE,)

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        self.template = Template(config.task.hypothesis, "task.hypothesis")
        if self.template.names != ["label"]:
            raise UserError(f"task.hypothesis={config.task.hypothesis!r} must name {{label}}, and nothing else.")
        source = {"revision": config.model.revision, "trust_remote_code": config.model.trust_remote_code}
        names = AutoConfig.from_pretrained(config.model.name, **source).id2label
        self.inference = [names[i] for i in sorted(names)]
        found = [i for i, name in enumerate(self.inference) if name.lower() == ENTAILMENT]
        if len(found) != 1:
            raise UserError(
                f"{config.model.name} has no label 'entailment' among {', '.join(self.inference)}; name a model of "
                "natural language inference, such as a run of task 'classification' on pairs."
            )
        self.entailment = found[0]

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """Raises UserError for a description of a label that there is not."""
        labels = super().collect(splits)
        if unknown := [label for label in self.config.task.descriptions if label not in labels]:
            raise UserError(f"'{unknown[0]}' has a description and is no label; the labels are {', '.join(labels)}.")
        return labels

    @property
    def head(self) -> Sequence[str]:
        """Those of the inference, which the model was trained for."""
        return self.inference

    def encode(self, rows: Columns) -> Columns:
        said = {**self.descriptions, **self.config.task.descriptions}
        stated = [self.template.render({"label": said.get(each, each)}) for each in self.labels]
        count = len(self.labels)
        texts = [text for text in rows["text"] for _ in stated]
        pairs: Columns = encoded_texts(
            self.tokenizer, texts, stated * len(rows["text"]), self.config.data.max_length, TRUNCATE
        )
        columns: Columns = {"windows": [], "cut": []}
        for i in range(0, len(texts), count):
            for name in ("input_ids", "token_type_ids"):
                if name in pairs:
                    joined = [token for each in pairs[name][i : i + count] for token in each]
                    columns.setdefault(name, []).append(joined)
            columns["windows"].append([length for each in pairs["windows"][i : i + count] for length in each])
            columns["cut"].append(any(pairs["cut"][i : i + count]))
        return {**columns, **self.targets(rows, columns["windows"])}


class Module(CalibratedModule):
    def label_scores(self, micro: MicroBatch) -> Tensor:
        data: Any = self.data
        logits = self.backbone.sequence_logits(micro)  # (N, R)
        return logits[:, data.entailment].view(-1, len(data.labels))
