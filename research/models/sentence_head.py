"""An encoder with a linear head on its sentences' vectors, which is part of the model's folder.

`AutoModel` and sentence-transformers open the folder as the encoder alone; `from_pretrained` here reads the head too.

Shapes: W width, C classes, N texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModel

HEAD = "sentence_head"


class SentenceEncoder:
    """Takes the place of a `transformers` class with a head."""

    from_config = AutoModel.from_config

    @staticmethod
    def from_pretrained(name: str, output_loading_info: bool = False, **settings: Any) -> Any:
        """The encoder, with the head that the folder holds, if any."""
        model, info = AutoModel.from_pretrained(name, output_loading_info=True, **settings)
        own = {key for key in info["unexpected_keys"] if key.startswith(f"{HEAD}.")}
        if own:
            info["unexpected_keys"] = type(info["unexpected_keys"])(set(info["unexpected_keys"]) - own)
            with safe_open(Path(name) / "model.safetensors", "pt") as file:
                give_head(model, file.get_tensor(f"{HEAD}.weight"), file.get_tensor(f"{HEAD}.bias"))
        return (model, info) if output_loading_info else model


def give_head(model: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Put a head (C, W) and (C,) into the model; no optimiser moves it."""
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.weight.data, head.bias.data = weight.float().clone(), bias.float().clone()
    setattr(model, HEAD, head.requires_grad_(False))


def logistic_regression(vectors: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight (C, W) and bias (C,) that minimise cross entropy + |weight|² / 2: scikit-learn's with C = 1, to 1e-6.

    With two classes the penalty is that of the difference of their rows, as in scikit-learn's binary model.
    """
    x, y = vectors.double().cpu(), labels.cpu()
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    penalty = 1.0 if classes == 2 else 0.5
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-12, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y, reduction="sum") + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return weight.detach().float(), bias.detach().float()
