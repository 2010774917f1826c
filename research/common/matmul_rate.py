"""What a device reaches in matrix products, and how much of it training does."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of trainer.precision


def matrix_rate(products: Sequence[tuple[Tensor, Tensor]], seconds: float = 0.0) -> float:
    """Operations per second of these matrix products, one after the other.

    The median of eight rounds or more, until `seconds` have passed; the first three warm up.
    """
    operations = sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in products)
    taken: list[float] = []
    while len(taken) < 8 or sum(taken) < seconds:
        began = time.perf_counter()
        for a, b in products:
            torch.mm(a, b)
        if products[0][0].is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return operations / statistics.median(taken[3:])


@functools.cache
def device_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of one large matrix product on a device, measured once a process."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return matrix_rate([(a, b)])


def mfu(operations: float, device_seconds: float, device: torch.device, precision: str) -> float:
    """Model FLOPs utilisation (Chowdhery et al. 2022): useful operations of training over those of one large matrix
    product in the same time."""
    return operations / device_seconds / device_rate(device, DTYPES[precision])
