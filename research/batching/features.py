"""Outputs of frozen layers, kept on disk: what a micro-batch is given so that they need not be computed.

Shapes: K tokens that are kept of some examples, W width of the model.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.batching.plan import Indices

ROWS, OFFSETS = "rows.npy", "offsets.npy"  # the second ends with a checksum of the first
ROWS_AT_ONCE = 1 << 14
STORED = {torch.float32: np.float32, torch.bfloat16: np.int16, torch.float16: np.float16}  # numpy has no bfloat16


@dataclass
class Features:
    """The outputs of one stream of a split, memory-mapped."""

    which: str  # tokens of a sequence are kept: a name of `research.batching.read_tokens`
    dtype: torch.dtype
    values: NDArray[Any]  # (tokens, W)
    offsets: Indices  # (examples + 1,) where each example's begin

    @classmethod
    def opened(cls, folder: Path, which: str, dtype: torch.dtype, width: int, offsets: Indices) -> Features:
        """Raises OSError, EOFError or ValueError where a file is missing, cut short, damaged or of other data."""
        values = np.load(folder / ROWS, mmap_mode="r")
        *found, own = np.load(folder / OFFSETS).tolist()
        if found != offsets.tolist() or values.shape != (offsets[-1], width) or values.dtype != STORED[dtype]:
            raise ValueError(f"{folder} holds features of other data")
        if checksum(values) != own:
            raise ValueError(f"{folder} is damaged")
        return cls(which, dtype, values, offsets)

    def of(self, examples: Indices) -> Tensor:
        """(K, W) of these examples, one after the other."""
        counts = self.offsets[examples + 1] - self.offsets[examples]
        first = np.cumsum(counts) - counts
        places = np.arange(int(counts.sum())) + np.repeat(self.offsets[examples] - first, counts)
        return torch.from_numpy(self.values[places]).view(self.dtype)


def checksum(values: NDArray[Any]) -> int:
    """CRC-32 of the values."""
    found = 0
    for start in range(0, len(values), ROWS_AT_ONCE):
        found = zlib.crc32(np.ascontiguousarray(values[start : start + ROWS_AT_ONCE]).data, found)
    return found
