"""Few-shot classification by a sentence encoder: pairs of texts are drawn together or apart, then a linear head is fit.

Tunstall et al. 2022, Efficient Few-Shot Learning Without Prompts (SetFit). A training example is a pair of texts, whose
cosine is to be 1 where they share their label and 0 where not (squared error); `optim.batch_size` counts pairs, and an
epoch is all of them. At each evaluation the head is fit on the vectors of the training texts by logistic regression, a
function of the encoder's weights alone. `task.iterations: R` draws R pairs of each kind for each text, as the paper
does; by default all pairs are taken, those of the rarer kind several times, as `setfit` 1.x does.

Shapes: N sequences, W width, E examples, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from research.batching.pack import MicroBatch, pack
from research.batching.plan import micro_batches
from research.batching.store import NO_TARGET, Store
from research.common.errors import UserError
from research.config.key import at_least, key
from research.config.schema import Config
from research.data.long_texts import HEAD_TAIL, TRUNCATE
from research.data.source import Split
from research.methods.hooks import MethodHooks
from research.models.pooling import pooled
from research.models.sentence_head import HEAD, SentenceEncoder, give_head, logistic_regression
from research.tasks.classification import Data as Classification
from research.tasks.classification import Module as ClassificationModule

MOST_PAIRS = 2_000_000


@dataclass
class Keys:
    iterations: int | None = key(
        None, "pairs of each kind for each text; null: all pairs, both kinds alike", at_least(1)
    )
    pooling: Literal["mean", "first"] = key("mean", "a text's vector: the mean over its tokens, or its first token's")


class Data(Classification):
    long = (TRUNCATE, HEAD_TAIL)
    head = ()

    def __init__(self, config: Config, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        self.trains = False
        self.training_texts: Store | None = None  # what the head is fit on

    def open(self, learned: Mapping[str, Any] | None = None, only: str | None = None) -> None:
        self.trains = learned is None
        super().open(learned, only)

    def make_store(self, split: Split) -> Store:
        texts = super().make_store(split)
        if split.name != "train" or not self.trains:
            return texts
        self.training_texts = texts
        labels = np.concatenate(texts.columns["label"].rows(np.arange(len(texts))))
        return paired(texts, *pairs_of(labels, self.config.task.iterations, self.config.data.split_seed))


def pairs_of(labels: NDArray[Any], iterations: int | None, seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs of texts, (P, 2), and whether they share their label, as many that do as do not."""
    rng, count = np.random.default_rng([seed, 0x5E7F]), len(labels)
    if len(set(labels.tolist())) < 2:
        raise UserError("task 'setfit' needs two labels or more among the training examples.")
    if iterations is None:
        if count * (count + 1) // 2 > MOST_PAIRS:
            raise UserError(f"{count} training texts make {count * (count + 1) // 2:,} pairs: set task.iterations=20.")
        first, second = np.triu_indices(count)
    else:
        first = np.repeat(np.arange(count), 2 * iterations)
        members = {label: np.flatnonzero(labels == label) for label in set(labels.tolist())}
        others = {label: np.flatnonzero(labels != label) for label in members}
        pools = [(members if place % 2 else others)[labels[text]] for place, text in enumerate(first)]
        second = np.array([pool[rng.integers(len(pool))] for pool in pools])
    alike = labels[first] == labels[second]
    kinds = [rng.permutation(np.flatnonzero(alike)), rng.permutation(np.flatnonzero(~alike))]
    size = max(map(len, kinds))
    chosen = np.stack([np.resize(kind, size) for kind in kinds], axis=1).ravel()
    return np.stack([first[chosen], second[chosen]], axis=1), alike[chosen]


def paired(texts: Store, pairs: NDArray[np.int64], alike: NDArray[np.bool_]) -> Store:
    """Each pair as one example of two sequences; its label is 1 where the texts share theirs."""
    whole = {name: column.rows(np.arange(len(texts))) for name, column in texts.streams["input"].tokens.items()}
    lengths = [len(ids) for ids in whole["input_ids"]]
    table: dict[str, Any] = {
        name: [np.concatenate([rows[a], rows[b]]) for a, b in pairs.tolist()] for name, rows in whole.items()
    }
    table |= {
        "windows": [[lengths[a], lengths[b]] for a, b in pairs.tolist()],
        "label": [[int(same), NO_TARGET] for same in alike.tolist()],
        "targets": np.ones(len(pairs)),
    }
    return Store(pa.table({name: pa.array(values) for name, values in table.items()}), list(whole), ("label",))


class Module(ClassificationModule):
    auto_class = SentenceEncoder
    exports_programs = False

    def __init__(self, config: Config, backbone: Any, data: Any, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        optim = config.optim
        if optim.label_smoothing or optim.class_weights or optim.balance_classes:
            raise UserError(
                "task 'setfit' learns from pairs: optim.label_smoothing, class_weights and balance_classes do nothing."
            )
        for name, method in self.methods.items():
            if type(method).loss is not MethodHooks.loss or method.needs_whole_step:
                raise UserError(f"methods.{name} does not go with task 'setfit', which learns from pairs of texts.")
        model, classes = backbone.model, len(data.labels)
        model.config.id2label = dict(enumerate(data.labels))
        model.config.label2id = {label: i for i, label in enumerate(data.labels)}
        head = getattr(model, HEAD, None)
        if head is None or head.out_features != classes:
            give_head(model, torch.zeros(classes, model.config.hidden_size), torch.zeros(classes))

    def vectors(self, micro: MicroBatch) -> Tensor:
        """(N, W)."""
        return pooled(self.backbone.hidden_states(micro.first), micro.first, self.config.task.pooling)

    def outputs(self, micro: MicroBatch) -> Tensor:
        """Logits (E, C)."""
        head: Any = getattr(self.backbone.model, HEAD)
        return F.linear(self.vectors(micro).float(), head.weight, head.bias)

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        labels = micro.sequences["label"]
        if len(labels) == len(np.unique(micro.examples)):
            return super().loss(micro)
        first, second = self.vectors(micro).view(len(labels) // 2, 2, -1).unbind(1)
        cosines = F.cosine_similarity(first, second)
        return (cosines - labels[labels >= 0]).square().sum(), cosines

    def evaluating(self) -> ExitStack:
        stack = super().evaluating()
        data: Any = self.data
        if data.training_texts is not None:
            self.fit_head(data.training_texts)
        return stack

    @torch.no_grad()
    def fit_head(self, texts: Store) -> None:
        """Fit the head on the vectors of these texts."""
        training, rows, found = self.training, np.arange(len(texts)), []
        self.eval()
        for part in micro_batches(rows, texts.stream_tokens, self.budget_tokens, not self.backbone.packed):
            found.append((part, self.vectors(pack(texts, part, self.backbone.packed).to(self.device))))
        self.train(training)
        order = np.argsort(np.concatenate([part for part, _ in found]))
        vectors = torch.cat([each for _, each in found])[torch.from_numpy(order).to(self.device)]
        labels = torch.from_numpy(np.concatenate(texts.columns["label"].rows(rows)).astype(np.int64))
        head: Any = getattr(self.backbone.model, HEAD)
        weight, bias = logistic_regression(vectors, labels, head.out_features)
        head.weight.copy_(weight)
        head.bias.copy_(bias)
