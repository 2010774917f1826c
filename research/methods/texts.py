"""The vector of a text: the hidden state of its first token, above the last layer; for losses that compare texts.

Shapes: N sequences, E examples, H width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from research.common.errors import UserError
from research.methods.hooks import Loss, Trained
from research.models.load import ENCODER
from research.models.windows import firsts, mean_over_windows

if TYPE_CHECKING:
    from research.batching.pack import MicroBatch
    from research.batching.plan import Indices


class TextVectors:
    """Vectors of the texts of a pass, read from the encoder's last hidden states."""

    def __init__(self, name: str, module: Trained) -> None:
        backbone = module.backbone
        if backbone.family != ENCODER or backbone.model.base_model is backbone.model:
            raise UserError(f"methods.{name} reads the vectors of an encoder; {type(backbone.model).__name__} is none.")
        backbone.trains_alone = False  # of a task that reads other tokens the first ones are wanted here
        self.reading = False
        self.states: Tensor | None = None
        backbone.model.base_model.register_forward_hook(self._keep)

    def of(self, plain: Loss, micro: MicroBatch) -> tuple[Tensor, Tensor, Indices]:
        """The loss of a pass, its vectors (E, H) in float32, and the examples they are of; windows are averaged."""
        self.reading = True
        try:
            loss, _ = plain(micro)
        finally:
            self.reading = False
        states, self.states = self.states, None
        assert states is not None
        if len(states) == len(micro.lengths):  # (N, L, H)
            first = states[:, 0]
        else:  # (1, T, H)
            starts = torch.from_numpy(micro.lengths.cumsum() - micro.lengths).to(states.device)
            first = states[0, starts]
        examples = micro.examples[firsts(micro.examples)]
        return loss, mean_over_windows(first.float(), micro.examples), examples

    def _keep(self, base: nn.Module, args: Any, output: Any) -> None:
        if self.reading:
            self.states = output[0]
