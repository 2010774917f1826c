"""The state of the generators that dropout draws from, so that a second pass draws the masks of the first."""

from __future__ import annotations

import torch
from torch import Tensor


def random_state(device: torch.device) -> list[Tensor]:
    """That of the CPU and, for a GPU, of the device."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *cuda]


def set_random_state(state: list[Tensor], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
