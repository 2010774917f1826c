"""Which texts of a pool to label next: uncertainty, diversity, both, or chance.

Shapes: P texts of the pool, L labelled texts, C classes, W width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
STRATEGIES = ("entropy", "margin", "badge", "coreset", "random")
NEED_VECTORS = ("badge", "coreset")


def chosen(
    strategy: str, budget: int, rng: np.random.Generator, probabilities: Floats, vectors: Floats | None = None,
    labelled: Floats | None = None,
) -> Indices:  # fmt: skip
    """The `budget` texts to label, first ones first. `probabilities` (P, C), `vectors` (P, W), `labelled` (L, W)."""
    if strategy == "random":
        return rng.permutation(len(probabilities))[:budget]
    if strategy == "entropy":
        entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(1)
        return np.argsort(-entropy, kind="stable")[:budget]
    if strategy == "margin":
        best = np.sort(probabilities, axis=1)
        return np.argsort(best[:, -1] - best[:, -2], kind="stable")[:budget]
    assert vectors is not None
    if strategy == "badge":
        return badge(probabilities, vectors, budget, rng)
    return coreset(vectors, labelled if labelled is not None else vectors[:0], budget)


def badge(probabilities: Floats, vectors: Floats, budget: int, rng: np.random.Generator) -> Indices:
    """Ash et al. 2020: k-means++ on the gradients of the last layer for the predicted label, (p - onehot) x vector.

    Their distances are computed from both factors; the first is the longest gradient.
    """
    residual = probabilities.copy()
    residual[np.arange(len(residual)), residual.argmax(1)] -= 1
    squares = (residual**2).sum(1) * (vectors**2).sum(1)
    picked = [int(squares.argmax())]
    nearest = np.full(len(vectors), np.inf)
    while len(picked) < min(budget, len(vectors)):
        i = picked[-1]
        product = (residual @ residual[i]) * (vectors @ vectors[i])
        nearest = np.minimum(nearest, np.maximum(squares + squares[i] - 2 * product, 0))
        nearest[picked] = 0
        if nearest.sum() <= 0:
            rest = np.setdiff1d(np.arange(len(vectors)), picked)
            return np.array([*picked, *rest[: budget - len(picked)]])
        picked.append(int(rng.choice(len(vectors), p=nearest / nearest.sum())))
    return np.array(picked)


def coreset(vectors: Floats, labelled: Floats, budget: int) -> Indices:
    """Sener & Savarese 2018, greedy k-centre: each time the text farthest from all labelled and chosen ones."""
    nearest = np.full(len(vectors), np.inf)
    for centre in labelled:
        nearest = np.minimum(nearest, ((vectors - centre) ** 2).sum(1))
    picked: list[int] = []
    while len(picked) < min(budget, len(vectors)):
        picked.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((vectors - vectors[picked[-1]]) ** 2).sum(1))
        nearest[picked] = -1
    return np.array(picked)
