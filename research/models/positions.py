"""Positions of tables and biases that take no position ids: they begin again with each sequence of a packed row.

BART's family, M2M100 and OPT count the places of a row by themselves; T5's family makes a bias of (T, T) for it. Both
are taught here, module by module: they read the plans of the row that is fed, and without any do as they always did.

Shapes: T tokens of the row, L longest sequence, W width of the model, H heads.
"""

from __future__ import annotations

from inspect import signature
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from research.models.attention import CROSS, Plans, role_of
from research.models.load import DECODER, ENCODER


def follow_sequences(model: nn.Module) -> list[nn.Module]:
    """Teach a model's position tables and biases. Returns them: each reads its attribute `plans`."""
    taught: list[nn.Module] = []
    for module in model.modules():
        table = getattr(module, "embed_positions", None)
        if isinstance(table, nn.Module):
            table.role = DECODER if any(role_of(part) == DECODER for part in module.modules()) else ENCODER  # type: ignore[assignment]
            table.forward = MethodType(_table_of_sequences, table)
            taught.append(table)
        compute_bias: Any = getattr(module, "compute_bias", None)
        if compute_bias is not None and "key_length" in signature(compute_bias).parameters:
            if role_of(module) == CROSS:
                module.has_relative_attention_bias = True  # type: ignore[assignment]  # it is asked for its bias, which is none
            module.compute_bias = MethodType(_bias_of_longest, module)  # type: ignore[assignment]
            taught.append(module)
    set_plans(taught, None)
    return taught


def set_plans(taught: list[nn.Module], plans: Plans | None) -> None:
    """The plans of the row to be fed next; None where it is not packed."""
    for module in taught:
        module.plans = plans  # type: ignore[assignment]


def _table_of_sequences(table: Any, *args: Any, **kwargs: Any) -> Tensor:
    """What the table gives a row of T tokens, (1, T, W): from what it gives the longest sequence, (1 or none, L, W)."""
    if table.plans is None:
        plain: Tensor = type(table).forward(table, *args, **kwargs)
        return plain
    positions, plan = table.plans.positions[table.role], table.plans.by_role[table.role]
    L = plan.q_longest
    cut = [_first(arg, plan.q.T, L) for arg in args]
    given = {name: None if name == "position_ids" else _first(arg, plan.q.T, L) for name, arg in kwargs.items()}
    places: Tensor = type(table).forward(table, *cut, **given)
    return places.reshape(L, -1)[positions][None]


def _first(arg: Any, T: int, L: int) -> Any:
    """The first L places of a (1, T, ...) tensor or shape; anything else as it is."""
    if isinstance(arg, Tensor) and arg.ndim > 1 and arg.shape[1] == T:
        return arg[:, :L]
    if isinstance(arg, tuple) and len(arg) > 1 and arg[1] == T:
        return torch.Size((arg[0], L, *arg[2:]))
    return arg


def _bias_of_longest(attention: Any, query_length: int, key_length: int, **kwargs: Any) -> Tensor:
    """Relative positions restart in each sequence, so that one (1, H, L, L) bias serves all; to an encoder, none."""
    if role_of(attention) == CROSS:
        return torch.zeros(1, 1, 1, 1, device=attention.q.weight.device)
    if attention.plans is not None:
        query_length = key_length = attention.plans.by_role[role_of(attention)].q.longest
    bias: Tensor = type(attention).compute_bias(attention, query_length, key_length, **kwargs)
    return bias
