"""The last layer computed for the tokens alone that a head reads: the same outputs and gradients as for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from research.batching.pack import MicroBatch
from research.batching.read_tokens import FIRST, MARKED
from research.models.backbone import Backbone
from tests.models.test_backbone import PACKED, build, make_micro, without_dropout

LENGTHS = [9, 24, 5, 1, 17]


def marked_micro() -> MicroBatch:
    """Half of the tokens marked, none in the third sequence."""
    micro = make_micro(LENGTHS)
    marked = np.random.default_rng(0).random(sum(LENGTHS)) < 0.5
    marked[33:38], marked[38] = False, True
    micro.first.marked = marked
    return micro


def outputs_and_gradients(backbone: Backbone, head: str) -> tuple[Tensor, dict[str, Tensor]]:
    micro = marked_micro()
    if head == "sequence":
        out = backbone.sequence_logits(micro)
    else:
        out = backbone.token_logits(micro, MARKED)["logits"][torch.from_numpy(micro.first.marked)]
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return out.detach(), {n: p.grad for n, p in backbone.model.named_parameters() if p.grad is not None}


@pytest.mark.in_check(1)
@pytest.mark.parametrize("head", ["sequence", "token"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_tokens_that_are_read_have_the_outputs_and_gradients_of_a_whole_layer(kind: str, head: str) -> None:
    whole, alone = (Backbone(without_dropout(build(kind, head, PACKED[kind])), True, reads) for reads in (False, True))
    assert (whole.trains_alone, alone.trains_alone) == (False, True)
    rows: list[int] = []
    for backbone in (whole, alone):
        base: Any = backbone.model.base_model
        layer = base.encoder.layer[-1]
        layer.output.dense.register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    (expected, gradients), (got, own) = outputs_and_gradients(whole, head), outputs_and_gradients(alone, head)
    micro = marked_micro()
    reading = micro.first.reading(FIRST if head == "sequence" else MARKED)
    assert reading is not None and rows[-1] == len(reading.places) < sum(LENGTHS)
    assert reading.size == (5 if head == "sequence" else int(micro.first.marked.sum()) + 1)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    evaluated, _ = outputs_and_gradients(whole.eval(), head)  # there the other tokens are never computed
    assert rows[-1] == len(reading.places) < rows[0]
    torch.testing.assert_close(evaluated, expected, atol=1e-6, rtol=1e-6)


def test_heads_that_read_more_and_other_layers_are_computed_completely() -> None:
    assert not Backbone(build("distilbert", "sequence", PACKED["distilbert"]), True, True).reads_alone
    bert = without_dropout(build("bert", "token", {}))
    backbone = Backbone(bert, True, True)
    micro = marked_micro()
    whole = backbone.token_logits(micro)["logits"]
    assert bool((whole.abs().sum(1) > 0).all())
    head = bert.forward

    def mean_of_tokens(**inputs: Any) -> dict[str, Tensor]:
        states = bert.base_model(**inputs)[0]  # (N, L, W), or (N, 1, W)
        return {"logits": states.mean(1)}

    bert.forward = mean_of_tokens
    assert backbone._first_suffices is False
    bert.forward = head
