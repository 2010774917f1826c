"""Packing: examples become rows of tokens, end to end, with the borders of their sequences beside them.

Shapes: T tokens of a stream, N sequences (windows) in it, L longest sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from research.batching.layout import AttentionPlan, RowLayout, make_layout, plan_attention
from research.batching.mixture import MixedPlan
from research.batching.plan import Indices, StepPlan, assign_to_ranks, micro_batches
from research.batching.read_tokens import Mask, Reading, make_reading, mask_of
from research.batching.store import SOURCE, TARGET, Store, StreamColumns
from research.batching.unlabelled import PlanWithUnlabelled

Plan = StepPlan | MixedPlan | PlanWithUnlabelled


@dataclass
class Stream:
    """T tokens of N sequences end to end; a padded model pads them itself."""

    tokens: dict[str, Tensor]  # each (T,)
    sequences: dict[str, Tensor]  # each (N,)
    lengths: Indices  # (N,)
    examples: Indices  # (N,) the example each sequence belongs to; windows of one example stand together
    layout: RowLayout | None
    positions: Tensor  # (T,) place of each token in its sequence
    marked: Mask | None = None  # (T,) the tokens whose outputs the task reads; None: all
    features: Tensor | None = None  # (T, W) what frozen layers put out, so that it need not be computed
    readings: dict[str, Reading | None] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.positions)

    def reading(self, which: str) -> Reading | None:
        """Of a packed row, the plan of the tokens that are read, made once; None where that is all of them."""
        if self.layout is None:
            return None
        if which not in self.readings:
            mask = mask_of(which, self.marked, self.lengths)
            whole = mask is None or mask.all()
            self.readings[which] = None if whole else make_reading(self.layout, mask, self.positions.device)  # type: ignore[arg-type]
        return self.readings[which]

    @cached_property
    def padded_index(self) -> Tensor:
        """(N, L) index of each token, or T where a shorter sequence has ended."""
        inside = np.arange(int(self.lengths.max()))
        starts = (np.cumsum(self.lengths) - self.lengths)[:, None]
        index = np.where(inside < self.lengths[:, None], starts + inside, self.size)
        return torch.from_numpy(index).to(self.positions.device)

    @property
    def mask(self) -> Tensor:
        """(N, L) 1 at tokens and 0 at padding."""
        return (self.padded_index < self.size).long()

    def pad(self, flat: Tensor, fill: float) -> Tensor:
        """(T, ...) -> (N, L, ...), with `fill` after the end of each sequence."""
        end = torch.full_like(flat[:1], fill)
        return torch.cat([flat, end])[self.padded_index]

    def unpad(self, grid: Tensor) -> Tensor:
        """(N, L, ...) -> (T, ...)."""
        return grid[self.padded_index < self.size]

    def to(self, device: torch.device) -> Stream:
        """The same stream on `device`."""
        tokens = {k: v.to(device, non_blocking=True) for k, v in self.tokens.items()}
        sequences = {k: v.to(device, non_blocking=True) for k, v in self.sequences.items()}
        layout = self.layout.to(device) if self.layout else None
        positions = self.positions.to(device, non_blocking=True)
        features = None if self.features is None else self.features.to(device, non_blocking=True)
        return Stream(tokens, sequences, self.lengths, self.examples, layout, positions, self.marked, features)


@dataclass
class MicroBatch:
    """Examples that are computed together: one stream of tokens or several (source and target, say)."""

    streams: dict[str, Stream]
    cross: AttentionPlan | None = None  # of the target's tokens to the source's
    idle: bool = False  # computed for the sake of the other ranks; counts nothing

    @property
    def first(self) -> Stream:
        """The only stream of most tasks: `tokens`, `sequences`, `lengths`, `examples` and `pad` are its own."""
        return next(iter(self.streams.values()))

    @property
    def size(self) -> int:
        """Tokens of all streams."""
        return sum(stream.size for stream in self.streams.values())

    @property
    def tokens(self) -> dict[str, Tensor]:
        return self.first.tokens

    @property
    def sequences(self) -> dict[str, Tensor]:
        return self.first.sequences

    @property
    def lengths(self) -> Indices:
        return self.first.lengths

    @property
    def examples(self) -> Indices:
        return self.first.examples

    def pad(self, flat: Tensor, fill: float) -> Tensor:
        return self.first.pad(flat, fill)

    def to(self, device: torch.device) -> MicroBatch:
        """The same micro-batch on `device`."""
        if self.first.positions.device == device:
            return self
        streams = {name: stream.to(device) for name, stream in self.streams.items()}
        return MicroBatch(streams, self.cross.to(device) if self.cross else None, self.idle)


def pack(store: Store, rows: Indices, packed: bool = True, idle: bool = False) -> MicroBatch:
    """The micro-batch of these examples of a store."""
    paired = len(store.streams) > 1
    streams = {name: _stream(columns, rows, packed, paired) for name, columns in store.streams.items()}
    return MicroBatch(streams, cross_plan(streams), idle)


def cross_plan(streams: dict[str, Stream]) -> AttentionPlan | None:
    """How the target's sequences attend to the source's; None where there are none, or padded ones."""
    source, target = streams.get(SOURCE), streams.get(TARGET)
    if source is None or target is None or source.layout is None or target.layout is None:
        return None
    return plan_attention(target.layout.lengths, source.layout.lengths)


def _stream(columns: StreamColumns, rows: Indices, packed: bool, paired: bool) -> Stream:
    windows = columns.windows.rows(rows)
    lengths = np.concatenate(windows).astype(np.int64)
    tokens = {name: _flat(column.rows(rows)) for name, column in columns.tokens.items()}
    sequences = {name: _flat(column.rows(rows)) for name, column in columns.sequences.items()}
    examples = np.repeat(rows, [len(w) for w in windows])
    stream = make_stream(tokens, lengths, examples, sequences, packed, paired)
    stream.marked = columns.marked(tokens) if columns.marked else None
    if columns.features is not None:
        stream = cut_to(stream, columns.features.which, packed, paired)
        stream.features = columns.features.of(rows)
    return stream


def cut_to(stream: Stream, which: str, packed: bool, paired: bool) -> Stream:
    """The stream without the tokens that are not read."""
    mask = mask_of(which, stream.marked, stream.lengths)
    if mask is None:
        return stream
    lengths = np.add.reduceat(mask, np.cumsum(stream.lengths) - stream.lengths, dtype=np.int64)
    tokens = {name: column[torch.from_numpy(mask)] for name, column in stream.tokens.items()}
    return make_stream(tokens, lengths, stream.examples, stream.sequences, packed, paired)


def make_stream(
    tokens: dict[str, Tensor],
    lengths: Indices,
    examples: Indices | None = None,
    sequences: dict[str, Tensor] | None = None,
    packed: bool = True,
    paired: bool = False,
) -> Stream:
    """A stream of sequences of these lengths, by default each an example; `paired`: another stream goes with it."""
    starts = np.cumsum(lengths) - lengths
    return Stream(
        tokens=tokens,
        sequences=sequences or {},
        lengths=lengths,
        examples=np.arange(len(lengths)) if examples is None else examples,
        layout=make_layout(lengths, always_fill=paired) if packed else None,
        positions=torch.from_numpy(np.arange(lengths.sum()) - np.repeat(starts, lengths)),
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
    targets: float  # of the global batch: the loss's denominator
    tokens: int  # of the global batch
    examples: int  # of the global batch
    vocabulary: Tensor | None  # distinct token ids of the global batch

    def to(self, device: torch.device) -> StepItem:
        """The same step on `device`."""
        vocabulary = None if self.vocabulary is None else self.vocabulary.to(device, non_blocking=True)
        return replace(self, micro=[micro.to(device) for micro in self.micro], vocabulary=vocabulary)


@dataclass
class Planner:
    """Turns a step number into what one rank computes in it.

    Each rank has a micro-batch at least, an idle one if need be, to meet the others in the exchange of gradients;
    ranks that share one model out (`sharded`) gather its weights in each, so that all have equally many.
    """

    store: Store
    plan: Plan
    rank: int
    ranks: int
    budget_tokens: int
    packed: bool
    sparse_embedding: bool
    sharded: bool = False
    store_of: Callable[[int], Store] | None = None  # of each step, where its examples may be changed

    def __call__(self, step: int) -> StepItem:
        batch = self.plan.global_batch(step)
        store = self.store if self.store_of is None else self.store_of(step)
        tokens = store.tokens[batch]
        shares = assign_to_ranks(batch, tokens, self.ranks)
        rows = self._cut(store, shares[self.rank])
        most = max(len(self._cut(store, share)) for share in shares) if self.sharded else 1
        missing = max(0, most - len(rows))
        shortest = batch[[tokens.argmin()]]
        return StepItem(
            step=step,
            micro=[pack(store, part, self.packed) for part in rows]
            + [pack(store, shortest, self.packed, idle=True) for _ in range(missing)],
            rows=rows + [shortest[:0]] * missing,
            budget_tokens=self.budget_tokens,
            targets=float(store.targets[batch].sum()),
            tokens=int(tokens.sum()),
            examples=len(batch),
            vocabulary=torch.from_numpy(store.vocabulary(batch)) if self.sparse_embedding else None,
        )

    def _cut(self, store: Store, share: Indices) -> list[Indices]:
        return micro_batches(share, store.stream_tokens[share], self.budget_tokens, padded=not self.packed)


def default_budget_tokens() -> int:
    """Tokens of a micro-batch that keep the device busy within its memory."""
    return 16384 if torch.cuda.is_available() else 4096
