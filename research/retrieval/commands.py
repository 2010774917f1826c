"""`research index` and `research search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from research.common.errors import UserError
from research.data.opening import open_split
from research.inference.outputs import writer_of
from research.retrieval.encoder import TextEncoder
from research.retrieval.index import Index, make_index, open_corpus, refuse_place, search
from research.tracking.run import Run


def index_corpus(
    run: Run,
    source: str,
    output: str,
    kind: str,
    column: str | None = None,
    size: int | None = None,
    trust_remote_code: bool = False,
) -> Index:
    """Write the index of a corpus; `column` holds the documents, by default `document` or `text`; `size`: of the first
    numbers of each vector alone."""
    refuse_place(Path(output), kind)
    encoder = TextEncoder(run, trust_remote_code)
    return make_index(encoder, open_corpus(source, column), Path(output), kind, size)


def search_index(
    run: Run,
    folder: str,
    queries: Sequence[str],
    source: str | None,
    count: int,
    output: str,
    trust_remote_code: bool = False,
) -> int:
    """Write a row for each query: its id, the query, and the best documents. Returns how many queries there were."""
    writer = writer_of(output, (), False)
    index = Index(Path(folder))
    index.refuse_another_model(run)
    ids, texts = asked(queries, source)
    found = search(TextEncoder(run, trust_remote_code), index, texts, count)
    rows: list[dict[str, Any]] = [
        {"id": name, "query": text, "results": results} for name, text, results in zip(ids, texts, found, strict=True)
    ]
    writer(pa.Table.from_pylist(rows))
    return len(rows)


def asked(queries: Sequence[str], source: str | None) -> tuple[list[str], list[str]]:
    """Ids and texts of the queries, of the command line or of a file's column `query`.

    Raises UserError for none, for both, and for an empty one.
    """
    if bool(queries) is (source is not None):
        raise UserError("give queries on the command line, or a file of them by --input, one of them")
    if source is None:
        if not all(text.strip() for text in queries):
            raise UserError("a query is empty")
        return [f"query-{i}" for i in range(len(queries))], list(queries)
    split = open_split(
        name="query", value=source, hub_name=None, hub_config=None, hub_revision=None, fields={"query": "query"},
    )  # fmt: skip
    for row, text in enumerate(split.rows["query"]):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{split.where(row)}: the query is empty or no text.")
    return split.rows["id"][:], split.rows["query"][:]
