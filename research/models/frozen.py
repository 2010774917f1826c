"""The frozen layers at the bottom of an encoder: recorded, and skipped where their output is given.

Shapes: T tokens of a row with its filler, N sequences, L longest, W width, K tokens that are kept.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from research.batching.pack import MicroBatch, Stream
from research.batching.read_tokens import ALL, Reading, mask_of
from research.batching.store import INPUT


class _Recorded(Exception):
    """The output is there; the layers above need not run."""


class FrozenLayers:
    """Layers at the bottom of a model below which nothing is trained. Their weights and names stay as they are."""

    def __init__(self, stack: nn.ModuleList, count: int) -> None:
        """The lowest `count` layers of a stack."""
        layers = self.layers = list(stack[:count])
        self.are_all = count == len(stack)
        self.given: Tensor | None = None  # (1, T, W) or (N, L, W), what the highest of them puts out
        self.kept: Any = None  # what of their outputs is kept on disk, once that is known
        self._recording = False
        for layer in layers:
            self._skip_where_given(layer)
        layers[-1].register_forward_hook(self._record)

    def skip_embeddings(self, embeddings: nn.Module) -> None:
        """For embeddings whose only use is the lowest layer's input, of the same shape."""
        self._skip_where_given(embeddings)

    def _skip_where_given(self, module: nn.Module) -> None:
        whole = module.forward
        module.forward = lambda *args, **others: whole(*args, **others) if self.given is None else self.given

    def _record(self, layer: nn.Module, args: Any, output: Any) -> None:
        if self._recording:
            self._recording = False
            self.output: Tensor = output
            raise _Recorded

    def recorded(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """The output of the highest frozen layer; those above it are not run."""
        self._recording = True
        with contextlib.suppress(_Recorded):
            model(**inputs)
        return self.output


def run_above(backbone: Any, model: nn.Module, stream: Stream, inputs: dict[str, Any]) -> Any:
    """The outputs of a backbone's model, or of its base; frozen layers are skipped where their output is given."""
    frozen: FrozenLayers | None = backbone.frozen
    if stream.features is None or frozen is None:
        return model(**inputs)
    frozen.given = as_fed(stream, stream.features, backbone.packed)
    try:
        return model(**inputs)
    finally:
        frozen.given = None


def frozen_outputs(backbone: Any, stream: Stream, which: str) -> Tensor:
    """What the highest frozen layer puts out for these tokens of a stream, (K, W)."""
    frozen: FrozenLayers = backbone.frozen
    inputs = backbone.inputs_of(MicroBatch({INPUT: stream}), which if frozen.are_all else ALL)
    out = frozen.recorded(backbone.model.base_model, inputs)
    reading: Reading | None = backbone.reading
    if reading is not None:
        return out[0, : reading.size]
    mask = mask_of(which, stream.marked, stream.lengths)
    rows: Tensor = backbone.flat(stream, out)
    return rows if mask is None else rows[torch.from_numpy(mask).to(rows.device)]


def as_fed(stream: Stream, features: Tensor, packed: bool) -> Tensor:
    """(T, W) as the layers above get it: (1, T, W) with filler, or (N, L, W)."""
    features = features.float()
    return stream.layout.fill(features) if packed and stream.layout is not None else stream.pad(features, 0)


def without_gradient(backbone: Any, stack: nn.ModuleList, micro: Any) -> int:
    """How many layers at the bottom of the stack put out what nothing trained has touched, seen on a small batch.

    0 where a layer puts out more than hidden states.
    """
    found: list[bool] = []
    hooks = [
        layer.register_forward_hook(
            lambda layer, args, output: found.append(isinstance(output, Tensor) and not output.requires_grad)
        )
        for layer in stack
    ]
    try:
        with torch.enable_grad(), torch.autocast(micro.first.positions.device.type, enabled=False):
            backbone.model.base_model(**backbone.inputs(micro))
    finally:
        for hook in hooks:
            hook.remove()
    if len(found) != len(stack):  # layers that are used twice
        return 0
    return next((i for i, frozen in enumerate(found) if not frozen), len(stack))
