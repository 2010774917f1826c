"""Matching of queries and documents by one encoder: semantic search, question retrieval, paraphrases.

Each text becomes a vector, and a query's documents are ranked by cosine. The loss is that of in-batch negatives (van
den Oord et al. 2018, Henderson et al. 2017): the softmax of a query over the documents of the whole step, on all ranks
and micro-batches (Gao et al. 2021), and of a document over the queries where it is symmetric. A document that occurs
twice in a step is no negative of itself. `negatives` of a row are further documents of the step.

An evaluation ranks all documents of the split for each query; its loss is the mean cosine distance of the pairs.

Shapes: T tokens, N sequences, W width of the model, B queries of a step, D documents of a step.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel

from research.batching.pack import MicroBatch, Stream
from research.batching.plan import Indices
from research.batching.read_tokens import ALL, FIRST
from research.common.errors import UserError
from research.config.component import above, key
from research.config.key import Rule
from research.config.schema import Config
from research.data.source import Split
from research.models.pooling import pooled
from research.training.datamodule import Columns, TaskData
from research.training.module import TaskModule

BEST = 10  # documents that a prediction lists
QUERY, DOCUMENT = "query", "document"
LEAST_TEMPERATURE = 0.01  # Radford et al. 2021
TEMPERATURE_RATE = 100.0  # learning rate of the temperature's logarithm, in that of the schedule
SIZES = Rule(lambda v: all(size >= 1 for size in v), "must be sizes of at least 1")


@dataclass
class Keys:
    pooling: Literal["mean", "first"] = key("mean", "a text's vector: the mean over its tokens, or its first token's")
    temperature: float = key(0.05, "cosines are divided by it", above(0))
    learn_temperature: bool = key(False, "the temperature is learned too, from `temperature` on; it stays above 0.01")
    query_prefix: str = key("", "put before each query, as in `query: `, so that one encoder serves both sides")
    document_prefix: str = key("", "put before each document, as in `passage: `")
    symmetric: bool = key(True, "documents choose among queries too")
    dimensions: list[int] = key(
        [], "the loss is the mean over these first parts of the vectors too (Matryoshka, Kusupati et al. 2022)", SIZES
    )


class Data(TaskData):
    fields = {"query": "query", "document": "document", "negatives": "negatives"}
    optional: ClassVar[tuple[str, ...]] = ("negatives",)
    gold: ClassVar[tuple[str, ...]] = ()
    free: ClassVar[tuple[str, ...]] = ("document",)  # `prepared` says what a missing one means
    texts: ClassVar[tuple[str, ...]] = ("query", "document")
    text_lists: ClassVar[tuple[str, ...]] = ("negatives",)
    token_columns = ("query.input_ids", "query.token_type_ids", "document.input_ids", "document.token_type_ids")
    window_columns = ("query.key", "document.key")
    metric = "retrieval"
    class_column = None
    head = ()
    learned_names: ClassVar[tuple[str, ...]] = ()
    answers_alone = False  # documents are ranked among those of the file

    def collect(self, splits: Sequence[Split]) -> list[str]:
        """No labels."""
        return []

    def prepared(self, split: Split) -> Split:
        """Raises UserError for an empty query, and for one without a document."""
        for row, (query, document) in enumerate(zip(split.rows["query"], split.rows["document"], strict=True)):
            if not query.strip():
                raise UserError(f"{split.where(row)}: the query is empty; fill it in or drop the row.")
            if not (document or "").strip():
                raise UserError(
                    f"{split.where(row)}: the query has no relevant document; give it one in 'document', or take the "
                    "row out."
                )
        return split

    def encode(self, rows: Columns) -> Columns:
        negatives = rows.get("negatives") or [None] * len(rows["query"])
        documents = [[text, *(more or ())] for text, more in zip(rows["document"], negatives, strict=True)]
        queries = self.encoded_texts(QUERY, [[text] for text in rows["query"]])
        columns = {**queries, **self.encoded_texts(DOCUMENT, documents)}
        columns["cut"] = [a or b for a, b in zip(queries["cut"], columns["cut"], strict=True)]
        return {**columns, "targets": [1.0] * len(documents)}

    def encoded_texts(self, stream: str, lists: Sequence[Sequence[str]]) -> Columns:
        """The columns of a stream, each row several texts that are sequences of their own; `cut`: is any cut?"""
        prefix, columns = getattr(self.config.task, f"{stream}_prefix"), dict[str, list[Any]](cut=[])
        for texts in lists:
            tokens = self.tokenizer(
                [prefix + text for text in texts],
                truncation=True,
                max_length=self.config.data.max_length,
                return_attention_mask=False,
            )
            for name in ("input_ids", "token_type_ids"):
                if name in tokens:
                    columns.setdefault(f"{stream}.{name}", []).append(list(chain.from_iterable(tokens[name])))
            columns.setdefault(f"{stream}.windows", []).append([len(ids) for ids in tokens["input_ids"]])
            columns.setdefault(f"{stream}.key", []).append([text_key(text) for text in texts])
            columns["cut"].append(any(encoding.overflowing for encoding in tokens.encodings))
        return columns

    def score_settings(self) -> dict[str, Any]:
        sizes = list(self.config.task.dimensions)
        return {**super().score_settings(), **({"dimensions": sizes} if sizes else {})}

    def table(self, split: Split, predictions: dict[int, dict[str, Any]]) -> Columns:
        """All distinct documents of the split ranked for each row; a document is named by the id of its first row."""
        found = [predictions[i] for i in range(len(split.rows))]
        texts, ids = split.rows["query"][:], split.rows["id"][:]
        own = [text_key(text) for text in split.rows["document"]]
        first: dict[int, int] = {}
        for i, document in enumerate(own):
            first.setdefault(document, i)
        place = {document: d for d, document in enumerate(first)}
        documents = np.stack([found[i][DOCUMENT] for i in first.values()])  # (D, W)
        names = [ids[i] for i in first.values()]
        relevant: dict[str, set[int]] = {}
        for text, document in zip(texts, own, strict=True):
            relevant.setdefault(text, set()).add(place[document])
        repeats = Counter(texts)
        parts = {f"ranks_{size}": beginnings(documents, size) for size in self.config.task.dimensions}
        columns: Columns = {name: [] for name in ("gold", "prediction", "ranks", "repeats", "similarity", *parts)}
        for i, text in enumerate(texts):
            similarity = documents @ found[i][QUERY]  # (D,)
            mine = sorted(relevant[text])
            columns["gold"].append([names[d] for d in mine])
            columns["prediction"].append([names[d] for d in np.argsort(-similarity, kind="stable")[:BEST]])
            columns["ranks"].append(ranks_of(similarity, mine))
            for name, shorter in parts.items():
                columns[name].append(ranks_of(shorter @ found[i][QUERY][: shorter.shape[1]], mine))
            columns["repeats"].append(repeats[text])
            columns["similarity"].append(float(similarity[place[own[i]]]))
        return columns


def beginnings(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The first numbers of vectors of length 1, of length 1 again: (N, W) -> (N, size)."""
    if size == vectors.shape[1]:
        return vectors
    first = vectors[:, :size]
    found: NDArray[np.float32] = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), np.float32(1e-12))
    return found


