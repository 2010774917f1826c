"""Hard negatives and candidate lists: the documents that a run ranks highest for each query of a file.

Documents that are probably relevant, though no row says so, are no negatives: those whose cosine comes near the
positive's own (`share`; TopK-PercPos of Moreira et al. 2024), and those that are a relevant text in another writing.

Shapes: Q queries, D documents, W width.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from research.common.errors import UserError
from research.common.files import write_atomically, write_json
from research.data.opening import open_split
from research.data.source import Split
from research.retrieval.best import best
from research.retrieval.encoder import TextEncoder, fingerprint
from research.retrieval.index import open_corpus
from research.tracking.run import Run


@dataclass(frozen=True)
class Asked:
    """How negatives are chosen."""

    negatives: int = 4  # of each row
    share: float = 0.95  # of the positive's cosine, which a negative's must stay below
    skip: int = 0  # so many of the highest are left out


def read_pairs(source: str) -> Split:
    """Rows of `query` and `document`. Raises UserError for a query without a document."""
    split = open_split(
        name="rows", value=source, hub_name=None, hub_config=None, hub_revision=None,
        fields={"query": "query", "document": "document"}, free=("query", "document"),
    )  # fmt: skip
    for row, (query, document) in enumerate(zip(split.rows["query"], split.rows["document"], strict=True)):
        if not isinstance(query, str) or not query.strip():
            raise UserError(f"{split.where(row)}: the query is empty or no text.")
        if not isinstance(document, str) or not document.strip():
            raise UserError(f"{split.where(row)}: the query has no relevant document.")
    return split


class Mined:
    """The rows of a file, the distinct documents to choose from, and how similar they are."""

    def __init__(self, encoder: TextEncoder, pairs: Split, corpus: Split | None = None) -> None:
        self.run = encoder.run
        self.ids, self.queries, own = (pairs.rows[name][:] for name in ("id", "query", "document"))
        more = corpus.rows["document"][:] if corpus is not None else []
        self.documents = list(dict.fromkeys([*own, *more]))
        place = {document: d for d, document in enumerate(self.documents)}
        self.own = [place[document] for document in own]
        self.relevant: dict[str, set[int]] = {}
        for query, d in zip(self.queries, self.own, strict=True):
            self.relevant.setdefault(query, set()).add(d)
        self.vectors = encoder.vectors(self.documents, "document")  # (D, W)
        self.of_queries = encoder.vectors(self.queries, "query")  # (Q, W)
        self.plain = [" ".join(text.split()).casefold() for text in self.documents]
        self.filtered = 0  # documents that were taken for relevant ones

    def negatives(self, asked: Asked) -> list[dict[str, Any]]:
        """A row for each of the file: `query`, `document`, `negatives` and their cosines."""
        most = max(map(len, self.relevant.values()))
        depth = 4 * (asked.negatives + asked.skip) + most + 16
        scores, places = best(self.of_queries, self.vectors, depth)
        rows = []
        for i, (query, d) in enumerate(zip(self.queries, self.own, strict=True)):
            relevant, positive = self.relevant[query], float(self.of_queries[i] @ self.vectors[d])
            texts = {self.plain[each] for each in relevant}
            others = [
                (float(score), int(at))
                for score, at in zip(scores[i], places[i], strict=True)
                if at not in relevant and self.plain[at] not in texts
            ][asked.skip :]
            kept = [(score, at) for score, at in others if score < asked.share * positive]
            self.filtered += len(others) - len(kept)
            kept = kept[: asked.negatives]
            rows.append({
                "id": self.ids[i], "query": query, "document": self.documents[d],
                "negatives": [self.documents[at] for _, at in kept],
                "similarity": positive, "negative_similarities": [score for score, _ in kept],
            })  # fmt: skip
        return rows

    def lists(self, count: int) -> list[dict[str, Any]]:
        """A row for each distinct query: its `documents` to rerank, which are `relevant`, and how many are `missed`."""
        first = {query: i for i, query in reversed(list(enumerate(self.queries)))}
        chosen = [first[query] for query in self.relevant]
        scores, places = best(self.of_queries[chosen], self.vectors, count)
        rows = []
        for i, mine, at in zip(chosen, scores.tolist(), places.tolist(), strict=True):
            relevant = self.relevant[self.queries[i]]
            rows.append({
                "id": self.ids[i], "query": self.queries[i], "documents": [self.documents[d] for d in at],
                "relevant": [int(d in relevant) for d in at], "missed": len(relevant - set(at)), "similarities": mine,
            })  # fmt: skip
        return rows


def mine(
    run: Run,
    source: str,
    output: str,
    asked: Asked,
    lists: int | None = None,
    corpus: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Write negatives of each row, or `lists` of so many candidates of each query, and their provenance beside them."""
    path = Path(output)
    if path.suffix != ".jsonl":
        raise UserError(f"--output {output}: its suffix must be .jsonl.")
    pairs = read_pairs(source)
    more = open_corpus(corpus) if corpus else None
    found = Mined(TextEncoder(run, trust_remote_code), pairs, more)
    rows = found.negatives(asked) if lists is None else found.lists(lists)
    about = {
        "run": str(run.path), "model": fingerprint(run), "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "input": {"path": pairs.origin, "sha256": pairs.fingerprint},
        "corpus": {"path": more.origin, "sha256": more.fingerprint} if more else None,
        "documents": len(found.documents), "rows": len(rows), **summary_of(rows, found, asked, lists),
    }  # fmt: skip
    with write_atomically(path) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    write_json(provenance_path(path), about)
    return about


def provenance_path(path: Path) -> Path:
    """`mined.jsonl` -> `mined.provenance.json`."""
    return path.with_suffix(".provenance.json")


def summary_of(rows: Sequence[dict[str, Any]], found: Mined, asked: Asked, lists: int | None) -> dict[str, Any]:
    if lists is not None:
        return {"candidates": lists, "missed": sum(row["missed"] for row in rows)}
    counts = [len(row["negatives"]) for row in rows]
    return {"settings": asdict(asked), "negatives": sum(counts), "filtered": found.filtered,
            "rows_with_fewer": sum(count < asked.negatives for count in counts)}  # fmt: skip
