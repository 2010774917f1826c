"""Trained and frozen weights of a model: which are which, how many, what a step costs, a fingerprint of the frozen."""

from __future__ import annotations

import torch
import xxhash
from torch import Tensor, nn

from research.models.embedding import RowEmbedding


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, the weights that training moves: those with gradients, and tables of which it moves rows."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, RowEmbedding)}
    return {name: p for name, p in model.named_parameters() if p.requires_grad or id(p) in tables}


def pretrained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, the trained weights that were pretrained; the others began at random, as a new head or an adapter's."""
    names: set[str] = getattr(model, "pretrained_weights", set())
    return {name: p for name, p in trained_parameters(model).items() if name in names}


def frozen_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, the weights that training leaves as they are, to the bit."""
    trained = trained_parameters(model)
    return {name: p for name, p in model.named_parameters() if name not in trained}


def counts(model: nn.Module) -> dict[str, int]:
    """How many weights there are, and how many of them are trained."""
    total = sum(p.numel() for p in model.parameters())
    return {"parameters": total, "trained_parameters": sum(p.numel() for p in trained_parameters(model).values())}


def flops_per_token(model: nn.Module) -> float:
    """Useful operations of a training step on a token; the embedding table and attention scores left out.

    Two per weight in the forward pass, two per weight above the lowest trained one for the gradient of its input, two
    per trained weight for its own gradient: 6 per weight where all are trained.
    """
    table = model.get_input_embeddings().weight  # type: ignore[operator]
    trained = trained_parameters(model)
    passed = operations = 0  # passed: is this weight above a trained one?
    for name, p in model.named_parameters():
        passed |= name in trained
        if p is not table:
            operations += p.numel() * (2 + 2 * passed + 2 * (name in trained))
    return float(operations)


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """XXH3 over names and values of tensors."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
