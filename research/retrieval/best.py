"""The documents of highest cosine, exactly, block by block.

Shapes: Q queries, D documents, W width, K best.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from research.retrieval.encoder import Vectors

BLOCK_DOCUMENTS, BLOCK_QUERIES = 65_536, 1024  # whose scores are in memory together: 256 MiB

Places = NDArray[np.int64]


def best(queries: Vectors, documents: Any, count: int) -> tuple[Vectors, Places]:
    """Scores and places of the `count` best documents of each query, (Q, K) each, the best first, ties in order.

    `documents` (D, W) may be memory-mapped. K is D where there are fewer documents.
    """
    parts = [
        _best(queries[start : start + BLOCK_QUERIES], documents, count)
        for start in range(0, max(len(queries), 1), BLOCK_QUERIES)
    ]
    return np.concatenate([scores for scores, _ in parts]), np.concatenate([places for _, places in parts])


def _best(queries: Vectors, documents: Any, count: int) -> tuple[Vectors, Places]:
    asked = torch.from_numpy(np.ascontiguousarray(queries))  # (Q, W)
    scores = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(documents), BLOCK_DOCUMENTS):
        block = torch.from_numpy(np.array(documents[start : start + BLOCK_DOCUMENTS]))
        found, at = torch.topk(asked @ block.T, min(count, len(block)), dim=1)
        scores = np.concatenate([scores, found.numpy()], axis=1)
        places = np.concatenate([places, at.numpy() + start], axis=1)
        order = np.lexsort((places, -scores), axis=1)[:, :count]
        scores = np.take_along_axis(scores, order, axis=1)
        places = np.take_along_axis(places, order, axis=1)
    return scores, places
