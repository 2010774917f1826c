"""An index of a corpus on disk: a vector for each document, the documents, and of which model the vectors are.

The folder holds `index.json`, `vectors.npy` (float32, of length 1), `documents.arrow`, and `graph.faiss` where the
index is an approximate one.

Shapes: Q queries, D documents, W width, K best.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from research.common.errors import UserError
from research.common.files import read_json, replace_folder, write_json
from research.data.opening import open_split
from research.data.source import Split
from research.retrieval.best import Places, best
from research.retrieval.encoder import AT_ONCE, TextEncoder, Vectors, fingerprint
from research.tasks.matching import beginnings
from research.tracking.run import Run

EXACT, GRAPH = KINDS = ("exact", "hnsw")
# of the graph (Malkov & Yashunin 2020): M, efConstruction, efSearch
LINKS, BUILD_BREADTH, SEARCH_BREADTH = 32, 200, 128


@dataclass(frozen=True)
class About:
    """What `index.json` says."""

    model: str  # the fingerprint of the run's model
    run: str
    kind: str
    documents: int
    width: int
    corpus: str
    corpus_sha256: str
    made: str


class Index:
    """An index that was written before."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError for a folder that is no index, or a damaged one."""
        content = read_json(folder / "index.json")
        if content is None:
            raise UserError(f"{folder} is no index: it has no index.json; make one with research index.")
        self.folder = folder
        try:
            self.about = About(**content)
            self.vectors: Vectors = np.load(folder / "vectors.npy", mmap_mode="r")  # (D, W)
            self.documents = pa.ipc.open_file(pa.memory_map(str(folder / "documents.arrow"))).read_all()
        except (TypeError, ValueError, OSError, pa.ArrowInvalid) as error:
            raise UserError(f"The index {folder} is damaged ({error}); make it again with research index.") from None
        if not len(self.vectors) == len(self.documents) == self.about.documents:
            raise UserError(f"The index {folder} is damaged: its files are of different lengths; make it again.")
        self.graph = read_graph(folder) if self.about.kind == GRAPH else None

    def refuse_another_model(self, run: Run) -> None:
        """Raise UserError unless the vectors are those of this run's model."""
        if self.about.model != fingerprint(run):
            raise UserError(
                f"The index {self.folder} is of another model (that of {self.about.run}), whose vectors those of "
                f"{run.path} cannot be compared with; make one: research index {run.path} --input "
                f"{self.about.corpus} --output DIR"
            )

    def best(self, queries: Vectors, count: int) -> tuple[Vectors, Places]:
        """Scores and places of the best documents of each query, (Q, K) each; a place of -1: the graph found fewer."""
        if self.graph is None:
            return best(queries, self.vectors, count)
        self.graph.hnsw.efSearch = max(SEARCH_BREADTH, 2 * count)
        return cast(tuple[Vectors, Places], self.graph.search(queries, min(count, self.about.documents)))


def open_corpus(source: str, own_column: str | None = None) -> Split:
    """Documents from a file: `own_column`, or else `document` or `text`. Raises UserError for an empty one."""
    for column in [own_column] if own_column else ["document", "text"]:
        try:
            split = open_split(
                name="corpus", value=source, hub_name=None, hub_config=None, hub_revision=None,
                fields={"document": column},
            )  # fmt: skip
            break
        except UserError as error:
            if column == "text" or own_column or "no column" not in str(error):
                raise
    for row, text in enumerate(split.rows["document"]):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{split.where(row)}: the document is empty or no text.")
    return split


def refuse_place(folder: Path, kind: str) -> None:
    """Raise UserError for a folder that holds something else, an unknown kind, and one whose library is missing."""
    if kind not in KINDS:
        raise UserError(f"kind '{kind}' must be one of {', '.join(KINDS)}.")
    if folder.exists() and not (folder / "index.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something that is no index; name another folder.")
    if kind == GRAPH:
        faiss()


def make_index(encoder: TextEncoder, corpus: Split, folder: Path, kind: str = EXACT, size: int | None = None) -> Index:
    """Encode a corpus and write its index, completely or not at all; `size`: the first numbers of each vector alone.

    Raises UserError for a size that the run was not trained for.
    """
    encoder.refuse_size(size)
    names = [name for name in corpus.rows.column_names if name != "__line__"]
    about = About(
        model=fingerprint(encoder.run), run=str(encoder.run.path), kind=kind, documents=len(corpus.rows),
        width=size or encoder.width, corpus=corpus.origin, corpus_sha256=corpus.fingerprint,
        made=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )  # fmt: skip

    def fill(new: Path) -> None:
        vectors = np.lib.format.open_memmap(
            new / "vectors.npy", mode="w+", dtype=np.float32, shape=(about.documents, about.width)
        )
        for start in range(0, about.documents, AT_ONCE):
            texts = corpus.rows[start : start + AT_ONCE]["document"]
            vectors[start : start + AT_ONCE] = beginnings(encoder.vectors(texts, "document"), about.width)
        vectors.flush()
        if kind == GRAPH:
            write_graph(vectors, new)
        table = corpus.rows.select_columns(names).with_format("arrow")[:]
        with pa.OSFile(str(new / "documents.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        write_json(new / "index.json", asdict(about))

    replace_folder(folder, fill)
    return Index(folder)


def search(encoder: TextEncoder, index: Index, queries: Sequence[str], count: int) -> list[list[dict[str, Any]]]:
    """The best documents of each query, the best first: `score`, the cosine, and the document's columns.

    The index must be of the encoder's model: see `Index.refuse_another_model`.
    """
    scores, places = index.best(beginnings(encoder.vectors(queries, "query"), index.about.width), count)
    found = []
    for mine, at in zip(scores.tolist(), places.tolist(), strict=True):
        rows = index.documents.take([place for place in at if place >= 0]).to_pylist()
        found.append([{"score": score, **row} for score, row in zip(mine, rows, strict=False)])
    return found


# --- the approximate index ----------------------------------------------------------------------------


def faiss() -> Any:
    """The library. Raises UserError where it is not installed."""
    try:
        import faiss as library
    except ModuleNotFoundError:
        raise UserError(
            "--kind hnsw needs faiss, which is not installed: pip install 'research[search]'; or take --kind exact."
        ) from None
    return library


def write_graph(vectors: Vectors, folder: Path) -> None:
    """A navigable small-world graph over the vectors, which finds most of the nearest without looking at all."""
    library = faiss()
    graph = library.IndexHNSWFlat(vectors.shape[1], LINKS, library.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_BREADTH
    for start in range(0, len(vectors), AT_ONCE):
        graph.add(np.array(vectors[start : start + AT_ONCE]))
    library.write_index(graph, str(folder / "graph.faiss"))


def read_graph(folder: Path) -> Any:
    library = faiss()
    try:
        return library.read_index(str(folder / "graph.faiss"))
    except RuntimeError:
        raise UserError(f"The index {folder} is damaged: graph.faiss cannot be read; make it again.") from None
