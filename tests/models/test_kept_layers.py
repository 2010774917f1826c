"""A model of some of another's layers computes with these and no others, and is an ordinary folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from research.common.errors import UserError
from research.models.kept_layers import keep_layers
from tests.conftest import make_tiny_model


@pytest.mark.in_check(1)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "gpt2"])
def test_what_is_kept_computes_as_before(kind: str, tmp_path: Path) -> None:
    own = {"bert": {"num_hidden_layers": 4}, "distilbert": {"n_layers": 4}, "gpt2": {"n_layer": 4}}
    folder = make_tiny_model(tmp_path / kind, kind, **own.get(kind, {"num_hidden_layers": 4}))
    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        states = model(ids, output_hidden_states=True).hidden_states
        keep_layers(model, [0, 1])
        shorter = model(ids, output_hidden_states=True).hidden_states
    assert model.config.num_hidden_layers == 2 and len(shorter) == 3
    torch.testing.assert_close(shorter[1], states[1])
    model.save_pretrained(tmp_path / "kept")
    again = AutoModel.from_pretrained(tmp_path / "kept").eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(ids).last_hidden_state, model(ids).last_hidden_state)


def test_layers_that_are_left_out_do_not_act(tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        make_tiny_model(tmp_path / "bert", num_hidden_layers=3)
    ).eval()
    first, middle, last = model.bert.encoder.layer
    keep_layers(model, [0, 2])
    assert [*model.bert.encoder.layer] == [first, last]
    names = [name for name, _ in model.named_parameters()]
    assert not any(parameter is other for parameter in model.parameters() for other in middle.parameters())
    assert any(".layer.1." in name for name in names) and not any(".layer.2." in name for name in names)


def test_what_cannot_be_kept(tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(make_tiny_model(tmp_path / "bert"))
    with pytest.raises(UserError, match="there is no layer 2; the model has 2, from 0"):
        keep_layers(model, [0, 2])
    model.config.is_encoder_decoder = True
    with pytest.raises(UserError, match="are not one list"):
        keep_layers(model, [0])
