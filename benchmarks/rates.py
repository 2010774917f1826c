"""What a rate is held against: the useful operations of training, and the matrix rate of this device.

Shapes: T tokens of a step, L length of a sequence, H width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from research.common.matmul_rate import DTYPES, matrix_rate


def training_flops(parameters: int, layers: int, width: int, lengths: Sequence[int] | np.ndarray) -> float:
    """Useful operations of training on sequences of these lengths: no padding, no embedding look-ups.

    6 per weight and token (forward 2, backward 4), and 12 H L^2 per layer and sequence for the two products of
    attention (Hoffmann et al. 2022, appendix F).
    """
    lengths = np.asarray(lengths, dtype=np.float64)
    return float(6 * parameters * lengths.sum() + 12 * layers * width * (lengths**2).sum())


def layer_parameters(model: Any) -> int:
    """Weights that every token passes: those of the layers, without embeddings, pooler and head."""
    named = model.base_model.named_parameters()
    return sum(p.numel() for name, p in named if "embeddings" not in name and "pooler" not in name)


def layer_rate(
    tokens: int, width: int, inner: int, seconds: float = 1.0, device: str = "cpu", precision: str = "bf16"
) -> float:
    """Operations per second of a layer's matrix products, forward and backward, one after the other."""
    shapes = [(width, width)] * 4 + [(width, inner), (inner, width)]
    products: list[tuple[Tensor, Tensor]] = []
    for i, o in shapes:
        sizes = ((tokens, i), (o, i), (tokens, o))  # input, weight, gradient of the output
        x, w, g = (torch.randn(size, device=device, dtype=DTYPES[precision]) for size in sizes)
        products += [(x, w.t()), (g, w), (g.t(), x)]
    return matrix_rate(products, seconds)
