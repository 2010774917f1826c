"""Packing: examples become one row of tokens, end to end, with the borders of their sequences beside it.

Shapes: T tokens of the micro-batch, N sequences (windows) in it, L longest sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from research.batching.layout import Layout, make_layout
from research.batching.plan import Indices, StepPlan, assign_to_ranks, micro_batches
from research.batching.store import Store


@dataclass
class MicroBatch:
    """T tokens of N sequences end to end; a padded encoder pads them itself."""

    tokens: dict[str, Tensor]  # each (T,)
    sequences: dict[str, Tensor]  # each (N,)
    lengths: Indices  # (N,)
    examples: Indices  # (N,) the example each sequence belongs to; windows of one example stand together
    layout: Layout | None
    positions: Tensor  # (T,) place of each token in its sequence
    idle: bool = False  # computed for the sake of the other ranks; counts nothing

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.positions)

    @cached_property
    def padded_index(self) -> Tensor:
        """(N, L) index of each token, or T where a shorter sequence has ended."""
        inside = np.arange(int(self.lengths.max()))
        starts = (np.cumsum(self.lengths) - self.lengths)[:, None]
        index = np.where(inside < self.lengths[:, None], starts + inside, self.size)
        return torch.from_numpy(index).to(self.positions.device)

    def pad(self, flat: Tensor, fill: float) -> Tensor:
        """(T, ...) -> (N, L, ...), with `fill` after the end of each sequence."""
        end = torch.full_like(flat[:1], fill)
        return torch.cat([flat, end])[self.padded_index]

    def unpad(self, grid: Tensor) -> Tensor:
        """(N, L, ...) -> (T, ...)."""
        return grid[self.padded_index < self.size]

    def to(self, device: torch.device) -> MicroBatch:
        """The same micro-batch on `device`."""
        if self.positions.device == device:
            return self
        tokens = {k: v.to(device, non_blocking=True) for k, v in self.tokens.items()}
        sequences = {k: v.to(device, non_blocking=True) for k, v in self.sequences.items()}
        layout = self.layout.to(device) if self.layout else None
        positions = self.positions.to(device, non_blocking=True)
        return MicroBatch(tokens, sequences, self.lengths, self.examples, layout, positions, self.idle)


def pack(store: Store, rows: Indices, packed: bool = True, idle: bool = False) -> MicroBatch:
    """The micro-batch of these examples of a store."""
    windows = store.windows.rows(rows)
    lengths = np.concatenate(windows).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    return MicroBatch(
        tokens={name: _flat(column.rows(rows)) for name, column in store.token_columns.items()},
        sequences={name: _flat(column.rows(rows)) for name, column in store.window_columns.items()},
        lengths=lengths,
        examples=np.repeat(rows, [len(w) for w in windows]),
        layout=make_layout(lengths) if packed else None,
        positions=torch.from_numpy(np.arange(lengths.sum()) - np.repeat(starts, lengths)),
        idle=idle,
    )


def _flat(parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


@dataclass
class StepItem:
    """One optimiser step as a rank sees it."""

    step: int
    micro: list[MicroBatch]
    rows: list[Indices]  # the examples of each micro-batch; none for an idle one
    budget_tokens: int  # that the micro-batches keep
    targets: float  # of the whole global batch: the loss's denominator
    tokens: int  # of the whole global batch
    examples: int  # of the whole global batch
    vocabulary: Tensor | None  # distinct token ids of the whole global batch


@dataclass
class Planner:
    """Turns a step number into what one rank computes in it.

    Each rank has a micro-batch at least, an idle one if need be, to meet the others in the exchange of gradients;
    ranks that share one model out (`sharded`) gather its weights in each, so that all have equally many.
    """

    store: Store
    plan: StepPlan
    rank: int
    ranks: int
    budget_tokens: int
    packed: bool
    sparse_embedding: bool
    sharded: bool = False

    def __call__(self, step: int) -> StepItem:
        batch = self.plan.global_batch(step)
        tokens = self.store.tokens[batch]
        shares = assign_to_ranks(batch, tokens, self.ranks)
        rows = self._cut(shares[self.rank])
        most = max(len(self._cut(share)) for share in shares) if self.sharded else 1
        missing = max(0, most - len(rows))
        shortest = batch[[tokens.argmin()]]
        return StepItem(
            step=step,
            micro=[pack(self.store, part, self.packed) for part in rows]
            + [pack(self.store, shortest, self.packed, idle=True) for _ in range(missing)],
            rows=rows + [shortest[:0]] * missing,
            budget_tokens=self.budget_tokens,
            targets=float(self.store.targets[batch].sum()),
            tokens=int(tokens.sum()),
            examples=len(batch),
            vocabulary=torch.from_numpy(self.store.vocabulary(batch)) if self.sparse_embedding else None,
        )

    def _cut(self, share: Indices) -> list[Indices]:
        return micro_batches(share, self.store.tokens[share], self.budget_tokens, padded=not self.packed)