def ranks_of(similarity: NDArray[np.float32], documents: Sequence[int]) -> list[int]:
    """The places, from 1, of some of the documents among all, ascending; similarity (D,)."""
    order = np.argsort(-similarity, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return sorted(rank[list(documents)].tolist())


def text_key(text: str) -> int:
    """A number that texts share only where they are equal."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


class Module(TaskModule):
    auto_class = AutoModel
    monitor = "mrr"

    def __init__(self, config: Config, backbone: Any, data: Data, total_steps: int) -> None:
        super().__init__(config, backbone, data, total_steps)
        width = backbone.model.config.hidden_size
        if any(size > width for size in config.task.dimensions):
            raise UserError(f"task.dimensions={config.task.dimensions}: the vectors of the model have {width} numbers.")
        if config.optim.label_smoothing:
            raise UserError(f"task '{config.task.name}' has no classes for optim.label_smoothing; remove the key.")
        if config.task.learn_temperature:  # a weight of the model, so that checkpoints hold it
            start = torch.tensor(math.log(config.task.temperature))
            backbone.model.register_parameter("log_temperature", torch.nn.Parameter(start))

    @property
    def temperature(self) -> Tensor | float:
        """What cosines are divided by."""
        if not self.config.task.learn_temperature:
            return float(self.config.task.temperature)
        model: Any = self.backbone.model
        learned: Tensor = model.log_temperature
        return learned.exp().clamp(min=LEAST_TEMPERATURE)

    def rate_factor(self, name: str) -> float:
        return super().rate_factor(name) * (TEMPERATURE_RATE if name.endswith("log_temperature") else 1.0)

    def notes(self) -> dict[str, Any]:
        learned = self.temperature
        return {"temperature": learned.item()} if isinstance(learned, Tensor) else {}

    def vectors(self, stream: Stream) -> Tensor:
        """(N, W), of any length."""
        pooling = self.config.task.pooling
        hidden = self.backbone.hidden_states(stream, FIRST if pooling == "first" else ALL)
        return pooled(hidden, stream, pooling)

    def embed(self, micro: MicroBatch) -> dict[str, tuple[Tensor, Indices]]:
        return {name: (self.vectors(micro.streams[name]), micro.streams[name].examples) for name in (QUERY, DOCUMENT)}

    def step_loss(self, vectors: dict[str, Tensor], examples: dict[str, Indices]) -> Tensor:
        rows = examples[QUERY]
        store = self.data.stores["train"]
        documents = np.concatenate(store.columns["document.key"].rows(rows))  # (D,)
        queries = np.concatenate(store.columns["query.key"].rows(rows))  # (B,)
        positive = np.searchsorted(examples[DOCUMENT], rows)  # (B,) the first document of each row
        same_query = queries[:, None] == queries  # (B, B)
        mine = documents[positive][:, None] == documents  # (B, D) the query's own document, or a copy of it
        shared = (same_query[:, :, None] & (documents[positive][None, :, None] == documents)).any(1)
        relevant = torch.from_numpy(mine | shared).to(vectors[QUERY].device)
        place = torch.from_numpy(positive).to(relevant.device)
        sizes = [*self.config.task.dimensions, vectors[QUERY].shape[1]]
        losses = [self._of_size(vectors, size, relevant, place) for size in dict.fromkeys(sizes)]
        return torch.stack(losses).mean()

    def _of_size(self, vectors: dict[str, Tensor], size: int, relevant: Tensor, place: Tensor) -> Tensor:
        """The summed loss of the first `size` numbers; relevant (B, D): no negatives; place (B,) of the positives."""
        query, document = (F.normalize(vectors[name][:, :size], dim=1) for name in (QUERY, DOCUMENT))
        scores = query @ document.T / self.temperature  # (B, D)
        hidden = relevant.clone()
        hidden[torch.arange(len(place)), place] = False
        scores = scores.masked_fill(hidden, -torch.inf)
        loss = F.cross_entropy(scores, place, reduction="sum")
        if not self.config.task.symmetric:
            return loss
        back = F.cross_entropy(scores[:, place].T, torch.arange(len(place), device=place.device), reduction="sum")
        return (loss + back) / 2

    def outputs(self, micro: MicroBatch) -> dict[str, Tensor]:
        """Vectors of length 1 by stream, (N, W); a row's own document, without its negatives."""
        found = {}
        for name, (vectors, examples) in self.embed(micro).items():
            first = np.unique(examples, return_index=True)[1]
            order = np.argsort(examples[np.sort(first)], kind="stable")
            chosen = np.sort(first)[order]
            found[name] = F.normalize(vectors[torch.from_numpy(chosen).to(vectors.device)], dim=1)
        return found

    def loss(self, micro: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.outputs(micro)
        return (1 - (found[QUERY] * found[DOCUMENT]).sum(dim=1)).sum(), found

    def decode(self, micro: MicroBatch, outputs: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
        rows = np.unique(micro.streams[QUERY].examples).tolist()
        both = {name: vectors.cpu().numpy() for name, vectors in outputs.items()}
        return {row: {name: vectors[i] for name, vectors in both.items()} for i, row in enumerate(rows)}
