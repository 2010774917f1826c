"""What a task's module and data are made on: Lightning's classes, or plain ones in a process that answers alone.

Lightning takes as long to import as torch, and a service trains nothing: `research serve` calls
`prepare_process(trains=False)` before a task is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from research.common import process

if TYPE_CHECKING or process.trains_here:
    from lightning import Callback, LightningDataModule, LightningModule, seed_everything
else:

    class LightningModule(nn.Module):
        """Where the weights are is all that answering asks of it."""

        @property
        def device(self) -> torch.device:
            return next(self.parameters()).device

    class LightningDataModule:
        """Nothing of it is asked."""

    class Callback:
        """Nothing of it is asked."""

    def seed_everything(seed: int, verbose: bool) -> None:
        """The weights of a head that is new."""
        torch.manual_seed(seed)


__all__ = ["Callback", "LightningDataModule", "LightningModule", "seed_everything"]
